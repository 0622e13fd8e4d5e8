import type { Clock } from "../../lib/edges.ts";
import { settle } from "./settle.ts";

interface Timer {
  atMs: number;
  fire: () => void;
}

/** Turns of the event loop without a timer: some seconds. */
const MAX_IDLE = 2_000;

/** Time that passes only when everything waits for it; two runs are the same. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<Timer>();

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_800_000_000_000 + this.#nowMs;
  }

  /** Calls `fire` in `ms`. */
  after(ms: number, fire: () => void): Timer {
    const timer = { atMs: this.#nowMs + ms, fire };
    this.#timers.add(timer);
    return timer;
  }

  timer(ms: number, fire: () => void): Disposable {
    const timer = this.after(ms, fire);
    return { [Symbol.dispose]: () => void this.#timers.delete(timer) };
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const timer = this.after(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      const onAbort = () => {
        this.#timers.delete(timer);
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Lets time pass until `promise` is settled; throws when nothing is left that could settle it. */
  async until<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const onSettled = () => void (isSettled = true);
    promise.then(onSettled, onSettled);
    for (let idle = 0; idle < MAX_IDLE;) {
      await new Promise((resolve) => setTimeout(resolve));
      await settle();
      if (isSettled) return promise;
      if (this.#timers.size === 0) idle++;
      else {
        idle = 0;
        this.#next();
      }
    }
    throw new Error("nothing is left to wait for");
  }

  #next(): void {
    const [timer] = [...this.#timers].sort((a, b) => a.atMs - b.atMs);
    if (!timer) return;
    this.#timers.delete(timer);
    this.#nowMs = Math.max(this.#nowMs, timer.atMs);
    timer.fire();
  }
}
