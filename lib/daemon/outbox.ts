/**
 * Sealed messages on their way to the coordinator: a few calls at a time, each of which costs a
 * signature and perhaps a connection. What many peers are to hear waits, and the newest counts.
 */
import type { DiscoKey } from "../keys.ts";

const AT_ONCE = 16;
/** Of one peer, that wait. */
const MAX_WAITING = 4;

export class Outbox {
  /** Never rejects. */
  readonly #post: (to: DiscoKey, sealed: Uint8Array) => Promise<void>;
  readonly #waiting = new Map<DiscoKey, readonly Uint8Array[]>();
  #underWay = 0;

  constructor(post: (to: DiscoKey, sealed: Uint8Array) => Promise<void>) {
    this.#post = post;
  }

  send(to: DiscoKey, sealed: Uint8Array): void {
    const waiting = this.#waiting.get(to) ?? [];
    this.#waiting.set(to, [...waiting, sealed].slice(-MAX_WAITING));
    this.#next();
  }

  /** One peer's turn after the other's. */
  #next(): void {
    for (const [to, [first, ...others]] of this.#waiting) {
      if (this.#underWay >= AT_ONCE) return;
      this.#waiting.delete(to);
      if (others.length > 0) this.#waiting.set(to, others);
      this.#underWay++;
      void this.#post(to, first!).finally(() => {
        this.#underWay--;
        this.#next();
      });
    }
  }
}
