/** What the answers of several servers tell about the NAT between them and us. */
import { type Endpoint, equalEndpoints, familyOf } from "../addr.ts";
import type { StunAnswer } from "./exchange.ts";

/** The words of RFC 4787; two of them together where answers do not tell the one from the other. */
type Behaviour =
  | "endpoint-independent"
  | "endpoint-independent or address-dependent"
  | "address-dependent"
  | "address-dependent or address-and-port-dependent"
  | "address-and-port-dependent"
  | "unknown";

/**
 * Section 4.1: only a NAT with endpoint-independent mapping shows to a peer the address that a STUN
 * server has seen.
 */
export type MappingBehaviour = Behaviour;

/**
 * Section 5: who may send to an address of ours that a NAT, or a firewall without one, has opened.
 */
export type FilteringBehaviour = Behaviour;

interface Sighting {
  server: Endpoint;
  mapped: Endpoint;
}

/**
 * Compares what servers at different places saw, all asked from one socket. Where there are IPv4
 * answers only they count, because IPv6 is rarely translated.
 */
export function mappingBehaviour(answers: readonly StunAnswer[]): MappingBehaviour {
  const sightings = answers.map(({ server, mapped }) => ({ server: server.endpoint, mapped }));
  const ipv4 = sightings.filter(({ mapped }) => familyOf(mapped.ip) === 4);
  const pairs = allPairs(ipv4.length > 0 ? ipv4 : sightings);
  const otherPort = verdicts(pairs, (a, b) => a.ip === b.ip && a.port !== b.port);
  const otherIp = verdicts(pairs, (a, b) => a.ip !== b.ip);
  if (otherPort.has("differs")) return "address-and-port-dependent";
  if (otherIp.has("differs")) {
    return otherPort.has("same")
      ? "address-dependent"
      : "address-dependent or address-and-port-dependent";
  }
  if (otherIp.has("same")) return "endpoint-independent";
  return otherPort.has("same") ? "endpoint-independent or address-dependent" : "unknown";
}

/** How the mappings of those pairs compare whose servers stand so to each other. */
function verdicts(
  pairs: readonly [Sighting, Sighting][],
  stand: (a: Endpoint, b: Endpoint) => boolean,
): Set<"same" | "differs"> {
  return new Set(
    pairs.filter(([a, b]) => stand(a.server, b.server))
      .map(([a, b]) => equalEndpoints(a.mapped, b.mapped) ? "same" : "differs"),
  );
}

function allPairs<T>(items: readonly T[]): [T, T][] {
  return items.flatMap((a, i) => items.slice(i + 1).map((b): [T, T] => [a, b]));
}

/** Whether a datagram came through from where nothing had been sent to; absent: not tried. */
export interface FilteringSighting {
  fromOtherIp?: boolean;
  /** From another port of an address that had been sent to. */
  fromOtherPort?: boolean;
}

/**
 * A datagram that came proves that such pass; one that did not come may have been lost, and counts
 * only where none came.
 */
export function filteringBehaviour(sightings: readonly FilteringSighting[]): FilteringBehaviour {
  const passes = (seen: (boolean | undefined)[]) =>
    seen.includes(true) ? true : seen.includes(false) ? false : undefined;
  const otherIp = passes(sightings.map(({ fromOtherIp }) => fromOtherIp));
  const otherPort = passes(sightings.map(({ fromOtherPort }) => fromOtherPort));
  if (otherIp) return "endpoint-independent";
  if (otherPort === false) return "address-and-port-dependent";
  if (otherIp === undefined) {
    return otherPort ? "endpoint-independent or address-dependent" : "unknown";
  }
  return otherPort ? "address-dependent" : "address-dependent or address-and-port-dependent";
}
