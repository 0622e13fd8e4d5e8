/**
 * The envelope of a disco message.
 *
 *     0-5    magic, "TS" and a speech balloon in UTF-8
 *     6-37   sender's disco key
 *     38-61  nonce
 *     62-    NaCl box: 16 bytes tag, then the ciphertext to the end of the datagram
 */
import { concatBytes, fromHex, Reader, startsWithBytes, toHex } from "../bytes.ts";
import type { Random } from "../edges.ts";
import { type DiscoKey, keyBytes } from "../keys.ts";
import { openBox, sealBox } from "./box.ts";

export const MAGIC = fromHex("54 53 f0 9f 92 ac");
/** What tells disco from other datagrams: where it lies and what it is. */
export const DISCO_PATTERN = { offset: 0, bytes: MAGIC };
const KEY_LENGTH = 32;
const NONCE_LENGTH = 24;
const TAG_LENGTH = 16;
const HEADER_LENGTH = MAGIC.length + KEY_LENGTH + NONCE_LENGTH;
/** Of a datagram, besides the message itself. */
export const ENVELOPE_LENGTH = HEADER_LENGTH + TAG_LENGTH;

export interface Envelope {
  sender: DiscoKey;
  nonce: Uint8Array;
  box: Uint8Array;
}

/** Whether it carries the magic and has room for key and nonce. */
export function isDisco(bytes: Uint8Array): boolean {
  return bytes.length >= HEADER_LENGTH && startsWithBytes(bytes, MAGIC);
}

/** Undefined for what is not disco. Costs no cryptography: look the sender up before opening. */
export function readEnvelope(bytes: Uint8Array): Envelope | undefined {
  if (!isDisco(bytes)) return undefined;
  const reader = new Reader(bytes, "network").skip(MAGIC.length);
  const sender = toHex(reader.bytes(KEY_LENGTH)) as DiscoKey;
  return { sender, nonce: reader.bytes(NONCE_LENGTH), box: reader.bytes() };
}

/** The whole datagram: header and box. */
export function seal(
  plaintext: Uint8Array,
  sender: DiscoKey,
  boxKey: Uint8Array,
  random: Random,
): Uint8Array<ArrayBuffer> {
  const nonce = random(NONCE_LENGTH);
  return concatBytes(MAGIC, keyBytes(sender), nonce, sealBox(plaintext, nonce, boxKey));
}

/** The plaintext; undefined when the box does not open with that key. */
export function open({ box, nonce }: Envelope, boxKey: Uint8Array): Uint8Array | undefined {
  return box.length < TAG_LENGTH ? undefined : openBox(box, nonce, boxKey);
}
