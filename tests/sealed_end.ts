/** The far end of a link whose packets are sealed, and what the near end has to take, found the slow way. */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { equalBytes } from "../lib/bytes.ts";
import type { LinkSeal, SealedSession } from "../lib/engine/messages.ts";
import { counterNonce, counterTag, equalTags } from "../lib/hub/protocol/gretun/crypto.ts";
import { SEAL_HEADER_LENGTH } from "../lib/hub/protocol/gretun/seal.ts";
import { SESSION_LENGTH, TAG_LENGTH } from "../lib/hub/protocol/gretun/wire.ts";
import { WINDOW_SIZE } from "../lib/replay_window.ts";
import { SessionCounters } from "../lib/session_counters.ts";
import { seal } from "./seal.ts";
import type { Random } from "./segments.ts";

interface Session {
  near: SealedSession;
  far: SealedSession;
  /** Counters of what the near end has taken. */
  taken: Set<number>;
  highest: number;
}

export class SealedEnd {
  /** For the near end. It sends in the first session, and takes packets of both. */
  readonly spec: LinkSeal;
  readonly #sessions: readonly [Session, Session];
  #lastSent = -1;

  constructor(number: number, { encrypt, anySource }: { encrypt: boolean; anySource: boolean }) {
    this.#sessions = [session(2 * number, encrypt), session(2 * number + 1, encrypt)];
    const taking = this.#sessions.map(({ near }) => near);
    this.spec = { sending: taking[0]!, taking, anySource };
  }

  /** In one of the sessions. */
  seal(inner: Uint8Array, random: Random): Uint8Array {
    return seal({ shared: this.#sessions[random(2)]!.far }, inner);
  }

  /** What the near end has sent. Its counters rise. */
  opened(datagram: Uint8Array): Uint8Array | undefined {
    const inner = opened(this.#sessions[0].far, datagram);
    if (!inner || counterOf(datagram) <= this.#lastSent) return undefined;
    this.#lastSent = counterOf(datagram);
    return inner;
  }

  /** What the near end has to take of a datagram, which it then has taken. */
  taken(datagram: Uint8Array): Uint8Array | undefined {
    const session = this.#sessions.find(({ near }) =>
      equalBytes(near.id, datagram.subarray(0, SESSION_LENGTH))
    );
    const inner = session && opened(session.near, datagram);
    if (!inner) return undefined;
    const counter = counterOf(datagram);
    const isLate = session.highest - counter >= WINDOW_SIZE;
    if (isLate || session.taken.has(counter)) return undefined;
    session.taken.add(counter);
    session.highest = Math.max(session.highest, counter);
    for (const old of session.taken) {
      if (session.highest - old < WINDOW_SIZE) break;
      session.taken.delete(old);
    }
    return inner;
  }
}

function session(number: number, encrypt: boolean): Session {
  const id = new Uint8Array(SESSION_LENGTH).fill(0xb0 + number);
  const [ours, theirs] = [1, 2].map((n) => new Uint8Array(32).fill(n * 0x40 + number));
  const end = (sendKey: Uint8Array, receiveKey: Uint8Array) => ({
    ...{ id, sendKey, receiveKey, encrypt, memory: new SessionCounters().memory },
  });
  return {
    near: end(ours!, theirs!),
    far: end(theirs!, ours!),
    taken: new Set(),
    highest: -1,
  };
}

/** Undefined where the tag is wrong; numbers of 53 bits are all that there are. */
function opened(
  { receiveKey, encrypt }: SealedSession,
  datagram: Uint8Array,
): Uint8Array | undefined {
  if (datagram.length < SEAL_HEADER_LENGTH + TAG_LENGTH) return undefined;
  const counter = BigInt(counterOf(datagram));
  const sealed = datagram.subarray(SEAL_HEADER_LENGTH);
  if (!encrypt) {
    const covered = datagram.subarray(0, -TAG_LENGTH);
    const isRight = equalTags(counterTag(receiveKey, counter, covered), sealed.slice(-TAG_LENGTH));
    return isRight ? sealed.subarray(0, -TAG_LENGTH) : undefined;
  }
  const header = datagram.subarray(0, SEAL_HEADER_LENGTH);
  try {
    return chacha20poly1305(receiveKey, counterNonce(counter), header).decrypt(sealed);
  } catch {
    return undefined;
  }
}

function counterOf(datagram: Uint8Array): number {
  return Number(new DataView(datagram.buffer, datagram.byteOffset).getBigUint64(SESSION_LENGTH));
}
