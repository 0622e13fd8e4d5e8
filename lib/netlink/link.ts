/** Network interfaces over rtnetlink (linux/rtnetlink.h, if_link.h, veth.h). */
import { Reader, Writer } from "../bytes.ts";
import { type Attr, attr, decodeAttrs, encodeAttrs, value } from "./attr.ts";
import {
  decodeTunnel,
  encodeTunnel,
  isTunnelKind,
  type Tunnel,
  type TunnelKind,
} from "./tunnel_link.ts";
import { checked } from "./message.ts";

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
const IFF_UP = 0x1;
const IFF_RUNNING = 0x40;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_STATS64 = 23;
const IFLA_GROUP = 27;
const IFLA_NET_NS_FD = 28;
const IFLA_EXT_MASK = 29;
const RTEXT_FILTER_SKIP_STATS = 0x8;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;

/** Behind the rest of a request for links: leaves counters out of the replies. */
export const SKIP_STATS = encodeAttrs([attr.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)]);

export interface LinkStats {
  rxPackets: number;
  txPackets: number;
  rxBytes: number;
  txBytes: number;
  rxErrors: number;
  txErrors: number;
  rxDropped: number;
  txDropped: number;
}

export interface Link {
  ifindex: number;
  name: string;
  alias?: string;
  /** "gre", "veth", "tun", ...; absent for hardware and loopback. */
  kind?: string;
  mtu: number;
  up: boolean;
  running: boolean;
  master?: number;
  stats: LinkStats;
  /** Of the kinds of tunnels that are known here. */
  tunnel?: Tunnel;
}

/** What can be changed of a link in place, and what a new one may start with. */
export interface LinkSettings {
  name?: string;
  alias?: string;
  /** Of Ethernet, 6 bytes; the kernel chooses one otherwise. */
  macAddress?: Uint8Array;
  mtu?: number;
  up?: boolean;
  /** ifindex of the bridge; 0 takes it out of its bridge. */
  master?: number;
  /** A number by which links can be named together; 0 is no group. */
  group?: number;
  /** Moves the link into the namespace of that descriptor. */
  netnsFd?: number;
}

export interface LinkChange extends LinkSettings {
  /** All of the tunnel's settings: the kernel resets what a change leaves out. */
  tunnel?: Tunnel & { kind: TunnelKind };
}

export type LinkKind =
  | { kind: TunnelKind; tunnel: Tunnel }
  | { kind: "veth"; peerName: string; peerNetnsFd?: number }
  | { kind: "bridge" | "dummy" };

export type LinkSpec = LinkSettings & LinkKind & { name: string };

/** `struct ifinfomsg`, linux/rtnetlink.h: family, pad, type, index, flags, change; 16 bytes. */
export function encodeIfInfo(ifindex: number, up?: boolean): Uint8Array<ArrayBuffer> {
  const flags = up ? IFF_UP : 0;
  const change = up === undefined ? 0 : IFF_UP;
  return new Writer("host").u8(0).u8(0).u16(0).i32(ifindex).u32(flags).u32(change).finish();
}

export function encodeLinkSpec(spec: LinkSpec): Uint8Array<ArrayBuffer> {
  return encodeLink(0, spec, encodeInfo(spec.kind, infoData(spec)));
}

export function encodeLinkChange(ifindex: number, change: LinkChange): Uint8Array<ArrayBuffer> {
  const { tunnel } = change;
  const info = tunnel ? encodeInfo(tunnel.kind, encodeTunnel(tunnel.kind, tunnel)) : [];
  return encodeLink(ifindex, change, info);
}

function encodeInfo(kind: string, data: Attr[]): Attr[] {
  const attrs = [attr.string(IFLA_INFO_KIND, kind)];
  if (data.length > 0) attrs.push(attr.plainNest(IFLA_INFO_DATA, data));
  return [attr.plainNest(IFLA_LINKINFO, attrs)];
}

function encodeLink(
  ifindex: number,
  settings: LinkSettings,
  info: Attr[],
): Uint8Array<ArrayBuffer> {
  const { name, alias, macAddress, mtu, up, master, group, netnsFd } = settings;
  const attrs: Attr[] = [];
  if (name !== undefined) attrs.push(attr.string(IFLA_IFNAME, name));
  if (macAddress) attrs.push(attr.bytes(IFLA_ADDRESS, macAddress));
  if (mtu !== undefined) attrs.push(attr.u32(IFLA_MTU, mtu));
  if (master !== undefined) attrs.push(attr.u32(IFLA_MASTER, master));
  if (group !== undefined) attrs.push(attr.u32(IFLA_GROUP, group));
  if (netnsFd !== undefined) attrs.push(attr.u32(IFLA_NET_NS_FD, netnsFd));
  if (alias !== undefined) {
    attrs.push(attr.bytes(IFLA_IFALIAS, new TextEncoder().encode(alias)));
  }
  const body = encodeAttrs([...attrs, ...info]);
  return new Writer("host").bytes(encodeIfInfo(ifindex, up)).bytes(body).finish();
}

/** The attributes of IFLA_INFO_DATA. */
function infoData(spec: LinkKind): Attr[] {
  switch (spec.kind) {
    case "veth": {
      const attrs = [attr.string(IFLA_IFNAME, spec.peerName)];
      if (spec.peerNetnsFd !== undefined) attrs.push(attr.u32(IFLA_NET_NS_FD, spec.peerNetnsFd));
      const peer = new Writer("host").bytes(encodeIfInfo(0)).bytes(encodeAttrs(attrs)).finish();
      return [attr.bytes(VETH_INFO_PEER, peer)];
    }
    case "bridge":
    case "dummy":
      return [];
    default:
      return encodeTunnel(spec.kind, spec.tunnel);
  }
}

/** Of the payload of an `RTM_NEWLINK` message. */
export function decodeIfindex(payload: Uint8Array): number {
  return new Reader(payload, "host").skip(4).i32();
}

/** The payload of an `RTM_NEWLINK` message. */
export const decodeLink = checked("link", (payload: Uint8Array): Link => {
  const reader = new Reader(payload, "host").skip(4);
  const ifindex = reader.i32();
  const flags = reader.u32();
  reader.skip(4);
  const a = decodeAttrs(reader.bytes());
  const info = decodeAttrs(a.get(IFLA_LINKINFO) ?? new Uint8Array());
  const kind = value.string(info.get(IFLA_INFO_KIND));
  const alias = value.string(a.get(IFLA_IFALIAS));
  const master = value.u32(a.get(IFLA_MASTER));
  const data = info.get(IFLA_INFO_DATA);
  return {
    ifindex,
    name: value.string(a.get(IFLA_IFNAME)) ?? "",
    mtu: value.u32(a.get(IFLA_MTU)) ?? 0,
    up: (flags & IFF_UP) !== 0,
    running: (flags & IFF_RUNNING) !== 0,
    stats: decodeStats(a.get(IFLA_STATS64)),
    ...(alias ? { alias } : {}),
    ...(kind ? { kind } : {}),
    ...(master ? { master } : {}),
    ...(isTunnelKind(kind) && data ? { tunnel: decodeTunnel(kind, data) } : {}),
  };
});

/** `struct rtnl_link_stats64`, linux/if_link.h. */
export function decodeStats(bytes: Uint8Array = new Uint8Array(64)): LinkStats {
  const reader = new Reader(bytes, "host");
  const next = () => Number(reader.u64());
  const [rxPackets, txPackets, rxBytes, txBytes] = [next(), next(), next(), next()];
  const [rxErrors, txErrors, rxDropped, txDropped] = [next(), next(), next(), next()];
  return { rxPackets, txPackets, rxBytes, txBytes, rxErrors, txErrors, rxDropped, txDropped };
}
