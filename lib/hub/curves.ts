/**
 * Ed25519 and X25519 by the runtime, which is 20 times faster than JavaScript: hundreds of clients
 * come at once.
 */
import { ed25519 } from "@noble/curves/ed25519.js";
import { Buffer } from "node:buffer";
import * as node from "node:crypto";
import { concatBytes } from "../bytes.ts";
import { deriveKey } from "./crypto.ts";

const KEY_LENGTH = 32;
/** DER of a bare key (RFC 8410), before its 32 bytes. */
const PRIVATE_DER = (curve: number) =>
  Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, curve, 4, 0x22, 4, 0x20);
const PUBLIC_DER = (curve: number) =>
  Uint8Array.of(0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, curve, 3, 0x21, 0);
const X25519 = 0x6e;
const ED25519 = 0x70;

function privateKey(curve: number, bytes: Uint8Array): node.KeyObject {
  const key = Buffer.from(concatBytes(PRIVATE_DER(curve), bytes));
  return node.createPrivateKey({ key, format: "der", type: "pkcs8" });
}

function publicKey(curve: number, bytes: Uint8Array): node.KeyObject {
  const key = Buffer.from(concatBytes(PUBLIC_DER(curve), bytes));
  return node.createPublicKey({ key, format: "der", type: "spki" });
}

/** The public key's 32 bytes. */
function publicBytes(key: node.KeyObject): Uint8Array<ArrayBuffer> {
  return new Uint8Array(node.createPublicKey(key).export({ format: "der", type: "spki" }))
    .slice(-KEY_LENGTH);
}

export function sign(message: Uint8Array, seed: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(node.sign(null, message, privateKey(ED25519, seed)));
}

/** RFC 8032, canonical signatures only. False for any malformed input. */
export function verify(signature: Uint8Array, message: Uint8Array, key: Uint8Array): boolean {
  try {
    return node.verify(null, message, publicKey(ED25519, key), signature);
  } catch {
    return false;
  }
}

export function publicKeyOf(seed: Uint8Array): Uint8Array<ArrayBuffer> {
  return publicBytes(privateKey(ED25519, seed));
}

/**
 * The secret that two Ed25519 identities share without a word (X25519 on the birationally equal
 * curve, RFC 7748 section 4.1). Throws for a public key that is no point or of low order.
 */
export function identitySecret(seed: Uint8Array, publicKey: Uint8Array): Uint8Array<ArrayBuffer> {
  const { toMontgomery, toMontgomerySecret } = ed25519.utils;
  return exchange(toMontgomerySecret(seed), toMontgomery(publicKey));
}

/** X25519; throws for a public value of low order. */
export function exchange(secret: Uint8Array, publicValue: Uint8Array): Uint8Array<ArrayBuffer> {
  const shared = node.diffieHellman({
    privateKey: privateKey(X25519, secret),
    publicKey: publicKey(X25519, publicValue),
  });
  // RFC 7748 section 6.1
  if (shared.every((byte) => byte === 0)) throw new RangeError("public value is of low order");
  return deriveKey(shared, "gretun dh");
}

export function exchangePublic(secret: Uint8Array): Uint8Array<ArrayBuffer> {
  return publicBytes(privateKey(X25519, secret));
}
