/** A worker's own copy of the tables: it changes between two rounds of packets, never within one. */
import type { Arena } from "./arena.ts";
import { SessionCounters } from "../session_counters.ts";
import type { OpenSession } from "./cipher.ts";
import { headerLength } from "./encapsulation.ts";
import {
  type Change,
  type Encapsulation,
  type LinkSpec,
  MAX_LINKS,
  type SocketSpec,
} from "./messages.ts";
import { goesTo, InnerCheck, udpSourcePort } from "./inner_check.ts";

const SOCKADDR_ROOM = 64;

export interface WorkerLink {
  readonly spec: LinkSpec;
  /** Undefined: it carries nothing. */
  readonly socket: SocketSpec | undefined;
  readonly headerLength: number;
  /** -1: no key on the wire. */
  readonly okey: number;
  /** That its datagrams are sealed in, where they are. */
  readonly session: OpenSession | undefined;
  readonly inner: InnerCheck;
  /** The far end's `sockaddr` in the arena. */
  readonly toAt: number;
  readonly toLength: number;
}

export class WorkerTables {
  readonly sockets: (SocketSpec | undefined)[] = [];
  readonly links: (WorkerLink | undefined)[] = [];
  readonly #arena: Arena;
  readonly #encapsulation: Encapsulation;
  readonly #addressesAt: number;

  constructor(arena: Arena, encapsulation: Encapsulation) {
    this.#arena = arena;
    this.#encapsulation = encapsulation;
    this.#addressesAt = arena.room(SOCKADDR_ROOM * MAX_LINKS);
  }

  apply(change: Exclude<Change, { kind: "stop" }>): void {
    switch (change.kind) {
      case "socket":
        this.sockets[change.socket.id] = change.socket;
        return this.#renew();
      case "close-socket":
        this.sockets[change.id] = undefined;
        return this.#renew();
      case "link":
        this.links[change.link.id] = this.#link(change.link);
        return;
      case "unlink":
        this.links[change.id] = undefined;
        return;
      default:
        change satisfies never;
    }
  }

  /** A packet of ours that carries others: routes would send it through itself. */
  isOuter(at: number, length: number, version: 4 | 6): boolean {
    const port = udpSourcePort(this.#arena, at, length, version);
    if (port < 0 || !this.sockets.some((socket) => socket?.port === port)) return false;
    return this.links.some((link) =>
      link?.spec.path && goesTo(this.#arena, at, length, version, link.spec.path.to)
    );
  }

  specs(): LinkSpec[] {
    return this.links.flatMap((link) => link ? [link.spec] : []);
  }

  /** Links name sockets, which have come or gone. */
  #renew(): void {
    for (const [id, link] of this.links.entries()) {
      if (link) this.links[id] = this.#link(link.spec);
    }
  }

  #canSend({ path, seal }: LinkSpec): boolean {
    return path !== undefined && (this.#encapsulation !== "sealed" || seal?.sending !== undefined);
  }

  #session({ seal }: LinkSpec): OpenSession | undefined {
    if (!seal?.sending) return undefined;
    const { memory, ...session } = seal.sending;
    return { ...session, counters: new SessionCounters(memory) };
  }

  #link(spec: LinkSpec): WorkerLink {
    const toAt = this.#addressesAt + spec.id * SOCKADDR_ROOM;
    if (spec.path) this.#arena.bytes.set(spec.path.to, toAt);
    return {
      spec,
      socket: this.#canSend(spec) ? this.sockets[spec.path!.socket] : undefined,
      headerLength: headerLength(this.#encapsulation, spec),
      okey: spec.keys?.okey ?? -1,
      session: this.#session(spec),
      inner: new InnerCheck(spec),
      toAt,
      toLength: spec.path?.to.length ?? 0,
    };
  }
}
