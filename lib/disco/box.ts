/**
 * NaCl's crypto_box: X25519, then HSalsa20 for the key, then XSalsa20-Poly1305, tag first
 * (https://nacl.cr.yp.to/box.html). Composed from @noble's primitives.
 */
import { hsalsa, xsalsa20poly1305 } from "@noble/ciphers/salsa.js";
import { type DiscoKey, keyBytes } from "../keys.ts";
import { sharedSecret } from "../x25519.ts";

/** "expand 32-byte k" as four little-endian words. */
const SIGMA = new Uint32Array(new TextEncoder().encode("expand 32-byte k").buffer);

/**
 * The 32-byte key of a pair, the same on both ends. Throws for a peer key of low order, whose secret
 * everybody knows.
 */
export function boxKey(ownPrivate: Uint8Array, peer: DiscoKey): Uint8Array<ArrayBuffer> {
  const shared = sharedSecret(ownPrivate, keyBytes(peer));
  const key = new Uint32Array(8);
  hsalsa(SIGMA, new Uint32Array(shared.buffer), new Uint32Array(4), key);
  return new Uint8Array(key.buffer);
}

/** 16-byte tag, then the ciphertext. */
export function sealBox(plaintext: Uint8Array, nonce: Uint8Array, key: Uint8Array): Uint8Array {
  return xsalsa20poly1305(key, nonce).encrypt(plaintext);
}

/** Undefined when the tag is wrong. */
export function openBox(
  box: Uint8Array,
  nonce: Uint8Array,
  key: Uint8Array,
): Uint8Array | undefined {
  try {
    return xsalsa20poly1305(key, nonce).decrypt(box);
  } catch {
    return undefined;
  }
}
