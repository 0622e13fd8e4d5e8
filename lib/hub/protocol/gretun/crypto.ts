/**
 * What proofs, cookies and sealed packets are made of: ChaCha20 as the key derivation and Poly1305
 * tags under one-time keys. All pure: nonces come from the caller.
 */
import { chacha20, chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { TAG_LENGTH } from "./wire.ts";

const NOTHING = new Uint8Array();
const LABEL_LENGTH = 12;
const KEY_LENGTH = 32;
const COUNTER_OFFSET = 4;

/** Another key for each label of at most 12 characters: ChaCha20's first 32 bytes (RFC 8439). */
export function deriveKey(key: Uint8Array, label: string | Uint8Array): Uint8Array<ArrayBuffer> {
  const nonce = new Uint8Array(LABEL_LENGTH);
  nonce.set(typeof label === "string" ? new TextEncoder().encode(label) : label);
  return chacha20(key, nonce, new Uint8Array(KEY_LENGTH)) as Uint8Array<ArrayBuffer>;
}

/** A tag of 16 bytes over `data`; `nonce16` never comes twice with a key. */
export function mac(key: Uint8Array, nonce16: Uint8Array, data: Uint8Array): Uint8Array {
  const oneTime = deriveKey(key, nonce16.subarray(0, LABEL_LENGTH));
  const nonce = new Uint8Array(LABEL_LENGTH);
  nonce.set(nonce16.subarray(LABEL_LENGTH, 16));
  return chacha20poly1305(oneTime, nonce, data).encrypt(NOTHING);
}

/** The tag of a message with a counter, under a key of one session and direction. */
export function counterTag(key: Uint8Array, counter: bigint, data: Uint8Array): Uint8Array {
  return chacha20poly1305(key, counterNonce(counter), data).encrypt(NOTHING);
}

export function counterNonce(counter: bigint): Uint8Array<ArrayBuffer> {
  const nonce = new Uint8Array(LABEL_LENGTH);
  new DataView(nonce.buffer).setBigUint64(COUNTER_OFFSET, counter);
  return nonce;
}

/** In constant time. */
export function equalTags(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== TAG_LENGTH || b.length !== TAG_LENGTH) return false;
  let difference = 0;
  for (let i = 0; i < TAG_LENGTH; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}

/** In constant time for equal lengths; the length of a token is no secret. */
export function equalSecrets(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}
