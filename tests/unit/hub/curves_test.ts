/** WebCrypto's curve against the library's, and what it must refuse. */
import { deepStrictEqual, rejects } from "node:assert/strict";
import { x25519 } from "@noble/curves/ed25519.js";
import { publicKeyOf } from "../../../lib/ed25519.ts";
import * as curves from "../../../lib/hub/protocol/gretun/curves.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

Deno.test("curves: public values are the library's", async () => {
  for (let i = 0; i < 20; i++) {
    const seed = random(32);
    deepStrictEqual(await curves.exchangePublic(seed), x25519.getPublicKey(seed));
  }
});

Deno.test("curves: both ends share the same secrets", async () => {
  const [a, b] = [random(32), random(32)];
  deepStrictEqual(
    await curves.exchange(a, await curves.exchangePublic(b)),
    await curves.exchange(b, await curves.exchangePublic(a)),
  );
  deepStrictEqual(
    await curves.identitySecret(a, publicKeyOf(b)),
    await curves.identitySecret(b, publicKeyOf(a)),
  );
});

Deno.test("curves: values of low order are refused", async () => {
  for (const low of [new Uint8Array(32), Uint8Array.of(1, ...new Uint8Array(31))]) {
    await rejects(curves.exchange(random(32), low));
  }
});
