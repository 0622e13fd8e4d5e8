/**
 * Simulated time: what is due is done in its order, and between two of those everything that waits
 * only for JavaScript. Two runs with one seed are the same, to the last bit.
 */
import type { Clock } from "../../../lib/edges.ts";

interface Due {
  atMs: number;
  /** Of two at the same time the one that was asked for first comes first. */
  order: number;
  fire: (() => void) | undefined;
}

/** Runs all promise jobs that there are, now. The only way to do so from a running program. */
const runMicrotasks: () => void = (Deno as unknown as Record<symbol, {
  core: { runMicrotasks(): void };
}>)[(Deno as unknown as { internal: symbol }).internal]!.core.runMicrotasks;

/** 2026-01-01, and whatever a clock is set to. */
const EPOCH_MS = 1_767_225_600_000;

export class SimTime {
  nowMs = 0;
  #made = 0;
  /** A binary heap: the next one is first. */
  readonly #heap: Due[] = [];
  /** What happened so far, for tests that bound it. */
  events = 0;

  after(ms: number, fire: () => void): Disposable {
    const due: Due = { atMs: this.nowMs + Math.max(0, ms), order: this.#made++, fire };
    this.#push(due);
    return { [Symbol.dispose]: () => due.fire = undefined };
  }

  /** Lets so much time pass. */
  run(ms: number): Promise<void> {
    const endMs = this.nowMs + ms;
    return this.#inTurn(() => {
      this.#runUntil(() => false, endMs);
      this.nowMs = endMs;
    });
  }

  /** Lets time pass until it is so, at most so much; whether it is so. */
  async until(isSo: () => boolean, withinMs: number): Promise<boolean> {
    let result = false;
    await this.#inTurn(() => {
      this.#runUntil(() => result = isSo(), this.nowMs + withinMs);
      result = isSo();
    });
    return result;
  }

  /** Promise jobs can be run to their end only where none is running, as in a timer. */
  #inTurn(body: () => void): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      setTimeout(() => {
        try {
          body();
          resolve();
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  #runUntil(isOver: () => boolean, endMs: number): void {
    runMicrotasks();
    while (!isOver() && this.step(endMs)) runMicrotasks();
  }

  /** Does what is due next, or lets time pass until then and gives false when nothing is. */
  step(endMs: number): boolean {
    let next = this.#heap[0];
    while (next && !next.fire) {
      this.#pop();
      next = this.#heap[0];
    }
    if (!next || next.atMs > endMs) {
      this.nowMs = endMs;
      return false;
    }
    this.#pop();
    this.nowMs = next.atMs;
    this.events++;
    next.fire!();
    return true;
  }

  #push(due: Due): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(due);
    for (let up = (i - 1) >> 1; i > 0 && isSooner(due, heap[up]!); up = (i - 1) >> 1) {
      heap[i] = heap[up]!;
      i = up;
    }
    heap[i] = due;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let i = 0;
    for (let child = 1; child < heap.length; child = 2 * i + 1) {
      if (child + 1 < heap.length && isSooner(heap[child + 1]!, heap[child]!)) child++;
      if (!isSooner(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
  }
}

function isSooner(a: Due, b: Due): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** One machine's clock: its wall time may be off, and be set. */
export class SimClock implements Clock {
  readonly #time: SimTime;
  /** By how much the wall clock is ahead of the true time. */
  wallStepMs = 0;

  constructor(time: SimTime) {
    this.#time = time;
  }

  nowMs(): number {
    return this.#time.nowMs;
  }

  wallMs(): number {
    return Math.floor(EPOCH_MS + this.#time.nowMs + this.wallStepMs);
  }

  timer(ms: number, fire: () => void): Disposable {
    return this.#time.after(ms, fire);
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const timer = this.#time.after(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      const onAbort = () => {
        timer[Symbol.dispose]();
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }
}
