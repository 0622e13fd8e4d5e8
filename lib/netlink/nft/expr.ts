/**
 * nf_tables expressions (linux/netfilter/nf_tables.h, nf_nat.h): what a rule is made of. A match
 * loads a value into register 1 and compares it; a rule goes on while its comparisons hold.
 */
import { type Cidr, type Endpoint, type Ip, ipBytes } from "../../addr.ts";
import { Writer } from "../../bytes.ts";
import { type Attr, attr } from "../attr.ts";
import { AF_INET } from "../libc.ts";

const NFT_REG_VERDICT = 0;
const NFT_REG_1 = 1;
const NFT_REG_2 = 2;

const NFTA_LIST_ELEM = 1;
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;
const NFTA_IMMEDIATE_DREG = 1;
const NFTA_IMMEDIATE_DATA = 2;
const NFTA_META_DREG = 1;
const NFTA_META_KEY = 2;
const NFTA_CT_DREG = 1;
const NFTA_CT_KEY = 2;
const NFTA_PAYLOAD_DREG = 1;
const NFTA_PAYLOAD_BASE = 2;
const NFTA_PAYLOAD_OFFSET = 3;
const NFTA_PAYLOAD_LEN = 4;
const NFTA_BITWISE_SREG = 1;
const NFTA_BITWISE_DREG = 2;
const NFTA_BITWISE_LEN = 3;
const NFTA_BITWISE_MASK = 4;
const NFTA_BITWISE_XOR = 5;
const NFTA_CMP_SREG = 1;
const NFTA_CMP_OP = 2;
const NFTA_CMP_DATA = 3;
const NFTA_NAT_TYPE = 1;
const NFTA_NAT_FAMILY = 2;
const NFTA_NAT_REG_ADDR_MIN = 3;
const NFTA_NAT_REG_PROTO_MIN = 5;
const NFTA_NAT_FLAGS = 7;
const NFTA_MASQ_FLAGS = 1;

const NFT_META_MARK = 3;
const NFT_META_IIFNAME = 6;
const NFT_META_OIFNAME = 7;
const NFT_META_L4PROTO = 16;
const NFT_CT_STATE = 0;
const NFT_PAYLOAD_NETWORK_HEADER = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER = 2;
const NFT_CMP_EQ = 0;
const NFT_CMP_NEQ = 1;
const NFT_NAT_SNAT = 0;
const NFT_NAT_DNAT = 1;
const NF_NAT_RANGE_PROTO_SPECIFIED = 1 << 1;
const IFNAMSIZ = 16;

const IP_PROTOCOL = { icmp: 1, tcp: 6, udp: 17 } as const;
/** `NF_CT_STATE_BIT` of linux/netfilter/nf_conntrack_common.h. */
const CT_STATE = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 } as const;
const MASQUERADE_FLAG = {
  random: 1 << 2, // NF_NAT_RANGE_PROTO_RANDOM
  "fully-random": 1 << 4, // NF_NAT_RANGE_PROTO_RANDOM_FULLY
} as const;
const VERDICT = { drop: 0, accept: 1, return: -5 } as const;

/** One step of a rule: the kernel's name for it and its attributes. */
export interface Expression {
  name: string;
  attrs: readonly Attr[];
}

/** A condition on a packet. */
export type Match = readonly Expression[];

/** Translates the packet's addresses; only in chains of type nat. */
export interface NatAction {
  expressions: readonly Expression[];
}

/** How a rule ends the packet's way through the chain. */
export type Verdict = keyof typeof VERDICT | NatAction;

/** The elements of `NFTA_RULE_EXPRESSIONS`. */
export function encodeExpressions(expressions: readonly Expression[]): Attr[] {
  return expressions.map(({ name, attrs }) =>
    attr.nested(NFTA_LIST_ELEM, [
      attr.string(NFTA_EXPR_NAME, name),
      attr.nested(NFTA_EXPR_DATA, attrs),
    ])
  );
}

/** The packet came in by this interface. */
export function iifname(name: string): Match {
  return [loadMeta(NFT_META_IIFNAME), compare(NFT_CMP_EQ, ifnameBytes(name))];
}

/** The packet will go out by this interface. */
export function oifname(name: string): Match {
  return [loadMeta(NFT_META_OIFNAME), compare(NFT_CMP_EQ, ifnameBytes(name))];
}

export function l4proto(protocol: keyof typeof IP_PROTOCOL): Match {
  const bytes = Uint8Array.of(IP_PROTOCOL[protocol]);
  return [loadMeta(NFT_META_L4PROTO), compare(NFT_CMP_EQ, bytes)];
}

/** The packet's mark, 32 bits. */
export function mark(value: number): Match {
  return [loadMeta(NFT_META_MARK), compare(NFT_CMP_EQ, hostU32(value))];
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

/** Connection tracking knows the packet as one of these. */
export function ctState(...states: (keyof typeof CT_STATE)[]): Match {
  const mask = hostU32(states.reduce((bits, state) => bits | CT_STATE[state], 0));
  const load = {
    name: "ct",
    attrs: [attr.be32(NFTA_CT_DREG, NFT_REG_1), attr.be32(NFTA_CT_KEY, NFT_CT_STATE)],
  };
  return [load, bitwiseAnd(mask), compare(NFT_CMP_NEQ, hostU32(0))];
}

/** Gives the packet another destination; the port stays when none is given. */
export function dnat(to: { ip: Ip; port?: number }): NatAction {
  return { expressions: translate(NFT_NAT_DNAT, to) };
}

/** Gives the packet this source. The rule has to say the protocol, as every port needs. */
export function snat(to: Endpoint): NatAction {
  return { expressions: translate(NFT_NAT_SNAT, to) };
}

/** Source NAT to the address of the outgoing interface; keeps the port if it can without flags. */
export function masquerade(...flags: (keyof typeof MASQUERADE_FLAG)[]): NatAction {
  const bits = flags.reduce((bits, flag) => bits | MASQUERADE_FLAG[flag], 0);
  const attrs = bits === 0 ? [] : [attr.be32(NFTA_MASQ_FLAGS, bits)];
  return { expressions: [{ name: "masq", attrs }] };
}

/** Counts the packets and bytes that come this far in the rule. */
export function counter(): Expression {
  return { name: "counter", attrs: [] };
}

export function verdictExpressions(verdict: Verdict): readonly Expression[] {
  if (typeof verdict !== "string") return verdict.expressions;
  const code = attr.nested(NFTA_DATA_VERDICT, [attr.be32(NFTA_VERDICT_CODE, VERDICT[verdict])]);
  return [immediate(NFT_REG_VERDICT, code)];
}

function loadMeta(key: number): Expression {
  return {
    name: "meta",
    attrs: [attr.be32(NFTA_META_DREG, NFT_REG_1), attr.be32(NFTA_META_KEY, key)],
  };
}

function loadPayload(base: number, offset: number, length: number): Expression {
  return {
    name: "payload",
    attrs: [
      attr.be32(NFTA_PAYLOAD_DREG, NFT_REG_1),
      attr.be32(NFTA_PAYLOAD_BASE, base),
      attr.be32(NFTA_PAYLOAD_OFFSET, offset),
      attr.be32(NFTA_PAYLOAD_LEN, length),
    ],
  };
}

function compare(operator: number, bytes: Uint8Array): Expression {
  return {
    name: "cmp",
    attrs: [
      attr.be32(NFTA_CMP_SREG, NFT_REG_1),
      attr.be32(NFTA_CMP_OP, operator),
      attr.nested(NFTA_CMP_DATA, [dataValue(bytes)]),
    ],
  };
}

/** (register & mask) ^ 0 */
function bitwiseAnd(mask: Uint8Array): Expression {
  return {
    name: "bitwise",
    attrs: [
      attr.be32(NFTA_BITWISE_SREG, NFT_REG_1),
      attr.be32(NFTA_BITWISE_DREG, NFT_REG_1),
      attr.be32(NFTA_BITWISE_LEN, mask.length),
      attr.nested(NFTA_BITWISE_MASK, [dataValue(mask)]),
      attr.nested(NFTA_BITWISE_XOR, [dataValue(new Uint8Array(mask.length))]),
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
  return [load, ...narrow, compare(NFT_CMP_EQ, network)];
}

function matchPort(protocol: "tcp" | "udp", offset: number, port: number): Match {
  const load = loadPayload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2);
  return [...l4proto(protocol), load, compare(NFT_CMP_EQ, portBytes(port))];
}

function translate(type: number, { ip, port }: { ip: Ip; port?: number }): Expression[] {
  const attrs = [
    attr.be32(NFTA_NAT_TYPE, type),
    attr.be32(NFTA_NAT_FAMILY, AF_INET),
    attr.be32(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1),
  ];
  const toAddress = immediate(NFT_REG_1, dataValue(ipBytes(ip)));
  if (port === undefined) return [toAddress, { name: "nat", attrs }];
  const toPort = immediate(NFT_REG_2, dataValue(portBytes(port)));
  attrs.push(attr.be32(NFTA_NAT_REG_PROTO_MIN, NFT_REG_2));
  attrs.push(attr.be32(NFTA_NAT_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED));
  return [toAddress, toPort, { name: "nat", attrs }];
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

/** Registers hold what the kernel computes, marks and states, in its own order. */
function hostU32(value: number): Uint8Array {
  return new Writer("host", 4).u32(value).finish();
}

/** Padded with zeros, so that "out" is not a prefix of "outer". */
function ifnameBytes(name: string): Uint8Array {
  const bytes = new Uint8Array(IFNAMSIZ);
  bytes.set(new TextEncoder().encode(name));
  return bytes;
}
