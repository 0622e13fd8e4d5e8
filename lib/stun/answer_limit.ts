/** How many answers a server sends: the source of a request may be forged. */

const MAX_SOURCES = 65_536;
const WINDOW_MS = 1000;
/**
 * Answers that are longer than their request. A bare request of 20 bytes, as most programs send it,
 * has 32 as its shortest answer (44 over IPv6): a client that asks again each 500 ms gets its
 * answers, and the address of a victim gets 440 bytes in a second at most.
 */
const LONGER_PER_SECOND = 10;

/**
 * Counts answers for each source address in windows of one second. The table is bounded: within a
 * window, sources beyond its size get no answer, which also bounds what forged sources can cause.
 */
export class SourceLimit {
  readonly #perSecond: number;
  readonly #maxSources: number;
  readonly #counts = new Map<string, number>();
  #windowStartMs = -Infinity;

  constructor(perSecond: number, maxSources: number = MAX_SOURCES) {
    this.#perSecond = perSecond;
    this.#maxSources = maxSources;
  }

  /** Whether this source may have one more answer now. */
  allow(source: string, nowMs: number): boolean {
    if (nowMs - this.#windowStartMs >= WINDOW_MS) {
      this.#counts.clear();
      this.#windowStartMs = nowMs;
    }
    const count = this.#counts.get(source);
    if (count === undefined && this.#counts.size >= this.#maxSources) return false;
    this.#counts.set(source, (count ?? 0) + 1);
    return (count ?? 0) < this.#perSecond;
  }
}

/** The answers of a STUN server to each source address. */
export class AnswerLimit {
  readonly #all: SourceLimit;
  readonly #longer = new SourceLimit(LONGER_PER_SECOND);

  constructor(perSecond: number) {
    this.#all = new SourceLimit(perSecond);
  }

  /** Whether a request may be looked at. */
  allow(source: string, nowMs: number): boolean {
    return this.#all.allow(source, nowMs);
  }

  /** Whether this answer to it may be sent. */
  allowAnswer(source: string, request: Uint8Array, answer: Uint8Array, nowMs: number): boolean {
    return answer.length <= request.length || this.#longer.allow(source, nowMs);
  }
}
