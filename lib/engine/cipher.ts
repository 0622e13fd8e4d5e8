/**
 * Sealed datagrams: session 8, counter 8, inner packet, tag 16, by ChaCha20-Poly1305. Packets are
 * copied into its memory and back, which costs little beside the cipher.
 */
import type { SessionCounters } from "../session_counters.ts";
import { type Aead, HEADER_LENGTH, TAG_LENGTH } from "./aead.ts";
import type { Arena } from "./arena.ts";
import type { SealedSession } from "./messages.ts";

export const SEALED_HEADER = HEADER_LENGTH;
export const SEALED_TAG = TAG_LENGTH;
export const SESSION_LENGTH = 8;

/** A session that a thread seals or opens packets of. */
export interface OpenSession extends Omit<SealedSession, "memory"> {
  counters: SessionCounters;
}

const NONCE_LENGTH = 12;

export class Cipher {
  readonly #aead: Aead;

  constructor(aead: Aead) {
    this.#aead = aead;
  }

  /** Writes the datagram of a packet in one or two pieces to `to`, and gives its length. */
  seal(
    session: OpenSession,
    { bytes }: Arena,
    to: number,
    [headAt, headLength, restAt, restLength]: readonly [number, number, number, number],
  ): number {
    const { memory, places } = this.#aead;
    const inner = headLength + restLength;
    const counter = session.counters.next();
    memory.set(session.id, places.header);
    writeCounter(memory, places.header + SESSION_LENGTH, counter);
    this.#setKey(session.sendKey, counter);
    memory.set(bytes.subarray(headAt, headAt + headLength), places.inner);
    if (restLength > 0) {
      memory.set(bytes.subarray(restAt, restAt + restLength), places.inner + headLength);
    }
    this.#aead.encrypt(session.encrypt ? inner : 0, coveredOf(session, inner));
    bytes.set(memory.subarray(places.header, places.inner + inner), to);
    bytes.set(memory.subarray(places.tag, places.tag + SEALED_TAG), to + SEALED_HEADER + inner);
    return SEALED_HEADER + inner + SEALED_TAG;
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
    const { memory, places } = this.#aead;
    const inner = length - SEALED_HEADER - SEALED_TAG;
    const tagAt = at + SEALED_HEADER + inner;
    this.#setKey(session.receiveKey, counter);
    memory.set(bytes.subarray(at, tagAt), places.header);
    memory.set(bytes.subarray(tagAt, tagAt + SEALED_TAG), places.tag);
    if (!this.#aead.decrypt(session.encrypt ? inner : 0, coveredOf(session, inner))) {
      return "bad-tag";
    }
    received.take(counter);
    if (session.encrypt) {
      bytes.set(memory.subarray(places.inner, places.inner + inner), at + SEALED_HEADER);
    }
    return undefined;
  }

  #setKey(key: Uint8Array, counter: number): void {
    const { memory, places } = this.#aead;
    memory.set(key, places.key);
    memory.fill(0, places.nonce, places.nonce + NONCE_LENGTH - 8);
    writeCounter(memory, places.nonce + NONCE_LENGTH - 8, counter);
  }
}

function coveredOf({ encrypt }: OpenSession, inner: number): number {
  return encrypt ? SEALED_HEADER : SEALED_HEADER + inner;
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
