/**
 * jtunnel's header: 8 bytes of the sender's identifier, then the IP packet. An identifier is a
 * password in the clear: whoever hears it once is that client. 36 bytes of overhead over IPv4.
 */
import { equalBytes, toHex } from "../../../bytes.ts";

const JTUNNEL_ID_LENGTH = 8;
/** IPv4 20, UDP 8, identifier 8. */
export const JTUNNEL_OVERHEAD_BYTES = 36;
const ID_PATTERN = /^[0-9a-fA-F]{16}$/;

/** 16 lower case hex digits. */
export type JtunnelId = string;

/** Either case; undefined for what is no identifier, and for the one of zeros. */
export function parseJtunnelId(text: string): JtunnelId | undefined {
  if (!ID_PATTERN.test(text) || /^0+$/.test(text)) return undefined;
  return text.toLowerCase();
}

/** A packet of the wire; one without inner bytes is a sign of life. Undefined for what is short. */
export function decodeJtunnel(
  bytes: Uint8Array,
): { id: JtunnelId; inner: Uint8Array } | undefined {
  if (bytes.length < JTUNNEL_ID_LENGTH) return undefined;
  return {
    id: toHex(bytes.subarray(0, JTUNNEL_ID_LENGTH)),
    inner: bytes.subarray(JTUNNEL_ID_LENGTH),
  };
}

/** Our own packet, come back. */
export function isReflection(bytes: Uint8Array, own: Uint8Array): boolean {
  return equalBytes(bytes.subarray(0, JTUNNEL_ID_LENGTH), own);
}
