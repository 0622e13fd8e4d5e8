/**
 * nf_tables expressions (linux/netfilter/nf_tables.h, nf_nat.h): what a rule is made of. A match
 * loads a value into register 1 and compares it; a rule goes on while its comparisons hold.
 */
import { type Cidr, type Endpoint, type Ip, ipBytes } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { type Attr, attr, checked, decodeAttrList, decodeAttrs, value } from "../netlink.ts";
import { AF_INET } from "../linux/mod.ts";

const NFT_REG_VERDICT = 0;
const NFT_REG_1 = 1;
const NFT_REG_2 = 2;
/** The first of those of 4 bytes: each of the four above is four of these. */
const NFT_REG32_00 = 8;
/** The 4-byte registers that register 1 and 2 begin with. */
const FIRST_SLOT = NFT_REG32_00;
const SECOND_SLOT = NFT_REG32_00 + 4;

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
const NFTA_PAYLOAD_SREG = 5;
const NFTA_PAYLOAD_CSUM_TYPE = 6;
const NFTA_PAYLOAD_CSUM_OFFSET = 7;
const NFTA_PAYLOAD_CSUM_FLAGS = 8;
const NFTA_BITWISE_SREG = 1;
const NFTA_BITWISE_DREG = 2;
const NFTA_BITWISE_LEN = 3;
const NFTA_BITWISE_MASK = 4;
const NFTA_BITWISE_XOR = 5;
const NFTA_CMP_SREG = 1;
const NFTA_CMP_OP = 2;
const NFTA_CMP_DATA = 3;
const NFTA_LOOKUP_SET = 1;
const NFTA_LOOKUP_SREG = 2;
const NFTA_LOOKUP_DREG = 3;
const NFTA_LOOKUP_FLAGS = 5;
const NFT_LOOKUP_F_INV = 1;
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
const NFTA_COUNTER_BYTES = 1;
const NFTA_COUNTER_PACKETS = 2;
const NFTA_DUP_SREG_ADDR = 1;
const NFTA_LIMIT_RATE = 1;
const NFTA_LIMIT_UNIT = 2;
const NFTA_LIMIT_BURST = 3;
const NFTA_LIMIT_TYPE = 4;
const NFTA_MASQ_REG_PROTO_MIN = 2;

const NFT_META_MARK = 3;
const NFT_META_IIF = 4;
const NFT_META_OIF = 5;
const NFT_META_IIFNAME = 6;
const NFT_META_OIFNAME = 7;
const NFT_META_L4PROTO = 16;
const NFT_CT_STATE = 0;
const NFT_CT_DIRECTION = 1;
const NFT_CT_STATUS = 2;
const NFT_PAYLOAD_NETWORK_HEADER = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER = 2;
const NFT_PAYLOAD_CSUM_INET = 1;
const NFT_PAYLOAD_L4CSUM_PSEUDOHDR = 1;
const NFT_LIMIT_PKT_BYTES = 1;
const NFT_CMP_EQ = 0;
const NFT_CMP_NEQ = 1;
const NFT_CMP_LT = 2;
const IPV4_CHECKSUM_OFFSET = 10;
const NFT_DYNSET_OP_ADD = 0;
const NFT_BYTEORDER_HTON = 1;
const NFT_NAT_SNAT = 0;
const NFT_NAT_DNAT = 1;
const NF_NAT_RANGE_PROTO_SPECIFIED = 1 << 1;
const IFNAMSIZ = 16;

export const IP_PROTOCOL = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58 } as const;
/** `enum nft_ng_types`. */
const NUMBER_ORDER = { sequential: 0, random: 1 } as const;
const REGISTER_BYTES = 4;
/** Where a field lies: header, offset and length in bytes; the first addresses are those of IPv4. */
const FIELD = {
  saddr: [NFT_PAYLOAD_NETWORK_HEADER, 12, 4],
  daddr: [NFT_PAYLOAD_NETWORK_HEADER, 16, 4],
  saddr6: [NFT_PAYLOAD_NETWORK_HEADER, 8, 16],
  daddr6: [NFT_PAYLOAD_NETWORK_HEADER, 24, 16],
  /** Of the packet that an error of ICMP quotes. */
  quotedDaddr: [NFT_PAYLOAD_TRANSPORT_HEADER, 8 + 16, 4],
  quotedDaddr6: [NFT_PAYLOAD_TRANSPORT_HEADER, 8 + 24, 16],
  sport: [NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2],
  dport: [NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2],
} as const;
/** `enum ip_conntrack_status`, linux/netfilter/nf_conntrack_common.h. */
const IPS_DST_NAT = 1 << 5;
/** `enum ip_conntrack_dir`. */
const IP_CT_DIR_REPLY = 1;
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

/**
 * Something that is computed for each packet, in registers of 4 bytes. Ports are two bytes long
 * and zeros, as sets keep them.
 */
export interface Value {
  /** Puts it there, and may use what comes behind. The rule ends if there is no such value. */
  load: (register: number) => readonly Expression[];
}

/** One whose length is known, so that another can follow. */
export interface Part extends Value {
  registers: number;
}

/** Translates the packet's addresses; only in chains of type nat. */
export interface NatAction {
  expressions: readonly Expression[];
}

/** How a rule ends the packet's way through the chain. */
export type Verdict = keyof typeof VERDICT | NatAction;

/** The elements of `NFTA_RULE_EXPRESSIONS`. */
export function encodeExpressions(expressions: readonly Expression[]): Attr[] {
  return expressions.map((expression) => attr.nested(NFTA_LIST_ELEM, encodeExpression(expression)));
}

export function encodeExpression({ name, attrs }: Expression): Attr[] {
  return [attr.string(NFTA_EXPR_NAME, name), attr.nested(NFTA_EXPR_DATA, attrs)];
}

interface Counted {
  packets: number;
  bytes: number;
}

/** What the counters of a rule's `NFTA_RULE_EXPRESSIONS` have counted, all together. */
export const decodeCounters = checked("rule", (expressions): Counted => {
  const sum = { packets: 0, bytes: 0 };
  for (const { value: element } of decodeAttrList(expressions)) {
    const attrs = decodeAttrs(element);
    const data = attrs.get(NFTA_EXPR_DATA);
    if (value.string(attrs.get(NFTA_EXPR_NAME)) !== "counter" || !data) continue;
    const count = decodeAttrs(data);
    const read = (type: number) =>
      Number(new Reader(count.get(type) ?? new Uint8Array(), "network").u64());
    sum.packets += read(NFTA_COUNTER_PACKETS);
    sum.bytes += read(NFTA_COUNTER_BYTES);
  }
  return sum;
});

/** The packet came in by this interface. */
export function iifname(name: string): Match {
  return [loadMeta(NFT_META_IIFNAME), compare(NFT_CMP_EQ, ifnameBytes(name))];
}

/** The packet will go out by this interface. */
export function oifname(name: string): Match {
  return [loadMeta(NFT_META_OIFNAME), compare(NFT_CMP_EQ, ifnameBytes(name))];
}

export function l4proto(protocol: keyof typeof IP_PROTOCOL, operator: "==" | "!=" = "=="): Match {
  const bytes = Uint8Array.of(IP_PROTOCOL[protocol]);
  return [loadMeta(NFT_META_L4PROTO), compare(operator === "==" ? NFT_CMP_EQ : NFT_CMP_NEQ, bytes)];
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

/** Bytes of the transport header and what follows it; with a mask, only its bits. */
export function transport(
  offset: number,
  bytes: Uint8Array,
  { op = "eq", mask }: { op?: "eq" | "neq" | "lt"; mask?: Uint8Array } = {},
): Match {
  const load = loadPayload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, bytes.length);
  const operator = { eq: NFT_CMP_EQ, neq: NFT_CMP_NEQ, lt: NFT_CMP_LT }[op];
  return [load, ...(mask ? [bitwiseAnd(mask)] : []), compare(operator, bytes)];
}

/**
 * Not a condition: gives the packet another address, and puts right the checksums of IPv4 and of
 * what it carries. No connection is tracked for it. The rule ends if there is no such value.
 */
export function setAddress(field: "saddr" | "daddr", value: Value): Match {
  const [base, offset, length] = FIELD[field];
  const place = { base, offset, length, checksumOffset: IPV4_CHECKSUM_OFFSET };
  return [...value.load(FIRST_SLOT), storePayload(FIRST_SLOT, place)];
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

/** The packet goes to who opened its connection. */
export function isReply(): Match {
  const load = {
    name: "ct",
    attrs: [attr.be32(NFTA_CT_DREG, NFT_REG_1), attr.be32(NFTA_CT_KEY, NFT_CT_DIRECTION)],
  };
  return [load, compare(NFT_CMP_EQ, Uint8Array.of(IP_CT_DIR_REPLY))];
}

/** These bytes, or others, lie there, from the start of the UDP header; not true of less bytes. */
export function udpBytes(offset: number, operator: "==" | "!=", bytes: Uint8Array): Match {
  const load = loadPayload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, bytes.length);
  return [...l4proto("udp"), load, compare(operator === "==" ? NFT_CMP_EQ : NFT_CMP_NEQ, bytes)];
}

/** The packet's connection has had its destination translated. */
export function hasNewDestination(): Match {
  const load = {
    name: "ct",
    attrs: [attr.be32(NFTA_CT_DREG, NFT_REG_1), attr.be32(NFTA_CT_KEY, NFT_CT_STATUS)],
  };
  return [load, bitwiseAnd(hostU32(IPS_DST_NAT)), compare(NFT_CMP_NEQ, hostU32(0))];
}

/** The set has this element. */
export function isIn(set: string, element: Value): Match {
  return [...element.load(FIRST_SLOT), lookup(set, FIRST_SLOT)];
}

/** The set, which is no map, has no such element. */
export function isNotIn(set: string, element: Value): Match {
  const { name, attrs } = lookup(set, FIRST_SLOT);
  const inverted = [...attrs, attr.be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV)];
  return [...element.load(FIRST_SLOT), { name, attrs: inverted }];
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

/** Fields of a packet of UDP or TCP, one after the other. The rule says the protocol. */
export function fields(...names: (keyof typeof FIELD)[]): Part {
  return row(...names.map((name) => {
    const [base, offset, length] = FIELD[name];
    return payload(base, offset, length);
  }));
}

/** Bytes of the transport header and what follows it. */
export function transportBytes(offset: number, length: number): Part {
  return payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, length);
}

function payload(base: number, offset: number, length: number): Part {
  return {
    registers: Math.ceil(length / REGISTER_BYTES),
    load: (register) => [loadPayload(base, offset, length, register)],
  };
}

/** What comes after the headers of IP, by its number. */
export function protocolNumber(): Part {
  return { registers: 1, load: (register) => [loadMeta(NFT_META_L4PROTO, register)] };
}

/** The network, or range of ports, that the field lies in, by the length of its prefix. */
export function networkOf(
  name: Exclude<keyof typeof FIELD, "sport">,
  prefixLength: number,
): Part {
  const [base, offset, length] = FIELD[name];
  const address = payload(base, offset, length);
  if (prefixLength === 8 * length) return address;
  const mask = Uint8Array.from({ length }, (_, i) => {
    const bits = Math.max(0, Math.min(8, prefixLength - 8 * i));
    return (0xff00 >> bits) & 0xff;
  });
  return {
    ...address,
    load: (register) => [...address.load(register), bitwiseAnd(mask, register)],
  };
}

/** One after the other, as elements of sets are. */
export function row(...parts: Part[]): Part {
  return {
    registers: parts.reduce((sum, { registers }) => sum + registers, 0),
    load: (register) =>
      parts.flatMap((part, i) => {
        const before = parts.slice(0, i).reduce((sum, { registers }) => sum + registers, 0);
        return part.load(register + before);
      }),
  };
}

/** The index of the interface that the packet came in by. */
export function incoming(): Part {
  return { registers: 1, load: (register) => [loadMeta(NFT_META_IIF, register)] };
}

/** The index of the interface that the packet goes out by. */
export function outgoing(): Part {
  return { registers: 1, load: (register) => [loadMeta(NFT_META_OIF, register)] };
}

/** What the map has for the key. */
export function mapped(map: string, key: Value): Value {
  return {
    load: (register) => [...key.load(register), lookup(map, register, register)],
  };
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

/**
 * Sends a datagram of IPv4 and UDP on from this host with another source and destination, without
 * connection tracking and whether or not this host forwards packets: `to` is saddr, daddr, sport
 * and dport. In the prerouting hook. The rule says whether it has a UDP checksum: one that is there
 * is kept right, and one that is not must not be touched.
 */
export function resendTo(to: Value, udpChecksum: "kept" | "none"): NatAction {
  const [network, transport] = [NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER];
  const port = (offset: number) => ({
    base: transport,
    offset,
    length: 2,
    ...(udpChecksum === "kept" ? { checksumOffset: 6 } : {}),
  });
  return {
    expressions: [
      ...to.load(FIRST_SLOT),
      counter(),
      storePayload(FIRST_SLOT, { base: network, offset: 12, length: 8, checksumOffset: 10 }),
      storePayload(FIRST_SLOT + 2, port(0)),
      storePayload(FIRST_SLOT + 3, port(2)),
      { name: "dup", attrs: [attr.be32(NFTA_DUP_SREG_ADDR, FIRST_SLOT + 1)] },
      ...verdictExpressions("drop"),
    ],
  };
}

/** For an element of a map: it is not found by what comes above that rate. */
export function byteLimit(bytesPerSecond: number, burst: number): Expression {
  return {
    name: "limit",
    attrs: [
      attr.be64(NFTA_LIMIT_RATE, BigInt(bytesPerSecond)),
      attr.be64(NFTA_LIMIT_UNIT, 1n),
      attr.be32(NFTA_LIMIT_BURST, burst),
      attr.be32(NFTA_LIMIT_TYPE, NFT_LIMIT_PKT_BYTES),
    ],
  };
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

function loadMeta(key: number, register: number = NFT_REG_1): Expression {
  return {
    name: "meta",
    attrs: [attr.be32(NFTA_META_DREG, register), attr.be32(NFTA_META_KEY, key)],
  };
}

function loadPayload(
  base: number,
  offset: number,
  length: number,
  register = NFT_REG_1,
): Expression {
  return {
    name: "payload",
    attrs: [
      attr.be32(NFTA_PAYLOAD_DREG, register),
      attr.be32(NFTA_PAYLOAD_BASE, base),
      attr.be32(NFTA_PAYLOAD_OFFSET, offset),
      attr.be32(NFTA_PAYLOAD_LEN, length),
    ],
  };
}

interface Place {
  base: number;
  offset: number;
  length: number;
  /** Of the checksum that is kept right, from the same base. */
  checksumOffset?: number;
}

/** Of addresses, the checksums of both headers are kept right. */
function storePayload(register: number, { base, offset, length, checksumOffset }: Place) {
  const flags = base === NFT_PAYLOAD_NETWORK_HEADER ? NFT_PAYLOAD_L4CSUM_PSEUDOHDR : 0;
  const checksum = checksumOffset === undefined ? [] : [
    attr.be32(NFTA_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_INET),
    attr.be32(NFTA_PAYLOAD_CSUM_OFFSET, checksumOffset),
    attr.be32(NFTA_PAYLOAD_CSUM_FLAGS, flags),
  ];
  return {
    name: "payload",
    attrs: [
      attr.be32(NFTA_PAYLOAD_SREG, register),
      attr.be32(NFTA_PAYLOAD_BASE, base),
      attr.be32(NFTA_PAYLOAD_OFFSET, offset),
      attr.be32(NFTA_PAYLOAD_LEN, length),
      ...checksum,
    ],
  };
}

/** Ends the rule when it is not found. */
function lookup(set: string, key: number, value?: number): Expression {
  return {
    name: "lookup",
    attrs: [
      attr.string(NFTA_LOOKUP_SET, set),
      attr.be32(NFTA_LOOKUP_SREG, key),
      ...(value === undefined ? [] : [attr.be32(NFTA_LOOKUP_DREG, value)]),
    ],
  };
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
function bitwiseAnd(mask: Uint8Array, register = NFT_REG_1): Expression {
  return {
    name: "bitwise",
    attrs: [
      attr.be32(NFTA_BITWISE_SREG, register),
      attr.be32(NFTA_BITWISE_DREG, register),
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
