/** Keys of the data. */
import { notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { greKey } from "../../lib/gre_key.ts";
import { discoKeyFromBytes } from "../../lib/keys.ts";

const disco = (n: number) => discoKeyFromBytes(new Uint8Array(32).fill(n));
const session = (n: number) => new Uint8Array(16).fill(n);
const secret = new Uint8Array(32).fill(7);

Deno.test("greKey() is one number per direction, the same on both ends", async () => {
  const [a, b] = [{ key: disco(1) }, { key: disco(2) }];
  const there = await greKey(secret, a, b);
  strictEqual(await greKey(secret, a, b), there);
  notStrictEqual(await greKey(secret, b, a), there);
  ok(Number.isInteger(there) && there > 0 && there < 2 ** 32);
});

Deno.test("greKey() without sessions is what it was when there were none", async () => {
  strictEqual(await greKey(secret, { key: disco(1) }, { key: disco(2) }), 3_526_035_962);
});

Deno.test("greKey() is another one as soon as either end begins a new session", async () => {
  const of = (a: number, b: number) =>
    greKey(secret, { key: disco(1), session: session(a) }, { key: disco(2), session: session(b) });
  const keys = await Promise.all([of(1, 2), of(3, 2), of(1, 3), of(2, 1)]);
  strictEqual(new Set(keys).size, keys.length);
  strictEqual(await of(1, 2), keys[0]);
});
