/**
 * Sealed data of the user-space plane:
 *
 *     0-7    session, chosen by the hub; never begins as a message of wire.ts
 *     8-15   counter, rises with each packet of a session and direction
 *     16-    the inner IP packet, encrypted or readable
 *     -16    tag over all of it (ChaCha20-Poly1305, RFC 8439)
 *
 * 60 bytes of overhead over IPv4. A listener sees sessions, sizes and times in either case.
 */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { Reader } from "../../../bytes.ts";
import { SessionCounters } from "../../../session_counters.ts";
import { counterNonce, counterTag, deriveKey, equalTags } from "./crypto.ts";
import { SESSION_LENGTH, TAG_LENGTH } from "./wire.ts";

export const SEAL_HEADER_LENGTH = 16;
/** IPv4 20, UDP 8, session 8, counter 8, tag 16. */
export const SEALED_OVERHEAD_BYTES = 60;

/** The keys of one session, by sender; none of them is used for two things. */
export interface SessionKeys {
  dataFromClient: Uint8Array;
  dataFromHub: Uint8Array;
  controlFromClient: Uint8Array;
  controlFromHub: Uint8Array;
}

/** `secret` is the exchange of both ephemeral keys, which both proofs cover. */
export function sessionKeys(secret: Uint8Array, encrypt: boolean): SessionKeys {
  const mode = encrypt ? "enc" : "mac";
  return {
    dataFromClient: deriveKey(secret, `data c ${mode}`),
    dataFromHub: deriveKey(secret, `data h ${mode}`),
    controlFromClient: deriveKey(secret, "control c"),
    controlFromHub: deriveKey(secret, "control h"),
  };
}

/** The session that a packet says it belongs to, as a map's key; undefined for what is too short. */
export function sessionOf(bytes: Uint8Array): string | undefined {
  if (bytes.length < SEAL_HEADER_LENGTH + TAG_LENGTH) return undefined;
  return sessionText(bytes);
}

/** The first 8 bytes as text; every byte one character. */
export function sessionText(session: Uint8Array): string {
  let text = "";
  for (let i = 0; i < SESSION_LENGTH; i++) text += String.fromCharCode(session[i]!);
  return text;
}

/** One end of a session: threads seal and open its packets, and here are opened those they do not know yet. */
export class Sealer {
  readonly #session: Uint8Array;
  readonly #sendKey: Uint8Array;
  readonly #receiveKey: Uint8Array;
  readonly #encrypt: boolean;
  readonly #counters = new SessionCounters();

  constructor(
    session: Uint8Array,
    keys: { send: Uint8Array; receive: Uint8Array },
    encrypt: boolean,
  ) {
    this.#session = session;
    this.#sendKey = keys.send;
    this.#receiveKey = keys.receive;
    this.#encrypt = encrypt;
  }

  /** What threads need to go on with the same session; what they count is seen here. */
  get shared() {
    return {
      ...{ id: this.#session, sendKey: this.#sendKey, receiveKey: this.#receiveKey },
      ...{ encrypt: this.#encrypt, memory: this.#counters.memory },
    };
  }

  /** Of the last packet sent, so that a reset can be told from a forged one. */
  get sent(): bigint {
    return BigInt(this.#counters.sent);
  }

  /** Of the packets received, -1 before the first. */
  get highest(): bigint {
    return BigInt(this.#counters.received.highest);
  }

  /** The inner packet; why not, otherwise. Its session was looked at by the caller. */
  open(packet: Uint8Array): Uint8Array | "replayed" | "bad-tag" {
    const counter = new Reader(packet, "network").skip(SESSION_LENGTH).u64();
    const { received } = this.#counters;
    if (!received.isFresh(Number(counter))) return "replayed";
    const inner = this.#opened(packet, counter);
    if (!inner) return "bad-tag";
    received.take(Number(counter));
    return inner;
  }

  #opened(packet: Uint8Array, counter: bigint): Uint8Array | undefined {
    if (!this.#encrypt) {
      const covered = packet.subarray(0, packet.length - TAG_LENGTH);
      const tag = packet.subarray(covered.length);
      if (!equalTags(counterTag(this.#receiveKey, counter, covered), tag)) return undefined;
      return covered.subarray(SEAL_HEADER_LENGTH);
    }
    const header = packet.subarray(0, SEAL_HEADER_LENGTH);
    try {
      return chacha20poly1305(this.#receiveKey, counterNonce(counter), header)
        .decrypt(packet.subarray(SEAL_HEADER_LENGTH));
    } catch {
      return undefined;
    }
  }
}
