/** What inner packets may say, where this process moves them: as `rules.ts` has it in the kernel. */
import { type Cidr, cidrContains, type Endpoint, ipFromBytes, isMulticast } from "../../addr.ts";
import {
  icmpAt,
  isIcmpError,
  isRouterMessage,
  quotedDestinationAt,
  transportAt,
} from "../../icmp_headers.ts";
import type { InnerLimits, PlaneRefusal } from "../plane.ts";

const IPV4_HEADER_LENGTH = 20;
const IPV6_HEADER_LENGTH = 40;
const UDP = 17;

export function isIpPacket(packet: Uint8Array): boolean {
  const version = (packet[0] ?? 0) >> 4;
  return version === 4 && packet.length >= IPV4_HEADER_LENGTH ||
    version === 6 && packet.length >= IPV6_HEADER_LENGTH;
}

/** Addresses within some networks; remembers the last good one, as packets come in runs. */
class Networks {
  readonly #cidrs: readonly Cidr[];
  #last = new Uint8Array();

  constructor(cidrs: readonly Cidr[]) {
    this.#cidrs = cidrs;
  }

  contain(address: Uint8Array): boolean {
    if (this.#isLast(address)) return true;
    const ip = ipFromBytes(address);
    if (!this.#cidrs.some((cidr) => cidrContains(cidr, ip))) return false;
    this.#last = address.slice();
    return true;
  }

  #isLast(address: Uint8Array): boolean {
    const last = this.#last;
    if (last.length !== address.length) return false;
    for (let i = 0; i < last.length; i++) if (last[i] !== address[i]) return false;
    return true;
  }
}

/** Of one link. Packets are of IP, with a whole header. */
export class InnerGuard {
  readonly #sources: Networks | undefined;
  /** Apart, as the far end sends and receives in turn. */
  readonly #theirs: Networks | undefined;
  readonly #destinations: Networks | undefined;

  constructor({ sources, destinations }: InnerLimits) {
    this.#sources = sources && new Networks(sources);
    this.#theirs = sources && new Networks(sources);
    this.#destinations = destinations && new Networks(destinations);
  }

  /** Why a packet of the far end is not taken. */
  refusesIn(packet: Uint8Array): PlaneRefusal | undefined {
    const version = versionOf(packet);
    const icmp = icmpAt(packet, 0, packet.length, version);
    if (icmp >= 0 && isRouterMessage(packet[icmp]!, version)) return "router-message";
    const source = sourceOf(packet);
    const isTheirs = this.#sources?.contain(source) ?? true;
    if (!isTheirs || (this.#sources && isMulticast(ipFromBytes(source)))) {
      return "wrong-inner-address";
    }
    if (icmp >= 0 && !this.#isAboutTheirs(packet, icmp)) return "wrong-inner-address";
    const isInReach = this.#destinations?.contain(destinationOf(packet)) ?? true;
    return isInReach ? undefined : "out-of-reach";
  }

  /** An error is about a packet that went to the far end. */
  #isAboutTheirs(packet: Uint8Array, icmp: number): boolean {
    const version = versionOf(packet);
    if (!this.#theirs || !isIcmpError(packet[icmp]!, version)) return true;
    const quoted = quotedDestinationAt(icmp, packet.length, version);
    return quoted >= 0 &&
      this.#theirs.contain(packet.subarray(quoted, quoted + (version === 4 ? 4 : 16)));
  }

  /** Why a packet does not go to the far end. */
  refusesOut(packet: Uint8Array): PlaneRefusal | undefined {
    return this.#theirs?.contain(destinationOf(packet)) ?? true ? undefined : "not-for-peer";
  }
}

function versionOf(packet: Uint8Array): 4 | 6 {
  return packet[0]! >> 4 === 4 ? 4 : 6;
}

function sourceOf(packet: Uint8Array): Uint8Array {
  return versionOf(packet) === 4 ? packet.subarray(12, 16) : packet.subarray(8, 24);
}

function destinationOf(packet: Uint8Array): Uint8Array {
  return versionOf(packet) === 4 ? packet.subarray(16, 20) : packet.subarray(24, 40);
}

/** Where a UDP packet goes that comes from one of these ports: it could be one that carries others. */
export function udpDestination(
  packet: Uint8Array,
  isFrom: (port: number) => boolean,
): Endpoint | undefined {
  const offset = transportAt(packet, 0, packet.length, versionOf(packet), UDP);
  if (offset < 0 || packet.length < offset + 4) return undefined;
  const portAt = (at: number) => packet[at]! << 8 | packet[at + 1]!;
  if (!isFrom(portAt(offset))) return undefined;
  return { ip: ipFromBytes(destinationOf(packet)), port: portAt(offset + 2) };
}
