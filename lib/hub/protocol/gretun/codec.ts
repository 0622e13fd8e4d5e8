/** How the user-space plane tells whose a datagram is: by its session. */
import type { SockAddr } from "../../../linux/mod.ts";
import type { DataCodec } from "../../../dataplane/mod.ts";
import type { Refusal } from "./auth.ts";
import { SEALED_OVERHEAD_BYTES, type Sealer, sessionOf, sessionText } from "./seal.ts";

/** One end's view of one session. */
export interface SealedSession {
  name: string;
  id: Uint8Array;
  sealer: Sealer;
}

export interface SealedEvents {
  /** A packet that only the far end can have sent: of threads, the first ones of a session alone. */
  onHeard(session: SealedSession, source: SockAddr): void;
  /** Threads have carried packets of the link's far end. */
  onCarried(name: string): void;
  onUnknownSession(bytes: Uint8Array, source: SockAddr): void;
  onRefused(reason: Refusal): void;
}

/** Sessions of a link. */
export interface LinkSessions {
  /** That packets are sent in. */
  sending: SealedSession;
  /** Whose packets are taken. */
  taking: readonly SealedSession[];
}

/** Sealed data: sessions by the number in the packet. */
export class SealedCodec implements DataCodec {
  readonly encapsulation = "sealed";
  readonly signalsApart = true;
  onChanged?: (id: string) => void;
  readonly #links = new Map<string, LinkSessions>();
  readonly #taking = new Map<string, SealedSession>();
  readonly #events: SealedEvents;
  readonly #takesFrom: ((source: SockAddr) => boolean) | undefined;

  /** `takesFrom`: where packets may come from; absent: anywhere, if they are sealed well. */
  constructor(events: SealedEvents, takesFrom?: (source: SockAddr) => boolean) {
    this.#events = events;
    this.#takesFrom = takesFrom;
  }

  extras(name: string) {
    const sessions = this.#links.get(name);
    if (!sessions) return {};
    const sending = sessions.sending.sealer.shared;
    const taking = sessions.taking.map(({ sealer }) => sealer.shared);
    return { seal: { sending, taking, anySource: this.#takesFrom === undefined } };
  }

  heard(name: string): void {
    this.#events.onCarried(name);
  }

  onSession(id: Uint8Array, source: SockAddr): void {
    const session = this.#taking.get(sessionText(id));
    if (session) this.#events.onHeard(session, source);
  }

  /** The sessions of a link from now on; undefined: none. */
  setSessions(name: string, sessions: LinkSessions | undefined): void {
    for (const { id } of this.#links.get(name)?.taking ?? []) this.#taking.delete(sessionText(id));
    if (sessions) this.#links.set(name, sessions);
    else this.#links.delete(name);
    for (const session of sessions?.taking ?? []) {
      this.#taking.set(sessionText(session.id), session);
    }
    this.onChanged?.(name);
  }

  sessions(name: string): LinkSessions | undefined {
    return this.#links.get(name);
  }

  overheadBytes(): number {
    return SEALED_OVERHEAD_BYTES;
  }

  decode(bytes: Uint8Array, source: SockAddr) {
    if (this.#takesFrom?.(source) === false) {
      this.#events.onRefused("wrong-address");
      return undefined;
    }
    const key = sessionOf(bytes);
    const session = key === undefined ? undefined : this.#taking.get(key);
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
