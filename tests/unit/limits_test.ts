/** Token buckets, one and for each source, and what one source is. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { oneSecondOf, SourceLimits, sourceNetwork, TokenBucket } from "../../lib/limits.ts";

Deno.test("TokenBucket: a burst, then so many a second", () => {
  const bucket = new TokenBucket({ perSecond: 10, burst: 3 });
  const taken = (nowMs: number) => bucket.take(nowMs);
  deepStrictEqual([0, 0, 0, 0].map(taken), [true, true, true, false]);
  deepStrictEqual([99, 100, 150, 200].map(taken), [false, true, false, true]);
  deepStrictEqual([60_000, 60_000, 60_000, 60_000].map(taken), [true, true, true, false]);
});

Deno.test("TokenBucket: several tokens at once, all or none", () => {
  const bucket = new TokenBucket({ perSecond: 1000, burst: 1500 });
  deepStrictEqual([bucket.take(0, 1000), bucket.take(0, 501), bucket.take(0, 500)], [
    true,
    false,
    true,
  ]);
  strictEqual(bucket.take(1e6, 1501), false);
});

Deno.test("TokenBucket: fractions do not cost the last token of a burst", () => {
  for (const perSecond of [3, 7, 50, 300, 2000]) {
    const bucket = new TokenBucket(oneSecondOf(perSecond));
    for (let i = 0; i < perSecond; i++) ok(bucket.take(1.8e12), `${i} of ${perSecond}`);
    strictEqual(bucket.take(1.8e12), false);
  }
});

Deno.test("SourceLimits.takeOrWait() tells when there is a token again", () => {
  const limits = new SourceLimits({ perSecond: 1, burst: 3 });
  const waits = (nowMs: number) => limits.takeOrWait("a", nowMs);
  deepStrictEqual([0, 0, 0, 0, 400, 1000, 1000].map(waits), [0, 0, 0, 1000, 600, 0, 1000]);
  deepStrictEqual([1e9, 1e9, 1e9, 1e9].map(waits), [0, 0, 0, 1000]);
});

Deno.test("SourceLimits: sources do not share; a full table refuses until buckets are full", () => {
  const limits = new SourceLimits({ ...oneSecondOf(2), maxSources: 3 });
  deepStrictEqual([0, 1, 2, 499].map((ms) => limits.take("a", ms)), [true, true, false, false]);
  deepStrictEqual(["b", "c", "d", "b"].map((s) => limits.take(s, 499)), [true, true, false, true]);
  deepStrictEqual(["d", "a"].map((source) => limits.take(source, 1600)), [true, true]);
});

Deno.test("SourceLimits: a flood of sources is looked through once a second, and bounded", () => {
  const limits = new SourceLimits({ ...oneSecondOf(1), maxSources: 100 });
  for (let i = 0; i < 100_000; i++) limits.take(`source ${i}`, i / 100);
  ok(limits.size <= 100);
  strictEqual(limits.take("a late one", 5_000), true);
});

Deno.test("SourceLimits that forget let new sources in, and stay bounded", () => {
  const limits = new SourceLimits({ perSecond: 1, burst: 2, maxSources: 100, whenFull: "forget" });
  for (let i = 0; i < 2; i++) ok(limits.take("attacker", 0));
  strictEqual(limits.take("attacker", 0), false);
  for (let i = 0; i < 100_000; i++) ok(limits.take(`source ${i}`, 1));
  strictEqual(limits.size, 100);
});

const SOURCES: [a: string, b: string, same: boolean][] = [
  ["192.0.2.1", "192.0.2.1", true],
  ["192.0.2.1", "192.0.2.2", false],
  ["2001:db8::1", "2001:db8::ffff:1", true],
  ["2001:db8:0:1::1", "2001:db8:0:2::1", false],
  ["fe80::1%2", "fe80::2%2", true],
  ["::ffff:192.0.2.1", "::ffff:192.0.2.2", false],
  ["::ffff:192.0.2.1", "192.0.2.1", true],
];
for (const [a, b, same] of SOURCES) {
  Deno.test(`${a} and ${b} are ${same ? "one source" : "two sources"}`, () => {
    strictEqual(sourceNetwork(a) === sourceNetwork(b), same);
  });
}
