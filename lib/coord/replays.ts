/** Which signatures were seen, so that none is good twice. Pure: time is an argument. */
import type { NodeKey } from "../keys.ts";
import { type Claim, WINDOW_SECONDS } from "./auth.ts";
import { Refusal } from "./refusal.ts";

/** Signatures remembered: more in one window than this are refused, not forgotten. */
export const MAX_SEEN = 500_000;
/** So that one node cannot use up all of {@link MAX_SEEN}. */
export const MAX_SEEN_PER_NODE = 16_384;

export class Replays {
  /** Signature to when it may be forgotten. */
  readonly #seen = new Map<NodeKey, Map<string, number>>();
  #count = 0;

  /** Throws {@link Refusal} when this signature was accepted before. */
  acceptOnce(claim: Pick<Claim, "nodeKey" | "signature" | "timestampSeconds">): void {
    const seen = this.#seen.get(claim.nodeKey) ?? new Map<string, number>();
    if (seen.has(claim.signature)) {
      throw new Refusal(
        401,
        "this request was sent before: sign each request anew",
        undefined,
        "replay",
      );
    }
    if (seen.size >= MAX_SEEN_PER_NODE) {
      throw new Refusal(429, "too many requests of this node", WINDOW_SECONDS * 1000);
    }
    if (this.#count >= MAX_SEEN) {
      throw new Refusal(503, "too many requests of all nodes", WINDOW_SECONDS * 1000);
    }
    seen.set(claim.signature, (claim.timestampSeconds + WINDOW_SECONDS + 1) * 1000);
    this.#seen.set(claim.nodeKey, seen);
    this.#count++;
  }

  /** Forgets signatures whose timestamp is refused by now. */
  sweep(wallMs: number): void {
    for (const [key, seen] of this.#seen) {
      for (const [signature, endsMs] of seen) {
        if (endsMs >= wallMs) continue;
        seen.delete(signature);
        this.#count--;
      }
      if (seen.size === 0) this.#seen.delete(key);
    }
  }
}
