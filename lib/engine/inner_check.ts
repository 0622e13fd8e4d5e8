/** What inner packets of a link may say: as `guard/` of the data planes has it. */
import type { Cidr } from "../addr.ts";
import {
  icmpAt,
  isIcmpError,
  isRouterMessage,
  quotedDestinationAt,
  transportAt,
} from "../icmp_headers.ts";
import { Arena } from "./arena.ts";
import type { Drop, LinkSpec } from "./messages.ts";
import { IPV4, IPV6, UDP, versionOf } from "./packet.ts";
import { NetworkCheck, networkOf } from "./tables.ts";

export type InnerRefusal = Extract<
  Drop,
  "router-message" | "wrong-inner-address" | "out-of-reach" | "not-for-peer"
>;

export class InnerCheck {
  readonly #sources: NetworkCheck | undefined;
  /** Apart, as the far end sends and receives in turn. */
  readonly #theirs: NetworkCheck | undefined;
  readonly #destinations: NetworkCheck | undefined;

  constructor({ sources, destinations }: Pick<LinkSpec, "sources" | "destinations">) {
    this.#sources = sources && new NetworkCheck(sources);
    this.#theirs = sources && new NetworkCheck(sources);
    this.#destinations = destinations && new NetworkCheck(destinations);
  }

  /** Why a packet of the far end is not taken. */
  refusesIn(arena: Arena, at: number, length: number, version: 4 | 6): InnerRefusal | undefined {
    const icmp = icmpAt(arena.bytes, at, length, version);
    const type = icmp < 0 ? undefined : arena.bytes[at + icmp]!;
    if (type !== undefined && isRouterMessage(type, version)) return "router-message";
    const source = at + (version === 4 ? IPV4.source : IPV6.source);
    const isTheirs = this.#sources?.contains(arena, source, version) ?? true;
    if (!isTheirs || (this.#sources && isMulticast(arena.bytes, source, version))) {
      return "wrong-inner-address";
    }
    if (type !== undefined && this.#theirs && isIcmpError(type, version)) {
      const quoted = quotedDestinationAt(icmp, length, version);
      const isAboutTheirs = quoted >= 0 && this.#theirs.contains(arena, at + quoted, version);
      if (!isAboutTheirs) return "wrong-inner-address";
    }
    const destination = at + (version === 4 ? IPV4.destination : IPV6.destination);
    const isInReach = this.#destinations?.contains(arena, destination, version) ?? true;
    return isInReach ? undefined : "out-of-reach";
  }

  /** Why a packet does not go to the far end. */
  refusesOut(arena: Arena, at: number, version: 4 | 6): InnerRefusal | undefined {
    const destination = at + (version === 4 ? IPV4.destination : IPV6.destination);
    return this.#theirs?.contains(arena, destination, version) ?? true ? undefined : "not-for-peer";
  }
}

/** The same for a packet of the far end that threads knew no link for. */
export function refusesPacket(
  { sources, destinations }: { sources?: readonly Cidr[]; destinations?: readonly Cidr[] },
  packet: Uint8Array,
): InnerRefusal | "not-ip" | undefined {
  const version = versionOf(packet, 0, packet.length);
  if (version === 0) return "not-ip";
  const check = new InnerCheck({
    ...(sources && { sources: sources.map(networkOf) }),
    ...(destinations && { destinations: destinations.map(networkOf) }),
  });
  return check.refusesIn(new Arena(packet.slice().buffer), 0, packet.length, version);
}

function isMulticast(bytes: Uint8Array, at: number, version: 4 | 6): boolean {
  return version === 4 ? (bytes[at]! & 0xf0) === 0xe0 : bytes[at] === 0xff;
}

/** The source port of a UDP packet that is whole or a first fragment; else -1. */
export function udpSourcePort(arena: Arena, at: number, length: number, version: 4 | 6): number {
  const offset = transportAt(arena.bytes, at, length, version, UDP);
  return offset < 0 || offset + 4 > length ? -1 : arena.view.getUint16(at + offset);
}

/** Whether a packet that has a UDP source port goes to that `sockaddr`. */
export function goesTo(
  arena: Arena,
  at: number,
  length: number,
  version: 4 | 6,
  to: Uint8Array,
): boolean {
  if (to.length !== (version === 4 ? 16 : 28)) return false;
  const { bytes } = arena;
  const port = at + transportAt(bytes, at, length, version, UDP) + 2;
  if (bytes[port] !== to[2] || bytes[port + 1] !== to[3]) return false;
  const [destination, given, size] = version === 4
    ? [at + IPV4.destination, 4, 4]
    : [at + IPV6.destination, 8, 16];
  for (let i = 0; i < size; i++) if (bytes[destination + i] !== to[given + i]) return false;
  return true;
}
