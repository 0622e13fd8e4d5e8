/**
 * Cursors over bytes. A {@link Reader} checks every read against what is left, a {@link Writer}
 * grows as needed; both fix their byte order once. Hex and base64 helpers stand beside them.
 */

/** "network" is big endian; "host" is this machine's order, which netlink uses. */
export type ByteOrder = "network" | "host" | "little";

export const HOST_IS_LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

function isLittleEndian(order: ByteOrder): boolean {
  return order === "little" || (order === "host" && HOST_IS_LITTLE_ENDIAN);
}

/** Fewer bytes were there than the format asks for. */
export class ShortInputError extends RangeError {
  override name = "ShortInputError";

  constructor(wanted: number, left: number) {
    super(`Cannot read ${wanted} bytes: only ${left} left`);
  }
}

/** Reads fixed-width values from the front of `bytes`; throws {@link ShortInputError}. */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #little: boolean;
  #offset = 0;

  constructor(bytes: Uint8Array, order: ByteOrder) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#little = isLittleEndian(order);
  }

  get offset(): number {
    return this.#offset;
  }

  /** How many bytes are left. */
  get left(): number {
    return this.#bytes.length - this.#offset;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), this.#little);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), this.#little);
  }

  i32(): number {
    return this.#view.getInt32(this.#take(4), this.#little);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), this.#little);
  }

  /** The next `length` bytes as a view, not a copy; all that is left without `length`. */
  bytes(length: number = this.left): Uint8Array {
    const start = this.#take(length);
    return this.#bytes.subarray(start, start + length);
  }

  skip(length: number): this {
    this.#take(length);
    return this;
  }

  #take(length: number): number {
    if (length > this.left) throw new ShortInputError(length, this.left);
    const start = this.#offset;
    this.#offset += length;
    return start;
  }
}

/** Appends fixed-width values; {@link Writer.finish} gives the bytes. Calls can be chained. */
export class Writer {
  #bytes: Uint8Array;
  #view: DataView;
  readonly #little: boolean;
  #length = 0;

  constructor(order: ByteOrder, capacity = 128) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
    this.#little = isLittleEndian(order);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    const at = this.#grow(1);
    this.#view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.#grow(2);
    this.#view.setUint16(at, value, this.#little);
    return this;
  }

  u32(value: number): this {
    const at = this.#grow(4);
    this.#view.setUint32(at, value, this.#little);
    return this;
  }

  i32(value: number): this {
    const at = this.#grow(4);
    this.#view.setInt32(at, value, this.#little);
    return this;
  }

  u64(value: bigint): this {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, value, this.#little);
    return this;
  }

  bytes(value: Uint8Array): this {
    const start = this.#grow(value.length);
    this.#bytes.set(value, start);
    return this;
  }

  /** `length` zero bytes. */
  zeros(length: number): this {
    this.#grow(length);
    return this;
  }

  /** Zero bytes up to the next multiple of `alignment`. */
  align(alignment: number): this {
    return this.zeros((alignment - (this.#length % alignment)) % alignment);
  }

  /** A copy of what was written. */
  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length) as Uint8Array<ArrayBuffer>;
  }

  /** Call it before `#view` or `#bytes` is read: it may replace both. */
  #grow(length: number): number {
    const start = this.#length;
    this.#length += length;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return start;
  }
}

export function concatBytes(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** Not in constant time: for public values only. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

export function startsWithBytes(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return bytes.length >= prefix.length && prefix.every((byte, i) => byte === bytes[i]);
}

const BYTES_AS_HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
/** Of each character's code; what is no digit has none. */
const DIGIT_VALUES: readonly number[] = Array.from("0123456789abcdef").reduce(
  (values, digit, value) => {
    for (const text of [digit, digit.toUpperCase()]) values[text.charCodeAt(0)] = value;
    return values;
  },
  new Array<number>(128).fill(-1),
);

/** Lower case, two digits a byte. */
export function toHex(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i++) text += BYTES_AS_HEX[bytes[i]!];
  return text;
}

/** Accepts either case and white space between bytes; throws `SyntaxError` without the input. */
export function fromHex(text: string): Uint8Array<ArrayBuffer> {
  const digits = /\s/.test(text) ? text.replace(/\s+/g, "") : text;
  const bytes = new Uint8Array(Math.ceil(digits.length / 2));
  for (let i = 0; i < bytes.length; i++) {
    const [high, low] = [digitValue(digits, 2 * i), digitValue(digits, 2 * i + 1)];
    if (high < 0 || low < 0) {
      throw new SyntaxError("Cannot parse hex: want an even number of digits 0-9 a-f");
    }
    bytes[i] = 16 * high + low;
  }
  return bytes;
}

function digitValue(digits: string, at: number): number {
  return DIGIT_VALUES[digits.charCodeAt(at)] ?? -1;
}

/** Standard alphabet with padding (RFC 4648 section 4). */
export function toBase64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}

/** Standard alphabet; throws `SyntaxError` without the input, which may be a secret. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 !== 0) {
    throw new SyntaxError("Cannot parse base64: not the standard padded alphabet");
  }
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
