/** What inner packets may say, the slow way: what the engine and `guard/` decide is held against it. */
import { type Cidr, cidrContains, type Endpoint, ipFromBytes, isMulticast } from "../lib/addr.ts";
import {
  icmpAt,
  isIcmpError,
  isRouterMessage,
  quotedDestinationAt,
  transportAt,
} from "../lib/icmp_headers.ts";
import type { InnerLimits, PlaneRefusal } from "../lib/dataplane/mod.ts";

const UDP = 17;

/** Of one link. Packets are of IP, with a whole header. */
export class InnerGuard {
  readonly #sources: readonly Cidr[] | undefined;
  readonly #destinations: readonly Cidr[] | undefined;

  constructor({ sources, destinations }: InnerLimits) {
    this.#sources = sources;
    this.#destinations = destinations;
  }

  /** Why a packet of the far end is not taken. */
  refusesIn(packet: Uint8Array): PlaneRefusal | undefined {
    const version = versionOf(packet);
    const icmp = icmpAt(packet, 0, packet.length, version);
    if (icmp >= 0 && isRouterMessage(packet[icmp]!, version)) return "router-message";
    const source = sourceOf(packet);
    const isTheirs = isWithin(source, this.#sources);
    if (!isTheirs || (this.#sources && isMulticast(ipFromBytes(source)))) {
      return "wrong-inner-address";
    }
    if (icmp >= 0 && !this.#isAboutTheirs(packet, icmp)) return "wrong-inner-address";
    const isInReach = isWithin(destinationOf(packet), this.#destinations);
    return isInReach ? undefined : "out-of-reach";
  }

  /** An error is about a packet that went to the far end. */
  #isAboutTheirs(packet: Uint8Array, icmp: number): boolean {
    const version = versionOf(packet);
    if (!this.#sources || !isIcmpError(packet[icmp]!, version)) return true;
    const quoted = quotedDestinationAt(icmp, packet.length, version);
    return quoted >= 0 &&
      isWithin(packet.subarray(quoted, quoted + (version === 4 ? 4 : 16)), this.#sources);
  }

  /** Why a packet does not go to the far end. */
  refusesOut(packet: Uint8Array): PlaneRefusal | undefined {
    return isWithin(destinationOf(packet), this.#sources) ? undefined : "not-for-peer";
  }
}

function isWithin(address: Uint8Array, cidrs: readonly Cidr[] | undefined): boolean {
  return cidrs?.some((cidr) => cidrContains(cidr, ipFromBytes(address))) ?? true;
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
