/** What is known of a peer, what can happen to it, and what can be done about it. */
import { type Endpoint, familyOf, type Ip, isPrivate } from "../addr.ts";
import { equalPaths, type PathAddress } from "./path_address.ts";

/**
 * Where packets to an address go, if not plainly out of this host: into a tunnel of others, or into a
 * link of our own, where they would go round for ever.
 */
export type DetourKind = "tunnel" | "own";
export type Detours = ReadonlyMap<Ip, DetourKind>;

export const PEER_STATES = ["unknown", "have_endpoints", "punching", "direct", "relay"] as const;
export type PeerState = typeof PEER_STATES[number];

/**
 * Where a candidate came from: coordinator, call-me-maybe, the source of an authenticated ping, or
 * the relay that was allocated for this peer.
 */
export type CandidateSource = "listed" | "invited" | "reflexive" | "relay";

export interface Candidate {
  readonly endpoint: PathAddress;
  readonly source: CandidateSource;
  /** Start of the burst under way or last done; the pings that are left of it. */
  readonly burstMs: number;
  readonly dueMs: readonly number[];
  /** Bursts before it, in this search, that were not answered. */
  readonly vain: number;
  /** Last ping to there. */
  readonly pingMs?: number;
  /** Last answered ping. */
  readonly pongMs?: number;
  readonly rttMs?: number;
  /** Last ping from there. */
  readonly heardMs?: number;
}

export interface Verification {
  readonly sinceMs: number;
  readonly sent: number;
  /** It took so long that something may be wrong. */
  readonly isDoubted: boolean;
}

/** When the last pong came to a path of an earlier run that has had none yet. */
export const UNANSWERED = -Infinity;

export interface Path {
  readonly endpoint: PathAddress;
  readonly chosenMs: number;
  readonly pongMs: number;
  readonly rttMs: number;
  /** The least of late, for a busy process makes it longer: each pong at most doubles it. */
  readonly leastRttMs: number;
  /** Verification under way: when it began and how many pings it sent. */
  readonly verify?: Verification;
  /** Nothing answers on it any more; the link still points there until a better one is found. */
  readonly dead: boolean;
}

/** What the data plane was told and what it said. */
export type Link =
  | { readonly kind: "none" }
  | { readonly kind: "setting"; readonly endpoint: PathAddress }
  | { readonly kind: "set"; readonly endpoint: PathAddress }
  | { readonly kind: "failed"; readonly retryMs: number };

/** An allocation at a relay: its address stands for the peer. */
export type Relay =
  | { readonly kind: "none"; readonly askMs: number; readonly failures: number }
  | { readonly kind: "asked"; readonly failures: number }
  | { readonly kind: "open"; readonly endpoint: Endpoint; readonly sinceMs: number };

export interface Peer {
  /** Whether this node picks the path of the pair. */
  readonly controlling: boolean;
  readonly state: PeerState;
  /** Whether the coordinator still lists the peer. */
  readonly listed: boolean;
  readonly candidates: ReadonlyMap<string, Candidate>;
  readonly path?: Path;
  /** The path that the controlling side nominated, when that is not us. */
  readonly nominated?: PathAddress;
  readonly link: Link;
  readonly relay: Relay;
  /** Of the candidates' addresses. */
  readonly detours: Detours;
  /** When all candidates are tried again, and how many such rounds stayed without answer. */
  readonly nextBurstMs: number;
  readonly rounds: number;
  readonly invitedMs: number;
  /** When anything last came from the peer itself. */
  readonly heardMs: number;
  /** How many relays in a row were of no use. */
  readonly relaysUnused: number;
  /** When the peer was last invited because the path was in doubt. */
  readonly doubtedMs: number;
  /** When the search under way began, for the hole-punch histogram. */
  readonly punchingSinceMs: number;
  /** When data last came through the link. */
  readonly receivedMs: number;
  /** At how many looks in a row it had. */
  readonly receivedLooks: number;
  /** Between the last two of them. */
  readonly receivedGapMs: number;
  /** The `receivedMs` after which a silence was last looked into. */
  readonly silentSinceMs: number;
  /** When the path last became a direct one. */
  readonly directSinceMs: number;
}

export interface PingEvent {
  kind: "ping";
  nowMs: number;
  from: PathAddress;
  txId: Uint8Array;
  nominating: boolean;
  /** It tells what only an answer to a ping of ours makes sure of. */
  isNews?: boolean;
}

export type PeerEvent =
  | { kind: "tick"; nowMs: number }
  /** The coordinator lists the peer with these endpoints. */
  | { kind: "listed"; nowMs: number; endpoints: readonly Endpoint[] }
  /** The coordinator lists the peer no more. */
  | { kind: "unlisted"; nowMs: number }
  /** A sealed call-me-maybe came through the coordinator. */
  | { kind: "call-me-maybe"; nowMs: number; endpoints: readonly Endpoint[] }
  | PingEvent
  /** The peer was found to be there, by an answer that comes as the next event. */
  | { kind: "found"; nowMs: number; from: PathAddress }
  /** A pong that answers a ping of ours to that very address. */
  | { kind: "pong"; nowMs: number; from: PathAddress; rttMs: number }
  /** What relays depend on works again. */
  | { kind: "relay-ready"; nowMs: number }
  /** Our own addresses changed: mappings may be new, the peer must hear of it. */
  | { kind: "moved"; nowMs: number }
  /** Routes of this host are others, or there are new addresses. */
  | { kind: "routed"; nowMs: number; detours: Detours }
  /** What went through the link since the last such event. */
  | { kind: "traffic"; nowMs: number; sent: boolean; received: boolean }
  /** A relay was allocated, and forwards between this endpoint and the peer. */
  | { kind: "relay-open"; nowMs: number; endpoint: Endpoint }
  /** There is none, or the one there was is lost. */
  | { kind: "relay-closed"; nowMs: number }
  /** This was taken for the peer's address, and is a relay's. */
  | { kind: "not-direct"; nowMs: number; endpoint: PathAddress }
  | { kind: "link-set"; nowMs: number; endpoint: PathAddress }
  | { kind: "link-failed"; nowMs: number; endpoint: PathAddress }
  /** Somebody removed the link. */
  | { kind: "link-gone"; nowMs: number };

export type PeerEffect =
  | { kind: "send-ping"; to: PathAddress; nominating: boolean }
  /** A ping that gets past our own NAT and not to the peer's. */
  | { kind: "send-opener"; to: PathAddress }
  | { kind: "send-pong"; to: PathAddress; txId: Uint8Array }
  | { kind: "send-call-me-maybe" }
  /** Make the link, or change it in place; comes back as link-set or link-failed. */
  | { kind: "set-link"; endpoint: PathAddress }
  /** Allocate a relay; comes back as relay-open or relay-closed. */
  | { kind: "open-relay" }
  /** Comes back as relay-closed. */
  | { kind: "close-relay" }
  | { kind: "state-changed"; from: PeerState; to: PeerState; punchMs?: number }
  /** The path stays silent for longer than it should, and is not dead yet. */
  | { kind: "path-doubted"; endpoint: PathAddress }
  | { kind: "path-lost"; endpoint: PathAddress }
  /** So many rounds have found no direct path. */
  | { kind: "no-path-yet"; rounds: number }
  /** Unlisted and silent: drop the peer and its link. */
  | { kind: "forget" };

export const PUBLIC_IPV4 = 2;
export const TUNNELLED = 1;
export const RELAYED = 0;

/** How good a path is; a higher one replaces a lower one once confirmed. */
export function rank({ relay, detours }: Pick<Peer, "relay" | "detours">, endpoint: PathAddress) {
  if (relay.kind === "open" && equalPaths(relay.endpoint, endpoint)) return RELAYED;
  if (detours.has(endpoint.ip)) return TUNNELLED;
  if (isPrivate(endpoint.ip)) return 4;
  return familyOf(endpoint.ip) === 6 ? 3 : PUBLIC_IPV4;
}

/** Whether a better path, or any, is looked for. */
export function isSearching(peer: Peer): boolean {
  const { state, path } = peer;
  return state === "punching" || state === "unknown" || state === "relay" ||
    (state === "direct" && path !== undefined && rank(peer, path.endpoint) === TUNNELLED);
}
