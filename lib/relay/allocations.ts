/**
 * Who may send what through the relay: a table of allocations. Pure: time is an argument, and what
 * opens and closes UDP ports is handed in.
 *
 * An allocation belongs to a pair of nodes and has two sides, each with a node and a relayed port:
 * to this node's kernel that port is the other node. A side is bound once it is known from where its
 * node sends to that port. What comes from there goes out of the other side's port to where that
 * one is bound. One port serves many nodes, which are told apart by where they send from; one node
 * never has two sides on the same port. So there are as many ports open as the busiest node has
 * peers, and not two for each pair.
 */
import type { NodeKey } from "../keys.ts";
import { TokenBucket } from "../limits.ts";
import type { NodePair } from "./grants.ts";
import { byteRate } from "./rate.ts";

/** A binding that is not refreshed for so long ends; so does an allocation without any. */
export const LIFETIME_MS = 120_000;
export const MAX_ALLOCATIONS = 16_384;
/** Those that one node asked for, so that it cannot use up all of {@link MAX_ALLOCATIONS}. */
export const MAX_ALLOCATIONS_PER_NODE = 1024;
/** Other programs may have ports of the range: so many are tried for one allocation. */
const MAX_TRIES = 64;

/** How a bound node is reached; the key tells sources apart, in the way that a port does not. */
export interface Via {
  readonly key: string;
}

export type PortOpening = "open" | "taken" | "failed";

export interface RelayPorts {
  /** The range, both included. */
  from: number;
  to: number;
  /** "taken": by another program, the next one may be free. "failed": none can be had now. */
  open(port: number): PortOpening;
  close(port: number): void;
}

export class Side<V extends Via> {
  readonly allocation: Allocation<V>;
  readonly node: NodeKey;
  readonly port: number;
  /** Where the node is; absent: not known yet, or not heard of for too long. */
  via?: V;
  boundUntilMs = -Infinity;
  /** Of the last request that was accepted, to refuse what is sent again. */
  lastNonceMs = -Infinity;
  lastTimestampMs = -Infinity;
  /** The grant that was last found genuine. */
  grant?: Uint8Array;
  /** For what comes from the node. */
  /** Absent: no limit. */
  readonly bucket: TokenBucket | undefined;

  constructor(
    allocation: Allocation<V>,
    options: { node: NodeKey; port: number; bucket: TokenBucket | undefined },
  ) {
    this.allocation = allocation;
    this.node = options.node;
    this.port = options.port;
    this.bucket = options.bucket;
  }

  get other(): Side<V> {
    const [first, second] = this.allocation.sides;
    return first === this ? second : first;
  }
}

export class Allocation<V extends Via> {
  readonly nodes: NodePair;
  readonly sides: readonly [Side<V>, Side<V>];
  /** Who asked first, and answers for it. */
  readonly owner: NodeKey;
  readonly createdMs: number;

  constructor(
    options: {
      nodes: NodePair;
      ports: readonly [number, number];
      owner: NodeKey;
      bytesPerSecond: number;
      nowMs: number;
    },
  ) {
    const { nodes, ports, owner, bytesPerSecond, nowMs } = options;
    this.nodes = nodes;
    const side = (index: 0 | 1) => {
      const bucket = bytesPerSecond > 0 ? new TokenBucket(byteRate(bytesPerSecond)) : undefined;
      return new Side(this, { node: nodes[index], port: ports[index], bucket });
    };
    this.sides = [side(0), side(1)];
    this.owner = owner;
    this.createdMs = nowMs;
  }

  get endsMs(): number {
    return Math.max(this.createdMs + LIFETIME_MS, ...this.sides.map((side) => side.boundUntilMs));
  }
}

export type AllocationRefusal = "quota" | "full";
export type ForwardDrop = "unbound-peer" | "rate";

export interface AllocationsOptions<V extends Via> {
  ports: RelayPorts;
  /** Of each direction of an allocation; 0: no limit. */
  bytesPerSecond: number;
  maxAllocations?: number;
  maxPerNode?: number;
  /** A side was bound, refreshed or unbound. */
  onChange?: (allocation: Allocation<V>) => void;
}

export class Allocations<V extends Via> {
  readonly #options: Required<AllocationsOptions<V>>;
  readonly #byPair = new Map<string, Allocation<V>>();
  /** How many allocations a node asked for. */
  readonly #owned = new Map<NodeKey, number>();
  /** Ports that a node has sides on. */
  readonly #portsOf = new Map<NodeKey, Set<number>>();
  /** Open ports, and the bound sides on each by their source. */
  readonly #bound = new Map<number, Map<string, Side<V>>>();
  /** How many sides an open port has, bound or not. */
  readonly #uses = new Map<number, number>();

  constructor(options: AllocationsOptions<V>) {
    this.#options = {
      maxAllocations: MAX_ALLOCATIONS,
      maxPerNode: MAX_ALLOCATIONS_PER_NODE,
      onChange: () => {},
      ...options,
    };
  }

  get size(): number {
    return this.#byPair.size;
  }

  get openPorts(): number {
    return this.#uses.size;
  }

  /** The side of `node` in the pair's allocation. */
  find(nodes: NodePair, node: NodeKey): Side<V> | undefined {
    return this.#byPair.get(nodes.join())?.sides[nodes[0] === node ? 0 : 1];
  }

  /** The pair's allocation, made unless it is there: the side of `node`. */
  allocate(nodes: NodePair, node: NodeKey, nowMs: number): Side<V> | AllocationRefusal {
    const found = this.find(nodes, node);
    if (found) return found;
    const { maxAllocations, maxPerNode, bytesPerSecond } = this.#options;
    const owned = this.#owned.get(node) ?? 0;
    if (owned >= maxPerNode) return "quota";
    if (this.#byPair.size >= maxAllocations) return "full";
    const ports = this.#takePorts(nodes);
    if (!ports) return "full";
    const allocation = new Allocation<V>({ nodes, ports, owner: node, bytesPerSecond, nowMs });
    this.#byPair.set(nodes.join(), allocation);
    this.#owned.set(node, owned + 1);
    return this.find(nodes, node)!;
  }

  /** From now on the side's node is there; whoever was there before is not. */
  bind(side: Side<V>, via: V, nowMs: number): void {
    const sources = this.#bound.get(side.port)!;
    const before = sources.get(via.key);
    if (before && before !== side) this.unbind(via, before);
    if (side.via && side.via.key !== via.key) sources.delete(side.via.key);
    sources.set(via.key, side);
    side.via = via;
    side.boundUntilMs = nowMs + LIFETIME_MS;
    this.#options.onChange(side.allocation);
  }

  /** Nothing more can be sent by that way: a connection has ended. */
  unbind(via: V, side: Side<V>): void {
    if (side.via?.key !== via.key) return;
    this.#bound.get(side.port)?.delete(via.key);
    delete side.via;
    this.#options.onChange(side.allocation);
  }

  /** Whose datagrams come to that port from that source. */
  boundTo(port: number, key: string): Side<V> | undefined {
    return this.#bound.get(port)?.get(key);
  }

  /** The side that a datagram from `side` leaves by: out of its port, to where it is bound. */
  forward(
    side: Side<V>,
    lengthBytes: number,
    nowMs: number,
  ): Side<V> & { via: V } | ForwardDrop {
    const { other } = side;
    if (!isBound(other)) return "unbound-peer";
    return side.bucket?.take(nowMs, lengthBytes) ?? true ? other : "rate";
  }

  /** Ends bindings and allocations that are over; to be called each few seconds. */
  sweep(nowMs: number): Allocation<V>[] {
    const ended: Allocation<V>[] = [];
    for (const allocation of this.#byPair.values()) {
      for (const side of allocation.sides) {
        if (side.via && side.boundUntilMs <= nowMs) this.unbind(side.via, side);
      }
      if (allocation.endsMs > nowMs) continue;
      this.#remove(allocation);
      ended.push(allocation);
    }
    return ended;
  }

  #remove(allocation: Allocation<V>): void {
    const { owner, nodes } = allocation;
    this.#byPair.delete(nodes.join());
    const owned = this.#owned.get(owner)! - 1;
    if (owned > 0) this.#owned.set(owner, owned);
    else this.#owned.delete(owner);
    for (const side of allocation.sides) {
      if (side.via) this.unbind(side.via, side);
      this.#givePort(side.node, side.port);
    }
  }

  // --- ports

  #takePorts([first, second]: NodePair): [number, number] | undefined {
    const port = this.#takePort(first);
    if (port === undefined) return undefined;
    const other = this.#takePort(second);
    if (other !== undefined) return [port, other];
    this.#givePort(first, port);
    return undefined;
  }

  /** The lowest port that this node has no side on, opened unless it was. */
  #takePort(node: NodeKey): number | undefined {
    const { ports } = this.#options;
    const own = this.#portsOf.get(node) ?? new Set();
    let tries = 0;
    for (let port = ports.from; port <= ports.to && tries < MAX_TRIES; port++) {
      if (own.has(port)) continue;
      if (!this.#uses.has(port)) {
        tries++;
        const opening = ports.open(port);
        if (opening === "failed") return undefined;
        if (opening === "taken") continue;
        this.#bound.set(port, new Map());
      }
      this.#uses.set(port, (this.#uses.get(port) ?? 0) + 1);
      this.#portsOf.set(node, own.add(port));
      return port;
    }
    return undefined;
  }

  #givePort(node: NodeKey, port: number): void {
    const own = this.#portsOf.get(node)!;
    own.delete(port);
    if (own.size === 0) this.#portsOf.delete(node);
    const uses = this.#uses.get(port)! - 1;
    if (uses > 0) {
      this.#uses.set(port, uses);
      return;
    }
    this.#uses.delete(port);
    this.#bound.delete(port);
    this.#options.ports.close(port);
  }
}

function isBound<V extends Via>(side: Side<V>): side is Side<V> & { via: V } {
  return side.via !== undefined;
}
