/**
 * Joins packets of one TCP or UDP flow that follow each other into a super-packet, which passes
 * through the kernel as one. What is joined can be cut again into the very same packets (with
 * "don't fragment" an identification that does not count may begin to). All that may not be joined
 * stands alone, and packets of a flow keep their order.
 */
import { openChecksum } from "../open_checksum.ts";
import type { Arena } from "./arena.ts";
import {
  DONT_FRAGMENT,
  GSO,
  ICMPV6,
  IPV4,
  IPV4_HEADER,
  IPV6,
  IPV6_HEADER,
  NEEDS_CSUM,
  TCP,
  TCP_FIELD,
  TCP_FLAG,
  TCP_HEADER,
  UDP,
  UDP_FIELD,
  UDP_HEADER,
  versionOf,
  VNET,
  VNET_HEADER,
} from "./packet.ts";
import { fold, type Sum } from "./sum.ts";

/** Flows that are put together at the same time; the oldest ends for one more. */
const MAX_FLOWS = 8;
/** As many as the kernel cuts a UDP super-packet into. */
export const MAX_PIECES = 64;
const MAX_LENGTH = 65_535;

/** Bits of the TCP flags' 16-bit word that a joined packet has as each of its parts has them. */
const END_FLAGS = TCP_FLAG.psh | TCP_FLAG.fin;
const MAY_JOIN = 0xf000 | TCP_FLAG.ack | TCP_FLAG.ece | END_FLAGS;

/** A packet for a device, in pieces: the first has its headers, the rest are payload. */
export interface Joined {
  device: number;
  count: number;
  readonly at: Int32Array;
  readonly length: Int32Array;
  /** Where its `virtio_net_hdr` lies. */
  vnet: number;
}

interface Flow extends Joined {
  isOpen: boolean;
  version: 4 | 6;
  protocol: number;
  /** From the packet's start to the payload. */
  headerLength: number;
  /** Of the IP packet, so far. */
  total: number;
  /** Payload of each part but the last. */
  size: number;
  nextSequence: number;
  nextId: number;
  endFlags: number;
  isVerified: boolean;
}

export class Joiner {
  readonly #arena: Arena;
  readonly #sum: Sum;
  readonly #emit: (packet: Joined) => void;
  readonly #flows: Flow[];
  readonly #alone: Joined;
  #oldest = 0;
  /** Of the packet at hand. */
  #at = 0;
  #length = 0;
  #version: 4 | 6 = 4;
  #protocol = 0;
  #l4 = 0;
  #headerLength = 0;

  constructor(arena: Arena, sum: Sum, emit: (packet: Joined) => void) {
    this.#arena = arena;
    this.#sum = sum;
    this.#emit = emit;
    this.#flows = Array.from({ length: MAX_FLOWS }, () => newFlow(arena));
    this.#alone = newPacket(arena, 1);
  }

  /**
   * Takes a packet of the device's peer, which stays where it is until {@link flush}. It may be
   * given on at once, later, or as a part of a larger one; UDP only where `joinsUdp`, as not every
   * kernel takes such a super-packet.
   */
  take(device: number, at: number, length: number, joinsUdp: boolean): void {
    const canJoin = this.#look(at, length, joinsUdp);
    if (this.#headerLength === 0) {
      if (this.#mayBeOfFlow()) this.flush();
      return this.#emitAlone(device);
    }
    const flow = this.#find(device);
    if (flow && canJoin && this.#continues(flow)) return this.#append(flow);
    if (flow) this.#end(flow);
    if (canJoin) this.#open(device);
    else this.#emitAlone(device);
  }

  /** Gives on what is held back. */
  flush(): void {
    for (let i = 0; i < MAX_FLOWS; i++) {
      const flow = this.#flows[(this.#oldest + i) % MAX_FLOWS]!;
      if (flow.isOpen) this.#end(flow);
    }
  }

  /**
   * Whether the packet can be part of a larger one. `headerLength` is 0 where it belongs to no flow:
   * no TCP or UDP right after the IP header, or a fragment.
   */
  #look(at: number, length: number, joinsUdp: boolean): boolean {
    const { bytes, view } = this.#arena;
    this.#at = at;
    this.#length = length;
    this.#headerLength = 0;
    const version = versionOf(bytes, at, length);
    if (version === 0) return false;
    this.#version = version;
    if (version === 4) {
      if (bytes[at] !== 0x45 || view.getUint16(at + IPV4.totalLength) !== length) return false;
      if ((view.getUint16(at + IPV4.fragment) & ~DONT_FRAGMENT) !== 0) return false;
      this.#protocol = bytes[at + IPV4.protocol]!;
      this.#l4 = IPV4_HEADER;
    } else {
      if (view.getUint16(at + IPV6.payloadLength) + IPV6_HEADER !== length) return false;
      this.#protocol = bytes[at + IPV6.nextHeader]!;
      this.#l4 = IPV6_HEADER;
    }
    if (this.#protocol === TCP) return this.#lookAtTcp();
    return joinsUdp && this.#protocol === UDP && this.#lookAtUdp();
  }

  /** What was not looked at may belong to an open flow: a fragment, or with options on the way. */
  #mayBeOfFlow(): boolean {
    const { bytes } = this.#arena;
    if (bytes[this.#at]! >> 4 === 6) return bytes[this.#at + IPV6.nextHeader] !== ICMPV6;
    const protocol = bytes[this.#at + IPV4.protocol]!;
    return protocol === TCP || protocol === UDP;
  }

  #lookAtTcp(): boolean {
    if (this.#length < this.#l4 + TCP_HEADER) return false;
    const flags = this.#arena.view.getUint16(this.#at + this.#l4 + TCP_FIELD.flags);
    const headerLength = this.#l4 + (flags >> 12) * 4;
    if (headerLength < this.#l4 + TCP_HEADER || headerLength > this.#length) return false;
    this.#headerLength = headerLength;
    return (flags & ~MAY_JOIN) === 0 && (flags & TCP_FLAG.ack) !== 0 && headerLength < this.#length;
  }

  #lookAtUdp(): boolean {
    const { view } = this.#arena;
    if (this.#length < this.#l4 + UDP_HEADER) return false;
    const l4 = this.#at + this.#l4;
    this.#headerLength = this.#l4 + UDP_HEADER;
    return view.getUint16(l4 + UDP_FIELD.length) === this.#length - this.#l4 &&
      view.getUint16(l4 + UDP_FIELD.checksum) !== 0 && this.#length > this.#headerLength;
  }

  #find(device: number): Flow | undefined {
    for (let i = 0; i < MAX_FLOWS; i++) {
      const flow = this.#flows[i]!;
      if (flow.isOpen && flow.device === device && this.#isSameFlow(flow)) return flow;
    }
    return undefined;
  }

  /** Same addresses, protocol and ports. */
  #isSameFlow(flow: Flow): boolean {
    if (flow.version !== this.#version || flow.protocol !== this.#protocol) return false;
    const { view } = this.#arena;
    const [a, b] = [flow.at[0]!, this.#at];
    // Addresses and ports stand side by side.
    const end = this.#l4 + 4;
    for (let i = this.#version === 4 ? IPV4.source : IPV6.source; i < end; i += 4) {
      if (view.getInt32(a + i) !== view.getInt32(b + i)) return false;
    }
    return true;
  }

  /** Whether the packet at hand is the next part of the flow's packet. */
  #continues(flow: Flow): boolean {
    const payload = this.#length - this.#headerLength;
    if (flow.headerLength !== this.#headerLength || payload > flow.size) return false;
    if (flow.total + payload > MAX_LENGTH || flow.count === MAX_PIECES) return false;
    return this.#hasSameIp(flow) && (flow.protocol === UDP || this.#hasNextTcp(flow)) &&
      this.#isVerified(flow);
  }

  #hasSameIp(flow: Flow): boolean {
    const { view, bytes } = this.#arena;
    const [a, b] = [flow.at[0]!, this.#at];
    if (this.#version === 6) {
      return view.getInt32(a) === view.getInt32(b) &&
        bytes[a + IPV6.hopLimit] === bytes[b + IPV6.hopLimit];
    }
    const id = view.getUint16(b + IPV4.id);
    const fragment = view.getUint16(b + IPV4.fragment);
    const isFixed = fragment === DONT_FRAGMENT && id === view.getUint16(a + IPV4.id);
    return (isFixed || id === flow.nextId) && bytes[a + IPV4.tos] === bytes[b + IPV4.tos] &&
      view.getUint16(a + IPV4.fragment) === fragment && bytes[a + IPV4.ttl] === bytes[b + IPV4.ttl];
  }

  #hasNextTcp(flow: Flow): boolean {
    const { view } = this.#arena;
    const [a, b] = [flow.at[0]! + this.#l4, this.#at + this.#l4];
    if (view.getUint32(b + TCP_FIELD.sequence) !== flow.nextSequence) return false;
    if (
      view.getInt32(a + TCP_FIELD.acknowledgement) !== view.getInt32(b + TCP_FIELD.acknowledgement)
    ) {
      return false;
    }
    // Flags and window.
    const differing = view.getInt32(a + TCP_FIELD.flags) ^ view.getInt32(b + TCP_FIELD.flags);
    if ((differing & ~(END_FLAGS << 16)) !== 0) return false;
    for (let i = TCP_HEADER; i < this.#headerLength - this.#l4; i += 4) {
      if (view.getInt32(a + i) !== view.getInt32(b + i)) return false;
    }
    return view.getUint16(a + TCP_FIELD.urgent) === view.getUint16(b + TCP_FIELD.urgent);
  }

  /** A joined packet gets checksums of our own, so those of its parts have to be right. */
  #isVerified(flow: Flow): boolean {
    if (!flow.isVerified) {
      if (!this.#hasRightSums(flow.at[0]!, flow.length[0]!)) return false;
      flow.isVerified = true;
    }
    return this.#hasRightSums(this.#at, this.#length);
  }

  #hasRightSums(at: number, length: number): boolean {
    if (this.#version === 4 && this.#sum(at, IPV4_HEADER) !== 0xffff) return false;
    const l4Length = length - this.#l4;
    const pseudoSum = this.#addressSum(at, this.#version) + this.#protocol + l4Length;
    return fold(pseudoSum + this.#sum(at + this.#l4, l4Length)) === 0xffff;
  }

  #addressSum(at: number, version: 4 | 6): number {
    return version === 4 ? this.#sum(at + IPV4.source, 8) : this.#sum(at + IPV6.source, 32);
  }

  #open(device: number): void {
    const flow = this.#flows[this.#oldest]!;
    if (flow.isOpen) this.#end(flow);
    this.#oldest = (this.#oldest + 1) % MAX_FLOWS;
    const { view } = this.#arena;
    flow.isOpen = true;
    flow.device = device;
    flow.version = this.#version;
    flow.protocol = this.#protocol;
    flow.headerLength = this.#headerLength;
    flow.count = 1;
    flow.at[0] = this.#at;
    flow.length[0] = this.#length;
    flow.total = this.#length;
    flow.size = this.#length - this.#headerLength;
    flow.isVerified = false;
    flow.endFlags = 0;
    if (this.#version === 4) flow.nextId = (view.getUint16(this.#at + IPV4.id) + 1) & 0xffff;
    if (this.#protocol === TCP) this.#advance(flow, flow.size);
  }

  #append(flow: Flow): void {
    const payload = this.#length - this.#headerLength;
    flow.at[flow.count] = this.#at + this.#headerLength;
    flow.length[flow.count] = payload;
    flow.count++;
    flow.total += payload;
    flow.nextId = (flow.nextId + 1) & 0xffff;
    if (flow.protocol === TCP) this.#advance(flow, payload);
    if (flow.isOpen && payload < flow.size) this.#end(flow);
  }

  /** Nothing comes after PSH or FIN. */
  #advance(flow: Flow, payload: number): void {
    const { view } = this.#arena;
    const l4 = this.#at + this.#l4;
    flow.nextSequence = (view.getUint32(l4 + TCP_FIELD.sequence) + payload) >>> 0;
    flow.endFlags = view.getUint16(l4 + TCP_FIELD.flags) & END_FLAGS;
    if (flow.endFlags !== 0) this.#end(flow);
  }

  #end(flow: Flow): void {
    flow.isOpen = false;
    if (flow.count > 1) this.#finish(flow);
    else this.#noteOpenChecksum(flow);
    this.#emit(flow);
  }

  /** Turns the first part's headers into those of the whole. */
  #finish(flow: Flow): void {
    const { view, bytes } = this.#arena;
    const at = flow.at[0]!;
    const ipLength = flow.version === 4 ? IPV4_HEADER : IPV6_HEADER;
    const l4 = at + ipLength;
    const l4Length = flow.total - ipLength;
    if (flow.version === 4) {
      view.setUint16(at + IPV4.totalLength, flow.total);
      view.setUint16(at + IPV4.checksum, 0);
      view.setUint16(at + IPV4.checksum, ~this.#sum(at, IPV4_HEADER));
    } else {
      view.setUint16(at + IPV6.payloadLength, l4Length);
    }
    const pseudoSum = fold(this.#addressSum(at, flow.version) + flow.protocol + l4Length);
    const isTcp = flow.protocol === TCP;
    const field = isTcp ? TCP_FIELD.checksum : UDP_FIELD.checksum;
    view.setUint16(l4 + field, pseudoSum);
    if (isTcp) bytes[l4 + TCP_FIELD.flags + 1]! |= flow.endFlags;
    else view.setUint16(l4 + UDP_FIELD.length, l4Length);
    bytes[flow.vnet + VNET.flags] = NEEDS_CSUM;
    bytes[flow.vnet + VNET.gsoType] = isTcp ? (flow.version === 4 ? GSO.tcp4 : GSO.tcp6) : GSO.udp;
    view.setUint16(flow.vnet + VNET.headerLength, flow.headerLength, true);
    view.setUint16(flow.vnet + VNET.gsoSize, flow.size, true);
    view.setUint16(flow.vnet + VNET.start, ipLength, true);
    view.setUint16(flow.vnet + VNET.offset, field, true);
  }

  #emitAlone(device: number): void {
    const alone = this.#alone;
    alone.device = device;
    alone.at[0] = this.#at;
    alone.length[0] = this.#length;
    this.#noteOpenChecksum(alone);
    this.#emit(alone);
  }

  /** The kernel fills it in, or carries along that it is open. */
  #noteOpenChecksum({ vnet, at, length }: Joined): void {
    const { bytes, view } = this.#arena;
    bytes.fill(0, vnet, vnet + VNET_HEADER);
    const open = openChecksum(bytes, at[0]!, length[0]!, this.#sum);
    if (!open) return;
    bytes[vnet + VNET.flags] = NEEDS_CSUM;
    view.setUint16(vnet + VNET.start, open.start, true);
    view.setUint16(vnet + VNET.offset, open.offset, true);
  }
}

function newPacket(arena: Arena, pieces: number): Joined {
  const [at, length] = [new Int32Array(pieces), new Int32Array(pieces)];
  return { device: 0, count: 1, at, length, vnet: arena.room(VNET_HEADER) };
}

function newFlow(arena: Arena): Flow {
  return {
    ...newPacket(arena, MAX_PIECES),
    isOpen: false,
    version: 4,
    protocol: 0,
    headerLength: 0,
    total: 0,
    size: 0,
    nextSequence: 0,
    nextId: 0,
    endFlags: 0,
    isVerified: false,
  };
}
