/**
 * What can be done about NATs that give another outer port to each remote, as pure functions: who of
 * a pair guesses whose ports, which ones, and when. `port_guesser.ts` carries it out.
 *
 *     own \ peer   one        sequential   random
 *     one          both       guess        guess
 *     sequential   guessed    both         -
 *     random       guessed    -            -
 *
 * The guessed side opens ports of its own and sends from each to the one outer port of the other
 * side, so that its NAT lets that one in; the other side sends to the ports that the NAT may have
 * chosen. Ports in order are few. At random, 256 open ones among 64512 are hit by one of 1024 pings
 * with a probability of 98.4 % (a birthday attack).
 *
 * Where both NATs take ports in order, each side sends from one port to those that the other NAT
 * takes next, in order: the i-th mapping of one side is made for the i-th of the other. Where each has
 * one port for all, nothing is guessed, but both sides try another port: a Linux router's own daemon
 * has none towards a remote to which a host behind it has sent from the same one before.
 */
import type { NodeNat } from "../coord/api.ts";
import type { Random } from "../edges.ts";
import type { MappingBehaviour } from "../stun/mod.ts";

/** The outer ports of a node's NAT: one for all remotes, or one after the other, or at random. */
export type OuterPorts = "one" | "sequential" | "random";

export type GuessRole = "guess" | "guessed" | "both";

/** NATs that skip more than this between two mappings are as good as random ones. */
const MAX_DELTA = 16;
/** How many ports ahead of the last one seen are tried, and how many at first. */
export const WINDOW = 20;
export const FIRST_WINDOW = 12;
/** Where both sides go in step each of these is hit, or none: all of them at once are a crowd. */
export const IN_STEP = 8;
/** Ports that the guessed side opens. */
export const OPEN_PORTS = { one: 1, sequential: 4, random: 256 } as const;
/** Of the birthday attack. */
export const PROBES = 1024;
const PROBES_PER_SECOND = 240;
const FIRST_PORT = 1024;
const LAST_PORT = 65_535;
/** Of ports in order: when the first that is hit answers, most of the others have not been tried. */
const PROBE_GAP_MS = 10;

/** An attempt without success is over after this; others wait for it. */
export const ATTEMPT_MS = { one: 1_500, sequential: 5_500, random: 5_500 } as const;
/** How long an answer is waited for. */
export const ANSWER_MS = 3_000;
/** A search that had no success for so long is helped by guessing. */
export const GUESS_AFTER_MS = 2_000;
/**
 * Pauses after attempts that failed: a thousand pings fill the tables of small routers. Of attempts at
 * ports in order a minute has room for two, at first in quick succession.
 */
const PAUSES_MS = {
  one: [3_000, 60_000, 300_000, 600_000],
  sequential: [3_000, 50_000, 25_000, 25_000, 60_000, 300_000],
  random: [60_000, 120_000, 300_000, 600_000],
} as const;
/** After asking in vain: the peer is busy, or does not do it. */
const UNANSWERED_PAUSES_MS = [5_000, 15_000, 60_000, 300_000] as const;
/** A peer is not served again before this. */
export const SERVE_GAP_MS = { one: 2_000, sequential: 2_000, random: 20_000 } as const;

/** Undefined where it is not known. */
export function isHardMapping(behaviour: MappingBehaviour): boolean | undefined {
  switch (behaviour) {
    case "unknown":
      return undefined;
    case "endpoint-independent":
    case "endpoint-independent or address-dependent":
      return false;
    default:
      return true;
  }
}

/**
 * From one mapping to the next, by the ports of mappings that were made one after the other;
 * undefined for ports at random. Others behind the NAT may have had some in between.
 */
export function portDelta(ports: readonly number[]): number | undefined {
  const deltas = ports.slice(1).map((port, i) => port - ports[i]!);
  if (deltas.length < 2) return undefined;
  const sizes = deltas.map(Math.abs);
  const isInOrder = deltas.every((delta) => delta > 0) || deltas.every((delta) => delta < 0);
  if (!isInOrder || Math.max(...sizes) > MAX_DELTA) return undefined;
  return Math.min(...sizes) * Math.sign(deltas[0]!);
}

export function outerPorts({ mapping, portDelta }: NodeNat): OuterPorts {
  if (mapping === "easy") return "one";
  return portDelta === undefined ? "random" : "sequential";
}

/** What this node does about that peer; undefined: nothing, or nothing that would help. */
export function guessRole(own: OuterPorts, peer: OuterPorts): GuessRole | undefined {
  if (own === peer) return own === "random" ? undefined : "both";
  if (own === "one") return "guess";
  return peer === "one" ? "guessed" : undefined;
}

/** Of the NAT whose ports are guessed; "one": none's. */
export function guessKind(own: OuterPorts, peer: OuterPorts): OuterPorts {
  if (own === peer) return own;
  return own === "random" || peer === "random" ? "random" : "sequential";
}

/** Whether this node asks: the guessed side opens its ports before it answers. */
export function isAsker(role: GuessRole, controlling: boolean): boolean {
  return role === "guess" || (role === "both" && controlling);
}

export interface PortSequence {
  /** Of the last mapping. */
  port: number;
  /** To the next one. */
  delta: number;
}

/** The ports that come next, `skip` of them left out. */
export function nextPorts({ port, delta }: PortSequence, skip = 0): number[] {
  return Array.from({ length: WINDOW }, (_, i) => port + delta * (i + 1 + skip))
    .filter((next) => next > 0 && next <= LAST_PORT);
}

/**
 * In which order a side sends to the next ports of the other, where both take ports in order. In
 * step they meet if nobody else behind either NAT has had a port in between. In the next round one
 * side goes the other way: then the sides meet once, whatever was in between, if it was an odd
 * number of ports; two rounds later, if it was an even one.
 */
export function walk(peer: PortSequence, { round, isAsker }: { round: number; isAsker: boolean }) {
  if (round % 2 === 0) return nextPorts(peer).slice(0, IN_STEP);
  if (isAsker) return nextPorts(peer);
  return nextPorts(peer, round % 4 === 1 ? 0 : 1).reverse();
}

/** Different ones, at random, from all that a NAT may take. */
export function randomPorts(count: number, random: Random): number[] {
  const size = LAST_PORT - FIRST_PORT + 1;
  const numbers = new Uint32Array(random(4 * count).buffer);
  // The first steps of a shuffle; what was never touched is where it was.
  const moved = new Map<number, number>();
  return Array.from({ length: count }, (_, i) => {
    const j = i + numbers[i]! % (size - i);
    const chosen = moved.get(j) ?? j;
    moved.set(j, moved.get(i) ?? i);
    return FIRST_PORT + chosen;
  });
}

/** How many pings of a schedule over `ports` are due `elapsedMs` after it began. */
export function pingsDue(kind: OuterPorts, ports: number, elapsedMs: number): number {
  if (kind === "random") return Math.min(ports, Math.ceil(elapsedMs * PROBES_PER_SECOND / 1000));
  return Math.min(ports, 1 + Math.floor(elapsedMs / PROBE_GAP_MS));
}

export function pauseMs(
  outcome: "unanswered" | "failed",
  kind: OuterPorts,
  times: number,
): number {
  const pauses = outcome === "unanswered" ? UNANSWERED_PAUSES_MS : PAUSES_MS[kind];
  return pauses[Math.min(times, pauses.length) - 1]!;
}
