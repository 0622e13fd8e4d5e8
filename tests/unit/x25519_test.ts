import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { x25519 } from "@noble/curves/ed25519.js";
import { prepareSecrets, sharedSecret } from "../../lib/x25519.ts";

const own = new Uint8Array(32).fill(1);
const publicOf = (seed: number) =>
  x25519.getPublicKey(new Uint8Array(32).fill(seed)) as Uint8Array<ArrayBuffer>;

Deno.test("sharedSecret() is that of X25519, and is computed once", () => {
  deepStrictEqual(sharedSecret(own, publicOf(2)), x25519.getSharedSecret(own, publicOf(2)));
  strictEqual(sharedSecret(own, publicOf(2)), sharedSecret(own, publicOf(2)));
  const other = new Uint8Array(32).fill(3);
  deepStrictEqual(sharedSecret(other, publicOf(2)), x25519.getSharedSecret(other, publicOf(2)));
});

Deno.test("sharedSecret() throws for a key of low order, each time", () => {
  for (let i = 0; i < 2; i++) throws(() => sharedSecret(own, new Uint8Array(32)));
});

Deno.test("prepareSecrets() gives the same, and leaves keys that are none to sharedSecret()", async () => {
  const ready = new Uint8Array(32).fill(4);
  await prepareSecrets(ready, [publicOf(5), new Uint8Array(32), new Uint8Array(3), publicOf(6)]);
  for (const seed of [5, 6]) {
    deepStrictEqual(
      sharedSecret(ready, publicOf(seed)),
      sharedSecret(ready.slice(), publicOf(seed)),
    );
  }
  for (const none of [new Uint8Array(32), new Uint8Array(3)]) {
    throws(() => sharedSecret(ready, none));
  }
});

Deno.test("of secrets that are prepared no more are kept than of others", async () => {
  const ready = new Uint8Array(32).fill(7);
  await prepareSecrets(ready, [publicOf(8)]);
  const first = sharedSecret(ready, publicOf(8));
  const others = Array.from({ length: 4096 }, (_, i) => {
    const key = new Uint8Array(32).fill(9);
    new DataView(key.buffer).setUint16(0, i);
    return key;
  });
  await prepareSecrets(ready, others);
  const again = sharedSecret(ready, publicOf(8));
  deepStrictEqual(again, first);
  ok(again !== first, "it was forgotten");
});
