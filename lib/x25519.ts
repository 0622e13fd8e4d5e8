/**
 * X25519 (RFC 7748). It is dear (a millisecond and more), so secrets are kept: peers go and come back, and
 * nodes register again.
 */
import { x25519 } from "@noble/curves/ed25519.js";
import { toHex } from "./bytes.ts";
import { agreementBy } from "./ed25519.ts";

/** Of each private key as many as it shares with others at a time, and more. */
const MAX_KEPT = 4096;

const kept = new WeakMap<Uint8Array, Secrets>();

/** Not to be changed by who gets it. Throws for a public key of low order, whose secret everybody knows. */
export function sharedSecret(
  ownPrivate: Uint8Array,
  publicKey: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const secrets = secretsOf(ownPrivate);
  const name = toHex(publicKey);
  const secret = secrets.get(name) ?? x25519.getSharedSecret(ownPrivate, publicKey).slice();
  keep(secrets, name, secret);
  return secret;
}

/**
 * Computes those that are not kept yet by WebCrypto, which has no need to warm up, beside what else the program
 * does. A key that is none is left to {@link sharedSecret}.
 */
export async function prepareSecrets(
  ownPrivate: Uint8Array,
  publicKeys: readonly Uint8Array<ArrayBuffer>[],
): Promise<void> {
  const secrets = secretsOf(ownPrivate);
  const missing = publicKeys.slice(0, MAX_KEPT).filter((key) => !secrets.has(toHex(key)));
  if (missing.length === 0) return;
  const agree = await agreementBy(ownPrivate);
  await Promise.all(missing.map(async (key) => {
    const secret = await agree(key).catch(() => undefined);
    if (secret) keep(secrets, toHex(key), secret.slice());
  }));
}

/** By the hex of public keys; the one that was asked for last is last. */
type Secrets = Map<string, Uint8Array<ArrayBuffer>>;

function secretsOf(ownPrivate: Uint8Array): Secrets {
  const secrets = kept.get(ownPrivate) ?? new Map();
  kept.set(ownPrivate, secrets);
  return secrets;
}

function keep(secrets: Secrets, name: string, secret: Uint8Array<ArrayBuffer>): void {
  secrets.delete(name);
  secrets.set(name, secret);
  if (secrets.size > MAX_KEPT) secrets.delete(secrets.keys().next().value!);
}
