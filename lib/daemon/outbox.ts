/**
 * Sealed messages on their way to the coordinator, each of which costs a signature and perhaps a
 * connection. What many peers are to hear waits, and the newest counts.
 */
import type { Clock } from "../edges.ts";
import type { DiscoKey } from "../keys.ts";
import { Turns } from "../turns.ts";

/** Besides the two calls that are held: a coordinator closes connections of a node that has many. */
const AT_ONCE = 3;
const PATIENCE_MS = 2_000;
/** Of one peer, that wait. */
const MAX_WAITING = 4;

export class Outbox {
  /** Never rejects. */
  readonly #post: (to: DiscoKey, sealed: Uint8Array) => Promise<void>;
  readonly #turns: Turns;
  readonly #waiting = new Map<DiscoKey, readonly Uint8Array[]>();

  constructor(clock: Clock, post: (to: DiscoKey, sealed: Uint8Array) => Promise<void>) {
    this.#turns = new Turns({ atOnce: AT_ONCE, patienceMs: PATIENCE_MS, clock });
    this.#post = post;
  }

  send(to: DiscoKey, sealed: Uint8Array): void {
    const waiting = this.#waiting.get(to) ?? [];
    this.#waiting.set(to, [...waiting, sealed].slice(-MAX_WAITING));
    void this.#turns.run(() => this.#postFirst());
  }

  /** One peer's turn after the other's. */
  async #postFirst(): Promise<void> {
    for (const [to, [first, ...others]] of this.#waiting) {
      this.#waiting.delete(to);
      if (others.length > 0) this.#waiting.set(to, others);
      return await this.#post(to, first!);
    }
  }
}
