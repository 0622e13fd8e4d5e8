/**
 * Signatures, digests and derived keys that answer at once and cost little, in place of WebCrypto's,
 * which come from other threads at times of their own. Nobody in the simulation attacks them.
 */
import { createHash } from "node:crypto";
import { ed25519 } from "@noble/curves/ed25519.js";
import { type Agree, publicKeyOf } from "../../../lib/ed25519.ts";
import { concatBytes, fromHex, toHex } from "../../../lib/bytes.ts";
import { sharedSecret } from "../../../lib/x25519.ts";

const ED25519_SEED_OFFSET = 16;
const SIGNATURE_LENGTH = 64;

interface Key {
  /** Of a key pair both halves have the same, so that one can check what the other has signed. */
  material: Uint8Array;
}

/** 64 bytes that another text hardly ever has. */
function mixed(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  let [a, b] = [0x811c9dc5, 0x01000193];
  for (const part of parts) {
    for (let i = 0; i < part.length; i++) {
      a = Math.imul(a ^ part[i]!, 0x01000193);
      b = Math.imul(b + part[i]! + i, 0x85ebca6b) ^ (b >>> 13);
    }
  }
  const words = new Uint32Array(SIGNATURE_LENGTH / 4);
  for (let i = 0; i < words.length; i++) {
    a = Math.imul(a ^ (b >>> 15), 0x2c1b3c6d);
    b = Math.imul(b ^ (a >>> 12), 0x297a2d39);
    words[i] = a ^ b;
  }
  return new Uint8Array(words.buffer);
}

const publicKeys = new Map<string, Uint8Array<ArrayBuffer>>();

/** The public key of a seed: a real one, since others are derived from it. */
export function publicOf(seed: Uint8Array): Uint8Array<ArrayBuffer> {
  const hex = toHex(seed);
  const known = publicKeys.get(hex) ?? publicKeyOf(seed);
  publicKeys.set(hex, known);
  return known;
}

const agreementSecrets = new Map<string, Uint8Array>();

/** By the private half, as WebCrypto does it elsewhere. */
export function agreementOf(seed: Uint8Array): Agree {
  const hex = toHex(seed);
  const secret = agreementSecrets.get(hex) ?? ed25519.utils.toMontgomerySecret(seed);
  agreementSecrets.set(hex, secret);
  return (publicKey) => Promise.resolve(sharedSecret(secret, publicKey));
}

function signature(algorithm: string, material: Uint8Array, bytes: Uint8Array) {
  return mixed(material, bytes).slice(0, algorithm === "HMAC" ? 32 : SIGNATURE_LENGTH);
}

const subtle = {
  async importKey(format: string, bytes: Uint8Array): Promise<Key> {
    const isPrivate = format === "pkcs8";
    return { material: isPrivate ? publicOf(bytes.slice(ED25519_SEED_OFFSET)) : bytes.slice() };
  },
  async exportKey(_format: string, { material }: Key) {
    const x = btoa(String.fromCharCode(...material)).replaceAll("+", "-").replaceAll("/", "_");
    return { x: x.replace(/=+$/, "") };
  },
  async sign(algorithm: string, { material }: Key, bytes: Uint8Array) {
    return signature(algorithm, material, bytes).buffer;
  },
  async verify(algorithm: string, { material }: Key, given: Uint8Array, bytes: Uint8Array) {
    return toHex(signature(algorithm, material, bytes)) === toHex(given);
  },
  async digest(_algorithm: string, bytes: Uint8Array) {
    return fromHex(createHash("sha256").update(bytes).digest("hex")).buffer;
  },
  async deriveBits(algorithm: { info: Uint8Array }, { material }: Key, bits: number) {
    return mixed(concatBytes(material, algorithm.info)).buffer.slice(0, bits / 8);
  },
};

/** For the rest of the process: of a test file, that is its own. */
export function installSimCrypto(): void {
  Object.defineProperty(crypto, "subtle", { value: subtle, configurable: true });
}
