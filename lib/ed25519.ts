/**
 * Ed25519 (RFC 8032) by WebCrypto, which is 20 times faster than JavaScript: hundreds of nodes come
 * at once. What WebCrypto lacks is the library's.
 */
import { ed25519, ED25519_TORSION_SUBGROUP } from "@noble/curves/ed25519.js";
import { concatBytes, fromBase64, fromHex, toHex } from "./bytes.ts";

export const SIGNATURE_LENGTH = 64;

/** Signs with one private key; gives 64 bytes. */
export type Sign = (bytes: Uint8Array<ArrayBuffer>) => Promise<Uint8Array<ArrayBuffer>>;

/** PKCS #8 of a bare private key (RFC 8410 section 7), before the seed's 32 bytes. */
const PKCS8_PREFIX = Uint8Array.from([
  ...[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06],
  ...[0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20],
]);

/** Signs with the key of that 32-byte seed. */
export async function signer(seed: Uint8Array): Promise<Sign> {
  const pkcs8 = concatBytes(PKCS8_PREFIX, seed);
  const key = await crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]);
  return async (bytes) => new Uint8Array(await crypto.subtle.sign("Ed25519", key, bytes));
}

const PREFIXES = { Ed25519: PKCS8_PREFIX, X25519: PKCS8_PREFIX.with(11, 0x6e) };
const USAGES: Record<keyof typeof PREFIXES, KeyUsage[]> = {
  Ed25519: ["sign"],
  X25519: ["deriveBits"],
};

/** The public key of a private one, 32 bytes each; in a program that has just started much sooner than below. */
export async function publicKeyFrom(
  curve: keyof typeof PREFIXES,
  privateKey: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const pkcs8 = concatBytes(PREFIXES[curve], privateKey);
  const key = await crypto.subtle.importKey("pkcs8", pkcs8, curve, true, USAGES[curve]);
  const { x } = await crypto.subtle.exportKey("jwk", key);
  return fromBase64(x!.replaceAll("-", "+").replaceAll("_", "/") + "=");
}

/** The public key of that 32-byte seed. */
export function publicKeyOf(seed: Uint8Array): Uint8Array<ArrayBuffer> {
  return ed25519.getPublicKey(seed) as Uint8Array<ArrayBuffer>;
}

/** Gives the secret shared with an X25519 public key; throws for one of small order. */
export type Agree = (publicKey: Uint8Array<ArrayBuffer>) => Promise<Uint8Array>;

/** The same key for X25519 (RFC 7748). */
export const agreementPublic = (publicKey: Uint8Array) => ed25519.utils.toMontgomery(publicKey);

/** By the key of that 32-byte seed. */
export function agreement(seed: Uint8Array): Promise<Agree> {
  return agreementBy(ed25519.utils.toMontgomerySecret(seed));
}

/** By that X25519 scalar. */
export async function agreementBy(privateKey: Uint8Array): Promise<Agree> {
  const pkcs8 = concatBytes(PREFIXES.X25519, privateKey);
  const key = await crypto.subtle.importKey("pkcs8", pkcs8, "X25519", false, ["deriveBits"]);
  return async (publicKey) => {
    if (publicKey.length !== 32) throw new RangeError("X25519 key is not 32 bytes"); // Deno would end
    const other = await crypto.subtle.importKey("raw", publicKey, "X25519", false, []);
    const algorithm = { name: "X25519", public: other };
    const secret = new Uint8Array(await crypto.subtle.deriveBits(algorithm, key, 256));
    if (secret.every((byte) => byte === 0)) throw new RangeError("X25519 key of small order");
    return secret;
  };
}

/**
 * Whether it is the key's signature of these bytes. False for anything malformed, and for a key of
 * small order: anybody can make a signature that some of those take for any message.
 */
export async function verify(
  publicKey: Uint8Array,
  signature: Uint8Array,
  bytes: Uint8Array,
): Promise<boolean> {
  try {
    if (isSmallOrder(publicKey)) return false;
    const raw = publicKey.slice();
    const key = await crypto.subtle.importKey("raw", raw, "Ed25519", false, ["verify"]);
    return await crypto.subtle.verify("Ed25519", key, signature.slice(), bytes.slice());
  } catch {
    return false;
  }
}

/** Throws for what is no key: no 32 bytes, no point of the curve, or one of small order. */
export function checkPublicKey(key: Uint8Array): void {
  ed25519.Point.fromBytes(key);
  if (isSmallOrder(key)) throw new RangeError("Ed25519 public key of small order");
}

/** The y of all points of small order, and p and p + 1, which are other spellings of 0 and 1. */
const SMALL_ORDER_Y = new Set([
  ...ED25519_TORSION_SUBGROUP.map((hex) => toHex(withoutSign(fromHex(hex)))),
  "ed" + "ff".repeat(30) + "7f",
  "ee" + "ff".repeat(30) + "7f",
]);

function isSmallOrder(key: Uint8Array): boolean {
  return SMALL_ORDER_Y.has(toHex(withoutSign(key)));
}

/** The top bit of the last byte is the sign of x. */
function withoutSign(key: Uint8Array): Uint8Array {
  const y = key.slice();
  y[31]! &= 0x7f;
  return y;
}
