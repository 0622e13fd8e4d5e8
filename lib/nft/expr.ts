/**
 * nf_tables expressions (linux/netfilter/nf_tables.h, nf_nat.h): what a rule is made of. A match
 * loads a value into register 1 and compares it; a rule goes on while its comparisons hold.
 */
import { type Cidr, familyOf, ipBytes } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { type Attr, attr, checked, decodeAttrList, decodeAttrs, value } from "../netlink.ts";

const NFT_REG_VERDICT = 0;
const NFT_REG_1 = 1;
/** The first of those of 4 bytes: each of the four above is four of these. */
const NFT_REG32_00 = 8;
/** The 4-byte register that register 1 begins with. */
const FIRST_SLOT = NFT_REG32_00;

const NFTA_LIST_ELEM = 1;
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;
const NFTA_COUNTER_BYTES = 1;
const NFTA_COUNTER_PACKETS = 2;
/** By expression, those that are used. */
const ATTRIBUTES = {
  immediate: { dreg: 1, data: 2 },
  meta: { dreg: 1, key: 2 },
  ct: { dreg: 1, key: 2 },
  payload: {
    ...{ dreg: 1, base: 2, offset: 3, len: 4 },
    ...{ sreg: 5, csum_type: 6, csum_offset: 7, csum_flags: 8 },
  },
  bitwise: { sreg: 1, dreg: 2, len: 3, mask: 4, xor: 5 },
  cmp: { sreg: 1, op: 2, data: 3 },
  lookup: { set: 1, sreg: 2, dreg: 3, flags: 5 },
  limit: { rate: 1, unit: 2, burst: 3, type: 4 },
  dup: { sreg_addr: 1 },
  masq: {},
  counter: {},
} as const;

const NFT_META_PROTOCOL = 1;
const NFT_META_IIF = 4;
const NFT_META_OIF = 5;
const NFT_META_IIFNAME = 6;
const NFT_META_OIFNAME = 7;
const NFT_META_IIFTYPE = 8;
const NFT_META_L4PROTO = 16;
const NFT_CT_STATE = 0;
const NFT_CT_DIRECTION = 1;
const NFT_PAYLOAD_NETWORK_HEADER = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER = 2;
const NFT_PAYLOAD_CSUM_INET = 1;
const NFT_PAYLOAD_L4CSUM_PSEUDOHDR = 1;
const NFT_LIMIT_PKT_BYTES = 1;
const NFT_CMP_EQ = 0;
const NFT_CMP_NEQ = 1;
const NFT_CMP_LT = 2;
const NFT_CMP_GT = 4;
const NFT_LOOKUP_F_INV = 1;
const IPV4_CHECKSUM_OFFSET = 10;
const IFNAMSIZ = 16;

export const IP_PROTOCOL = { icmp: 1, ipip: 4, tcp: 6, udp: 17, gre: 47, icmpv6: 58 } as const;
const ARPHRD_ETHER = 1;
/** linux/if_ether.h */
const ETHERTYPE = { 4: Uint8Array.of(0x08, 0), 6: Uint8Array.of(0x86, 0xdd) } as const;
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
  /** Of GRE in UDP. */
  greKey: [NFT_PAYLOAD_TRANSPORT_HEADER, 8 + 4, 4],
  sport: [NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2],
  dport: [NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2],
} as const;
/** `enum ip_conntrack_dir`. */
const IP_CT_DIR_REPLY = 1;
/** `NF_CT_STATE_BIT` of linux/netfilter/nf_conntrack_common.h. */
const CT_STATE = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 } as const;
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

/** The packet came in by an interface of Ethernet, as cards, bridges and veth are; no tunnel is. */
export function isEthernet(): Match {
  const type = new Writer("host", 2).u16(ARPHRD_ETHER).finish();
  return [loadMeta(NFT_META_IIFTYPE), compare(NFT_CMP_EQ, type)];
}

/** The packet will go out by this interface. */
export function oifname(name: string): Match {
  return [loadMeta(NFT_META_OIFNAME), compare(NFT_CMP_EQ, ifnameBytes(name))];
}

export function l4proto(protocol: keyof typeof IP_PROTOCOL, operator: "==" | "!=" = "=="): Match {
  const bytes = Uint8Array.of(IP_PROTOCOL[protocol]);
  return [loadMeta(NFT_META_L4PROTO), compare(operator === "==" ? NFT_CMP_EQ : NFT_CMP_NEQ, bytes)];
}

/** In tables that see both. */
export function isIp(version: 4 | 6): Match {
  return [loadMeta(NFT_META_PROTOCOL), compare(NFT_CMP_EQ, ETHERTYPE[version])];
}

/** Destination address in a prefix; the table or the rule says the family. */
export function daddr({ ip, prefixLength }: Cidr): Match {
  const address = ipBytes(ip);
  const mask = maskOf(address.length, prefixLength);
  const field = familyOf(ip) === 4 ? "daddr" : "daddr6";
  const network = address.map((byte, i) => byte & mask[i]!);
  return [...networkOf(field, prefixLength).load(NFT_REG_1), compare(NFT_CMP_EQ, network)];
}

/** Bytes of the transport header and what follows it; with a mask, only its bits. */
export function transport(
  offset: number,
  bytes: Uint8Array,
  { op = "eq", mask }: { op?: "eq" | "neq" | "lt" | "gt"; mask?: Uint8Array } = {},
): Match {
  const load = loadPayload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, bytes.length);
  const operator = { eq: NFT_CMP_EQ, neq: NFT_CMP_NEQ, lt: NFT_CMP_LT, gt: NFT_CMP_GT }[op];
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
  const load = expression("ct", { dreg: NFT_REG_1, key: NFT_CT_STATE });
  return [load, bitwiseAnd(mask), compare(NFT_CMP_NEQ, hostU32(0))];
}

/** The packet goes to who opened its connection. */
export function isReply(): Match {
  const load = expression("ct", { dreg: NFT_REG_1, key: NFT_CT_DIRECTION });
  return [load, compare(NFT_CMP_EQ, Uint8Array.of(IP_CT_DIR_REPLY))];
}

/** These bytes, or others, lie there, from the start of the UDP header; not true of less bytes. */
export function udpBytes(offset: number, operator: "==" | "!=", bytes: Uint8Array): Match {
  const load = loadPayload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, bytes.length);
  return [...l4proto("udp"), load, compare(operator === "==" ? NFT_CMP_EQ : NFT_CMP_NEQ, bytes)];
}

/** The set has this element. */
export function isIn(set: string, element: Value): Match {
  return [...element.load(FIRST_SLOT), expression("lookup", { set, sreg: FIRST_SLOT })];
}

/** The set, which is no map, has no such element. */
export function isNotIn(set: string, element: Value): Match {
  return [
    ...element.load(FIRST_SLOT),
    expression("lookup", { set, sreg: FIRST_SLOT, flags: NFT_LOOKUP_F_INV }),
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
  name: Exclude<keyof typeof FIELD, "sport" | "greKey">,
  prefixLength: number,
): Part {
  const [base, offset, length] = FIELD[name];
  const address = payload(base, offset, length);
  if (prefixLength === 8 * length) return address;
  const mask = maskOf(length, prefixLength);
  return {
    ...address,
    load: (register) => [...address.load(register), bitwiseAnd(mask, register)],
  };
}

function maskOf(length: number, prefixLength: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => {
    const bits = Math.max(0, Math.min(8, prefixLength - 8 * i));
    return (0xff00 >> bits) & 0xff;
  });
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
    load: (register) => [
      ...key.load(register),
      expression("lookup", { set: map, sreg: register, dreg: register }),
    ],
  };
}

/** Source NAT to the address of the outgoing interface; keeps the port if it can. */
export function masquerade(): NatAction {
  return { expressions: [expression("masq", {})] };
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
      expression("dup", { sreg_addr: FIRST_SLOT + 1 }),
      ...verdictExpressions("drop"),
    ],
  };
}

/** For an element of a map: it is not found by what comes above that rate. */
export function byteLimit(bytesPerSecond: number, burst: number): Expression {
  return expression("limit", {
    ...{ rate: BigInt(bytesPerSecond), unit: 1n, burst, type: NFT_LIMIT_PKT_BYTES },
  });
}

/** Counts the packets and bytes that come this far in the rule. */
export function counter(): Expression {
  return expression("counter", {});
}

export function verdictExpressions(verdict: Verdict): readonly Expression[] {
  if (typeof verdict !== "string") return verdict.expressions;
  const code = attr.nested(NFTA_DATA_VERDICT, [attr.be32(NFTA_VERDICT_CODE, VERDICT[verdict])]);
  return [expression("immediate", { dreg: NFT_REG_VERDICT, data: code })];
}

type Name = keyof typeof ATTRIBUTES;

/** Numbers have 4 bytes, or 8 as a bigint; bytes are what registers hold. */
type AttributeValue = number | bigint | string | Uint8Array | Attr;

function expression<N extends Name>(
  name: N,
  values: { [A in keyof typeof ATTRIBUTES[N]]?: AttributeValue },
): Expression {
  const types: Record<string, number> = ATTRIBUTES[name];
  const attrs = Object.entries<AttributeValue>(values as Record<string, AttributeValue>)
    .map(([key, value]) => encodeAttribute(types[key]!, value));
  return { name, attrs };
}

function encodeAttribute(type: number, value: AttributeValue): Attr {
  if (typeof value === "number") return attr.be32(type, value);
  if (typeof value === "bigint") return attr.be64(type, value);
  if (typeof value === "string") return attr.string(type, value);
  const data = value instanceof Uint8Array ? attr.bytes(NFTA_DATA_VALUE, value) : value;
  return attr.nested(type, [data]);
}

export function loadMeta(key: number, register: number = NFT_REG_1): Expression {
  return expression("meta", { dreg: register, key });
}

export function loadPayload(
  base: number,
  offset: number,
  length: number,
  register = NFT_REG_1,
): Expression {
  return expression("payload", { dreg: register, base, offset, len: length });
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
  return expression("payload", {
    ...{ sreg: register, base, offset, len: length },
    ...(checksumOffset === undefined
      ? {}
      : { csum_type: NFT_PAYLOAD_CSUM_INET, csum_offset: checksumOffset, csum_flags: flags }),
  });
}

export function compare(operator: number, bytes: Uint8Array): Expression {
  return expression("cmp", { sreg: NFT_REG_1, op: operator, data: bytes });
}

/** (register & mask) ^ 0 */
export function bitwiseAnd(mask: Uint8Array, register = NFT_REG_1): Expression {
  const xor = new Uint8Array(mask.length);
  return expression("bitwise", { sreg: register, dreg: register, len: mask.length, mask, xor });
}

/** Registers hold what the kernel computes, marks and states, in its own order. */
export function hostU32(value: number): Uint8Array {
  return new Writer("host", 4).u32(value).finish();
}

/** Padded with zeros, so that "out" is not a prefix of "outer". */
function ifnameBytes(name: string): Uint8Array {
  const bytes = new Uint8Array(IFNAMSIZ);
  bytes.set(new TextEncoder().encode(name));
  return bytes;
}
