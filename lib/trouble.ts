/** Something wrong that lasts: told when it begins, and again when it has lasted. */
import type { Clock } from "./edges.ts";
import { sinceText } from "./log.ts";

const STILL_AFTER_MS = [60_000, 600_000, 3_600_000] as const;

export class Trouble {
  /** Of the monotonic clock. */
  readonly sinceMs: number;
  readonly #clock: Clock;
  #told: number | undefined;

  constructor(clock: Clock, sinceMs = clock.nowMs()) {
    this.#clock = clock;
    this.sinceMs = sinceMs;
  }

  /** As the log tells times. */
  get since(): string {
    return sinceText(this.#clock, this.sinceMs);
  }

  /**
   * What is to be told of it: with the first call that it is there, later that it "still" is, each
   * time that it has lasted for another of those times.
   */
  news(): "first" | "still" | undefined {
    const lastsMs = this.#clock.nowMs() - this.sinceMs;
    const due = STILL_AFTER_MS.filter((ms) => lastsMs >= ms).length;
    const before = this.#told;
    this.#told = due;
    if (before === undefined) return "first";
    return due > before ? "still" : undefined;
  }
}
