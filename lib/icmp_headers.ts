/** What ICMP of either family says, as far as those look who let packets in (RFC 792, RFC 4443). */
import { ipv6TransportAt } from "./ipv6_headers.ts";

const ICMP = 1;
const ICMPV6 = 58;
const FRAGMENT_OFFSET = 0x1fff;
/** Of ICMP; what quotes its packet follows, and its destination lies in there. */
const HEADER_LENGTH = 8;
const OF_VERSION = {
  4: { routing: [5], quotedDestination: HEADER_LENGTH + 16, addressLength: 4 },
  6: { routing: [134, 137], quotedDestination: HEADER_LENGTH + 24, addressLength: 16 },
} as const;
/** Unreachable, source quench, time exceeded, parameter problem; those of IPv6 are below 128. */
const ERRORS: readonly number[] = [3, 4, 11, 12];
const FIRST_INFORMATIONAL_6 = 128;

/** The offset of its header, which begins within `length`; -1: it is none, or a later fragment. */
export function icmpAt(bytes: Uint8Array, at: number, length: number, version: 4 | 6): number {
  const offset = transportAt(bytes, at, length, version, version === 4 ? ICMP : ICMPV6);
  return offset < length ? offset : -1;
}

/** The offset of the transport header, of that protocol and no later fragment; else -1. */
export function transportAt(
  bytes: Uint8Array,
  at: number,
  length: number,
  version: 4 | 6,
  protocol: number,
): number {
  if (version === 6) return ipv6TransportAt(bytes, at, length, protocol);
  const isLater = ((bytes[at + 6]! << 8 | bytes[at + 7]!) & FRAGMENT_OFFSET) !== 0;
  return bytes[at + 9] === protocol && !isLater ? (bytes[at]! & 0xf) * 4 : -1;
}

/** It tells a host of other routers. */
export function isRouterMessage(type: number, version: 4 | 6): boolean {
  return OF_VERSION[version].routing.some((one) => one === type);
}

/** It tells what became of a packet, which it quotes. */
export function isIcmpError(type: number, version: 4 | 6): boolean {
  return version === 4 ? ERRORS.includes(type) : type < FIRST_INFORMATIONAL_6;
}

/** Where the packet that an error at `icmp` quotes was going; -1: that is not in there. */
export function quotedDestinationAt(icmp: number, length: number, version: 4 | 6): number {
  const { quotedDestination, addressLength } = OF_VERSION[version];
  const offset = icmp + quotedDestination;
  return offset + addressLength <= length ? offset : -1;
}
