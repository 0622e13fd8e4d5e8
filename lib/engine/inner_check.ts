/** What inner packets of a link may say: as `guard/` of the data planes has it. */
import { ipv6TransportAt } from "../ipv6_headers.ts";
import type { Arena } from "./arena.ts";
import type { Drop, LinkSpec } from "./messages.ts";
import { ICMP, ICMPV6, IPV4, IPV6, UDP } from "./packet.ts";
import { NetworkCheck } from "./tables.ts";

/** ICMP types that tell a host of other routers. */
const REDIRECT = 5;
const ROUTER_ADVERTISEMENT = 134;
const REDIRECT_6 = 137;
const FRAGMENT_OFFSET = 0x1fff;

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
  refusesIn(arena: Arena, at: number, length: number, version: 4 | 6): Drop | undefined {
    if (isRouterMessage(arena, at, length, version)) return "router-message";
    const source = at + (version === 4 ? IPV4.source : IPV6.source);
    const isTheirs = this.#sources?.contains(arena, source, version) ?? true;
    if (!isTheirs || (this.#sources && isMulticast(arena.bytes, source, version))) {
      return "wrong-inner-address";
    }
    const destination = at + (version === 4 ? IPV4.destination : IPV6.destination);
    const isInReach = this.#destinations?.contains(arena, destination, version) ?? true;
    return isInReach ? undefined : "out-of-reach";
  }

  /** Why a packet does not go to the far end. */
  refusesOut(arena: Arena, at: number, version: 4 | 6): Drop | undefined {
    const destination = at + (version === 4 ? IPV4.destination : IPV6.destination);
    return this.#theirs?.contains(arena, destination, version) ?? true ? undefined : "not-for-peer";
  }
}

function isMulticast(bytes: Uint8Array, at: number, version: 4 | 6): boolean {
  return version === 4 ? (bytes[at]! & 0xf0) === 0xe0 : bytes[at] === 0xff;
}

function isRouterMessage(arena: Arena, at: number, length: number, version: 4 | 6): boolean {
  const offset = transportAt(arena, at, length, version, version === 4 ? ICMP : ICMPV6);
  if (offset < 0 || offset >= length) return false;
  const type = arena.bytes[at + offset];
  return version === 4 ? type === REDIRECT : type === ROUTER_ADVERTISEMENT || type === REDIRECT_6;
}

/** The offset of the transport header, of that protocol and no later fragment; else -1. */
function transportAt(
  { bytes, view }: Arena,
  at: number,
  length: number,
  version: 4 | 6,
  protocol: number,
): number {
  if (version === 6) return ipv6TransportAt(bytes, at, length, protocol);
  const isLater = (view.getUint16(at + IPV4.fragment) & FRAGMENT_OFFSET) !== 0;
  return bytes[at + IPV4.protocol] === protocol && !isLater ? (bytes[at]! & 0xf) * 4 : -1;
}

/** The source port of a UDP packet that is whole or a first fragment; else -1. */
export function udpSourcePort(arena: Arena, at: number, length: number, version: 4 | 6): number {
  const offset = transportAt(arena, at, length, version, UDP);
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
  const port = at + transportAt(arena, at, length, version, UDP) + 2;
  const { bytes } = arena;
  if (bytes[port] !== to[2] || bytes[port + 1] !== to[3]) return false;
  const [destination, given, size] = version === 4
    ? [at + IPV4.destination, 4, 4]
    : [at + IPV6.destination, 8, 16];
  for (let i = 0; i < size; i++) if (bytes[destination + i] !== to[given + i]) return false;
  return true;
}
