/** A GRE key (RFC 2890) made of a secret: its first 32 bits, but never 0, which means "no key". */
import { Reader } from "./bytes.ts";

export function greKeyFrom(secret: Uint8Array): number {
  return new Reader(secret, "network").u32() || 1;
}
