/**
 * Netlink attributes (linux/netlink.h, `struct nlattr`): u16 length with header, u16 type with
 * two flag bits, value, padding to 4. Headers are in host order; values as each attribute says.
 */
import { HOST_IS_LITTLE_ENDIAN, Reader, ShortInputError } from "../bytes.ts";

export const NLA_F_NESTED = 0x8000;
export const NLA_F_NET_BYTEORDER = 0x4000;
const NLA_TYPE_MASK = 0x3fff;
const NLA_HDRLEN = 4;
const NLA_ALIGNTO = 4;

export interface Attr {
  type: number;
  value: Uint8Array;
}

const aligned = (length: number) => (length + NLA_ALIGNTO - 1) & -NLA_ALIGNTO;

/** Attributes one after the other, each padded. */
export function encodeAttrs(attrs: readonly Attr[]): Uint8Array<ArrayBuffer> {
  const length = attrs.reduce((sum, { value }) => sum + aligned(NLA_HDRLEN + value.length), 0);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { type, value } of attrs) {
    view.setUint16(at, NLA_HDRLEN + value.length, HOST_IS_LITTLE_ENDIAN);
    view.setUint16(at + 2, type, HOST_IS_LITTLE_ENDIAN);
    bytes.set(value, at + NLA_HDRLEN);
    at += aligned(NLA_HDRLEN + value.length);
  }
  return bytes;
}

/** Values by type without flag bits; a repeated type keeps its last. Throws `ShortInputError`. */
export function decodeAttrs(bytes: Uint8Array): Map<number, Uint8Array> {
  const attrs = new Map<number, Uint8Array>();
  eachAttr(bytes, (type, value) => attrs.set(type, value));
  return attrs;
}

/** In order, for lists whose types repeat or count up. */
export function decodeAttrList(bytes: Uint8Array): Attr[] {
  const attrs: Attr[] = [];
  eachAttr(bytes, (type, value) => attrs.push({ type, value }));
  return attrs;
}

function eachAttr(bytes: Uint8Array, take: (type: number, value: Uint8Array) => void): void {
  const reader = new Reader(bytes, "host");
  while (reader.left >= NLA_HDRLEN) {
    const length = reader.u16();
    const type = reader.u16() & NLA_TYPE_MASK;
    if (length < NLA_HDRLEN) throw new ShortInputError(NLA_HDRLEN, length);
    take(type, reader.bytes(length - NLA_HDRLEN));
    reader.skip(Math.min(reader.left, (NLA_ALIGNTO - length % NLA_ALIGNTO) % NLA_ALIGNTO));
  }
}

/** A typed array's bytes are in host order. */
const hostBytes = ({ buffer }: Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>) =>
  new Uint8Array(buffer);

export const attr = {
  flag: (type: number): Attr => ({ type, value: new Uint8Array(0) }),
  u8: (type: number, n: number): Attr => ({ type, value: Uint8Array.of(n) }),
  u16: (type: number, n: number): Attr => ({ type, value: hostBytes(Uint16Array.of(n)) }),
  u32: (type: number, n: number): Attr => ({ type, value: hostBytes(Uint32Array.of(n)) }),
  /** Ports and GRE keys: network order. */
  be16: (type: number, n: number): Attr => ({ type, value: Uint8Array.of(n >>> 8, n) }),
  be32: (type: number, n: number): Attr => ({
    type,
    value: Uint8Array.of(n >>> 24, n >>> 16, n >>> 8, n),
  }),
  be64: (type: number, n: bigint): Attr => ({
    type,
    value: Uint8Array.from({ length: 8 }, (_, i) => Number(n >> BigInt(56 - 8 * i) & 0xffn)),
  }),
  bytes: (type: number, value: Uint8Array): Attr => ({ type, value }),
  /** NUL-terminated. */
  string: (type: number, text: string): Attr => ({
    type,
    value: new TextEncoder().encode(text + "\0"),
  }),
  nested: (type: number, attrs: readonly Attr[]): Attr => ({
    type: type | NLA_F_NESTED,
    value: encodeAttrs(attrs),
  }),
  /** rtnetlink's older nests carry no flag bit; `ip` sends them so. */
  plainNest: (type: number, attrs: readonly Attr[]): Attr => ({ type, value: encodeAttrs(attrs) }),
};

type Value = Uint8Array | undefined;
const take = <T>(value: Value, read: (bytes: Uint8Array) => T) =>
  value === undefined ? undefined : read(value);

/** Readers of one attribute's value: undefined where it is absent. */
export const value = {
  u8: (v: Value) => take(v, (b) => new Reader(b, "host").u8()),
  u32: (v: Value) => take(v, (b) => new Reader(b, "host").u32()),
  be16: (v: Value) => take(v, (b) => new Reader(b, "network").u16()),
  be32: (v: Value) => take(v, (b) => new Reader(b, "network").u32()),
  u16: (v: Value) => take(v, (b) => new Reader(b, "host").u16()),
  string: (v: Value) => take(v, (b) => new TextDecoder().decode(b).replace(/\0.*$/s, "")),
};
