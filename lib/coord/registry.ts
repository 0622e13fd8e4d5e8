/**
 * What the coordinator knows: nodes and their addresses, the mailbox of sealed messages, and which
 * signatures were seen. Pure: time is an argument, and what must outlive a crash is returned.
 */
import { type Cidr, cidrContains, formatEndpoint, type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import type { DiscoKey, NodeKey } from "../keys.ts";
import type { AdvertisedEndpoint, Envelope, NodeNat, PeerRecord, RegisterRequest } from "./api.ts";
import { WINDOW_SECONDS } from "./auth.ts";

/** A node is listed for so long after its last call; a long poll takes 25 s. */
export const LEASE_MS = 120_000;
/** An address whose node was silent for so long may be given to another, if none is free. */
export const ADDRESS_KEPT_MS = 30 * 24 * 3600 * 1000;
/** However large the pool is: the memory that nodes may take. */
export const MAX_NODES = 65_536;
export const MAX_QUEUE = 64;
export const SIGNAL_MAX_AGE_MS = 30_000;
/** All mailboxes together. */
export const MAX_QUEUED_BYTES = 32 * 1024 * 1024;
/** What a sealed message takes besides its bytes. */
const ENVELOPE_OVERHEAD = 128;
/** Signatures remembered: more in one window than this are refused, not forgotten. */
export const MAX_SEEN = 500_000;
/** So that one node cannot use up all of {@link MAX_SEEN}. */
export const MAX_SEEN_PER_NODE = 16_384;

/** What is stored of a node. Times are whole ms since 1970. */
export interface NodeRecord {
  nodeKey: NodeKey;
  discoKey: DiscoKey;
  name: string;
  tunnelIp: Ip;
  endpoints: AdvertisedEndpoint[];
  /** Not stored: nodes tell it again when the coordinator was away. */
  nat?: NodeNat | undefined;
  updatedMs: number;
  /** Renewed in memory only; what is stored is when it was last written. */
  leaseEndsMs: number;
  /** Whether it is in the list of peers: the lease lives, or its end was not noticed yet. */
  listed: boolean;
}

/** A rule was broken; `status` is the HTTP status. */
export class RegistryError extends Error {
  override name = "RegistryError";
  constructor(readonly status: number, message: string, readonly retryAfterMs?: number) {
    super(message);
  }
}

type Queued = Required<Envelope> & { enqueuedMs: number };

export class Registry {
  readonly pool: Cidr;
  readonly #nodes = new Map<NodeKey, NodeRecord>();
  readonly #byIp = new Map<Ip, NodeRecord>();
  readonly #byDisco = new Map<DiscoKey, NodeRecord>();
  readonly #queues = new Map<DiscoKey, Queued[]>();
  #queuedBytes = 0;
  /** Signature to when it may be forgotten. */
  readonly #seen = new Map<NodeKey, Map<string, number>>();
  #seenCount = 0;
  /** Rises with every change of what is listed. */
  #version: number;
  /** The version in which a node was last listed, changed or taken from the list. */
  readonly #changed = new Map<NodeKey, number>();
  /** Of older versions it is not known what has changed since. */
  #knownSince: number;
  /** No address below is free: none is ever given back, only handed on. */
  #lowestFree: number;

  /** Who was listed when the coordinator stopped gets the time of a lease to call again. */
  constructor(pool: Cidr, stored: readonly NodeRecord[], version: number, nowMs: number) {
    this.pool = pool;
    this.#version = version;
    this.#knownSince = version;
    [this.#lowestFree] = this.#range();
    for (const record of stored) {
      if (!cidrContains(pool, record.tunnelIp)) {
        throw new RangeError(`stored address ${record.tunnelIp} is outside of the pool`);
      }
      this.#put(record.listed ? { ...record, leaseEndsMs: nowMs + LEASE_MS } : record);
    }
  }

  /** How many addresses the pool has for nodes. */
  get capacity(): number {
    const [first, last] = this.#range();
    return Math.min(last - first + 1, MAX_NODES);
  }

  /** 16 hex digits, as the original writes it. */
  get etag(): string {
    return this.#version.toString(16).padStart(16, "0");
  }

  get version(): number {
    return this.#version;
  }

  node(key: NodeKey): NodeRecord | undefined {
    return this.#nodes.get(key);
  }

  /**
   * The node's record after registering, and whether it must be stored. An unsigned request may
   * add a node, never change one. Throws {@link RegistryError}.
   */
  register(
    request: RegisterRequest,
    options: { signed: boolean; nowMs: number },
  ): { record: NodeRecord; changed: boolean } {
    const { signed, nowMs } = options;
    const known = this.#nodes.get(request.nodeKey);
    this.#refuseTakenDiscoKey(request);
    const same = known && known.discoKey === request.discoKey && known.name === request.nodeName;
    if (known && !signed) {
      // The original registers at every start and never signs that; its next call is signed.
      if (same) return { record: known, changed: false };
      throw new RegistryError(
        401,
        "this node is registered already: sign the request to change it",
      );
    }
    if (same && known.listed) {
      known.leaseEndsMs = nowMs + LEASE_MS;
      return { record: known, changed: false };
    }
    const record: NodeRecord = {
      nodeKey: request.nodeKey,
      discoKey: request.discoKey,
      name: request.nodeName,
      tunnelIp: known?.tunnelIp ?? this.#allocate(request.requestedTunnelIp, nowMs),
      endpoints: known?.endpoints ?? [],
      nat: known?.nat,
      updatedMs: nowMs,
      leaseEndsMs: nowMs + LEASE_MS,
      listed: true,
    };
    this.#put(record);
    this.#listChanged(record);
    return { record, changed: true };
  }

  /** Sealed messages are addressed by disco key: nobody may claim another node's. */
  #refuseTakenDiscoKey({ nodeKey, discoKey }: RegisterRequest): void {
    const owner = this.#byDisco.get(discoKey);
    if (owner && owner.nodeKey !== nodeKey) {
      throw new RegistryError(409, "another node has this disco key");
    }
  }

  /** Whether the list of peers changed. */
  setEndpoints(
    key: NodeKey,
    endpoints: AdvertisedEndpoint[],
    nowMs: number,
    nat?: NodeNat,
  ): boolean {
    const record = this.#nodes.get(key);
    if (!record) throw new RegistryError(404, "not registered");
    const text = (list: AdvertisedEndpoint[], nat: NodeNat | undefined) => {
      const endpoints = list.map(({ endpoint, source }) => `${formatEndpoint(endpoint)} ${source}`);
      return [...endpoints, nat?.mapping, nat?.portDelta].join();
    };
    if (text(record.endpoints, record.nat) === text(endpoints, nat)) return false;
    record.endpoints = endpoints;
    record.nat = nat;
    record.updatedMs = nowMs;
    this.#listChanged(record);
    return true;
  }

  /** Any authenticated call shows that the node lives. True when it is listed anew by it. */
  renew(key: NodeKey, nowMs: number): boolean {
    const record = this.#nodes.get(key);
    if (!record) return false;
    record.leaseEndsMs = nowMs + LEASE_MS;
    if (record.listed) return false;
    record.listed = true;
    this.#listChanged(record);
    return true;
  }

  /** Ends the lease; the node keeps its address. Whether the list of peers changed. */
  leave(key: NodeKey, nowMs: number): boolean {
    const record = this.#nodes.get(key);
    if (!record?.listed) return false;
    record.leaseEndsMs = nowMs;
    record.listed = false;
    this.#listChanged(record);
    return true;
  }

  /** Takes nodes from the list whose lease is over, and gives them. */
  expire(nowMs: number): NodeRecord[] {
    const ended = [...this.#nodes.values()]
      .filter(({ listed, leaseEndsMs }) => listed && leaseEndsMs <= nowMs);
    for (const record of ended) record.listed = false;
    if (ended.length > 0) this.#listChanged(...ended);
    return ended;
  }

  /** The list of peers, by address. */
  listed(): PeerRecord[] {
    return toPeers([...this.#nodes.values()].filter(({ listed }) => listed));
  }

  /** What has changed since the list had that etag; undefined where that is not known. */
  changes(etag: string): { peers: PeerRecord[]; gone: NodeKey[] } | undefined {
    const since = /^[0-9a-f]{16}$/.test(etag) ? parseInt(etag, 16) : NaN;
    if (!(since >= this.#knownSince && since <= this.#version)) return undefined;
    const changed = [...this.#changed].flatMap(([key, version]) =>
      version > since ? [this.#nodes.get(key)!] : []
    );
    return {
      peers: toPeers(changed.filter(({ listed }) => listed)),
      gone: changed.filter(({ listed }) => !listed).map(({ nodeKey }) => nodeKey),
    };
  }

  #listChanged(...records: NodeRecord[]): void {
    this.#version++;
    for (const { nodeKey } of records) this.#changed.set(nodeKey, this.#version);
  }

  // --- the mailbox

  /** Whether somebody by that key exists to take it. The oldest of a full queue is dropped. */
  enqueue(to: DiscoKey, envelope: Required<Envelope>, nowMs: number): boolean {
    if (!this.#byDisco.has(to)) return false;
    const bytes = envelopeBytes(envelope);
    if (this.#queuedBytes + bytes > MAX_QUEUED_BYTES) {
      throw new RegistryError(503, "mailboxes are full: try again later", SIGNAL_MAX_AGE_MS);
    }
    const queue = this.#queues.get(to) ?? [];
    const dropped = queue.length >= MAX_QUEUE ? queue.shift() : undefined;
    if (dropped) this.#queuedBytes -= envelopeBytes(dropped);
    queue.push({ ...envelope, enqueuedMs: nowMs });
    this.#queues.set(to, queue);
    this.#queuedBytes += bytes;
    return true;
  }

  /** Takes all that is waiting and not too old. */
  dequeue(to: DiscoKey, nowMs: number): Queued[] {
    const queue = this.#queues.get(to) ?? [];
    this.#queues.delete(to);
    for (const envelope of queue) this.#queuedBytes -= envelopeBytes(envelope);
    return queue.filter((envelope) => isFresh(envelope, nowMs));
  }

  #dropStale(nowMs: number): void {
    for (const to of [...this.#queues.keys()]) {
      const fresh = this.dequeue(to, nowMs);
      if (fresh.length === 0) continue;
      this.#queues.set(to, fresh);
      for (const envelope of fresh) this.#queuedBytes += envelopeBytes(envelope);
    }
  }

  // --- replays

  /** Throws {@link RegistryError} when this signature was accepted before. */
  acceptOnce(claim: { nodeKey: NodeKey; signature: string; timestampSeconds: number }): void {
    const seen = this.#seen.get(claim.nodeKey) ?? new Map<string, number>();
    if (seen.has(claim.signature)) {
      throw new RegistryError(401, "this request was sent before: sign each request anew");
    }
    if (seen.size >= MAX_SEEN_PER_NODE) {
      throw new RegistryError(429, "too many requests of this node", WINDOW_SECONDS * 1000);
    }
    if (this.#seenCount >= MAX_SEEN) {
      throw new RegistryError(503, "too many requests of all nodes", WINDOW_SECONDS * 1000);
    }
    seen.set(claim.signature, (claim.timestampSeconds + WINDOW_SECONDS + 1) * 1000);
    this.#seen.set(claim.nodeKey, seen);
    this.#seenCount++;
  }

  #forgetSignatures(wallMs: number): void {
    for (const [key, seen] of this.#seen) {
      for (const [signature, endsMs] of seen) {
        if (endsMs >= wallMs) continue;
        seen.delete(signature);
        this.#seenCount--;
      }
      if (seen.size === 0) this.#seen.delete(key);
    }
  }

  /** Forgets messages and signatures that are too old to matter; to be called each few seconds. */
  sweep(nowMs: number, wallMs: number): void {
    this.#dropStale(nowMs);
    this.#forgetSignatures(wallMs);
  }

  // --- addresses

  #put(record: NodeRecord): void {
    const before = this.#nodes.get(record.nodeKey);
    if (before) {
      this.#byIp.delete(before.tunnelIp);
      this.#byDisco.delete(before.discoKey);
    }
    this.#nodes.set(record.nodeKey, record);
    this.#byIp.set(record.tunnelIp, record);
    this.#byDisco.set(record.discoKey, record);
  }

  #allocate(wanted: Ip | undefined, nowMs: number): Ip {
    if (this.#nodes.size >= MAX_NODES) return this.#reclaim(nowMs);
    const [first, last] = this.#range();
    if (wanted && cidrContains(this.pool, wanted) && !this.#byIp.has(wanted)) {
      const number = ipNumber(wanted);
      if (number >= first && number <= last) return wanted;
    }
    while (this.#lowestFree <= last) {
      const ip = numberIp(this.#lowestFree);
      if (!this.#byIp.has(ip)) return ip;
      this.#lowestFree++;
    }
    return this.#reclaim(nowMs);
  }

  /** From the address after the one in the pool's text to the one before the last. */
  #range(): [number, number] {
    const { ip, prefixLength } = this.pool;
    const size = 2 ** (32 - prefixLength);
    const network = Math.floor(ipNumber(ip) / size) * size;
    return [ipNumber(ip) + 1, network + size - 2];
  }

  /** The address of the node that was silent for longest, if that was long enough. */
  #reclaim(nowMs: number): Ip {
    let oldest: NodeRecord | undefined;
    for (const record of this.#nodes.values()) {
      if (!mayLoseAddress(record, nowMs)) continue;
      if (!oldest || record.leaseEndsMs < oldest.leaseEndsMs) oldest = record;
    }
    if (!oldest) {
      throw new RegistryError(500, "pool exhausted: start the coordinator with a larger --pool");
    }
    this.#nodes.delete(oldest.nodeKey);
    // Who has a list of before that would not be told that it is gone.
    this.#knownSince = Math.max(this.#knownSince, this.#changed.get(oldest.nodeKey) ?? 0);
    this.#changed.delete(oldest.nodeKey);
    this.#byIp.delete(oldest.tunnelIp);
    this.#byDisco.delete(oldest.discoKey);
    return oldest.tunnelIp;
  }
}

/** By address. */
function toPeers(records: readonly NodeRecord[]): PeerRecord[] {
  return records
    .toSorted((a, b) => ipNumber(a.tunnelIp) - ipNumber(b.tunnelIp))
    .map(({ nodeKey, discoKey, name, tunnelIp, endpoints, nat, updatedMs }) => ({
      nodeKey,
      discoKey,
      name,
      tunnelIp,
      endpoints,
      ...(nat ? { nat } : {}),
      updatedAt: new Date(updatedMs).toISOString(),
    }));
}

/** Who only registered and told no endpoint never was of use: the address is kept for a lease. */
function mayLoseAddress({ listed, leaseEndsMs, endpoints }: NodeRecord, nowMs: number): boolean {
  return !listed && nowMs - leaseEndsMs >= (endpoints.length > 0 ? ADDRESS_KEPT_MS : 0);
}

function envelopeBytes({ sealed }: Envelope): number {
  return sealed.length + ENVELOPE_OVERHEAD;
}

function isFresh({ enqueuedMs }: Queued, nowMs: number): boolean {
  return nowMs - enqueuedMs <= SIGNAL_MAX_AGE_MS;
}

function ipNumber(ip: Ip): number {
  return new Reader(ipBytes(ip), "network").u32();
}

function numberIp(number: number): Ip {
  return ipFromBytes(new Writer("network").u32(number).finish());
}
