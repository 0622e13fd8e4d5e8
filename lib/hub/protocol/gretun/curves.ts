/**
 * Ed25519 and X25519 by WebCrypto, which is 20 times faster than JavaScript: hundreds of clients
 * come at once. What WebCrypto has not, and what is needed once a run, is the library's.
 */
import { ed25519 } from "@noble/curves/ed25519.js";
import { concatBytes } from "../../../bytes.ts";
import { deriveKey } from "./crypto.ts";

const SECRET_BITS = 256;
/** PKCS #8 of a bare private key (RFC 8410), before its 32 bytes: the curve is the last of its OID. */
const PKCS8 = (curve: number) =>
  Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, curve, 4, 0x22, 4, 0x20);
const OID_END = { X25519: 0x6e, Ed25519: 0x70 } as const;

async function privateKey(
  algorithm: keyof typeof OID_END,
  bytes: Uint8Array,
  usage: "deriveBits" | "sign",
): Promise<CryptoKey> {
  const der = concatBytes(PKCS8(OID_END[algorithm]), bytes);
  return await crypto.subtle.importKey("pkcs8", der, algorithm, false, [usage]);
}

async function publicKey(
  algorithm: keyof typeof OID_END,
  bytes: Uint8Array,
  usages: KeyUsage[],
): Promise<CryptoKey> {
  return await crypto.subtle.importKey("raw", bytes.slice(), algorithm, false, usages);
}

export async function sign(
  message: Uint8Array,
  seed: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const key = await privateKey("Ed25519", seed, "sign");
  return new Uint8Array(await crypto.subtle.sign("Ed25519", key, message.slice()));
}

/** RFC 8032, canonical signatures only. False for any malformed input. */
export async function verify(
  signature: Uint8Array,
  message: Uint8Array,
  key: Uint8Array,
): Promise<boolean> {
  try {
    const imported = await publicKey("Ed25519", key, ["verify"]);
    return await crypto.subtle.verify("Ed25519", imported, signature.slice(), message.slice());
  } catch {
    return false;
  }
}

/** Of an Ed25519 seed. */
export function publicKeyOf(seed: Uint8Array): Uint8Array<ArrayBuffer> {
  return ed25519.getPublicKey(seed) as Uint8Array<ArrayBuffer>;
}

/** Throws for 32 bytes that are no point of the curve. */
export function checkPublicKey(key: Uint8Array): void {
  ed25519.utils.toMontgomery(key);
}

/**
 * The secret that two Ed25519 identities share without a word (X25519 on the birationally equal
 * curve, RFC 7748 section 4.1). Rejects for a public key that is no point or of low order.
 */
export async function identitySecret(
  seed: Uint8Array,
  publicKey: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const { toMontgomery, toMontgomerySecret } = ed25519.utils;
  return await exchange(toMontgomerySecret(seed), toMontgomery(publicKey));
}

/** X25519; rejects for a public value of low order (RFC 7748 section 6.1). */
export async function exchange(
  secret: Uint8Array,
  publicValue: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const [own, theirs] = await Promise.all([
    privateKey("X25519", secret, "deriveBits"),
    publicKey("X25519", publicValue, []),
  ]);
  const algorithm = { name: "X25519", public: theirs };
  const shared = await crypto.subtle.deriveBits(algorithm, own, SECRET_BITS);
  return deriveKey(new Uint8Array(shared), "gretun dh");
}

/** X25519's base point: u = 9 (RFC 7748 section 4.1). */
const BASE_POINT = Uint8Array.of(9, ...new Uint8Array(31));

/** The public value of a secret. */
export async function exchangePublic(secret: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const [own, base] = await Promise.all([
    privateKey("X25519", secret, "deriveBits"),
    publicKey("X25519", BASE_POINT, []),
  ]);
  const algorithm = { name: "X25519", public: base };
  return new Uint8Array(await crypto.subtle.deriveBits(algorithm, own, SECRET_BITS));
}
