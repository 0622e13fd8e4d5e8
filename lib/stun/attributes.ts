/** The attributes that a binding exchange uses (RFC 8489 section 14), each with its way in and out. */
import { type Endpoint, familyOf, ipBytes, ipFromBytes, isUnspecified } from "../addr.ts";
import { concatBytes, Reader, Writer } from "../bytes.ts";
import {
  encodeStun,
  MAGIC_COOKIE,
  type StunAttribute,
  StunFormatError,
  type StunMessage,
} from "./message.ts";

/** IANA's registry of STUN attributes, as far as this code has a word for them. */
export const ATTRIBUTE = {
  MAPPED_ADDRESS: 0x0001,
  /** RFC 5780 section 7.2. */
  CHANGE_REQUEST: 0x0003,
  USERNAME: 0x0006,
  MESSAGE_INTEGRITY: 0x0008,
  ERROR_CODE: 0x0009,
  UNKNOWN_ATTRIBUTES: 0x000a,
  REALM: 0x0014,
  NONCE: 0x0015,
  MESSAGE_INTEGRITY_SHA256: 0x001c,
  PASSWORD_ALGORITHM: 0x001d,
  USERHASH: 0x001e,
  XOR_MAPPED_ADDRESS: 0x0020,
  /** RFC 5780 section 7.6: makes a request long. */
  PADDING: 0x0026,
  /** What servers before RFC 5389 called it. */
  XOR_MAPPED_ADDRESS_OLD: 0x8020,
  SOFTWARE: 0x8022,
  FINGERPRINT: 0x8028,
  /** RFC 5780 section 7.3. */
  RESPONSE_ORIGIN: 0x802b,
  /** RFC 5780 section 7.4. */
  OTHER_ADDRESS: 0x802c,
  /** This project's own: zeros that servers pass over, where they would refuse PADDING. */
  FILLING: 0xfffe,
} as const;

/** In the order in which they are believed. */
const MAPPED: readonly number[] = [
  ATTRIBUTE.XOR_MAPPED_ADDRESS,
  ATTRIBUTE.XOR_MAPPED_ADDRESS_OLD,
  ATTRIBUTE.MAPPED_ADDRESS,
];
const KNOWN = new Set<number>(Object.values(ATTRIBUTE));
/** Types below are comprehension-required: a request with an unknown one must be refused. */
const COMPREHENSION_OPTIONAL = 0x8000;

const CHANGE_IP = 0x04;
const CHANGE_PORT = 0x02;
const FAMILY_4 = 1;
const FAMILY_6 = 2;
const FINGERPRINT_XOR = 0x5354554e;
/** With its header. */
export const FINGERPRINT_LENGTH = 8;

/**
 * The address that a success response tells: the XOR form, else its old number, else
 * MAPPED-ADDRESS, which some NATs rewrite; one of another length than it should be is passed over.
 * Throws {@link StunFormatError}.
 */
export function readMappedAddress(message: StunMessage): Endpoint {
  const value = MAPPED.flatMap((wanted) => message.attributes.filter(({ type }) => type === wanted))
    .find(({ value }) => isAddress(value));
  if (!value) throw new StunFormatError("STUN response without a mapped address");
  const isPlain = value.type === ATTRIBUTE.MAPPED_ADDRESS;
  const endpoint = decodeAddress(value.value, isPlain ? new Uint8Array(16) : xorMask(message.txId));
  if (endpoint.port === 0 || isUnspecified(endpoint.ip)) {
    throw new StunFormatError("STUN response with an address that is no place");
  }
  return endpoint;
}

/** From where else an answer is wanted. */
export interface Change {
  ip: boolean;
  port: boolean;
}

/** RFC 5780 section 7.2: 32 bits, of which two mean something. */
export function changeRequest({ ip, port }: Change): StunAttribute {
  const flags = (ip ? CHANGE_IP : 0) | (port ? CHANGE_PORT : 0);
  return { type: ATTRIBUTE.CHANGE_REQUEST, value: Uint8Array.of(0, 0, 0, flags) };
}

/** Undefined where nothing is to change. Throws {@link StunFormatError}. */
export function readChangeRequest({ attributes }: StunMessage): Change | undefined {
  const value = attributes.find(({ type }) => type === ATTRIBUTE.CHANGE_REQUEST)?.value;
  if (!value) return undefined;
  if (value.length !== 4) throw new StunFormatError(`CHANGE-REQUEST of ${value.length} bytes`);
  const change = { ip: (value[3]! & CHANGE_IP) !== 0, port: (value[3]! & CHANGE_PORT) !== 0 };
  return change.ip || change.port ? change : undefined;
}

/**
 * RFC 5780 section 7.4. An unspecified address is this project's own: the one that was asked, for
 * a server that listens on all addresses does not know which that is.
 */
export function otherAddress(endpoint: Endpoint): StunAttribute {
  return { type: ATTRIBUTE.OTHER_ADDRESS, value: encodeAddress(endpoint, new Uint8Array(16)) };
}

export function filling(lengthBytes: number): StunAttribute {
  return { type: ATTRIBUTE.FILLING, value: new Uint8Array(lengthBytes) };
}

/** RFC 5780 section 7.3: where an answer was sent from. */
export function responseOrigin(endpoint: Endpoint): StunAttribute {
  return { type: ATTRIBUTE.RESPONSE_ORIGIN, value: encodeAddress(endpoint, new Uint8Array(16)) };
}

/** Undefined where there is none, and where it is broken: the answer is good without it. */
export function readOtherAddress(message: StunMessage): Endpoint | undefined {
  const value = message.attributes.find(({ type }) => type === ATTRIBUTE.OTHER_ADDRESS)?.value;
  if (!value) return undefined;
  try {
    return decodeAddress(value, new Uint8Array(16));
  } catch {
    return undefined;
  }
}

/** Section 14.2: port and address are XORed, so that no NAT on the way rewrites them. */
export function xorMappedAddress(endpoint: Endpoint, txId: Uint8Array): StunAttribute {
  return { type: ATTRIBUTE.XOR_MAPPED_ADDRESS, value: encodeAddress(endpoint, xorMask(txId)) };
}

function encodeAddress({ ip, port }: Endpoint, mask: Uint8Array): Uint8Array {
  return new Writer("network", 20).u8(0).u8(familyOf(ip) === 4 ? FAMILY_4 : FAMILY_6)
    .u16(port ^ portMask(mask)).bytes(xor(ipBytes(ip), mask)).finish();
}

function addressLength(value: Uint8Array): number | undefined {
  return value[1] === FAMILY_4 ? 4 : value[1] === FAMILY_6 ? 16 : undefined;
}

function isAddress(value: Uint8Array): boolean {
  return value.length >= 4 + (addressLength(value) ?? Infinity);
}

/** Zero byte, family, port, address. */
function decodeAddress(value: Uint8Array, mask: Uint8Array): Endpoint {
  const length = addressLength(value);
  if (length === undefined || value.length < 4 + length) {
    throw new StunFormatError(`STUN address of ${value.length} bytes, family ${value[1]}`);
  }
  const reader = new Reader(value, "network").skip(2);
  const port = reader.u16() ^ portMask(mask);
  return { ip: ipFromBytes(xor(reader.bytes(length), mask)), port };
}

/** Magic cookie and transaction id: as long as an IPv6 address. */
function xorMask(txId: Uint8Array): Uint8Array {
  return new Writer("network", 16).u32(MAGIC_COOKIE).bytes(txId).finish();
}

function portMask(mask: Uint8Array): number {
  return new Reader(mask, "network").u16();
}

function xor(bytes: Uint8Array, mask: Uint8Array): Uint8Array {
  return bytes.map((byte, i) => byte ^ mask[i]!);
}

/** Section 14.14. */
export function software(text: string): StunAttribute {
  return { type: ATTRIBUTE.SOFTWARE, value: new TextEncoder().encode(text) };
}

export function readSoftware({ attributes }: StunMessage): string | undefined {
  const value = attributes.find(({ type }) => type === ATTRIBUTE.SOFTWARE)?.value;
  return value && new TextDecoder().decode(value);
}

/** Section 14.8: class and number; the text, which is for people, is left empty. */
export function errorCode(code: number): StunAttribute {
  const value = Uint8Array.of(0, 0, Math.trunc(code / 100), code % 100);
  return { type: ATTRIBUTE.ERROR_CODE, value };
}

/** Section 14.9. */
export function unknownAttributes(types: readonly number[]): StunAttribute {
  const writer = new Writer("network");
  for (const type of types) writer.u16(type);
  return { type: ATTRIBUTE.UNKNOWN_ATTRIBUTES, value: writer.finish() };
}

/** The attribute types that a receiver of this request had to know and that we do not, each once. */
export function unknownRequired({ attributes }: StunMessage): number[] {
  const types = attributes.map(({ type }) => type)
    .filter((type) => type < COMPREHENSION_OPTIONAL && !KNOWN.has(type));
  return [...new Set(types)];
}

/** The message with FINGERPRINT (section 14.7) as its last attribute. */
export function encodeWithFingerprint(
  message: { type: number; txId: Uint8Array; attributes: readonly StunAttribute[] },
): Uint8Array<ArrayBuffer> {
  const covered = encodeStun(message, FINGERPRINT_LENGTH);
  const attribute = new Writer("network", FINGERPRINT_LENGTH).u16(ATTRIBUTE.FINGERPRINT).u16(4)
    .u32(fingerprintOf(covered)).finish();
  return concatBytes(covered, attribute);
}

/** Undefined when the message has none; it covers all bytes before it, as they came. */
export function fingerprintFits(bytes: Uint8Array, message: StunMessage): boolean | undefined {
  const attribute = message.attributes.find(({ type }) => type === ATTRIBUTE.FINGERPRINT);
  if (!attribute) return undefined;
  const { value, offset } = attribute;
  return value.length === 4 &&
    new Reader(value, "network").u32() === fingerprintOf(bytes.subarray(0, offset));
}

function fingerprintOf(bytes: Uint8Array): number {
  return (crc32(bytes) ^ FINGERPRINT_XOR) >>> 0;
}

/** CRC-32 of ITU V.42 (reflected, polynomial 04c11db7). */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
