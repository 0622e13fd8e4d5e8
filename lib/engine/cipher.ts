/**
 * Sealed datagrams: session 8, counter 8, inner packet, tag 16, by ChaCha20-Poly1305 (RFC 8439) of
 * libsodium. Packets are copied into its memory and back, which costs little beside the cipher.
 */
import type { SessionCounters } from "../session_counters.ts";
import type { Arena } from "./arena.ts";
import type { SealedSession } from "./messages.ts";

export const SEALED_HEADER = 16;
export const SEALED_TAG = 16;
export const SESSION_LENGTH = 8;

/** A session that a thread seals or opens packets of. */
export interface OpenSession extends Omit<SealedSession, "memory"> {
  counters: SessionCounters;
}

/** Of libsodium's WebAssembly; lengths are of 64 bits, in two halves. */
export interface Sodium {
  readonly HEAPU8: Uint8Array<ArrayBuffer>;
  _malloc(length: number): number;
  /** cipher, tag, tag's length, message, its length, additional data, its length, -, nonce, key */
  _crypto_aead_chacha20poly1305_ietf_encrypt_detached(...args: number[]): number;
  /** message, -, cipher, its length, tag, additional data, its length, nonce, key; 0: good */
  _crypto_aead_chacha20poly1305_ietf_decrypt_detached(...args: number[]): number;
}

const KEY_LENGTH = 32;
const NONCE_LENGTH = 12;
const MAX_INNER = 65_535;

export class Cipher {
  readonly #sodium: Sodium;
  readonly #keyAt: number;
  readonly #nonceAt: number;
  /** The header, and what it is of right behind. */
  readonly #headerAt: number;
  readonly #innerAt: number;

  constructor(sodium: Sodium) {
    this.#sodium = sodium;
    this.#keyAt = sodium._malloc(KEY_LENGTH);
    this.#nonceAt = sodium._malloc(NONCE_LENGTH);
    this.#headerAt = sodium._malloc(SEALED_HEADER + MAX_INNER + SEALED_TAG);
    this.#innerAt = this.#headerAt + SEALED_HEADER;
  }

  /** Writes the datagram of a packet in one or two pieces to `to`, and gives its length. */
  seal(
    session: OpenSession,
    { bytes }: Arena,
    to: number,
    [headAt, headLength, restAt, restLength]: readonly [number, number, number, number],
  ): number {
    const heap = this.#sodium.HEAPU8;
    const inner = headLength + restLength;
    const counter = session.counters.next();
    heap.set(session.id, this.#headerAt);
    writeCounter(heap, this.#headerAt + SESSION_LENGTH, counter);
    this.#setKey(heap, session.sendKey, counter);
    heap.set(bytes.subarray(headAt, headAt + headLength), this.#innerAt);
    if (restLength > 0) {
      heap.set(bytes.subarray(restAt, restAt + restLength), this.#innerAt + headLength);
    }
    const covered = session.encrypt ? SEALED_HEADER : SEALED_HEADER + inner;
    this.#sodium._crypto_aead_chacha20poly1305_ietf_encrypt_detached(
      this.#innerAt,
      this.#innerAt + inner,
      0,
      this.#innerAt,
      session.encrypt ? inner : 0,
      0,
      this.#headerAt,
      covered,
      0,
      0,
      this.#nonceAt,
      this.#keyAt,
    );
    const length = SEALED_HEADER + inner + SEALED_TAG;
    bytes.set(heap.subarray(this.#headerAt, this.#headerAt + length), to);
    return length;
  }

  /** Opens the datagram where it lies; why not, otherwise. */
  open(
    session: OpenSession,
    { bytes, view }: Arena,
    at: number,
    length: number,
  ): "replayed" | "bad-tag" | undefined {
    const counter = view.getUint32(at + 8) * 2 ** 32 + view.getUint32(at + 12);
    const { received } = session.counters;
    if (!received.isFresh(counter)) return "replayed";
    const heap = this.#sodium.HEAPU8;
    const inner = length - SEALED_HEADER - SEALED_TAG;
    this.#setKey(heap, session.receiveKey, counter);
    heap.set(bytes.subarray(at, at + length), this.#headerAt);
    const covered = session.encrypt ? SEALED_HEADER : SEALED_HEADER + inner;
    const isBad = this.#sodium._crypto_aead_chacha20poly1305_ietf_decrypt_detached(
      this.#innerAt,
      0,
      this.#innerAt,
      session.encrypt ? inner : 0,
      0,
      this.#innerAt + inner,
      this.#headerAt,
      covered,
      0,
      this.#nonceAt,
      this.#keyAt,
    );
    if (isBad) return "bad-tag";
    received.take(counter);
    if (session.encrypt) {
      bytes.set(heap.subarray(this.#innerAt, this.#innerAt + inner), at + SEALED_HEADER);
    }
    return undefined;
  }

  #setKey(heap: Uint8Array, key: Uint8Array, counter: number): void {
    heap.set(key, this.#keyAt);
    heap.fill(0, this.#nonceAt, this.#nonceAt + 4);
    writeCounter(heap, this.#nonceAt + 4, counter);
  }
}

/** 64 bits, big endian. */
function writeCounter(to: Uint8Array, at: number, counter: number): void {
  let high = Math.floor(counter / 2 ** 32);
  let low = counter >>> 0;
  for (let i = 3; i >= 0; i--) {
    to[at + i] = high & 0xff;
    to[at + 4 + i] = low & 0xff;
    high >>>= 8;
    low >>>= 8;
  }
}
