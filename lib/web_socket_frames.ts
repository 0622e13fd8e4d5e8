/** Frames of WebSockets (RFC 6455), of both ends; without extensions. */
import { toBase64 } from "./bytes.ts";

/** Section 5.2. */
export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;
const CONTROL = 8;
const FINAL = 0x80;
const RESERVED = 0x70;
const MASKED = 0x80;
const MAX_HEADER = 14;
const MAX_CONTROL_PAYLOAD = 125;

/** Section 7.4.1. */
export const CLOSE = {
  normal: 1000,
  goingAway: 1001,
  protocolError: 1002,
  unsupported: 1003,
  none: 1005,
  abnormal: 1006,
  policy: 1008,
  tooBig: 1009,
} as const;

/** Section 1.3. */
const ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** What a server says to the client's key. */
export async function acceptOf(key: string): Promise<string> {
  const bytes = new TextEncoder().encode(key + ACCEPT_GUID);
  return toBase64(new Uint8Array(await crypto.subtle.digest("SHA-1", bytes)));
}

/** The other end does what it may not; the connection ends with that code. */
export class WebSocketError extends Error {
  override name = "WebSocketError";
  readonly code: number;

  constructor(code: number, message: string) {
    super(`closed with ${code}: ${message}`);
    this.code = code;
  }
}

/** A whole message, or a control frame. */
export interface WebSocketMessage {
  opcode: number;
  payload: Uint8Array<ArrayBuffer>;
}

/** One that is final. What a client sends has a mask of four bytes. */
export function encodeFrame(
  opcode: number,
  payload: Uint8Array,
  mask?: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const { length } = payload;
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const start = 2 + extended + (mask ? 4 : 0);
  const frame = new Uint8Array(start + length);
  const view = new DataView(frame.buffer);
  frame[0] = FINAL | opcode;
  frame[1] = (mask ? MASKED : 0) | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) view.setUint16(2, length);
  if (extended === 8) view.setBigUint64(2, BigInt(length));
  frame.set(payload, start);
  if (mask) {
    frame.set(mask, 2 + extended);
    for (let i = 0; i < length; i++) frame[start + i]! ^= mask[i & 3]!;
  }
  return frame;
}

/** Bytes that come together: never more than was told, whatever is announced. */
class Payload {
  #bytes = new Uint8Array(0);
  length = 0;

  /** Room for so many more, and no more than `max` in all. */
  reserve(more: number, max: number): void {
    const wanted = this.length + more;
    if (wanted <= this.#bytes.length) return;
    // Who sends many small parts shall not have all of it copied for each.
    const isFirst = this.length === 0;
    const room = isFirst ? wanted : Math.min(max, Math.max(wanted, 2 * this.#bytes.length));
    const larger = new Uint8Array(room);
    larger.set(this.#bytes.subarray(0, this.length));
    this.#bytes = larger;
  }

  push(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  unmask(from: number, mask: Uint8Array): void {
    for (let i = from; i < this.length; i++) this.#bytes[i]! ^= mask[i - from & 3]!;
  }

  take(): Uint8Array<ArrayBuffer> {
    const bytes = this.#bytes.subarray(0, this.length);
    this.#bytes = new Uint8Array(0);
    this.length = 0;
    return bytes;
  }
}

interface Frame {
  isFinal: boolean;
  opcode: number;
  mask: Uint8Array | undefined;
  into: Payload;
  /** In `into`. */
  from: number;
  missing: number;
}

/**
 * Makes messages of bytes as they come, in pieces of any length. What is longer than `maxMessage` in one
 * frame or in many is refused at the header that says so: no more than that is ever kept.
 */
export class MessageReader {
  readonly #isMasked: boolean;
  readonly #maxMessage: number;
  readonly #header = new Uint8Array(MAX_HEADER);
  #headerLength = 0;
  #frame: Frame | undefined;
  readonly #message = new Payload();
  /** Of a message that is not whole. */
  #opcode: number | undefined;

  constructor({ isMasked, maxMessage }: { isMasked: boolean; maxMessage: number }) {
    this.#isMasked = isMasked;
    this.#maxMessage = maxMessage;
  }

  /** Whether a message has begun that is not whole. */
  get isAmid(): boolean {
    return this.#headerLength > 0 || this.#frame !== undefined || this.#opcode !== undefined;
  }

  /** Throws {@link WebSocketError}, after which nothing more is to be read. */
  *push(bytes: Uint8Array): Generator<WebSocketMessage> {
    let at = 0;
    while (true) {
      if (!this.#frame) {
        const missing = this.#headerWanted() - this.#headerLength;
        const piece = bytes.subarray(at, at + missing);
        this.#header.set(piece, this.#headerLength);
        this.#headerLength += piece.length;
        at += piece.length;
        if (piece.length < missing) return;
        if (this.#headerLength < this.#headerWanted()) continue;
        this.#frame = this.#begin();
        this.#headerLength = 0;
      }
      const { into, missing } = this.#frame;
      const piece = bytes.subarray(at, at + missing);
      into.push(piece);
      at += piece.length;
      this.#frame.missing -= piece.length;
      if (this.#frame.missing > 0) return;
      const message = this.#end(this.#frame);
      this.#frame = undefined;
      if (message) yield message;
    }
  }

  /** As far as its first two bytes tell, if they are there. */
  #headerWanted(): number {
    if (this.#headerLength < 2) return 2;
    const short = this.#header[1]! & 0x7f;
    return 2 + (short === 126 ? 2 : short === 127 ? 8 : 0) + (this.#isMasked ? 4 : 0);
  }

  /** Its header has come. */
  #begin(): Frame {
    const header = this.#header.subarray(0, this.#headerLength);
    const [first, second] = header as unknown as [number, number];
    const opcode = first & 0x0f;
    const isFinal = (first & FINAL) !== 0;
    const lengthEnd = header.length - (this.#isMasked ? 4 : 0);
    const length = lengthEnd === 2
      ? second & 0x7f
      : header.subarray(2, lengthEnd).reduce((sum, byte) => sum * 256 + byte, 0);
    if ((second & MASKED) !== 0 !== this.#isMasked || (first & RESERVED) !== 0) {
      throw new WebSocketError(CLOSE.protocolError, "a frame that is not for this end");
    }
    const into = opcode >= CONTROL ? new Payload() : this.#message;
    if (opcode >= CONTROL) {
      if (opcode > OPCODE.pong || !isFinal || length > MAX_CONTROL_PAYLOAD) {
        throw new WebSocketError(CLOSE.protocolError, "a control frame that there is not");
      }
    } else {
      const isContinuation = opcode === OPCODE.continuation;
      if (opcode > OPCODE.binary || isContinuation !== (this.#opcode !== undefined)) {
        throw new WebSocketError(CLOSE.protocolError, "a frame that continues nothing");
      }
      this.#opcode ??= opcode;
      if (into.length + length > this.#maxMessage) {
        throw new WebSocketError(CLOSE.tooBig, "a message that is too long");
      }
    }
    into.reserve(length, this.#maxMessage);
    const mask = this.#isMasked ? header.slice(lengthEnd) : undefined;
    return { isFinal, opcode, mask, into, from: into.length, missing: length };
  }

  #end({ isFinal, opcode, mask, into, from }: Frame): WebSocketMessage | undefined {
    if (mask) into.unmask(from, mask);
    if (opcode >= CONTROL) return { opcode, payload: into.take() };
    if (!isFinal) return undefined;
    const whole = { opcode: this.#opcode!, payload: into.take() };
    this.#opcode = undefined;
    return whole;
  }
}
