/** Conditions and translations that only routers of the lab, and tests, have. */
import { type Cidr, type Endpoint, type Ip, ipBytes } from "../../lib/addr.ts";
import { Writer } from "../../lib/bytes.ts";
import { AF_INET } from "../../lib/linux/mod.ts";
import { type Attr, attr } from "../../lib/netlink.ts";
import {
  bitwiseAnd,
  compare,
  type Expression,
  hostU32,
  l4proto,
  loadMeta,
  loadPayload,
  mapped,
  type Match,
  type NatAction,
  type Value,
} from "../../lib/nft/expr.ts";

export * from "../../lib/nft/mod.ts";
export type { Value };

const NFT_REG_1 = 1;
const NFT_REG_2 = 2;
/** The 4-byte registers that register 1 and 2 begin with. */
const FIRST_SLOT = 8;
const SECOND_SLOT = 12;

const NFTA_DATA_VALUE = 1;
const NFTA_IMMEDIATE_DREG = 1;
const NFTA_IMMEDIATE_DATA = 2;
const NFTA_CT_DREG = 1;
const NFTA_CT_KEY = 2;
const NFTA_DYNSET_SET_NAME = 1;
const NFTA_DYNSET_OP = 3;
const NFTA_DYNSET_SREG_KEY = 4;
const NFTA_DYNSET_SREG_DATA = 5;
const NFTA_NG_DREG = 1;
const NFTA_NG_MODULUS = 2;
const NFTA_NG_TYPE = 3;
const NFTA_NG_OFFSET = 4;
const NFTA_BYTEORDER_SREG = 1;
const NFTA_BYTEORDER_DREG = 2;
const NFTA_BYTEORDER_OP = 3;
const NFTA_BYTEORDER_LEN = 4;
const NFTA_BYTEORDER_SIZE = 5;
const NFTA_NAT_TYPE = 1;
const NFTA_NAT_FAMILY = 2;
const NFTA_NAT_REG_ADDR_MIN = 3;
const NFTA_NAT_REG_PROTO_MIN = 5;
const NFTA_NAT_FLAGS = 7;
const NFTA_MASQ_FLAGS = 1;
const NFTA_MASQ_REG_PROTO_MIN = 2;

const NFT_META_MARK = 3;
const NFT_CT_STATUS = 2;
const NFT_PAYLOAD_NETWORK_HEADER = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER = 2;
const [EQ, NEQ] = [0, 1] as const;
const NFT_DYNSET_OP_ADD = 0;
const NFT_BYTEORDER_HTON = 1;
const NFT_NAT_SNAT = 0;
const NFT_NAT_DNAT = 1;
const NF_NAT_RANGE_PROTO_SPECIFIED = 1 << 1;
/** `enum nft_ng_types`. */
const NUMBER_ORDER = { sequential: 0, random: 1 } as const;
/** `enum ip_conntrack_status`, linux/netfilter/nf_conntrack_common.h. */
const IPS_DST_NAT = 1 << 5;
const MASQUERADE_FLAG = {
  random: 1 << 2, // NF_NAT_RANGE_PROTO_RANDOM
  "fully-random": 1 << 4, // NF_NAT_RANGE_PROTO_RANDOM_FULLY
} as const;

/** The packet's mark, 32 bits. */
export function mark(value: number): Match {
  return [loadMeta(NFT_META_MARK), compare(EQ, hostU32(value))];
}

/** IPv4 source address in a prefix; in tables of family ip. */
export function saddr(prefix: Cidr): Match {
  return matchIpv4(12, prefix);
}

/** IPv4 destination address in a prefix; in tables of family ip. */
export function daddr(prefix: Cidr): Match {
  return matchIpv4(16, prefix);
}

/** Source port; says the protocol as well. */
export function sport(protocol: "tcp" | "udp", port: number): Match {
  return matchPort(protocol, 0, port);
}

/** Destination port; says the protocol as well. */
export function dport(protocol: "tcp" | "udp", port: number): Match {
  return matchPort(protocol, 2, port);
}

/** The packet's connection has had its destination translated. */
export function hasNewDestination(): Match {
  const load = {
    name: "ct",
    attrs: [attr.be32(NFTA_CT_DREG, NFT_REG_1), attr.be32(NFTA_CT_KEY, NFT_CT_STATUS)],
  };
  return [load, bitwiseAnd(hostU32(IPS_DST_NAT)), compare(NEQ, hostU32(0))];
}

/** The map has a value for this key. */
export function isKeyIn(map: string, key: Value): Match {
  return mapped(map, key).load(FIRST_SLOT);
}

/** Not a condition: remembers the element, in a map with a value, unless it is there already. */
export function add(set: string, element: Value, value?: Value): Match {
  const attrs = [
    attr.string(NFTA_DYNSET_SET_NAME, set),
    attr.be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_ADD),
    attr.be32(NFTA_DYNSET_SREG_KEY, FIRST_SLOT),
    ...(value ? [attr.be32(NFTA_DYNSET_SREG_DATA, SECOND_SLOT)] : []),
  ];
  return [
    ...element.load(FIRST_SLOT),
    ...(value?.load(SECOND_SLOT) ?? []),
    { name: "dynset", attrs },
  ];
}

/** A port for each packet that asks: `first` and on for `count`, in order or at random. */
export function newPort(
  order: keyof typeof NUMBER_ORDER,
  { first, count }: { first: number; count: number },
): Value {
  const generate = (register: number) => ({
    name: "numgen",
    attrs: [
      attr.be32(NFTA_NG_DREG, register),
      attr.be32(NFTA_NG_MODULUS, count),
      attr.be32(NFTA_NG_TYPE, NUMBER_ORDER[order]),
      attr.be32(NFTA_NG_OFFSET, first),
    ],
  });
  return { load: (register) => [generate(register), toNetworkU16(register)] };
}

/** Gives the packet another destination; the port stays when none is given. */
export function dnat(to: { ip: Ip; port?: number }): NatAction {
  return { expressions: translate(NFT_NAT_DNAT, to) };
}

/** Gives the packet a destination that is an address and a port. */
export function dnatTo(to: Value): NatAction {
  const nat = { name: "nat", attrs: natAttrs(NFT_NAT_DNAT, FIRST_SLOT, FIRST_SLOT + 1) };
  return { expressions: [...to.load(FIRST_SLOT), nat] };
}

/** Gives the packet this source. The rule has to say the protocol, as every port needs. */
export function snat(to: Endpoint): NatAction {
  return { expressions: translate(NFT_NAT_SNAT, to) };
}

/** Gives the packet this address and a port as source. */
export function snatTo(ip: Ip, port: Value): NatAction {
  const toAddress = immediate(NFT_REG_2, dataValue(ipBytes(ip)));
  const nat = { name: "nat", attrs: natAttrs(NFT_NAT_SNAT, NFT_REG_2, FIRST_SLOT) };
  return { expressions: [...port.load(FIRST_SLOT), toAddress, nat] };
}

/** Source NAT to the address of the outgoing interface; keeps the port if it can without flags. */
export function masquerade(...flags: (keyof typeof MASQUERADE_FLAG)[]): NatAction {
  const bits = flags.reduce((bits, flag) => bits | MASQUERADE_FLAG[flag], 0);
  const attrs = bits === 0 ? [] : [attr.be32(NFTA_MASQ_FLAGS, bits)];
  return { expressions: [{ name: "masq", attrs }] };
}

/** Source NAT to the address of the outgoing interface and this port. The rule says the protocol. */
export function masqueradeTo(port: Value): NatAction {
  const attrs = [
    attr.be32(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED),
    attr.be32(NFTA_MASQ_REG_PROTO_MIN, FIRST_SLOT),
  ];
  return { expressions: [...port.load(FIRST_SLOT), { name: "masq", attrs }] };
}

/** What the kernel computed becomes a port as packets have it. */
function toNetworkU16(register: number): Expression {
  return {
    name: "byteorder",
    attrs: [
      attr.be32(NFTA_BYTEORDER_SREG, register),
      attr.be32(NFTA_BYTEORDER_DREG, register),
      attr.be32(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON),
      attr.be32(NFTA_BYTEORDER_LEN, 2),
      attr.be32(NFTA_BYTEORDER_SIZE, 2),
    ],
  };
}

function immediate(register: number, data: Attr): Expression {
  return {
    name: "immediate",
    attrs: [
      attr.be32(NFTA_IMMEDIATE_DREG, register),
      attr.nested(NFTA_IMMEDIATE_DATA, [data]),
    ],
  };
}

function matchIpv4(offset: number, { ip, prefixLength }: Cidr): Match {
  const load = loadPayload(NFT_PAYLOAD_NETWORK_HEADER, offset, 4);
  const mask = ipv4Mask(prefixLength);
  const network = ipBytes(ip).map((byte, i) => byte & mask[i]!);
  const narrow = prefixLength === 32 ? [] : [bitwiseAnd(mask)];
  return [load, ...narrow, compare(EQ, network)];
}

function matchPort(protocol: "tcp" | "udp", offset: number, port: number): Match {
  const load = loadPayload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2);
  return [...l4proto(protocol), load, compare(EQ, portBytes(port))];
}

function translate(type: number, { ip, port }: { ip: Ip; port?: number }): Expression[] {
  const toAddress = immediate(NFT_REG_1, dataValue(ipBytes(ip)));
  if (port === undefined) return [toAddress, { name: "nat", attrs: natAttrs(type, NFT_REG_1) }];
  const toPort = immediate(NFT_REG_2, dataValue(portBytes(port)));
  return [toAddress, toPort, { name: "nat", attrs: natAttrs(type, NFT_REG_1, NFT_REG_2) }];
}

function natAttrs(type: number, address: number, port?: number): Attr[] {
  return [
    attr.be32(NFTA_NAT_TYPE, type),
    attr.be32(NFTA_NAT_FAMILY, AF_INET),
    attr.be32(NFTA_NAT_REG_ADDR_MIN, address),
    ...(port === undefined ? [] : [
      attr.be32(NFTA_NAT_REG_PROTO_MIN, port),
      attr.be32(NFTA_NAT_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED),
    ]),
  ];
}

function dataValue(bytes: Uint8Array): Attr {
  return attr.bytes(NFTA_DATA_VALUE, bytes);
}

function ipv4Mask(prefixLength: number): Uint8Array {
  const bits = prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0;
  return new Writer("network", 4).u32(bits).finish();
}

function portBytes(port: number): Uint8Array {
  return new Writer("network", 2).u16(port).finish();
}
