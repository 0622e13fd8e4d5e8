/** The GRE keys (RFC 2890) of a pair: one for each direction, known to nobody else. */
import { concatBytes } from "../bytes.ts";
import { greKeyFrom } from "../gre_key.ts";
import { type DiscoKey, keyBytes } from "../keys.ts";

const INFO = new TextEncoder().encode("gretun GRE key v1");

/**
 * The key on packets from `sender` to `receiver`, from the secret that both share (the NaCl box
 * key: X25519, then HSalsa20): HKDF-SHA256 (RFC 5869) without salt, info = label, sender,
 * receiver; the first 32 bits, big endian, with 0 (which means "no key") moved to 1.
 */
export async function greKey(
  sharedSecret: Uint8Array<ArrayBuffer>,
  sender: DiscoKey,
  receiver: DiscoKey,
): Promise<number> {
  const secret = await crypto.subtle.importKey("raw", sharedSecret, "HKDF", false, ["deriveBits"]);
  const info = concatBytes(INFO, keyBytes(sender), keyBytes(receiver));
  const algorithm = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(0), info };
  const bits = await crypto.subtle.deriveBits(algorithm, secret, 32);
  return greKeyFrom(new Uint8Array(bits));
}
