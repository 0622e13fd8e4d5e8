/** How much may be sent in a time. Pure: time is an argument. */

/** A quarter of a second's worth may come at once, and no less than some full-size datagrams. */
const BURST_SECONDS = 0.25;
const MIN_BURST_BYTES = 64 * 1024;

export function burstBytes(bytesPerSecond: number): number {
  return Math.max(Math.ceil(bytesPerSecond * BURST_SECONDS), MIN_BURST_BYTES);
}

export class TokenBucket {
  readonly #bytesPerSecond: number;
  readonly #burst: number;
  #tokens: number;
  #filledMs: number;

  /** 0: no limit. */
  constructor(bytesPerSecond: number, nowMs: number) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#burst = burstBytes(bytesPerSecond);
    this.#tokens = this.#burst;
    this.#filledMs = nowMs;
  }

  /** Whether so many bytes may go now; they are counted if so. */
  take(bytes: number, nowMs: number): boolean {
    if (this.#bytesPerSecond === 0) return true;
    const earned = (nowMs - this.#filledMs) * this.#bytesPerSecond / 1000;
    this.#tokens = Math.min(this.#burst, this.#tokens + earned);
    this.#filledMs = nowMs;
    if (bytes > this.#tokens) return false;
    this.#tokens -= bytes;
    return true;
  }
}
