/** How the user-space plane tells whose a datagram is: by its session. */
import type { SockAddr } from "../../../linux/mod.ts";
import { type DataCodec, isIpPacket } from "../../../dataplane/mod.ts";
import type { Refusal } from "./auth.ts";
import { SEALED_OVERHEAD_BYTES, type Sealer, sessionOf } from "./seal.ts";

/** One end's view of one session. */
export interface SealedSession {
  name: string;
  sealer: Sealer;
}

export interface SealedEvents {
  /** A packet that only the far end can have sent. */
  onHeard(session: SealedSession, source: SockAddr): void;
  onUnknownSession(bytes: Uint8Array, source: SockAddr): void;
  onRefused(reason: Refusal): void;
}

/** Sealed data: sessions by the number in the packet. */
export class SealedCodec implements DataCodec {
  /** Those whose packets are taken; the owner keeps it. */
  readonly sessions = new Map<string, SealedSession>();
  /** By link: the one that packets are sent in. */
  readonly sending = new Map<string, SealedSession>();
  readonly #events: SealedEvents;

  constructor(events: SealedEvents) {
    this.#events = events;
  }

  overheadBytes(): number {
    return SEALED_OVERHEAD_BYTES;
  }

  encode(name: string, inner: Uint8Array): Uint8Array | undefined {
    return isIpPacket(inner) ? this.sending.get(name)?.sealer.seal(inner) : undefined;
  }

  decode(bytes: Uint8Array, source: SockAddr) {
    const key = sessionOf(bytes);
    const session = key === undefined ? undefined : this.sessions.get(key);
    if (!session) {
      if (key === undefined) this.#events.onRefused("malformed");
      else this.#events.onUnknownSession(bytes, source);
      return undefined;
    }
    const inner = session.sealer.open(bytes);
    if (typeof inner === "string") {
      this.#events.onRefused(inner);
      return undefined;
    }
    this.#events.onHeard(session, source);
    return { id: session.name, inner };
  }
}
