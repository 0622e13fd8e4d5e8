/** WebCrypto's Ed25519 against the library's, and what it must refuse. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { ed25519, ED25519_TORSION_SUBGROUP, x25519 } from "@noble/curves/ed25519.js";
import { fromHex } from "../../lib/bytes.ts";
import { checkPublicKey, publicKeyFrom, publicKeyOf, signer, verify } from "../../lib/ed25519.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

Deno.test("keys and signatures are the library's", async () => {
  for (let i = 0; i < 20; i++) {
    const [seed, message] = [random(32), random(i * 7)];
    const publicKey = publicKeyOf(seed);
    deepStrictEqual(await publicKeyFrom("Ed25519", seed), publicKey);
    deepStrictEqual(await publicKeyFrom("X25519", seed), x25519.getPublicKey(seed));
    const signature = await (await signer(seed))(message);
    deepStrictEqual(signature, ed25519.sign(message, seed));
    strictEqual(await verify(publicKey, signature, message), true);
    signature[i]! ^= 1;
    strictEqual(await verify(publicKey, signature, message), false);
  }
});

Deno.test("verify() is false for malformed signatures and keys", async () => {
  const seed = random(32);
  const good = await (await signer(seed))(seed);
  const publicKey = publicKeyOf(seed);
  for (const length of [0, 63, 65]) {
    strictEqual(await verify(publicKey, new Uint8Array(length), seed), false);
  }
  for (const length of [0, 31, 33]) {
    strictEqual(await verify(new Uint8Array(length), good, seed), false);
  }
  strictEqual(await verify(publicKey, withGroupOrderAdded(good), seed), false);
});

/** R the neutral element, S zero: right for any message under the neutral element as a key. */
const SIGNATURE_OF_NOBODY = Uint8Array.of(1, ...new Uint8Array(63));
const P = "ff".repeat(30) + "7f";
const SMALL_ORDER: [name: string, hex: string][] = [
  ...ED25519_TORSION_SUBGROUP.map((hex, i): [string, string] => [`torsion point ${i}`, hex]),
  ["the neutral element with a sign", `01${"00".repeat(30)}80`],
  ["p", `ed${P}`],
  ["p + 1", `ee${P}`],
  ["p + 1 with a sign", `ee${"ff".repeat(31)}`],
];

Deno.test("a key of small order is no key, and nothing is signed by it", async () => {
  for (const [name, hex] of SMALL_ORDER) {
    const key = fromHex(hex);
    for (let i = 0; i < 32; i++) {
      strictEqual(await verify(key, SIGNATURE_OF_NOBODY, Uint8Array.of(i)), false, name);
    }
    throws(() => checkPublicKey(key), Error, name);
  }
});

Deno.test("checkPublicKey() throws for what is no point", () => {
  checkPublicKey(publicKeyOf(random(32)));
  for (const length of [0, 31, 33]) throws(() => checkPublicKey(new Uint8Array(length)));
  throws(() => checkPublicKey(Uint8Array.of(2, ...new Uint8Array(31))));
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
