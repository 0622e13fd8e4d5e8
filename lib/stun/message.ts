/**
 * The frame of a STUN message (RFC 8489 section 5), big endian:
 *
 *     0   2   type; the top two bits are zero
 *     2   2   length of the body, a multiple of 4
 *     4   4   magic cookie
 *     8   12  transaction id
 *     20  n   attributes: type u16, length u16, value, padding to 4 bytes
 */
import { Reader, Writer } from "../bytes.ts";

/** The method "binding" in its three classes (section 5; a type is method and class in one). */
export const BINDING_REQUEST = 0x0001;
export const BINDING_SUCCESS = 0x0101;
export const BINDING_ERROR = 0x0111;

export const MAGIC_COOKIE = 0x2112a442;
/** What tells STUN from other datagrams: where it lies and what it is. */
export const COOKIE_PATTERN = {
  offset: 4,
  bytes: new Writer("network").u32(MAGIC_COOKIE).finish(),
};
/** All but the two bits of the class. */
const METHOD_BITS = 0xfeef;
/**
 * What tells a method's messages from other datagrams, GRE among them: that may have the cookie as its
 * sequence number, where it has no key. `type` is of any class.
 */
export function methodPattern(type: number) {
  const bytes = (type: number, rest: number) =>
    new Writer("network", 8).u16(type).u16(0).u32(rest).finish();
  return {
    offset: 0,
    bytes: bytes(type & METHOD_BITS, MAGIC_COOKIE),
    mask: bytes(METHOD_BITS, 0xffffffff),
  };
}
export const BINDING_PATTERN = methodPattern(BINDING_REQUEST);
export const HEADER_LENGTH = 20;
export const TX_ID_LENGTH = 12;
export const ATTRIBUTE_HEADER_LENGTH = 4;

export interface StunAttribute {
  type: number;
  /** Without the padding. */
  value: Uint8Array;
}

/** An attribute of a message that arrived. */
export interface PlacedAttribute extends StunAttribute {
  /** Where its header begins, in bytes from the start of the message. */
  offset: number;
}

export interface StunMessage {
  type: number;
  /** 12 bytes. */
  txId: Uint8Array;
  attributes: PlacedAttribute[];
}

/** A datagram is no STUN message, or none that can be used: drop it. */
export class StunFormatError extends Error {
  override name = "StunFormatError";
}

/** Whether it looks like STUN and like nothing else that shares a port with it. */
export function isStun(bytes: Uint8Array): boolean {
  if (bytes.length < HEADER_LENGTH || bytes[0]! >= 0x40) return false;
  return new Reader(bytes, "network").skip(4).u32() === MAGIC_COOKIE;
}

/** How closely a message has to follow the RFC. */
export interface Strictness {
  /** Servers of RFC 3489 answer without the cookie, or with another one. */
  hasCookie: boolean;
  /** Some servers leave out the padding of all attributes, or of the last one. */
  padding: "everywhere" | "but-at-the-end" | "nowhere";
}

const STRICT: Strictness = { hasCookie: true, padding: "everywhere" };

/** Bytes after the declared length are ignored. Throws {@link StunFormatError} and nothing else. */
export function decodeStun(bytes: Uint8Array, strictness: Strictness = STRICT): StunMessage {
  const { hasCookie, padding } = strictness;
  const isMessage = hasCookie ? isStun(bytes) : bytes.length >= HEADER_LENGTH && bytes[0]! < 0x40;
  if (!isMessage) throw new StunFormatError("not a STUN message");
  const reader = new Reader(bytes, "network");
  const type = reader.u16();
  const bodyLength = reader.u16();
  const txId = reader.skip(4).bytes(TX_ID_LENGTH);
  const isWhole = bodyLength % 4 === 0 || padding !== "everywhere";
  if (!isWhole || bodyLength > reader.left) {
    throw new StunFormatError(`STUN body length ${bodyLength} with ${reader.left} bytes there`);
  }
  const attributes = decodeAttributes(reader.bytes(bodyLength), padding !== "nowhere");
  return { type, txId, attributes };
}

/** `isPadded`: but perhaps for the last one. */
function decodeAttributes(body: Uint8Array, isPadded: boolean): PlacedAttribute[] {
  const reader = new Reader(body, "network");
  const attributes: PlacedAttribute[] = [];
  while (reader.left > 0) {
    const offset = HEADER_LENGTH + reader.offset;
    if (reader.left < ATTRIBUTE_HEADER_LENGTH) {
      throw new StunFormatError(`STUN attribute with ${reader.left} bytes left`);
    }
    const type = reader.u16();
    const length = reader.u16();
    if (length > reader.left) {
      throw new StunFormatError(`STUN attribute of ${length} bytes with ${reader.left} left`);
    }
    const value = reader.bytes(length);
    if (isPadded) reader.skip(Math.min(padding(length), reader.left));
    attributes.push({ type, value, offset });
  }
  return attributes;
}

/** `extraLength`: bytes that will be appended later and that the header already counts. */
export function encodeStun(
  message: { type: number; txId: Uint8Array; attributes: readonly StunAttribute[] },
  extraLength = 0,
): Uint8Array<ArrayBuffer> {
  const { type, txId, attributes } = message;
  if (txId.length !== TX_ID_LENGTH) {
    throw new RangeError(`transaction id is ${txId.length} bytes: want ${TX_ID_LENGTH}`);
  }
  const bodyLength = attributes.reduce((sum, { value }) => sum + encodedLength(value), extraLength);
  const writer = new Writer("network", HEADER_LENGTH + bodyLength)
    .u16(type).u16(bodyLength).u32(MAGIC_COOKIE).bytes(txId);
  for (const { type, value } of attributes) {
    writer.u16(type).u16(value.length).bytes(value).zeros(padding(value.length));
  }
  return writer.finish();
}

function encodedLength(value: Uint8Array): number {
  return ATTRIBUTE_HEADER_LENGTH + value.length + padding(value.length);
}

function padding(length: number): number {
  return (4 - (length % 4)) % 4;
}
