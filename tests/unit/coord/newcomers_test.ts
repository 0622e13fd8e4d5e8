/** How many new nodes one source may bring. */
import { ok, strictEqual } from "node:assert/strict";
import { MAX_SOURCES, NewcomerLimit } from "../../../lib/coord/newcomers.ts";

const limit = () => new NewcomerLimit({ burst: 3, refillMs: 1000 });

Deno.test("take() gives the burst, then one token for each refill", () => {
  const newcomers = limit();
  for (let i = 0; i < 3; i++) strictEqual(newcomers.take("192.0.2.1", 0), 0);
  strictEqual(newcomers.take("192.0.2.1", 0), 1000);
  strictEqual(newcomers.take("192.0.2.1", 400), 600);
  strictEqual(newcomers.take("192.0.2.1", 1000), 0);
  strictEqual(newcomers.take("192.0.2.1", 1000), 1000);
});

Deno.test("take() gives no more than the burst after a long time", () => {
  const newcomers = limit();
  newcomers.take("192.0.2.1", 0);
  for (let i = 0; i < 3; i++) strictEqual(newcomers.take("192.0.2.1", 1e9), 0);
  ok(newcomers.take("192.0.2.1", 1e9) > 0);
});

const SOURCES: [a: string, b: string, same: boolean][] = [
  ["192.0.2.1", "192.0.2.1", true],
  ["192.0.2.1", "192.0.2.2", false],
  ["2001:db8::1", "2001:db8::ffff:1", true],
  ["2001:db8:0:1::1", "2001:db8:0:2::1", false],
  ["fe80::1%2", "fe80::2%2", true],
  ["::ffff:192.0.2.1", "::ffff:192.0.2.2", false],
];
for (const [a, b, same] of SOURCES) {
  Deno.test(`${a} and ${b} are ${same ? "one source" : "two sources"}`, () => {
    const newcomers = limit();
    for (let i = 0; i < 3; i++) newcomers.take(a, 0);
    strictEqual(newcomers.take(b, 0) > 0, same);
  });
}

Deno.test("take() remembers a bounded number of sources, and forgets full buckets", () => {
  const newcomers = limit();
  for (let i = 0; i < MAX_SOURCES; i++) {
    strictEqual(newcomers.take(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, 0), 0);
  }
  ok(newcomers.take("192.0.2.1", 0) > 0);
  strictEqual(newcomers.take("10.0.0.1", 0), 0);
  strictEqual(newcomers.take("192.0.2.1", 2000), 0);
});
