/** Signed requests: the key's form and the bytes that are signed. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { readClaim, signRequest, verifyClaim } from "../../../lib/coord/auth.ts";
import { signer } from "../../../lib/ed25519.ts";
import { nodeKeyFromBytes } from "../../../lib/keys.ts";

/** RFC 8032 section 7.1, TEST 2. */
const SEED = fromHex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
const KEY = fromHex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
const SIGNATURE = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da" +
  "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

Deno.test("signer() makes the signature of RFC 8032 section 7.1", async () => {
  strictEqual(toHex(await (await signer(SEED))(Uint8Array.of(0x72))), SIGNATURE);
});

const NONCES: [name: string, nonce: string | undefined, tail: string][] = [
  ["with a nonce", "AAAAAAAAAAAAAAAA", "\nAAAAAAAAAAAAAAAA"],
  ["without, as the original", undefined, ""],
];
for (const [name, nonce, tail] of NONCES) {
  Deno.test(`signRequest() signs time, method, path and body ${name}`, async () => {
    let signed = new Uint8Array(0);
    const sign = await signer(SEED);
    const parts = {
      timestamp: "1800000000",
      method: "POST",
      path: "/v1/signal",
      body: Uint8Array.of(0x61, 0x62, 0x63),
      ...(nonce === undefined ? {} : { nonce }),
    };
    const headers = new Headers(
      await signRequest(parts, nodeKeyFromBytes(KEY), (bytes) => {
        signed = bytes;
        return sign(bytes);
      }),
    );
    const text = new TextEncoder();
    // SHA-256 of "abc", FIPS 180-2 appendix B.1.
    const digest = fromHex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const head = text.encode("1800000000\nPOST\n/v1/signal\n");
    deepStrictEqual([...signed], [...head, ...digest, ...text.encode(tail)]);
    const claim = readClaim(headers, 1_800_000_000_000);
    deepStrictEqual([claim.nodeKey, claim.hasNonce], [toHex(KEY), nonce !== undefined]);
    strictEqual(await verifyClaim(claim, { ...parts, headers }), true);
    strictEqual(await verifyClaim(claim, { ...parts, method: "PUT", headers }), false);
  });
}
