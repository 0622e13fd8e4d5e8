/**
 * Cuts a super-packet of TCP or UDP, which the kernel leaves to the network card, into the packets
 * that it stands for. Headers are written anew for each; payload stays where it lies.
 */
import type { Arena } from "./arena.ts";
import {
  GSO,
  IPV4,
  IPV4_HEADER,
  IPV6,
  IPV6_HEADER,
  NEEDS_CSUM,
  TCP_FIELD,
  TCP_FLAG,
  TCP_HEADER,
  UDP_FIELD,
  UDP_HEADER,
  versionOf,
  VNET,
} from "./packet.ts";
import { fold, type Sum } from "./sum.ts";

/** Of IP and TCP together, options and extension headers included; longer ones are refused. */
export const MAX_HEADERS = 240;

export class Cutter {
  /** Of each packet: IP header to the payload's start. */
  headerLength = 0;
  count = 0;
  readonly #arena: Arena;
  readonly #sum: Sum;
  #at = 0;
  #version: 0 | 4 | 6 = 0;
  #isTcp = false;
  #payloadLength = 0;
  #size = 0;
  /** Of the TCP or UDP header, from the packet's start. */
  #l4 = 0;
  #sequence = 0;
  #flags = 0;
  #urgent = 0;
  #id = 0;
  /** Sums of all that is alike in every packet. */
  #ipBase = 0;
  #l4Base = 0;

  constructor(arena: Arena, sum: Sum) {
    this.#arena = arena;
    this.#sum = sum;
  }

  /** Takes the packet at `at` and its header at `vnet`; false for what cannot be cut. */
  begin(vnet: number, at: number, length: number): boolean {
    const { bytes, view } = this.#arena;
    const type = bytes[vnet + VNET.gsoType]! & ~GSO.ecn;
    this.#isTcp = type === GSO.tcp4 || type === GSO.tcp6;
    this.#at = at;
    this.#version = versionOf(bytes, at, length);
    this.#size = view.getUint16(vnet + VNET.gsoSize, true);
    this.#l4 = view.getUint16(vnet + VNET.start, true);
    const isKnown = this.#isTcp || type === GSO.udp;
    const needsSum = (bytes[vnet + VNET.flags]! & NEEDS_CSUM) !== 0;
    if (!isKnown || !needsSum || !this.#version || this.#size === 0) return false;
    const shortest = this.#isTcp ? TCP_HEADER : UDP_HEADER;
    if (this.#l4 < shortestHeader(this.#version)) return false;
    if (this.#l4 + shortest > length) return false;
    const l4 = at + this.#l4;
    const l4Header = this.#isTcp ? (bytes[l4 + TCP_FIELD.flags]! >> 4) * 4 : UDP_HEADER;
    this.headerLength = this.#l4 + l4Header;
    if (l4Header < shortest || this.headerLength > Math.min(length, MAX_HEADERS)) return false;
    this.#payloadLength = length - this.headerLength;
    this.count = Math.max(1, Math.ceil(this.#payloadLength / this.#size));
    this.#sumIp();
    if (this.#isTcp) this.#sumTcp(length);
    else this.#sumUdp();
    return true;
  }

  payloadAt(k: number): number {
    return this.#at + this.headerLength + k * this.#size;
  }

  payloadLength(k: number): number {
    return Math.min(this.#size, this.#payloadLength - k * this.#size);
  }

  /** Writes the headers of packet `k`, `headerLength` bytes. */
  writeHeaders(k: number, to: number): void {
    this.#arena.bytes.copyWithin(to, this.#at, this.#at + this.headerLength);
    const payload = this.payloadLength(k);
    const l4Length = this.headerLength - this.#l4 + payload;
    if (this.#version === 4) this.#writeIpv4(k, to, this.#l4 + l4Length);
    else this.#arena.view.setUint16(to + IPV6.payloadLength, this.#l4 - IPV6_HEADER + l4Length);
    const sum = this.#l4Base + l4Length + this.#sum(this.payloadAt(k), payload);
    if (this.#isTcp) this.#writeTcp(k, to + this.#l4, sum);
    else this.#writeUdp(to + this.#l4, l4Length, sum);
  }

  /** All of the IPv4 header but length, identification and checksum. */
  #sumIp(): void {
    if (this.#version !== 4) return;
    const { view, bytes } = this.#arena;
    const at = this.#at;
    this.#id = view.getUint16(at + IPV4.id);
    const length = (bytes[at]! & 0xf) * 4;
    const left = view.getUint16(at + IPV4.totalLength) + this.#id +
      view.getUint16(at + IPV4.checksum);
    this.#ipBase = minus(this.#sum(at, length), left);
  }

  /**
   * The pseudo header without the length, and all of the TCP header but sequence, flags, checksum and
   * urgent pointer. The kernel has put the pseudo header's sum where the checksum goes.
   */
  #sumTcp(length: number): void {
    const { view } = this.#arena;
    const l4 = this.#at + this.#l4;
    this.#sequence = view.getUint32(l4 + TCP_FIELD.sequence);
    this.#flags = view.getUint16(l4 + TCP_FIELD.flags);
    this.#urgent = view.getUint16(l4 + TCP_FIELD.urgent);
    const changing = (this.#sequence >>> 16) + (this.#sequence & 0xffff) + this.#flags +
      this.#urgent;
    const header = this.#sum(l4, this.headerLength - this.#l4);
    this.#l4Base = minus(header, changing + (length - this.#l4));
  }

  /** The pseudo header without the length, and the ports. */
  #sumUdp(): void {
    const { view } = this.#arena;
    const l4 = this.#at + this.#l4;
    const length = view.getUint16(l4 + UDP_FIELD.length);
    this.#l4Base = minus(this.#sum(l4, UDP_HEADER), length + length);
  }

  #writeIpv4(k: number, to: number, length: number): void {
    const { view } = this.#arena;
    const id = (this.#id + k) & 0xffff;
    view.setUint16(to + IPV4.totalLength, length);
    view.setUint16(to + IPV4.id, id);
    view.setUint16(to + IPV4.checksum, ~fold(this.#ipBase + length + id));
  }

  #writeTcp(k: number, to: number, sum: number): void {
    const { view } = this.#arena;
    const offset = k * this.#size;
    const sequence = (this.#sequence + offset) >>> 0;
    const [flags, urgent] = [this.#flagsOf(k, offset), this.#urgentOf(offset)];
    const own = (sequence >>> 16) + (sequence & 0xffff) + flags + urgent;
    view.setUint32(to + TCP_FIELD.sequence, sequence);
    view.setUint16(to + TCP_FIELD.flags, flags);
    view.setUint16(to + TCP_FIELD.urgent, urgent);
    view.setUint16(to + TCP_FIELD.checksum, ~fold(sum + own));
  }

  /** PSH and FIN are for the end of it all, CWR is said once, URG as far as the urgent data reaches. */
  #flagsOf(k: number, offset: number): number {
    let flags = this.#flags;
    if (k < this.count - 1) flags &= ~(TCP_FLAG.psh | TCP_FLAG.fin);
    if (k > 0) flags &= ~TCP_FLAG.cwr;
    if (offset > 0 && this.#urgent <= offset) flags &= ~TCP_FLAG.urg;
    return flags;
  }

  /** It counts from the packet's own sequence number. */
  #urgentOf(offset: number): number {
    if ((this.#flags & TCP_FLAG.urg) === 0) return this.#urgent;
    return Math.max(0, this.#urgent - offset);
  }

  #writeUdp(to: number, length: number, sum: number): void {
    const { view } = this.#arena;
    view.setUint16(to + UDP_FIELD.length, length);
    // 0 would say that there is none.
    view.setUint16(to + UDP_FIELD.checksum, (~fold(sum + length) & 0xffff) || 0xffff);
  }
}

function shortestHeader(version: 0 | 4 | 6): number {
  return version === 6 ? IPV6_HEADER : IPV4_HEADER;
}

/** The folded difference of a folded sum and a sum below 2^20. */
function minus(sum: number, part: number): number {
  return fold(sum + (~fold(part) & 0xffff));
}

/** Finishes the checksum of a packet that is whole but for it; false where it would lie outside. */
export function finishChecksum(
  arena: Arena,
  sum: Sum,
  vnet: number,
  at: number,
  length: number,
): boolean {
  const { bytes, view } = arena;
  const start = view.getUint16(vnet + VNET.start, true);
  const place = start + view.getUint16(vnet + VNET.offset, true);
  const isInside = start >= shortestHeader(versionOf(bytes, at, length)) && place + 2 <= length;
  if (!isInside) return false;
  // The field holds the pseudo header's sum and is summed with the rest.
  const checksum = ~sum(at + start, length - start) & 0xffff;
  view.setUint16(at + place, checksum || 0xffff);
  return true;
}
