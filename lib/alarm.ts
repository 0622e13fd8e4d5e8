/** One wake-up time of a loop: setting another replaces it. */
import type { Clock } from "./edges.ts";

export class Alarm implements Disposable {
  readonly #clock: Clock;
  readonly #fire: () => void;
  #timer: Disposable | undefined;
  #atMs = Infinity;
  #isClosed = false;

  /** `fire` runs once for each time that was set and came. */
  constructor(clock: Clock, fire: () => void) {
    this.#clock = clock;
    this.#fire = fire;
  }

  /** In monotonic ms; Infinity: not at all. */
  set(atMs: number): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    this.#atMs = atMs;
    if (this.#isClosed || atMs === Infinity) return;
    const waitMs = Math.max(0, Math.ceil(atMs - this.#clock.nowMs()));
    const timer = this.#clock.timer(waitMs, () => {
      if (this.#timer !== timer) return; // replaced when it was due
      this.#timer = undefined;
      this.#atMs = Infinity;
      this.#fire();
    });
    this.#timer = timer;
  }

  /** Unless it comes earlier already. */
  setEarlier(atMs: number): void {
    if (atMs < this.#atMs) this.set(atMs);
  }

  /** In so many ms, unless it comes earlier already. */
  within(ms: number): void {
    this.setEarlier(this.#clock.nowMs() + ms);
  }

  /** For good. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.set(Infinity);
  }
}
