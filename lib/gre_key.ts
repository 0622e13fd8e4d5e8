/** GRE keys (RFC 2890): what tells the packets of one pair from others', known to nobody else. */
import { concatBytes, Reader } from "./bytes.ts";
import { type DiscoKey, keyBytes } from "./keys.ts";

const INFO = new TextEncoder().encode("gretun GRE key v1");

/** The first 32 bits of a secret, but never 0, which means "no key". */
export function greKeyFrom(secret: Uint8Array): number {
  return new Reader(secret, "network").u32() || 1;
}

/** One end of a pair. */
export interface GreKeyEnd {
  key: DiscoKey;
  /** What it has chosen at random for this session; both ends have, or none (nodes of before). */
  session?: Uint8Array | undefined;
}

/**
 * The key on packets from `sender` to `receiver`, from the secret that both share (the NaCl box
 * key: X25519, then HSalsa20): HKDF-SHA256 (RFC 5869) without salt, info = label, sender, receiver,
 * the sender's session, the receiver's.
 */
export async function greKey(
  sharedSecret: Uint8Array<ArrayBuffer>,
  sender: GreKeyEnd,
  receiver: GreKeyEnd,
): Promise<number> {
  const secret = await crypto.subtle.importKey("raw", sharedSecret, "HKDF", false, ["deriveBits"]);
  const sessions = [sender, receiver].flatMap(({ session }) => session ?? []);
  const info = concatBytes(INFO, keyBytes(sender.key), keyBytes(receiver.key), ...sessions);
  const algorithm = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(0), info };
  return greKeyFrom(new Uint8Array(await crypto.subtle.deriveBits(algorithm, secret, 32)));
}
