/** Tailscale's text forms of keys: a prefix that says what kind it is, and hex. */
import { concatBytes, fromHex, toBase64, toHex } from "../bytes.ts";
import { KEY_LENGTH } from "../keys.ts";

const PREFIX = {
  "disco-public": "discokey:",
  "node-public": "nodekey:",
  "node-private": "privkey:",
} as const;

export type KeyKind = keyof typeof PREFIX;

export function formatKeyText(kind: KeyKind, raw: Uint8Array): string {
  return PREFIX[kind] + toHex(raw);
}

/** Throws `SyntaxError`, never with the input in it: that may be a private key. */
export function parseKeyText(kind: KeyKind, text: string): Uint8Array<ArrayBuffer> {
  const prefix = PREFIX[kind];
  const digits = text.slice(prefix.length);
  if (!text.startsWith(prefix) || !/^[0-9a-fA-F]{64}$/.test(digits)) {
    throw new SyntaxError(`Cannot parse key: want "${prefix}" and ${2 * KEY_LENGTH} hex digits`);
  }
  return fromHex(digits);
}

/** For logs; public keys only. */
export function shortKeyText(kind: "disco-public" | "node-public", raw: Uint8Array): string {
  return kind === "disco-public"
    ? `d:${toHex(raw.subarray(0, 8))}`
    : `[${toBase64(raw).slice(0, 5)}]`;
}

/** "np" and the 32 bytes. */
export function encodeNodePublic(raw: Uint8Array): Uint8Array<ArrayBuffer> {
  return concatBytes(new TextEncoder().encode("np"), raw);
}
