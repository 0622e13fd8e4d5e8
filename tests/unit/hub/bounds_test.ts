/** What keeps a hub small under attack: replay window, nonces, rate limits. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { NonceStore } from "../../../lib/hub/protocol/gretun/nonce_store.ts";
import { ReplayWindow, WINDOW_SIZE } from "../../../lib/replay_window.ts";

/** The slow, obvious form: every counter that was taken, for ever. */
class SlowWindow {
  readonly #taken = new Set<number>();
  highest = -1;

  isFresh(counter: number): boolean {
    return !this.#taken.has(counter) && counter > this.highest - WINDOW_SIZE;
  }

  take(counter: number): void {
    this.#taken.add(counter);
    if (counter > this.highest) this.highest = counter;
  }
}

/** Linear congruential: the same numbers in each run. */
function* numbers(seed: number): Generator<number> {
  for (let x = seed;;) yield x = (x * 1103515245 + 12345) % 0x80000000;
}

for (const [name, spread] of [["near", 50], ["wide", 5000], ["far", 300_000]] as const) {
  Deno.test(`ReplayWindow does as the slow one does: counters ${name}`, () => {
    const [fast, slow] = [new ReplayWindow(), new SlowWindow()];
    const random = numbers(spread);
    let base = 0;
    for (let i = 0; i < 20_000; i++) {
      base += (random.next().value >> 8) % 3;
      const counter = Math.max(0, base + ((random.next().value >> 8) % spread) - (spread >> 1));
      strictEqual(fast.isFresh(counter), slow.isFresh(counter), `${counter} of ${slow.highest}`);
      if (!slow.isFresh(counter)) continue;
      fast.take(counter);
      slow.take(counter);
    }
    strictEqual(fast.highest, slow.highest);
  });
}

Deno.test("ReplayWindow: the largest counters, and what is none", () => {
  const window = new ReplayWindow();
  window.take(Number.MAX_SAFE_INTEGER);
  strictEqual(window.isFresh(Number.MAX_SAFE_INTEGER), false);
  strictEqual(window.isFresh(Number.MAX_SAFE_INTEGER - 1), true);
  strictEqual(window.isFresh(0), false);
  strictEqual(window.isFresh(2 ** 64), false);
});

Deno.test("NonceStore: each once, for as long as they are kept", () => {
  const store = new NonceStore({ keepMs: 1000, capacity: 10 });
  deepStrictEqual([store.take("a", 0), store.take("a", 999), store.take("b", 999)], [
    true,
    false,
    true,
  ]);
  strictEqual(store.take("a", 1000), true);
});

Deno.test("NonceStore: full of nonces that still count, it takes no more; they go in time", () => {
  const store = new NonceStore({ keepMs: 1000, capacity: 10 });
  for (let i = 0; i < 10; i++) ok(store.take(`n${i}`, i));
  strictEqual(store.take("more", 500), false);
  strictEqual(store.size, 10);
  strictEqual(store.take("more", 1000), true);
});

Deno.test("NonceStore: a longer time holds for those that are there", () => {
  const store = new NonceStore({ keepMs: 1000, capacity: 10 });
  ok(store.take("a", 0));
  store.keepMs = 5000;
  strictEqual(store.take("a", 4999), false);
  strictEqual(store.take("a", 5000), true);
});
