/** How many answers a server sends: the source of a request may be forged. */
import type { Ip } from "../addr.ts";
import { oneSecondOf, SourceLimits } from "../limits.ts";

/**
 * Answers that are longer than their request, to sources that have shown to be there. A bare request of
 * 20 bytes, as many programs send it, has 32 as its shortest answer (44 over IPv6).
 */
const LONGER_PER_SECOND = 10;

/** The answers of a STUN server to each source address. */
export class AnswerLimit {
  readonly #all: SourceLimits;
  readonly #longer = new SourceLimits(oneSecondOf(LONGER_PER_SECOND));
  readonly #isProven: (source: Ip) => boolean;

  /** `isProven`: whether somebody receives at that address; nobody does unless told. */
  constructor(perSecond: number, isProven: (source: Ip) => boolean = () => false) {
    this.#all = new SourceLimits(oneSecondOf(perSecond));
    this.#isProven = isProven;
  }

  /** Whether a request may be looked at. */
  allow(source: Ip, nowMs: number): boolean {
    return this.#all.take(source, nowMs);
  }

  /** Whether this answer to it may be sent. */
  allowAnswer(source: Ip, request: Uint8Array, answer: Uint8Array, nowMs: number): boolean {
    if (answer.length <= request.length) return true;
    return this.#isProven(source) && this.#longer.take(source, nowMs);
  }
}
