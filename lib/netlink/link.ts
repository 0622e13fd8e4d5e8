/** Network interfaces over rtnetlink (linux/rtnetlink.h, if_link.h, if_tunnel.h, veth.h). */
import { type Ip, ipBytes, ipFromBytes, UNSPECIFIED_4 } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { type Attr, attr, decodeAttrs, encodeAttrs, value } from "./attr.ts";

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
const IFF_UP = 0x1;
const IFF_RUNNING = 0x40;

const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_STATS64 = 23;
const IFLA_NET_NS_FD = 28;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;

// if_tunnel.h: GRE counts its attributes otherwise than IPIP and SIT do
const IFLA_GRE_LINK = 1;
const IFLA_GRE_IFLAGS = 2;
const IFLA_GRE_OFLAGS = 3;
const IFLA_GRE_IKEY = 4;
const IFLA_GRE_OKEY = 5;
const IFLA_GRE_LOCAL = 6;
const IFLA_GRE_REMOTE = 7;
const IFLA_GRE_TTL = 8;
const IFLA_GRE_TOS = 9;
const IFLA_GRE_PMTUDISC = 10;
const IFLA_GRE_ENCAP_TYPE = 14;
const IFLA_GRE_ENCAP_FLAGS = 15;
const IFLA_GRE_ENCAP_SPORT = 16;
const IFLA_GRE_ENCAP_DPORT = 17;
const GRE_KEY = 0x2000;
const TUNNEL_ENCAP_NONE = 0;
const TUNNEL_ENCAP_FOU = 1;
const TUNNEL_ENCAP_GUE = 2;
const ENCAP_TYPES = { fou: TUNNEL_ENCAP_FOU, gue: TUNNEL_ENCAP_GUE };
const TUNNEL_ENCAP_FLAG_CSUM = 0x1;

export interface TunnelEncap {
  type: "fou" | "gue";
  /** 0: chosen per flow by the kernel. */
  sport: number;
  dport: number;
  /** Outer UDP checksum. */
  csum: boolean;
}

/** A GRE tunnel over IPv4. */
export interface GreTunnel {
  /** Absent: any address of this host. */
  local?: Ip;
  remote: Ip;
  /** Absent: no key on the wire. */
  ikey?: number;
  okey?: number;
  /** 0: taken from the inner packet. */
  ttl: number;
  tos?: number;
  pmtudisc: boolean;
  /** The device that outer packets leave by. */
  device?: number;
  encap?: TunnelEncap;
}

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
  /** Of links of kind gre. */
  tunnel?: GreTunnel;
}

/** What can be changed of a link in place, and what a new one may start with. */
export interface LinkChange {
  name?: string;
  alias?: string;
  mtu?: number;
  up?: boolean;
  /** ifindex of the bridge; 0 takes it out of its bridge. */
  master?: number;
  /** Moves the link into the namespace of that descriptor. */
  netnsFd?: number;
  /** All of the tunnel's settings: the kernel resets what a change leaves out. */
  gre?: GreTunnel;
}

export type LinkKind =
  | { kind: "gre"; gre: GreTunnel }
  | { kind: "veth"; peerName: string; peerNetnsFd?: number }
  | { kind: "bridge" | "dummy" };

export type LinkSpec = LinkChange & LinkKind & { name: string };

/** `struct ifinfomsg`, linux/rtnetlink.h: family, pad, type, index, flags, change; 16 bytes. */
export function encodeIfInfo(ifindex: number, up?: boolean): Uint8Array<ArrayBuffer> {
  const flags = up ? IFF_UP : 0;
  const change = up === undefined ? 0 : IFF_UP;
  return new Writer("host").u8(0).u8(0).u16(0).i32(ifindex).u32(flags).u32(change).finish();
}

export function encodeLinkSpec(spec: LinkSpec): Uint8Array<ArrayBuffer> {
  return encodeLink(0, spec, [
    attr.plainNest(IFLA_LINKINFO, [attr.string(IFLA_INFO_KIND, spec.kind), ...infoData(spec)]),
  ]);
}

export function encodeLinkChange(ifindex: number, change: LinkChange): Uint8Array<ArrayBuffer> {
  const info = change.gre
    ? [attr.plainNest(IFLA_LINKINFO, [
      attr.string(IFLA_INFO_KIND, "gre"),
      attr.plainNest(IFLA_INFO_DATA, encodeGreTunnel(change.gre)),
    ])]
    : [];
  return encodeLink(ifindex, change, info);
}

function encodeLink(ifindex: number, change: LinkChange, info: Attr[]): Uint8Array<ArrayBuffer> {
  const { name, alias, mtu, up, master, netnsFd } = change;
  const attrs: Attr[] = [];
  if (name !== undefined) attrs.push(attr.string(IFLA_IFNAME, name));
  if (mtu !== undefined) attrs.push(attr.u32(IFLA_MTU, mtu));
  if (master !== undefined) attrs.push(attr.u32(IFLA_MASTER, master));
  if (netnsFd !== undefined) attrs.push(attr.u32(IFLA_NET_NS_FD, netnsFd));
  if (alias !== undefined) {
    attrs.push(attr.bytes(IFLA_IFALIAS, new TextEncoder().encode(alias)));
  }
  const body = encodeAttrs([...attrs, ...info]);
  return new Writer("host").bytes(encodeIfInfo(ifindex, up)).bytes(body).finish();
}

function infoData(spec: LinkKind): Attr[] {
  switch (spec.kind) {
    case "gre":
      return [attr.plainNest(IFLA_INFO_DATA, encodeGreTunnel(spec.gre))];
    case "veth": {
      const attrs = [attr.string(IFLA_IFNAME, spec.peerName)];
      if (spec.peerNetnsFd !== undefined) attrs.push(attr.u32(IFLA_NET_NS_FD, spec.peerNetnsFd));
      const peer = new Writer("host").bytes(encodeIfInfo(0)).bytes(encodeAttrs(attrs)).finish();
      return [attr.plainNest(IFLA_INFO_DATA, [attr.bytes(VETH_INFO_PEER, peer)])];
    }
    case "bridge":
    case "dummy":
      return [];
    default:
      return spec satisfies never;
  }
}

export function encodeGreTunnel(gre: GreTunnel): Attr[] {
  const attrs = [
    attr.be32(IFLA_GRE_IKEY, gre.ikey ?? 0),
    attr.be32(IFLA_GRE_OKEY, gre.okey ?? 0),
    attr.be16(IFLA_GRE_IFLAGS, gre.ikey === undefined ? 0 : GRE_KEY),
    attr.be16(IFLA_GRE_OFLAGS, gre.okey === undefined ? 0 : GRE_KEY),
    attr.bytes(IFLA_GRE_LOCAL, ipBytes(gre.local ?? UNSPECIFIED_4)),
    attr.bytes(IFLA_GRE_REMOTE, ipBytes(gre.remote)),
    attr.u8(IFLA_GRE_PMTUDISC, gre.pmtudisc ? 1 : 0),
    attr.u8(IFLA_GRE_TTL, gre.ttl),
    attr.u8(IFLA_GRE_TOS, gre.tos ?? 0),
  ];
  if (gre.device !== undefined) attrs.push(attr.u32(IFLA_GRE_LINK, gre.device));
  return [...attrs, ...encodeEncap(gre.encap)];
}

/** Spelled out where there is none, too: a change that leaves these out keeps the old ones. */
function encodeEncap(encap: TunnelEncap | undefined): Attr[] {
  return [
    attr.u16(IFLA_GRE_ENCAP_TYPE, encap ? ENCAP_TYPES[encap.type] : TUNNEL_ENCAP_NONE),
    attr.u16(IFLA_GRE_ENCAP_FLAGS, encap?.csum ? TUNNEL_ENCAP_FLAG_CSUM : 0),
    attr.be16(IFLA_GRE_ENCAP_SPORT, encap?.sport ?? 0),
    attr.be16(IFLA_GRE_ENCAP_DPORT, encap?.dport ?? 0),
  ];
}

export function decodeGreTunnel(data: Uint8Array): GreTunnel {
  const a = decodeAttrs(data);
  const ip = (type: number) => a.has(type) ? ipFromBytes(a.get(type)!) : UNSPECIFIED_4;
  const keyed = (flags: number) => ((value.be16(a.get(flags)) ?? 0) & GRE_KEY) !== 0;
  const local = ip(IFLA_GRE_LOCAL);
  const device = value.u32(a.get(IFLA_GRE_LINK)) ?? 0;
  return {
    remote: ip(IFLA_GRE_REMOTE),
    ttl: value.u8(a.get(IFLA_GRE_TTL)) ?? 0,
    tos: value.u8(a.get(IFLA_GRE_TOS)) ?? 0,
    pmtudisc: value.u8(a.get(IFLA_GRE_PMTUDISC)) === 1,
    ...(local === UNSPECIFIED_4 ? {} : { local }),
    ...(keyed(IFLA_GRE_IFLAGS) ? { ikey: value.be32(a.get(IFLA_GRE_IKEY))! } : {}),
    ...(keyed(IFLA_GRE_OFLAGS) ? { okey: value.be32(a.get(IFLA_GRE_OKEY))! } : {}),
    ...(device === 0 ? {} : { device }),
    ...decodeEncap(a),
  };
}

function decodeEncap(a: Map<number, Uint8Array>): { encap?: TunnelEncap } {
  const type = value.u16(a.get(IFLA_GRE_ENCAP_TYPE)) ?? 0;
  if (type !== TUNNEL_ENCAP_FOU && type !== TUNNEL_ENCAP_GUE) return {};
  const flags = value.u16(a.get(IFLA_GRE_ENCAP_FLAGS)) ?? 0;
  return {
    encap: {
      type: type === TUNNEL_ENCAP_FOU ? "fou" : "gue",
      sport: value.be16(a.get(IFLA_GRE_ENCAP_SPORT)) ?? 0,
      dport: value.be16(a.get(IFLA_GRE_ENCAP_DPORT)) ?? 0,
      csum: (flags & TUNNEL_ENCAP_FLAG_CSUM) !== 0,
    },
  };
}

/** The payload of an `RTM_NEWLINK` message. */
export function decodeLink(payload: Uint8Array): Link {
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
    ...(kind === "gre" && data ? { tunnel: decodeGreTunnel(data) } : {}),
  };
}

/** `struct rtnl_link_stats64`, linux/if_link.h. */
function decodeStats(bytes: Uint8Array = new Uint8Array(64)): LinkStats {
  const reader = new Reader(bytes, "host");
  const next = () => Number(reader.u64());
  const [rxPackets, txPackets, rxBytes, txBytes] = [next(), next(), next(), next()];
  const [rxErrors, txErrors, rxDropped, txDropped] = [next(), next(), next(), next()];
  return { rxPackets, txPackets, rxBytes, txBytes, rxErrors, txErrors, rxDropped, txDropped };
}
