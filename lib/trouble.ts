/** Something wrong that lasts: told when it begins, and again when it has lasted. Pure. */

export const STILL_AFTER_MS = [60_000, 600_000, 3_600_000] as const;

export class Trouble {
  /** Of the monotonic clock. */
  readonly sinceMs: number;
  #told = 0;

  constructor(sinceMs: number) {
    this.sinceMs = sinceMs;
  }

  /** Whether it has lasted for another of those times since the last call. */
  isStillNews(nowMs: number): boolean {
    const due = STILL_AFTER_MS.filter((ms) => nowMs - this.sinceMs >= ms).length;
    if (due <= this.#told) return false;
    this.#told = due;
    return true;
  }
}
