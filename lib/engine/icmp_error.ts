/** ICMP errors to the sender of an inner packet that cannot be carried (RFC 792, RFC 4443). */
import type { Arena } from "./arena.ts";
import { ICMP, ICMPV6, IPV4, IPV4_HEADER, IPV6, IPV6_HEADER } from "./packet.ts";
import { fold, type Sum } from "./sum.ts";

export type IcmpReason = "unreachable" | "prohibited" | "too-big";

const ICMP_HEADER = 8;
/** An error is no longer than this (RFC 1812; RFC 4443 allows 1280). */
const MAX_LENGTH_4 = 576;
const MAX_LENGTH_6 = 1280;
export const MAX_ICMP_ERROR = MAX_LENGTH_6;
const TTL = 64;

const CODES_4 = { "unreachable": [3, 1], "prohibited": [3, 13], "too-big": [3, 4] } as const;
const CODES_6 = { "unreachable": [1, 0], "prohibited": [1, 1], "too-big": [2, 0] } as const;

/**
 * Writes the error about the packet at `at`, of which `length` bytes are there, to `to`; its length,
 * or 0 where none may be sent. It comes from the packet's destination: that way is open to it.
 */
export function writeIcmpError(
  { arena, sum }: { arena: Arena; sum: Sum },
  { at, length, version }: { at: number; length: number; version: 4 | 6 },
  error: { reason: IcmpReason; mtu: number },
  to: number,
): number {
  if (!mayAnswer(arena, at, length, version)) return 0;
  return version === 4
    ? writeIpv4({ arena, sum }, { at, length }, error, to)
    : writeIpv6({ arena, sum }, { at, length }, error, to);
}

/** Never about an error, a later fragment, or what was sent to or from many (RFC 1122, 3.2.2). */
function mayAnswer({ bytes, view }: Arena, at: number, length: number, version: 4 | 6): boolean {
  if (version === 4) {
    const headerLength = (bytes[at]! & 0xf) * 4;
    if ((view.getUint16(at + IPV4.fragment) & 0x1fff) !== 0) return false;
    const [source, destination] = [bytes[at + IPV4.source]!, bytes[at + IPV4.destination]!];
    if (destination >= 224 || source >= 224 || source === 0) return false;
    const isIcmp = bytes[at + IPV4.protocol] === ICMP;
    return !isIcmp || length > headerLength && isQuery4(bytes[at + headerLength]!);
  }
  if (bytes[at + IPV6.destination] === 0xff || bytes[at + IPV6.source] === 0xff) return false;
  const isIcmp = bytes[at + IPV6.nextHeader] === ICMPV6;
  return !isIcmp || length > IPV6_HEADER && bytes[at + IPV6_HEADER]! >= 128;
}

/** All but unreachable, quench, redirect, time exceeded, parameter problem. */
function isQuery4(type: number): boolean {
  return ![3, 4, 5, 11, 12].includes(type);
}

type Tools = { arena: Arena; sum: Sum };
type Part = { at: number; length: number };
type Said = { reason: IcmpReason; mtu: number };

function writeIpv4({ arena, sum }: Tools, { at, length }: Part, said: Said, to: number): number {
  const { bytes, view } = arena;
  const quoted = Math.min(length, MAX_LENGTH_4 - IPV4_HEADER - ICMP_HEADER);
  const total = IPV4_HEADER + ICMP_HEADER + quoted;
  bytes.fill(0, to, to + IPV4_HEADER + ICMP_HEADER);
  bytes[to] = 0x45;
  bytes[to + IPV4.tos] = 0xc0; // internetwork control, as routers do
  view.setUint16(to + IPV4.totalLength, total);
  bytes[to + IPV4.ttl] = TTL;
  bytes[to + IPV4.protocol] = ICMP;
  bytes.copyWithin(to + IPV4.source, at + IPV4.destination, at + IPV4.destination + 4);
  bytes.copyWithin(to + IPV4.destination, at + IPV4.source, at + IPV4.source + 4);
  view.setUint16(to + IPV4.checksum, ~sum(to, IPV4_HEADER));
  const icmp = to + IPV4_HEADER;
  const [type, code] = CODES_4[said.reason];
  view.setUint16(icmp, type << 8 | code);
  if (said.reason === "too-big") view.setUint16(icmp + 6, said.mtu);
  bytes.copyWithin(icmp + ICMP_HEADER, at, at + quoted);
  view.setUint16(icmp + 2, ~sum(icmp, ICMP_HEADER + quoted));
  return total;
}

function writeIpv6({ arena, sum }: Tools, { at, length }: Part, said: Said, to: number): number {
  const { bytes, view } = arena;
  const quoted = Math.min(length, MAX_LENGTH_6 - IPV6_HEADER - ICMP_HEADER);
  const icmpLength = ICMP_HEADER + quoted;
  bytes.fill(0, to, to + IPV6_HEADER + ICMP_HEADER);
  bytes[to] = 0x60;
  view.setUint16(to + IPV6.payloadLength, icmpLength);
  bytes[to + IPV6.nextHeader] = ICMPV6;
  bytes[to + IPV6.hopLimit] = TTL;
  bytes.copyWithin(to + IPV6.source, at + IPV6.destination, at + IPV6.destination + 16);
  bytes.copyWithin(to + IPV6.destination, at + IPV6.source, at + IPV6.source + 16);
  const icmp = to + IPV6_HEADER;
  const [type, code] = CODES_6[said.reason];
  view.setUint16(icmp, type << 8 | code);
  if (said.reason === "too-big") view.setUint32(icmp + 4, said.mtu);
  bytes.copyWithin(icmp + ICMP_HEADER, at, at + quoted);
  const pseudoSum = sum(to + IPV6.source, 32) + ICMPV6 + icmpLength;
  view.setUint16(icmp + 2, ~fold(pseudoSum + sum(icmp, icmpLength)));
  return IPV6_HEADER + icmpLength;
}
