/** How many answers a server sends: the source of a request may be forged. */
import { oneSecondOf, SourceLimits } from "../limits.ts";

/**
 * Answers that are longer than their request. A bare request of 20 bytes, as most programs send it,
 * has 32 as its shortest answer (44 over IPv6): a client that asks again each 500 ms gets its
 * answers, and the address of a victim gets 440 bytes in a second at most.
 */
const LONGER_PER_SECOND = 10;

/** The answers of a STUN server to each source address. */
export class AnswerLimit {
  readonly #all: SourceLimits;
  readonly #longer = new SourceLimits(oneSecondOf(LONGER_PER_SECOND));

  constructor(perSecond: number) {
    this.#all = new SourceLimits(oneSecondOf(perSecond));
  }

  /** Whether a request may be looked at. */
  allow(source: string, nowMs: number): boolean {
    return this.#all.take(source, nowMs);
  }

  /** Whether this answer to it may be sent. */
  allowAnswer(source: string, request: Uint8Array, answer: Uint8Array, nowMs: number): boolean {
    return answer.length <= request.length || this.#longer.take(source, nowMs);
  }
}
