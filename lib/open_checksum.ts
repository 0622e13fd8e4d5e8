/**
 * TCP and UDP checksums that a kernel left to be filled in by hardware on the way. Where the packet
 * only went from one kernel to the next on the same machine (containers, virtual machines) nobody
 * has done it: the field holds the sum of the pseudo header (CHECKSUM_PARTIAL). A kernel carries
 * along that it is so; a program's socket gets the bytes alone.
 */
import { onesComplementSum } from "./checksum.ts";

const TCP = 6;
const UDP = 17;
/** Offset of the field in either header. */
const FIELD: Record<number, number> = { [TCP]: 16, [UDP]: 6 };
const IPV4_ADDRESSES = { at: 12, length: 8 };
const IPV6_ADDRESSES = { at: 8, length: 32 };
const IPV6_HEADER = 40;
/** More fragments, and their offset. */
const FRAGMENT = 0x3fff;

export interface OpenChecksum {
  /** Where the sum begins, from the packet's start. */
  start: number;
  /** Of the field, from there. */
  offset: number;
}

/** The folded sum of `length` bytes from `at` on, in network order, not complemented. */
type Sum = (at: number, length: number) => number;

/**
 * Undefined for what has its checksum, or none. One in 65,536 checksums looks open and is not: taking
 * it for open does no harm to a packet that is as it was sent.
 */
export function openChecksum(
  bytes: Uint8Array,
  at: number,
  length: number,
  sum: Sum,
): OpenChecksum | undefined {
  const isIpv4 = bytes[at]! >> 4 === 4;
  if (isIpv4 && (word(bytes, at + 6) & FRAGMENT) !== 0) return undefined;
  const protocol = bytes[at + (isIpv4 ? 9 : 6)]!;
  const start = isIpv4 ? (bytes[at]! & 15) * 4 : IPV6_HEADER;
  const offset = FIELD[protocol];
  if (offset === undefined || start + offset + 2 > length) return undefined;
  const addresses = isIpv4 ? IPV4_ADDRESSES : IPV6_ADDRESSES;
  const pseudo = sum(at + addresses.at, addresses.length) + protocol + length - start;
  return word(bytes, at + start + offset) === folded(pseudo) ? { start, offset } : undefined;
}

/** In place. */
export function fillOpenChecksum(packet: Uint8Array): void {
  const sum: Sum = (at, length) => onesComplementSum(packet.subarray(at, at + length));
  const open = openChecksum(packet, 0, packet.length, sum);
  if (!open) return;
  // The field, which holds the pseudo header's sum, is summed with the rest.
  const checksum = ~sum(open.start, packet.length - open.start) & 0xffff || 0xffff;
  packet[open.start + open.offset] = checksum >> 8;
  packet[open.start + open.offset + 1] = checksum & 0xff;
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

function folded(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}
