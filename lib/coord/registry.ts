/**
 * What the coordinator knows: nodes and their addresses, the mailbox of sealed messages, and which
 * signatures were seen. Pure: time is an argument, and what must outlive a crash is returned.
 */
import { type Cidr, cidrContains, formatEndpoint, type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import type { DiscoKey, NodeKey } from "../keys.ts";
import type { AdvertisedEndpoint, Envelope, PeerRecord, RegisterRequest } from "./api.ts";
import { WINDOW_SECONDS } from "./auth.ts";

/** A node is listed for so long after its last call; a long poll takes 25 s. */
export const LEASE_MS = 120_000;
/** An address whose node was silent for so long may be given to another, if none is free. */
export const ADDRESS_KEPT_MS = 30 * 24 * 3600 * 1000;
export const MAX_QUEUE = 64;
export const SIGNAL_MAX_AGE_MS = 30_000;
/** All mailboxes together. */
const MAX_QUEUED = 65_536;
/** Signatures remembered: more in one window than this are refused, not forgotten. */
export const MAX_SEEN = 200_000;

/** What is stored of a node. Times are wall-clock ms since 1970. */
export interface NodeRecord {
  nodeKey: NodeKey;
  discoKey: DiscoKey;
  name: string;
  tunnelIp: Ip;
  endpoints: AdvertisedEndpoint[];
  updatedMs: number;
  leaseEndsMs: number;
}

/** A rule was broken; `status` is the HTTP status. */
export class RegistryError extends Error {
  override name = "RegistryError";
  constructor(readonly status: number, message: string) {
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
  #queued = 0;
  readonly #seen = new Map<string, number>();
  /** Changes with every change of what is listed. */
  #version: number;

  constructor(pool: Cidr, stored: readonly NodeRecord[], version: number) {
    this.pool = pool;
    this.#version = version;
    for (const record of stored) {
      if (!cidrContains(pool, record.tunnelIp)) {
        throw new RangeError(`stored address ${record.tunnelIp} is outside of the pool`);
      }
      this.#put(record);
    }
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
   * The node's record after registering, and whether it must be stored. Unsigned requests get in
   * only where they change nothing that is there. Throws {@link RegistryError}.
   */
  register(
    request: RegisterRequest,
    options: { signed: boolean; nowMs: number },
  ): { record: NodeRecord; changed: boolean } {
    const { nowMs } = options;
    const known = this.#nodes.get(request.nodeKey);
    this.#refuseTakenDiscoKey(request);
    const same = known && known.discoKey === request.discoKey && known.name === request.nodeName;
    if (known && !options.signed && !same) {
      throw new RegistryError(
        401,
        "this node is registered already: sign the request to change it",
      );
    }
    if (known && same && known.leaseEndsMs > nowMs) {
      if (options.signed) known.leaseEndsMs = nowMs + LEASE_MS;
      return { record: known, changed: false };
    }
    const record: NodeRecord = {
      nodeKey: request.nodeKey,
      discoKey: request.discoKey,
      name: request.nodeName,
      tunnelIp: known?.tunnelIp ?? this.#allocate(request.requestedTunnelIp, nowMs),
      endpoints: known?.endpoints ?? [],
      updatedMs: nowMs,
      leaseEndsMs: nowMs + LEASE_MS,
    };
    this.#put(record);
    this.#version++;
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
  setEndpoints(key: NodeKey, endpoints: AdvertisedEndpoint[], nowMs: number): boolean {
    const record = this.#nodes.get(key);
    if (!record) throw new RegistryError(404, "not registered");
    const text = (list: AdvertisedEndpoint[]) =>
      list.map(({ endpoint, source }) => `${formatEndpoint(endpoint)} ${source}`).join();
    if (text(record.endpoints) === text(endpoints)) return false;
    record.endpoints = endpoints;
    record.updatedMs = nowMs;
    this.#version++;
    return true;
  }

  /** Any authenticated call shows that the node lives. True when it is listed anew by it. */
  renew(key: NodeKey, nowMs: number): boolean {
    const record = this.#nodes.get(key);
    if (!record) return false;
    const wasListed = record.leaseEndsMs > nowMs;
    record.leaseEndsMs = nowMs + LEASE_MS;
    if (!wasListed) this.#version++;
    return !wasListed;
  }

  /** Ends the lease; the node keeps its address. */
  leave(key: NodeKey, nowMs: number): void {
    const record = this.#nodes.get(key);
    if (!record || record.leaseEndsMs <= nowMs) return;
    record.leaseEndsMs = nowMs;
    this.#version++;
  }

  /** Notices leases that ended since; true when the list changed by it. */
  expire(lastMs: number, nowMs: number): boolean {
    let ended = false;
    for (const { leaseEndsMs } of this.#nodes.values()) {
      ended ||= leaseEndsMs > lastMs && leaseEndsMs <= nowMs;
    }
    if (ended) this.#version++;
    return ended;
  }

  /** Nodes whose lease lives, by address. */
  listed(nowMs: number): PeerRecord[] {
    return [...this.#nodes.values()]
      .filter(({ leaseEndsMs }) => leaseEndsMs > nowMs)
      .sort((a, b) => ipNumber(a.tunnelIp) - ipNumber(b.tunnelIp))
      .map(({ updatedMs, leaseEndsMs: _, ...record }) => ({
        ...record,
        updatedAt: new Date(updatedMs).toISOString(),
      }));
  }

  // --- the mailbox

  /** Whether somebody by that key exists to take it. The oldest of a full queue is dropped. */
  enqueue(to: DiscoKey, envelope: Required<Envelope>, nowMs: number): boolean {
    if (!this.#byDisco.has(to)) return false;
    if (this.#queued >= MAX_QUEUED) this.#dropStale(nowMs);
    if (this.#queued >= MAX_QUEUED) throw new RegistryError(503, "mailboxes are full");
    const queue = this.#queues.get(to) ?? [];
    this.#queues.set(to, queue);
    queue.push({ ...envelope, enqueuedMs: nowMs });
    this.#queued++;
    if (queue.length > MAX_QUEUE) {
      queue.shift();
      this.#queued--;
    }
    return true;
  }

  /** Takes all that is waiting and not too old. */
  dequeue(to: DiscoKey, nowMs: number): Queued[] {
    const queue = this.#queues.get(to) ?? [];
    this.#queues.delete(to);
    this.#queued -= queue.length;
    return queue.filter(({ enqueuedMs }) => nowMs - enqueuedMs <= SIGNAL_MAX_AGE_MS);
  }

  #dropStale(nowMs: number): void {
    for (const [to, queue] of this.#queues) {
      const fresh = queue.filter(({ enqueuedMs }) => nowMs - enqueuedMs <= SIGNAL_MAX_AGE_MS);
      this.#queued -= queue.length - fresh.length;
      if (fresh.length === 0) this.#queues.delete(to);
      else this.#queues.set(to, fresh);
    }
  }

  // --- replays

  /** Throws {@link RegistryError} when this signature was accepted before. */
  acceptOnce(signature: string, timestampSeconds: number, nowMs: number): void {
    if (this.#seen.has(signature)) throw new RegistryError(401, "this request was sent before");
    if (this.#seen.size >= MAX_SEEN) this.#forgetSignatures(nowMs);
    if (this.#seen.size >= MAX_SEEN) throw new RegistryError(503, "too many requests");
    this.#seen.set(signature, (timestampSeconds + WINDOW_SECONDS + 1) * 1000);
  }

  #forgetSignatures(nowMs: number): void {
    for (const [signature, endsMs] of this.#seen) {
      if (endsMs < nowMs) this.#seen.delete(signature);
    }
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
    const [first, last] = this.#range();
    if (wanted && cidrContains(this.pool, wanted) && !this.#byIp.has(wanted)) {
      const number = ipNumber(wanted);
      if (number >= first && number <= last) return wanted;
    }
    for (let number = first; number <= last; number++) {
      const ip = numberIp(number);
      if (!this.#byIp.has(ip)) return ip;
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
    const oldest = [...this.#nodes.values()].reduce<NodeRecord | undefined>(
      (a, b) => a && a.leaseEndsMs <= b.leaseEndsMs ? a : b,
      undefined,
    );
    if (!oldest || nowMs - oldest.leaseEndsMs < ADDRESS_KEPT_MS) {
      throw new RegistryError(500, "pool exhausted: start the coordinator with a larger --pool");
    }
    this.#nodes.delete(oldest.nodeKey);
    this.#byIp.delete(oldest.tunnelIp);
    this.#byDisco.delete(oldest.discoKey);
    return oldest.tunnelIp;
  }
}

function ipNumber(ip: Ip): number {
  return new Reader(ipBytes(ip), "network").u32();
}

function numberIp(number: number): Ip {
  return ipFromBytes(new Writer("network").u32(number).finish());
}
