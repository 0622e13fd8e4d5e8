/** WebCrypto's curves against the library's, and what they must refuse. */
import { deepStrictEqual, rejects, strictEqual, throws } from "node:assert/strict";
import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import * as curves from "../../../lib/hub/protocol/gretun/curves.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

Deno.test("curves: keys and signatures are the library's", async () => {
  for (let i = 0; i < 20; i++) {
    const [seed, message] = [random(32), random(i * 7)];
    const publicKey = curves.publicKeyOf(seed);
    const signature = await curves.sign(message, seed);
    deepStrictEqual(signature, ed25519.sign(message, seed));
    deepStrictEqual(await curves.exchangePublic(seed), x25519.getPublicKey(seed));
    strictEqual(await curves.verify(signature, message, publicKey), true);
    signature[i]! ^= 1;
    strictEqual(await curves.verify(signature, message, publicKey), false);
  }
});

Deno.test("curves: both ends share the same secrets", async () => {
  const [a, b] = [random(32), random(32)];
  deepStrictEqual(
    await curves.exchange(a, await curves.exchangePublic(b)),
    await curves.exchange(b, await curves.exchangePublic(a)),
  );
  deepStrictEqual(
    await curves.identitySecret(a, curves.publicKeyOf(b)),
    await curves.identitySecret(b, curves.publicKeyOf(a)),
  );
});

Deno.test("curves: malformed signatures and keys are false, values of low order throw", async () => {
  const seed = random(32);
  const good = await curves.sign(seed, seed);
  const publicKey = curves.publicKeyOf(seed);
  for (const length of [0, 63, 65]) {
    strictEqual(await curves.verify(new Uint8Array(length), seed, publicKey), false);
  }
  for (const length of [0, 31, 33]) {
    strictEqual(await curves.verify(good, seed, new Uint8Array(length)), false);
  }
  strictEqual(await curves.verify(withGroupOrderAdded(good), seed, publicKey), false);
  for (const low of [new Uint8Array(32), Uint8Array.of(1, ...new Uint8Array(31))]) {
    await rejects(curves.exchange(seed, low));
  }
});

Deno.test("checkPublicKey() throws for what is no point", () => {
  curves.checkPublicKey(curves.publicKeyOf(random(32)));
  for (const length of [0, 31, 33]) throws(() => curves.checkPublicKey(new Uint8Array(length)));
  const noPoint = Uint8Array.of(2, ...new Uint8Array(31));
  throws(() => curves.checkPublicKey(noPoint));
});

/** S + L: the same point, and another signature of the same message. */
function withGroupOrderAdded(signature: Uint8Array): Uint8Array {
  const order = ed25519.Point.Fn.ORDER;
  let s = order;
  for (let i = 31; i >= 0; i--) s += BigInt(signature[32 + i]!) << BigInt(8 * i);
  const changed = signature.slice();
  for (let i = 0; i < 32; i++) changed[32 + i] = Number(s >> BigInt(8 * i) & 0xffn);
  return changed;
}
