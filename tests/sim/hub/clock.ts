/**
 * Time of a simulation: it passes when everything waits for it, the cryptography of the runtime too,
 * which takes turns of the event loop that no timer knows of.
 */
import type { Clock } from "../../../lib/edges.ts";

const SUBTLE = ["importKey", "sign", "verify", "deriveBits", "digest"] as const;
let pending = 0;
/** Beginnings and ends. */
let changes = 0;
for (const name of SUBTLE) {
  const real = crypto.subtle[name].bind(crypto.subtle) as (...args: unknown[]) => Promise<unknown>;
  const value = async (...args: unknown[]) => {
    pending++;
    changes++;
    try {
      return await real(...args);
    } finally {
      pending--;
      changes++;
    }
  };
  Object.defineProperty(crypto.subtle, name, { value });
}

const turns = new MessageChannel();
let nextTurn = () => {};
turns.port1.onmessage = () => nextTurn();

/** Resolves when nothing goes on that is not waiting for time: a turn went by without any of it. */
export async function settle(): Promise<void> {
  let before;
  do {
    before = changes;
    await new Promise<void>((resolve) => {
      nextTurn = resolve;
      turns.port2.postMessage(0);
    });
  } while (pending > 0 || changes !== before);
}

interface Timer {
  atMs: number;
  fire: () => void;
}

export class SimClock implements Clock {
  #nowMs = 0;
  #wallMs = 1_800_000_000_000;
  readonly #timers = new Set<Timer>();

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#wallMs + this.#nowMs;
  }

  timer(ms: number, fire: () => void): Disposable {
    const timer = { atMs: this.#nowMs + Math.max(0, ms), fire };
    this.#timers.add(timer);
    return { [Symbol.dispose]: () => void this.#timers.delete(timer) };
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = () => {
        timer[Symbol.dispose]();
        reject(signal?.reason);
      };
      const timer = this.timer(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  async runFor(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    await this.#run(() => false, endMs);
  }

  /** Throws when it does not come true in that time. */
  async runUntil(what: string, isTrue: () => boolean, withinMs = 60_000): Promise<void> {
    if (await this.#run(isTrue, this.#nowMs + withinMs)) return;
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

  async #run(isTrue: () => boolean, endMs: number): Promise<boolean> {
    while (true) {
      await settle();
      if (isTrue()) return true;
      const next = this.#next();
      if (!next || next.atMs > endMs) {
        this.#nowMs = endMs;
        return false;
      }
      this.#timers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.fire();
    }
  }

  #next(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) if (!first || timer.atMs < first.atMs) first = timer;
    return first;
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
