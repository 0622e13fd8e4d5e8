/** Calls that wait until there is something to tell: long polls. */
import type { Clock } from "../edges.ts";

export const HOLD_MS = 25_000;
/** A node polls peers and signals; of more of a kind than this the oldest is answered at once. */
export const MAX_HELD_PER_NODE = 2;

/** All calls that wait, by what they wait for. */
export class HeldCalls {
  readonly #clock: Clock;
  /** What wakes those that wait for a subject. */
  readonly #waiting = new Map<string, Set<() => void>>();
  /** What wakes those of one caller for one subject, the oldest first. */
  readonly #byCaller = new Map<string, Set<() => void>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return [...this.#byCaller.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** Until the subject is woken, for a while, or until the caller hangs up. */
  async hold(
    subject: string,
    caller: string,
    hungUp: AbortSignal,
    holdMs = HOLD_MS,
  ): Promise<void> {
    const { promise: over, resolve: wake } = Promise.withResolvers<void>();
    const of = `${caller} ${subject}`;
    const [oldest] = this.#byCaller.get(of) ?? [];
    if (oldest && this.#byCaller.get(of)!.size >= MAX_HELD_PER_NODE) {
      remove(this.#byCaller, of, oldest);
      oldest();
    }
    add(this.#byCaller, of, wake);
    add(this.#waiting, subject, wake);
    hungUp.addEventListener("abort", () => wake(), { once: true });
    if (hungUp.aborted) wake();
    using _timer = this.#clock.timer(holdMs, wake);
    await over;
    remove(this.#waiting, subject, wake);
    remove(this.#byCaller, of, wake);
  }

  wake(subject: string): void {
    for (const wake of this.#waiting.get(subject) ?? []) wake();
  }

  /** Answers the caller's calls for these subjects; whether there were any. */
  wakeCaller(caller: string, subjects: readonly string[]): boolean {
    const held = subjects.flatMap((subject) => [
      ...this.#byCaller.get(`${caller} ${subject}`) ?? [],
    ]);
    for (const wake of held) wake();
    return held.length > 0;
  }
}

function add<T>(sets: Map<string, Set<T>>, key: string, value: T): void {
  sets.set(key, (sets.get(key) ?? new Set()).add(value));
}

function remove<T>(sets: Map<string, Set<T>>, key: string, value: T): void {
  const set = sets.get(key);
  set?.delete(value);
  if (set?.size === 0) sets.delete(key);
}
