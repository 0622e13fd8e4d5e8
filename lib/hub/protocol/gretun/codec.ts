/** How the user-space plane tells whose a datagram is: by its session, or by its GRE key. */
import { decodeGre, encodeGre, isIpPacket } from "../../../dataplane/mod.ts";
import type { SockAddr } from "../../../linux/mod.ts";
import type { DataCodec } from "../../plane.ts";
import type { Refusal } from "./auth.ts";
import { SEALED_OVERHEAD_BYTES, type Sealer, sessionOf } from "./seal.ts";

/** IPv4 20, UDP 8, GRE 4, key 4. */
const GRE_OVERHEAD_BYTES = 36;

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
  readonly overheadBytes = SEALED_OVERHEAD_BYTES;
  /** Those whose packets are taken; the owner keeps it. */
  readonly sessions = new Map<string, SealedSession>();
  /** By link: the one that packets are sent in. */
  readonly sending = new Map<string, SealedSession>();
  readonly #events: SealedEvents;

  constructor(events: SealedEvents) {
    this.#events = events;
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
    return { name: session.name, inner };
  }
}

/** GRE with a key, on a spoke whose kernel has none: one far end. */
export class GreCodec implements DataCodec {
  readonly overheadBytes = GRE_OVERHEAD_BYTES;
  keys: { ikey: number; okey: number } | undefined;
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  encode(_name: string, inner: Uint8Array): Uint8Array | undefined {
    return this.keys && encodeGre(inner, this.keys.okey);
  }

  decode(bytes: Uint8Array) {
    const packet = decodeGre(bytes);
    if (!packet || !this.keys || packet.key !== this.keys.ikey) return undefined;
    return { name: this.#name, inner: packet.inner };
  }
}
