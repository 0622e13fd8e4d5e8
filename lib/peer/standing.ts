/** What speaks for a peer being at an address. */
import { equalPaths, formatPath, type PathAddress } from "./path_address.ts";
import type { Peer } from "./state.ts";

/** An answer, a ping from there, or somebody's word alone. */
export type Standing = "proven" | "heard" | "told";

/**
 * Whether nothing but pings speaks for it: whoever has another's disco key can have forged their
 * source, and the peer itself can.
 */
export function isHearsay(peer: Peer, to: PathAddress, nowMs: number): boolean {
  if (standing(peer, to, nowMs) === "proven") return false;
  const candidate = peer.candidates.get(formatPath(to));
  return !candidate || (candidate.source === "reflexive" && candidate.heardMs !== undefined);
}

/** Whoever has an address may leave it to others. */
const KEPT_MS = 120_000;

export function standing(peer: Peer, to: PathAddress, nowMs: number): Standing {
  const { path, relay, candidates } = peer;
  if (relay.kind === "open" && equalPaths(relay.endpoint, to)) return "proven";
  const { pongMs = -Infinity, heardMs = -Infinity } = candidates.get(formatPath(to)) ?? {};
  const answeredMs = path && equalPaths(path.endpoint, to) ? path.pongMs : pongMs;
  if (nowMs - answeredMs < KEPT_MS) return "proven";
  return nowMs - heardMs < KEPT_MS ? "heard" : "told";
}
