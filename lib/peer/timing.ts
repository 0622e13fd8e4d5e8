/** When something is due with a peer: the numbers of the hole-punch policy, and what follows of them. */
import { type Endpoint, familyOf } from "../addr.ts";
import { equalPaths } from "./path_address.ts";
import { type Candidate, isSearching, type Path, type Peer, PUBLIC_IPV4, rank } from "./state.ts";

/**
 * Pings to one candidate, in ms since its burst began; fast at first because a lost one hurts. Each burst
 * in vain makes the next one shorter: what it may still find is what has changed in between, and a
 * search has to keep to two packets a second in any minute.
 */
export const BURSTS_MS: readonly (readonly number[])[] = [
  [0, 50, 150, 350, 750, 1750, 2750, 3750, 4750],
  [0, 50, 150, 350, 1350, 3350],
  [0, 150, 1150],
  [0, 750],
];
/** Where there are many candidates the first bursts are shorter, too: together they have so many pings. */
const FIRST_BURSTS_PINGS = 20;
/**
 * Of more than so many each gets one ping from the third burst on, or from the second; by then the peer
 * has been invited to send, too.
 */
const FEW_CANDIDATES = 5;
const SOME_CANDIDATES = 7;
const ONE_PING: readonly number[] = [500];
/**
 * A burst to a public address begins with an opener, which makes our own NAT's mapping and dies on the
 * way, and waits so long for a sign that the peer has done the same. A ping that reaches the peer's
 * router before the peer has sent to us is taken by some routers as their own, and moves the
 * mapping that the peer gets towards us to another port.
 */
export const OPENER_HOLD_MS = 250;
/**
 * A peer without endpoints posts them as a rule in a moment. Only then is it invited all the same:
 * it takes an invitation as a sign that we have sent to it.
 */
export const FIRST_INVITE_MS = 1_000;
/** Pauses between bursts while nothing answers. */
const BURST_PAUSE_MS = [5_000, 10_000, 20_000, 40_000, 60_000] as const;
/**
 * A peer that was not heard for so long, in as many rounds, is hardly there: it is pinged once in each
 * further one, at one of its endpoints after the other. When it comes, it pings us.
 */
export const ABSENT_MS = 120_000;
export const ABSENT_ROUNDS = 5;
/** In each of so many of those rounds it is invited, too: it may think the same of us. */
export const ABSENT_INVITE_ROUNDS = 5;
/**
 * The same while a relay carries the data: the second one is longer than a burst and the 30 s after
 * which Linux forgets what was not answered. Where routers on both sides have taken pings for their
 * own, nothing else helps.
 */
export const RELAYED_PAUSE_MS = [5_000, 36_000, 60_000] as const;
/** Pings that verify a path that should work. */
export const VERIFY_MS = [
  0,
  100,
  150,
  250,
  350,
  450,
  550,
  650,
  800,
  1000,
  1300,
  1700,
  2500,
  3500,
] as const;
/**
 * A path is dead when its verification stays unanswered so long; while data arrives on it, longer, and
 * until that has stopped for a while.
 */
export const PATH_DEAD_MS = 2_000;
export const BUSY_PATH_DEAD_MS = 4_500;
const BUSY_FOR_MS = 1_000;
/**
 * A verification unanswered for three round trips, within these bounds, lets another confirmed
 * path take over.
 */
export const PATH_SUSPECT_MIN_MS = 100;
export const PATH_SUSPECT_MAX_MS = 700;
/**
 * A worse path, and a relay, take over from a suspect one later: a new mapping is found sooner, and
 * to go there and back costs more than to wait for a busy peer.
 */
export const PATH_SUSPECT_WORSE_MS = 1_000;
/** Between two times that the peer is asked whether its mapping is the old one. */
export const DOUBT_GAP_MS = 1_000;
/**
 * Data sent for so long without any back, and without a pong, is reason to verify the path. So is
 * data that came steadily and has stopped for so long: who only answers has nothing to send then.
 */
export const SILENCE_MS = 200;
export const KEEPALIVE_MS = 25_000;
/** Looks in a row at which data had arrived, to be called steady. */
const STEADY_LOOKS = 3;
/** Looks are in a row even where a busy machine is late with one. */
export const LOOK_GAP_MS = 3 * SILENCE_MS;
/** How long an answered ping counts as proof that a candidate works. */
export const CONFIRMED_FOR_MS = 10_000;
/** A path that came from pings alone is forgotten when silent for so long. */
export const REFLEXIVE_KEPT_MS = 120_000;
export const MAX_REFLEXIVE = 16;
/** An incoming ping or invitation starts another burst unless a ping left this shortly before. */
export const TRIGGER_GAP_MS = 40;
export const INVITE_GAP_MS = 1_000;
/**
 * For so long a new link over public IPv4 waits for an answer over IPv6: the kernel's links are of
 * one family, and to remake one cuts off what has begun to use it.
 */
export const IPV6_HEAD_START_MS = 50;
/**
 * For the same reason a link waits before it is remade for a worse path of the other family: a peer
 * that comes back answers on all paths, and on the better one not always first.
 */
export const REMADE_LINK_HOLD_MS = 500;
/** A link that could not be set is tried again after this. */
export const LINK_RETRY_MS = 5_000;
/** A first search without answer for this long asks for a relay; one for a path that died, at once. */
export const RELAY_AFTER_MS = 1_000;
/** Pauses between tries to get one. */
export const RELAY_RETRY_MS = [2_000, 5_000, 5_000, 5_000, 5_000, 15_000] as const;
/** A relay through which nothing comes is given back, and asked for again ever later. */
export const RELAY_UNUSED_MS = 60_000;
export const RELAY_UNUSED_PAUSES_MS = [60_000, 300_000, 1_200_000] as const;
/** A relay that is not needed is kept for as long, in case the direct path does not last. */
export const RELAY_KEPT_MS = 60_000;

/** When this peer wants its next tick, in monotonic ms; Infinity when nothing is due. */
export function nextTickMs(peer: Peer): number {
  let due = isSearching(peer) ? peer.nextBurstMs : Infinity;
  for (const candidate of peer.candidates.values()) due = Math.min(due, nextPingMs(candidate));
  if (peer.path && !peer.path.dead) due = Math.min(due, nextVerifyMs(peer, peer.path));
  if (peer.path && !peer.path.dead) due = Math.min(due, nextLinkMs(peer, peer.path));
  due = Math.min(due, nextSilenceMs(peer));
  return Math.min(due, nextRelayMs(peer));
}

/** Until the next round of bursts, when one begins. */
export function roundPauseMs({ state, rounds }: Peer): number {
  const pauses = state === "relay" ? RELAYED_PAUSE_MS : BURST_PAUSE_MS;
  return pauses[Math.min(rounds, pauses.length - 1)]!;
}

/**
 * When a relay is to be asked for or given back. The peer has to ask, too: one that has let a relay be
 * of no use and has not shown itself lately, not even by an invitation, will not.
 */
export function nextRelayMs(
  { relay, relaysUnused, state, directSinceMs, heardMs }: Peer,
): number {
  const isWanted = state === "punching" || state === "unknown";
  if (relay.kind === "none" && isWanted) {
    const isThere = relaysUnused === 0 || relay.askMs - heardMs <= ABSENT_MS;
    return isThere ? relay.askMs : Infinity;
  }
  if (relay.kind !== "open") return Infinity;
  if (state === "direct") return directSinceMs + RELAY_KEPT_MS;
  return isWanted ? Math.max(relay.sinceMs, heardMs) + RELAY_UNUSED_MS : Infinity;
}

/** Whether the peer is hardly there. */
export function isAbsent({ rounds, heardMs }: Peer, nowMs: number): boolean {
  return rounds >= ABSENT_ROUNDS && nowMs - heardMs >= ABSENT_MS;
}

/** The burst after so many in vain, to one of so many candidates. */
export function burst(vain: number, candidates: number): readonly number[] {
  if (vain > 0 && candidates > (vain > 1 ? FEW_CANDIDATES : SOME_CANDIDATES)) return ONE_PING;
  const first = BURSTS_MS.findIndex(({ length }) => candidates * length <= FIRST_BURSTS_PINGS);
  return BURSTS_MS.at(first < 0 ? -1 : Math.min(first + vain, BURSTS_MS.length - 1))!;
}

export function nextPingMs({ dueMs }: Candidate): number {
  return dueMs[0] ?? Infinity;
}

export function nextVerifyMs(peer: Peer, { pongMs, verify }: Path): number {
  if (!verify) return pongMs + KEEPALIVE_MS;
  const deadMs = deadAfterMs(peer, verify.sinceMs);
  return verify.sinceMs + Math.min(VERIFY_MS[verify.sent] ?? deadMs, deadMs);
}

/** When the link is to be pointed to the path. */
export function nextLinkMs(peer: Peer, path: Path): number {
  const { link } = peer;
  switch (link.kind) {
    case "setting":
      return Infinity;
    case "set":
      if (equalPaths(link.endpoint, path.endpoint)) return Infinity;
      return isRemadeForWorse(peer, link, path) ? path.chosenMs + REMADE_LINK_HOLD_MS : -Infinity;
    case "failed":
      return link.retryMs;
    case "none":
      return waitsForIpv6(peer, path) ? path.chosenMs + IPV6_HEAD_START_MS : -Infinity;
  }
}

function isRemadeForWorse(peer: Peer, from: { endpoint: Endpoint }, to: Path): boolean {
  return familyOf(from.endpoint.ip) !== familyOf(to.endpoint.ip) &&
    rank(peer, to.endpoint) < rank(peer, from.endpoint);
}

/** Whether IPv6 is being tried and has not answered yet, where it would be better. */
function waitsForIpv6(peer: Peer, path: Path): boolean {
  if (rank(peer, path.endpoint) !== PUBLIC_IPV4) return false;
  return [...peer.candidates.values()].some((candidate) =>
    familyOf(candidate.endpoint.ip) === 6 && candidate.pongMs === undefined &&
    nextPingMs(candidate) < Infinity
  );
}

/** When data that came steadily has stopped. */
export function nextSilenceMs(peer: Peer): number {
  const { receivedMs, receivedLooks, receivedGapMs, silentSinceMs } = peer;
  if (receivedLooks < STEADY_LOOKS || silentSinceMs === receivedMs) return Infinity;
  return receivedMs + Math.max(SILENCE_MS, 1.5 * receivedGapMs);
}

/** A line that is full of data answers late: see whether that data comes. */
export function deadAfterMs({ receivedMs }: Peer, verifyingSinceMs: number): number {
  const busyMs = receivedMs + BUSY_FOR_MS - verifyingSinceMs;
  return Math.max(PATH_DEAD_MS, Math.min(busyMs, BUSY_PATH_DEAD_MS));
}
