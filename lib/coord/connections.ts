/**
 * Which TCP connections the HTTP server keeps. Pure: time is an argument, and closing is handed in.
 *
 * One that asks nothing, or nothing more, is closed after a while; one that holds a call is not. A
 * node has a bounded number, and so has a source as long as nobody has shown to be a node on them.
 * When there is room for no more, those that wait for nothing make room, the oldest first. A head that does
 * not end takes up to 16 KiB, so that of strangers' only so many wait for nothing at a time.
 */
import type { NodeKey } from "../keys.ts";

/** For the first request's head. */
export const HEADER_MS = 10_000;
/** Between two requests, and for taking an answer. Clients let go after 90 s by themselves. */
export const IDLE_MS = 120_000;
/** Of more than that, idle ones go: a node that polls uses fewer, and left them behind when it moved. */
export const KEPT_PER_NODE = 4;
/** Of more than that, those go that it has not used for longest, busy or not. */
export const MAX_PER_NODE = 8;
/** Connections of one source on which no node has called yet. */
export const MAX_STRANGERS = 256;
/** Of all sources, those of them that have waited for nothing for a while. */
export const MAX_IDLE_STRANGERS = 256;
/** A request's head comes with the connection, or after the exchange of TLS. */
export const STRANGERS_GRACE_MS = 1_000;
/** For so long after its last connection a source counts as one that is there. */
export const PROVEN_MS = 600_000;
const MAX_PROVEN = 65_536;

export class Connection {
  /** An IPv4 address, or the network that one IPv6 host can choose from. */
  readonly source: string;
  readonly close: () => void;
  /** Requests that are not answered yet. */
  pending = 0;
  /** Since when it has been as it is: new, answering or idle. */
  sinceMs: number;
  hasAsked = false;
  /** It is a WebSocket now, which has limits of its own. */
  isUpgraded = false;
  /** Who called on it; a proxy's serves several. */
  node?: NodeKey | "several";

  constructor(options: { source: string; close: () => void; nowMs: number }) {
    this.source = options.source;
    this.close = options.close;
    this.sinceMs = options.nowMs;
  }

  /** Nothing is lost when it is closed. */
  get isIdle(): boolean {
    return this.pending === 0 && !this.isUpgraded;
  }
}

export type ConnectionRefusal = "full" | "source";

export class Connections {
  readonly #max: number;
  readonly #all = new Set<Connection>();
  readonly #ofNode = new Map<NodeKey, Set<Connection>>();
  readonly #strangers = new Map<string, Set<Connection>>();
  /** Those of strangers that wait for nothing, the oldest first. */
  readonly #idleStrangers = new Set<Connection>();
  /** When each source last had a connection, the earliest first. */
  readonly #provenMs = new Map<string, number>();

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#all.size;
  }

  /** Whether somebody waits for an answer. */
  get areBusy(): boolean {
    return [...this.#all].some(({ pending }) => pending > 0);
  }

  /** Takes it, or says why not. Others may be closed for it. */
  admit(connection: Connection): ConnectionRefusal | undefined {
    const strangers = this.#strangers.get(connection.source);
    if (strangers && strangers.size >= MAX_STRANGERS && !this.#closeOldestIdle(strangers)) {
      return "source";
    }
    if (this.#all.size >= this.#max && !this.closeIdle()) return "full";
    this.#trimStrangers(connection.sinceMs);
    this.#all.add(connection);
    addTo(this.#strangers, connection.source, connection);
    this.#idleStrangers.add(connection);
    this.#proven(connection.source, connection.sinceMs);
    return undefined;
  }

  /** Whether somebody receives there: a connection needs that. */
  isProven(source: string, nowMs: number): boolean {
    return nowMs - (this.#provenMs.get(source) ?? -Infinity) <= PROVEN_MS;
  }

  #proven(source: string, nowMs: number): void {
    this.#provenMs.delete(source);
    this.#provenMs.set(source, nowMs);
    const [oldest] = this.#provenMs.keys();
    if (this.#provenMs.size > MAX_PROVEN) this.#provenMs.delete(oldest!);
  }

  /** A request's head has come. */
  began(connection: Connection, nowMs: number): void {
    this.#idleStrangers.delete(connection);
    connection.pending++;
    connection.hasAsked = true;
    connection.sinceMs = nowMs;
  }

  /** The request turned out to be that node's. */
  claimed(connection: Connection, node: NodeKey): void {
    if (connection.node === node || !this.#all.has(connection)) return;
    removeFrom(this.#strangers, connection.source, connection);
    if (connection.node !== undefined) {
      if (connection.node !== "several") removeFrom(this.#ofNode, connection.node, connection);
      connection.node = "several";
      return;
    }
    connection.node = node;
    addTo(this.#ofNode, node, connection);
    this.#trim(this.#ofNode.get(node)!, connection);
  }

  #trim(own: ReadonlySet<Connection>, used: Connection): void {
    const others = [...own].filter((one) => one !== used);
    const left =
      (own.size > KEPT_PER_NODE ? oldest(others.filter(({ isIdle }) => isIdle)) : undefined) ??
        (own.size > MAX_PER_NODE ? oldest(others) : undefined);
    if (!left) return;
    this.close(left);
    this.#trim(own, used);
  }

  /** The answer is on its way. */
  answered(connection: Connection, options: { isUpgrade: boolean; nowMs: number }): void {
    connection.pending--;
    connection.sinceMs = options.nowMs;
    if (!options.isUpgrade) {
      const isStranger = connection.node === undefined && this.#all.has(connection);
      if (isStranger && connection.isIdle) this.#idleStrangers.add(connection);
      return;
    }
    connection.isUpgraded = true;
    removeFrom(this.#strangers, connection.source, connection);
  }

  /** It has ended, or is about to. */
  remove(connection: Connection): void {
    if (!this.#all.delete(connection)) return;
    this.#idleStrangers.delete(connection);
    removeFrom(this.#strangers, connection.source, connection);
    const { node } = connection;
    if (node !== undefined && node !== "several") removeFrom(this.#ofNode, node, connection);
  }

  #trimStrangers(nowMs: number): void {
    for (const one of this.#idleStrangers) {
      const isNew = nowMs - one.sinceMs < STRANGERS_GRACE_MS;
      if (this.#idleStrangers.size <= MAX_IDLE_STRANGERS || isNew) return;
      this.close(one);
    }
  }

  /** Closes those that nothing comes from any more; to be called each few seconds. */
  sweep(nowMs: number): void {
    this.#trimStrangers(nowMs);
    for (const connection of this.#all) {
      this.#proven(connection.source, nowMs);
      const limitMs = connection.hasAsked ? IDLE_MS : HEADER_MS;
      if (connection.isIdle && nowMs - connection.sinceMs >= limitMs) this.close(connection);
    }
  }

  /** Closes the oldest that waits for nothing; false when there is none. */
  closeIdle(): boolean {
    return this.#closeOldestIdle(this.#all);
  }

  closeAll(): void {
    for (const connection of this.#all) this.close(connection);
  }

  #closeOldestIdle(among: ReadonlySet<Connection>): boolean {
    const found = oldest([...among].filter(({ isIdle }) => isIdle));
    if (found) this.close(found);
    return found !== undefined;
  }

  close(connection: Connection): void {
    this.remove(connection);
    connection.close();
  }
}

/** Of a node's, the one that it has not used for longest. */
function oldest(connections: readonly Connection[]): Connection | undefined {
  return connections.toSorted((a, b) => a.sinceMs - b.sinceMs)[0];
}

function addTo<K>(sets: Map<K, Set<Connection>>, key: K, connection: Connection): void {
  sets.set(key, (sets.get(key) ?? new Set()).add(connection));
}

function removeFrom<K>(sets: Map<K, Set<Connection>>, key: K, connection: Connection): void {
  const set = sets.get(key);
  set?.delete(connection);
  if (set?.size === 0) sets.delete(key);
}
