/** Time of a simulation: it passes when everything waits for it. */
import type { Clock } from "../../../lib/edges.ts";
import { settle } from "../../fakes/settle.ts";
import { SimClock, SimTime } from "../world/time.ts";

/** The world's clock, which goes on only when cryptography has answered, too. */
export class HubClock extends SimClock {
  readonly time: SimTime;

  constructor(time = new SimTime()) {
    super(time);
    this.time = time;
  }

  async runFor(ms: number): Promise<void> {
    await this.#run(() => false, ms);
  }

  /** Throws when it does not come true in that time. */
  async runUntil(what: string, isTrue: () => boolean, withinMs = 60_000): Promise<void> {
    if (await this.#run(isTrue, withinMs)) return;
    throw new Error(`waited ${withinMs} ms for ${what}`);
  }

  /** What the promise gives; time passes meanwhile. */
  async run<T>(promise: Promise<T>, withinMs = 60_000): Promise<T> {
    let isSettled = false;
    const settled = () => void (isSettled = true);
    promise.then(settled, settled);
    await this.runUntil("a promise", () => isSettled, withinMs);
    return await promise;
  }

  async #run(isTrue: () => boolean, ms: number): Promise<boolean> {
    const endMs = this.nowMs() + ms;
    do {
      await settle();
      if (isTrue()) return true;
    } while (this.time.step(endMs));
    return false;
  }
}

/** The clock of one program: nothing of it goes on once the program was killed. */
export class ProcessClock implements Clock {
  isKilled = false;
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  wallMs(): number {
    return this.#clock.wallMs();
  }

  timer(ms: number, fire: () => void): Disposable {
    return this.#clock.timer(ms, () => {
      if (!this.isKilled) fire();
    });
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    await this.#clock.sleep(ms, signal);
    if (this.isKilled) await new Promise(() => {});
  }
}
