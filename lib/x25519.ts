/**
 * X25519 (RFC 7748). It is dear (a millisecond and more), so secrets are kept: peers go and come back, and
 * nodes register again.
 */
import { x25519 } from "@noble/curves/ed25519.js";
import { toHex } from "./bytes.ts";

/** Of each private key as many as it shares with others at a time, and more. */
const MAX_KEPT = 4096;

const kept = new WeakMap<Uint8Array, Map<string, Uint8Array<ArrayBuffer>>>();

/** Not to be changed by who gets it. Throws for a public key of low order, whose secret everybody knows. */
export function sharedSecret(
  ownPrivate: Uint8Array,
  publicKey: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const secrets = kept.get(ownPrivate) ?? new Map<string, Uint8Array<ArrayBuffer>>();
  kept.set(ownPrivate, secrets);
  const name = toHex(publicKey);
  const secret = secrets.get(name) ?? x25519.getSharedSecret(ownPrivate, publicKey).slice();
  secrets.delete(name);
  secrets.set(name, secret); // the last one that was asked for
  if (secrets.size > MAX_KEPT) secrets.delete(secrets.keys().next().value!);
  return secret;
}
