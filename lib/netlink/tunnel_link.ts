/**
 * IP tunnels as rtnetlink links: GRE, IPIP, SIT and their IPv6 cousins, in plain IP or behind UDP
 * (FOU, GUE). Linux/if_tunnel.h, if_link.h, ip6_tunnel.h.
 */
import { type Family, type Ip, ipBytes, ipFromBytes, isUnspecified } from "../addr.ts";
import { type Attr, attr, decodeAttrs, value } from "./attr.ts";

export const TUNNEL_KINDS = [
  ...["gre", "gretap", "ipip", "sit"] as const,
  ...["ip6gre", "ip6gretap", "ip6tnl"] as const,
] as const;
/** As rtnetlink names it; the "tap" kinds carry Ethernet frames. */
export type TunnelKind = typeof TUNNEL_KINDS[number];

/** On packets to both ends, or only on those that come in or go out. */
export type Direction = "both" | "in" | "out";

/** What an IPIP, SIT or ip6tnl tunnel carries. */
export type Payload = "any" | "ipv4" | "ipv6";

export interface TunnelEncap {
  type: "fou" | "gue";
  /** 0: chosen per flow by the kernel. */
  sport: number;
  dport: number;
  /** Outer UDP checksum. */
  csum: boolean;
}

/** Settings of a tunnel of any kind; what is optional is absent where a kind does not have it. */
export interface Tunnel {
  /** Absent: any address of this host. */
  local?: Ip;
  /** Unspecified: any host, as on the kernel's fallback devices. */
  remote: Ip;
  /** Of GRE; absent: no key on the wire. */
  ikey?: number;
  okey?: number;
  /** Of GRE. */
  csum?: Direction;
  seq?: Direction;
  /** 0: taken from the inner packet. */
  ttl: number;
  /** Type of service or traffic class; 1: taken from the inner packet. */
  tos?: number;
  /** Outer packets forbid fragmentation; over IPv6 they always do. */
  pmtudisc: boolean;
  /** The device that outer packets leave by. */
  device?: number;
  encap?: TunnelEncap;
  /** Of IPIP, SIT and ip6tnl. */
  payload?: Payload;
  /** Of IPv6 (RFC 2473 section 6.6): an option of 8 bytes in every packet. */
  encapLimit?: number;
  /** Of IPv6, 20 bits. */
  flowLabel?: number;
}

/** The kinds differ in numbers and widths, not in what they say. */
interface Layout {
  family: Family;
  local: number;
  remote: number;
  ttl: number;
  tos: number;
  pmtudisc: number;
  encapLimit: number;
  flowInfo: number;
  flags: number;
  /** The first of four: type, flags, source port, destination port. */
  encap: number;
  /** GRE's flags and keys. */
  isGre: boolean;
  /** What a kind without a word about it carries; of kinds that are not GRE. */
  payload?: Payload;
}

const LINK = 1; // IFLA_GRE_LINK and IFLA_IPTUN_LINK

const IFLA_GRE_IFLAGS = 2;
const IFLA_GRE_OFLAGS = 3;
const IFLA_GRE_IKEY = 4;
const IFLA_GRE_OKEY = 5;
/** IFLA_GRE_LOCAL and so on. */
const GRE = {
  ...{ local: 6, remote: 7, ttl: 8, tos: 9, pmtudisc: 10 },
  ...{ encapLimit: 11, flowInfo: 12, flags: 13, encap: 14, isGre: true },
};
const IFLA_IPTUN_PROTO = 9;
/** IFLA_IPTUN_LOCAL and so on. */
const IPTUN = {
  ...{ local: 2, remote: 3, ttl: 4, tos: 5, pmtudisc: 10 },
  ...{ encapLimit: 6, flowInfo: 7, flags: 8, encap: 15, isGre: false },
};
const LAYOUTS: Record<TunnelKind, Layout> = {
  gre: { ...GRE, family: 4 },
  gretap: { ...GRE, family: 4 },
  ipip: { ...IPTUN, family: 4, payload: "ipv4" },
  sit: { ...IPTUN, family: 4, payload: "ipv6" },
  ip6gre: { ...GRE, family: 6 },
  ip6gretap: { ...GRE, family: 6 },
  ip6tnl: { ...IPTUN, family: 6, payload: "ipv6" },
};

const GRE_CSUM = 0x8000;
const GRE_KEY = 0x2000;
const GRE_SEQ = 0x1000;
const PAYLOAD_PROTOCOLS: Record<Payload, number> = { any: 0, ipv4: 4, ipv6: 41 };
const ENCAP_NUMBERS = { none: 0, fou: 1, gue: 2 };
const TUNNEL_ENCAP_FLAG_CSUM = 0x1;
/** IPv6 looks at this one only. */
const TUNNEL_ENCAP_FLAG_CSUM6 = 0x2;
const IP6_TNL_F_IGN_ENCAP_LIMIT = 0x1;
const IP6_TNL_F_USE_ORIG_TCLASS = 0x2;
/** Of TOS, to IPv4 and here. */
const TOS_INHERIT = 1;
const FLOW_LABEL_MASK = 0xfffff;
const TCLASS_SHIFT = 20;

export function isTunnelKind(kind: string | undefined): kind is TunnelKind {
  return TUNNEL_KINDS.some((known) => known === kind);
}

/** The family of the outer packets. */
export function outerFamily(kind: TunnelKind): Family {
  return LAYOUTS[kind].family;
}

/** The attributes of IFLA_INFO_DATA. */
export function encodeTunnel(kind: TunnelKind, tunnel: Tunnel): Attr[] {
  const layout = LAYOUTS[kind];
  const { local = layout.family === 4 ? "0.0.0.0" as Ip : "::" as Ip, device } = tunnel;
  const attrs = [
    attr.bytes(layout.local, ipBytes(local)),
    attr.bytes(layout.remote, ipBytes(tunnel.remote)),
    attr.u8(layout.ttl, tunnel.ttl),
    ...(layout.family === 4 ? encodeIpv4(layout, tunnel) : encodeIpv6(layout, tunnel)),
    ...(layout.isGre ? encodeGre(tunnel) : []),
    ...encodeEncap(layout, tunnel.encap),
  ];
  const payload = tunnel.payload ?? layout.payload;
  if (payload) attrs.push(attr.u8(IFLA_IPTUN_PROTO, PAYLOAD_PROTOCOLS[payload]));
  if (device !== undefined) attrs.push(attr.u32(LINK, device));
  return attrs;
}

/** Of IFLA_INFO_DATA. */
export function decodeTunnel(kind: TunnelKind, data: Uint8Array): Tunnel {
  const layout = LAYOUTS[kind];
  const a = decodeAttrs(data);
  const any = new Uint8Array(layout.family === 4 ? 4 : 16);
  const local = ipFromBytes(a.get(layout.local) ?? any);
  const device = value.u32(a.get(LINK)) ?? 0;
  return {
    remote: ipFromBytes(a.get(layout.remote) ?? any),
    ttl: value.u8(a.get(layout.ttl)) ?? 0,
    ...(layout.family === 4 ? decodeIpv4(layout, a) : decodeIpv6(layout, a)),
    ...(isUnspecified(local) ? {} : { local }),
    ...(layout.isGre ? decodeGre(a) : decodePayload(layout, a)),
    ...(device === 0 ? {} : { device }),
    ...decodeEncap(layout, a),
  };
}

function encodeIpv4(layout: Layout, { tos, pmtudisc }: Tunnel): Attr[] {
  return [attr.u8(layout.tos, tos ?? 0), attr.u8(layout.pmtudisc, pmtudisc ? 1 : 0)];
}

function decodeIpv4(layout: Layout, a: Map<number, Uint8Array>) {
  return {
    tos: value.u8(a.get(layout.tos)) ?? 0,
    pmtudisc: value.u8(a.get(layout.pmtudisc)) === 1,
  };
}

/** Flow information: traffic class and flow label as in the IPv6 header, network order. */
function encodeIpv6(layout: Layout, { tos = 0, encapLimit, flowLabel = 0 }: Tunnel): Attr[] {
  const inherit = tos === TOS_INHERIT;
  const flags = (encapLimit === undefined ? IP6_TNL_F_IGN_ENCAP_LIMIT : 0) |
    (inherit ? IP6_TNL_F_USE_ORIG_TCLASS : 0);
  return [
    attr.u8(layout.encapLimit, encapLimit ?? 0),
    attr.be32(layout.flowInfo, (inherit ? 0 : tos << TCLASS_SHIFT) | flowLabel),
    attr.u32(layout.flags, flags),
  ];
}

function decodeIpv6(layout: Layout, a: Map<number, Uint8Array>) {
  const flags = value.u32(a.get(layout.flags)) ?? 0;
  const flowInfo = value.be32(a.get(layout.flowInfo)) ?? 0;
  const tclass = flowInfo >>> TCLASS_SHIFT & 0xff;
  const flowLabel = flowInfo & FLOW_LABEL_MASK;
  const isLimited = (flags & IP6_TNL_F_IGN_ENCAP_LIMIT) === 0;
  return {
    tos: flags & IP6_TNL_F_USE_ORIG_TCLASS ? TOS_INHERIT : tclass,
    pmtudisc: true,
    ...(isLimited ? { encapLimit: value.u8(a.get(layout.encapLimit)) ?? 0 } : {}),
    ...(flowLabel ? { flowLabel } : {}),
  };
}

function encodeGre({ ikey, okey, csum, seq }: Tunnel): Attr[] {
  const flags = (direction: "in" | "out", key: number | undefined) =>
    (key === undefined ? 0 : GRE_KEY) |
    (csum === "both" || csum === direction ? GRE_CSUM : 0) |
    (seq === "both" || seq === direction ? GRE_SEQ : 0);
  return [
    attr.be32(IFLA_GRE_IKEY, ikey ?? 0),
    attr.be32(IFLA_GRE_OKEY, okey ?? 0),
    attr.be16(IFLA_GRE_IFLAGS, flags("in", ikey)),
    attr.be16(IFLA_GRE_OFLAGS, flags("out", okey)),
  ];
}

function decodeGre(a: Map<number, Uint8Array>) {
  const [iflags, oflags] = [IFLA_GRE_IFLAGS, IFLA_GRE_OFLAGS].map((t) => value.be16(a.get(t)) ?? 0);
  const direction = (bit: number): Direction | undefined => {
    const [isIn, isOut] = [(iflags! & bit) !== 0, (oflags! & bit) !== 0];
    if (isIn && isOut) return "both";
    return isIn ? "in" : isOut ? "out" : undefined;
  };
  const [csum, seq] = [direction(GRE_CSUM), direction(GRE_SEQ)];
  return {
    ...(iflags! & GRE_KEY ? { ikey: value.be32(a.get(IFLA_GRE_IKEY)) ?? 0 } : {}),
    ...(oflags! & GRE_KEY ? { okey: value.be32(a.get(IFLA_GRE_OKEY)) ?? 0 } : {}),
    ...(csum ? { csum } : {}),
    ...(seq ? { seq } : {}),
  };
}

function decodePayload(layout: Layout, a: Map<number, Uint8Array>): { payload?: Payload } {
  const protocol = value.u8(a.get(IFLA_IPTUN_PROTO));
  if (protocol === undefined) return layout.payload ? { payload: layout.payload } : {};
  const known = Object.entries(PAYLOAD_PROTOCOLS).find(([, number]) => number === protocol);
  return known ? { payload: known[0] as Payload } : {};
}

/** Spelled out where there is none, too: a change that leaves these out keeps the old ones. */
function encodeEncap(layout: Layout, encap: TunnelEncap | undefined): Attr[] {
  const flag = layout.family === 4 ? TUNNEL_ENCAP_FLAG_CSUM : TUNNEL_ENCAP_FLAG_CSUM6;
  return [
    attr.u16(layout.encap, ENCAP_NUMBERS[encap?.type ?? "none"]),
    attr.u16(layout.encap + 1, encap?.csum ? flag : 0),
    attr.be16(layout.encap + 2, encap?.sport ?? 0),
    attr.be16(layout.encap + 3, encap?.dport ?? 0),
  ];
}

function decodeEncap(layout: Layout, a: Map<number, Uint8Array>): { encap?: TunnelEncap } {
  const type = value.u16(a.get(layout.encap)) ?? 0;
  if (type !== ENCAP_NUMBERS.fou && type !== ENCAP_NUMBERS.gue) return {};
  const flags = value.u16(a.get(layout.encap + 1)) ?? 0;
  const flag = layout.family === 4 ? TUNNEL_ENCAP_FLAG_CSUM : TUNNEL_ENCAP_FLAG_CSUM6;
  return {
    encap: {
      type: type === ENCAP_NUMBERS.fou ? "fou" : "gue",
      sport: value.be16(a.get(layout.encap + 2)) ?? 0,
      dport: value.be16(a.get(layout.encap + 3)) ?? 0,
      csum: (flags & flag) !== 0,
    },
  };
}
