/**
 * The two key pairs of a node: the node key (Ed25519, its lasting identity, signs requests to the
 * coordinator) and the disco key (X25519, seals messages to peers). Public keys are handled as 64
 * hex digits, so that `===` compares them and they can be a map's key.
 */
import { fromBase64, fromHex, toBase64, toHex } from "./bytes.ts";

export const KEY_LENGTH = 32;

/** Ed25519 public key, 64 lower case hex digits. */
export type NodeKey = string & { readonly __nodeKey: true };
/** X25519 public key, 64 lower case hex digits. */
export type DiscoKey = string & { readonly __discoKey: true };

/** Throws `RangeError` unless `bytes` are 32. */
export function nodeKeyFromBytes(bytes: Uint8Array): NodeKey {
  return checkedHex("node key", bytes) as NodeKey;
}

/** Throws `RangeError` unless `bytes` are 32 and not all zero ("no key" on the wire). */
export function discoKeyFromBytes(bytes: Uint8Array): DiscoKey {
  const hex = checkedHex("disco key", bytes);
  if (/^0+$/.test(hex)) throw new RangeError("disco key is all zero");
  return hex as DiscoKey;
}

export function keyBytes(key: NodeKey | DiscoKey): Uint8Array<ArrayBuffer> {
  return fromHex(key);
}

export function keyBase64(key: NodeKey | DiscoKey): string {
  return toBase64(fromHex(key));
}

export function nodeKeyFromBase64(text: string): NodeKey {
  return nodeKeyFromBytes(fromBase64(text));
}

/** The first 8 digits, for logs and tables. */
export function shortKey(key: NodeKey | DiscoKey): string {
  return key.slice(0, 8);
}

function checkedHex(what: string, bytes: Uint8Array): string {
  if (bytes.length !== KEY_LENGTH) {
    throw new RangeError(`${what} is ${bytes.length} bytes: want ${KEY_LENGTH}`);
  }
  return toHex(bytes);
}
