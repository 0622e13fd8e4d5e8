/**
 * The nodes that the coordinator knows, their addresses, and the list of those that are there. Pure:
 * time is an argument, and what must outlive a crash is returned.
 */
import { type Cidr, cidrContains, type Ip } from "../addr.ts";
import type { DiscoKey, NodeKey } from "../keys.ts";
import {
  isSameReach,
  type NodeReach,
  type NodeRecord,
  type RegisterRequest,
  type RegisterResponse,
  withReach,
} from "./api.ts";
import { byAddress, MAX_NODES, Pool } from "./pool.ts";
import { Refusal } from "./refusal.ts";
import { hasStayed, mayLoseAddress, type Origin, refuseCrowd } from "./tenure.ts";

/** A node is listed for so long after its last call; a long poll takes 25 s. */
export const LEASE_MS = 120_000;

/** What the token says by which a node joins. */
export type Joining = Pick<NodeRecord, "tokenId" | "tags" | "isWaiting" | "isEphemeral">;

export class Nodes {
  readonly #pool: Pool;
  readonly #byKey = new Map<NodeKey, NodeRecord>();
  readonly #byIp = new Map<Ip, NodeRecord>();
  readonly #byDisco = new Map<DiscoKey, NodeRecord>();
  readonly #settled = new Set<NodeKey>();
  /** Rises with every change of what is listed. */
  #version: number;
  /** The version in which a node was last listed, changed or taken from the list. */
  readonly #changed = new Map<NodeKey, number>();
  /** Of older versions it is not known what has changed since. */
  #knownSince: number;

  /** Who was listed when the coordinator stopped gets the time of a lease to call again. */
  constructor(pool: Cidr, stored: readonly NodeRecord[], version: number, nowMs: number) {
    this.#pool = new Pool(pool);
    this.#version = version;
    this.#knownSince = version;
    for (const record of stored) {
      if (!cidrContains(pool, record.tunnelIp)) {
        throw new RangeError(`stored address ${record.tunnelIp} is outside of the pool`);
      }
      this.#put(record.listed ? { ...record, leaseEndsMs: nowMs + LEASE_MS } : record);
    }
  }

  get pool(): Cidr {
    return this.#pool.cidr;
  }

  /** What the node has by the pool, as it is told. */
  given({ tunnelIp: ip }: NodeRecord): Pick<RegisterResponse, "tunnelIp"> {
    return { tunnelIp: { ip, prefixLength: this.pool.prefixLength } };
  }

  /** How many nodes the pool has addresses for. */
  get capacity(): number {
    return this.#pool.capacity;
  }

  /** 16 hex digits, as the original writes it. */
  get etag(): string {
    return this.#version.toString(16).padStart(16, "0");
  }

  get version(): number {
    return this.#version;
  }

  get(key: NodeKey): NodeRecord | undefined {
    return this.#byKey.get(key);
  }

  withDiscoKey(key: DiscoKey): NodeRecord | undefined {
    return this.#byDisco.get(key);
  }

  /**
   * The node's record after registering, and whether it must be stored. An unsigned request may
   * add a node, never change one. Throws {@link Refusal}.
   */
  register(
    { requestedTunnelIp, nodeKey, discoKey, name }: RegisterRequest,
    options: {
      signed: boolean;
      isProven?: boolean;
      nowMs: number;
      joining?: Joining;
      origin?: Origin;
      /** What its statement says. */
      reach?: NodeReach;
    },
  ): { record: NodeRecord; changed: boolean; removed?: NodeRecord } {
    const { signed, isProven = false, nowMs, joining, origin, reach } = options;
    const identity = { nodeKey, discoKey, name };
    const known = this.#byKey.get(identity.nodeKey);
    const removed = this.#impostor(identity, isProven);
    // What it told last holds until it tells more; who tells none is of an older version by now.
    const last = known?.discoKey === discoKey ? known.statement : undefined;
    const statement = reach && (last ?? reach.statement);
    const same = known && known.discoKey === identity.discoKey && known.name === identity.name &&
      known.statement === statement && (known.isV1 !== true || !signed) &&
      (known.isProven === true || !isProven);
    if (known && !signed) {
      // The original registers at every start and never signs that; its next call is signed.
      if (same) return { record: known, changed: false };
      throw new Refusal(401, "this node is registered already: sign the request to change it");
    }
    if (same && known.listed && !joining) {
      this.#seen(known, nowMs);
      return { record: known, changed: false };
    }
    const { isV1: _v1, statement: _statement, isProven: _proven, ...before }:
      & Partial<NodeRecord>
      & Pick<NodeRecord, "endpoints"> = (joining && known ? membershipEnded(known) : known) ??
        { endpoints: [], joinedMs: nowMs, ...(origin ? { source: origin.source } : {}) };
    if (!known && origin) {
      refuseCrowd(this.#byKey.values(), origin, { capacity: this.capacity, nowMs });
    }
    // Who nobody vouches for gets what comes.
    const wantedIp = signed && !joining?.isWaiting ? requestedTunnelIp : undefined;
    const tunnelIp = known?.tunnelIp ?? this.#allocate(wantedIp, nowMs);
    if (removed) this.remove(removed);
    const record: NodeRecord = {
      ...before,
      ...identity,
      ...(last ? {} : reach),
      ...(statement ? { statement } : {}),
      ...(isProven ? { isProven } : {}),
      // The original never signs that.
      ...(signed ? {} : { isV1: true }),
      tunnelIp,
      updatedMs: nowMs,
      seenMs: nowMs,
      leaseEndsMs: nowMs + LEASE_MS,
      listed: true,
      ...joining,
    };
    if (record.isWaiting) record.listed = false;
    this.#put(record);
    this.#listChanged(record);
    return { record, changed: true, ...(removed ? { removed } : {}) };
  }

  /**
   * Sealed messages are addressed by disco key: nobody may claim another node's. Who claims it without
   * having proven that it is its own gives way to who has. Throws {@link Refusal}.
   */
  #impostor(
    { nodeKey, discoKey }: Pick<NodeRecord, "nodeKey" | "discoKey">,
    isProven: boolean,
  ): NodeRecord | undefined {
    const owner = this.#byDisco.get(discoKey);
    if (!owner || owner.nodeKey === nodeKey) return undefined;
    if (isProven && !owner.isProven) return owner;
    throw new Refusal(409, "another node has this disco key");
  }

  /** Replaces all that the node told of how it is reached. Whether the list of peers changed. */
  setReach(key: NodeKey, reach: NodeReach, nowMs: number): boolean {
    const record = this.#byKey.get(key);
    if (!record) throw new Refusal(404, "not registered");
    if (isSameReach(record, reach)) return false;
    this.#put({ ...withReach(record, reach), updatedMs: nowMs });
    this.#listChanged(record);
    return true;
  }

  /** Any authenticated call shows that the node lives. True when it is listed anew by it. */
  renew(key: NodeKey, nowMs: number): boolean {
    const record = this.#byKey.get(key);
    if (!record) return false;
    this.#seen(record, nowMs);
    if (record.listed) return false;
    record.listed = true;
    this.#listChanged(record);
    return true;
  }

  #seen(record: NodeRecord, nowMs: number): void {
    record.leaseEndsMs = nowMs + LEASE_MS;
    record.seenMs = nowMs;
    if (!hasStayed(record, nowMs)) return;
    record.isSettled = true;
    this.#settled.add(record.nodeKey);
  }

  /** Nodes that have come to stay since the last call: to be stored. */
  takeSettled(): NodeKey[] {
    const settled = [...this.#settled];
    this.#settled.clear();
    return settled;
  }

  /** Ends the lease; the node keeps its address. Whether the list of peers changed. */
  leave(key: NodeKey, nowMs: number): boolean {
    const record = this.#byKey.get(key);
    if (!record?.listed) return false;
    record.leaseEndsMs = nowMs;
    record.listed = false;
    this.#listChanged(record);
    return true;
  }

  /** Takes nodes from the list whose lease or membership is over, and gives them. */
  expire(nowMs: number): NodeRecord[] {
    const ended = [...this.#byKey.values()].filter((record) =>
      record.listed && (record.leaseEndsMs <= nowMs || isExpired(record, nowMs))
    );
    for (const record of ended) record.listed = false;
    if (ended.length > 0) this.#listChanged(...ended);
    // What changed does not tell those who are members no more from those who are not there.
    if (ended.some((record) => isExpired(record, nowMs))) this.forgetChanges();
    for (const record of ended) if (record.isEphemeral) this.remove(record);
    return ended;
  }

  all(): NodeRecord[] {
    return [...this.#byKey.values()].toSorted(byAddress);
  }

  /** Changes what the operator says of a node; undefined takes something back. */
  edit(record: NodeRecord, change: { [K in keyof NodeRecord]?: NodeRecord[K] | undefined }): void {
    const entries = Object.entries({ ...record, ...change });
    const edited = Object.fromEntries(entries.filter(([, value]) => value !== undefined));
    this.#put(edited as NodeRecord);
    this.#listChanged(record);
    if (change.expiresMs !== undefined) this.forgetChanges();
  }

  /** Those in the list of peers, by address. */
  listed(): NodeRecord[] {
    return [...this.#byKey.values()].filter(({ listed }) => listed).toSorted(byAddress);
  }

  /** Those that came, changed or went since the list had that etag; undefined where that is not known. */
  changes(etag: string): NodeRecord[] | undefined {
    const since = /^[0-9a-f]{16}$/.test(etag) ? parseInt(etag, 16) : NaN;
    if (!(since >= this.#knownSince && since <= this.#version)) return undefined;
    const changed = [...this.#changed].flatMap(([key, version]) =>
      version > since ? [this.#byKey.get(key)!] : []
    );
    return changed.toSorted(byAddress);
  }

  /** Whoever asks next is told the whole list. */
  forgetChanges(): void {
    this.#knownSince = ++this.#version;
  }

  #listChanged(...records: NodeRecord[]): void {
    this.#version++;
    for (const { nodeKey } of records) this.#changed.set(nodeKey, this.#version);
  }

  #put(record: NodeRecord): void {
    const before = this.#byKey.get(record.nodeKey);
    if (before) {
      this.#byIp.delete(before.tunnelIp);
      this.#byDisco.delete(before.discoKey);
    }
    this.#byKey.set(record.nodeKey, record);
    this.#byIp.set(record.tunnelIp, record);
    this.#byDisco.set(record.discoKey, record);
  }

  #allocate(wanted: Ip | undefined, nowMs: number): Ip {
    const free = this.#byKey.size < MAX_NODES
      ? this.#pool.free(wanted, (ip) => this.#byIp.has(ip))
      : undefined;
    return free ?? this.#reclaim(nowMs);
  }

  /** The address of the node that was silent for longest, if that was long enough. */
  #reclaim(nowMs: number): Ip {
    let oldest: NodeRecord | undefined;
    for (const record of this.#byKey.values()) {
      if (!mayLoseAddress(record, nowMs)) continue;
      if (!oldest || record.leaseEndsMs < oldest.leaseEndsMs) oldest = record;
    }
    if (!oldest) {
      throw new Refusal(500, "pool exhausted: start the coordinator with a larger --pool");
    }
    this.remove(oldest);
    return oldest.tunnelIp;
  }

  /** Forgets it, and hands on its address. */
  remove({ nodeKey, tunnelIp, discoKey, listed }: NodeRecord): void {
    if (listed) this.#changed.set(nodeKey, ++this.#version);
    this.#byKey.delete(nodeKey);
    // Who has a list of before that would not be told that it is gone.
    this.#knownSince = Math.max(this.#knownSince, this.#changed.get(nodeKey) ?? 0);
    this.#changed.delete(nodeKey);
    this.#byIp.delete(tunnelIp);
    this.#byDisco.delete(discoKey);
    this.#pool.giveBack(tunnelIp);
  }
}

export function isExpired({ expiresMs }: NodeRecord, nowMs: number): boolean {
  return expiresMs !== undefined && expiresMs <= nowMs;
}

/** What is left of a node that joins anew: who and where it is. */
function membershipEnded(record: NodeRecord): NodeRecord {
  const { tokenId: _token, isWaiting: _waiting, isEphemeral: _ephemeral, ...rest } = record;
  const { expiresMs: _expires, tags: _tags, ...left } = rest;
  return left;
}
