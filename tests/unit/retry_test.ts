/** Waits between tries. */
import { deepStrictEqual, ok } from "node:assert/strict";
import { backoffMs, jitter } from "../../lib/retry.ts";

Deno.test("backoffMs() doubles up to the longest wait, however long it goes on", () => {
  const waits = [0, 1, 2, 3, 4, 2000].map((n) => backoffMs({ minMs: 500, maxMs: 3000 }, n));
  deepStrictEqual(waits, [500, 1000, 2000, 3000, 3000, 3000]);
});

Deno.test("jitter() is between three and five quarters, and uses all of that", () => {
  const of = (...bytes: number[]) => jitter(() => Uint8Array.from(bytes));
  deepStrictEqual([of(0, 0), of(255, 255)], [0.75, 1.25]);
  ok(Math.abs(of(128, 0) - 1) < 1e-4);
});
