/**
 * Which relays there are, how far nodes are from them, and which one a pair of nodes goes through.
 * Pure: time is an argument. Nothing of it is stored: relays and nodes call again.
 */
import { formatEndpoint, parseIp } from "../addr.ts";
import type { NodeKey } from "../keys.ts";
import { type Grant, nodePair, type RelayLatencies, type RelayPlace } from "../relay/mod.ts";
import type { RelayRegistration } from "./api.ts";

/** A relay of a role of its own is offered for so long after its last call. */
export const RELAY_LEASE_MS = 90_000;
/** A coordinator that is away for less does not end what goes through relays. */
export const GRANT_MS = 6 * 3600 * 1000;
/** A pair stays with its relay for so long after it last asked, whatever is measured meanwhile. */
export const CHOICE_KEPT_MS = GRANT_MS;
const MAX_CHOICES = 262_144;
/** Counts for a relay that a node has not reported: worse than any that it has, still possible. */
const UNKNOWN_LATENCY_MS = 1_000_000;

interface Choice {
  relay: NodeKey;
  keptUntilMs: number;
}

export interface RelayDirectoryOptions {
  /** The coordinator's own relay, if it serves one. */
  own?: RelayPlace;
  /** Keys of other relays that may register. */
  allowed: readonly NodeKey[];
}

export class RelayDirectory {
  readonly #own: RelayPlace | undefined;
  readonly #allowed: ReadonlySet<NodeKey>;
  readonly #others = new Map<NodeKey, { place: RelayPlace; leaseEndsMs: number }>();
  readonly #latencies = new Map<NodeKey, RelayLatencies>();
  /** By both node keys; the one that was asked for longest ago comes first. */
  readonly #choices = new Map<string, Choice>();

  constructor(options: RelayDirectoryOptions) {
    this.#own = options.own;
    this.#allowed = new Set(options.allowed);
  }

  isAllowed(relay: NodeKey): boolean {
    return this.#allowed.has(relay);
  }

  /** `source` is the address that it called from. Whether it was not known before. */
  register(
    relay: NodeKey,
    { udp, http, tls }: RelayRegistration,
    source: string,
    nowMs: number,
  ): boolean {
    const filled = (address: string) =>
      address.startsWith(":")
        ? formatEndpoint({ ip: parseIp(source.split("%")[0]!), port: Number(address.slice(1)) })
        : address;
    const place = {
      relayKey: relay,
      udp: filled(udp),
      ws: `${tls ? "wss" : "ws"}://${filled(http)}/v1/relay/ws`,
    };
    const isNew = !this.#others.has(relay);
    this.#others.set(relay, { place, leaseEndsMs: nowMs + RELAY_LEASE_MS });
    return isNew;
  }

  list(nowMs: number): RelayPlace[] {
    const others = [...this.#others.values()].filter(({ leaseEndsMs }) => leaseEndsMs > nowMs);
    return [...(this.#own ? [this.#own] : []), ...others.map(({ place }) => place)];
  }

  /** Replaces what the node measured before. */
  report(node: NodeKey, latencies: RelayLatencies): void {
    this.#latencies.set(node, latencies);
  }

  /**
   * The pair's relay: the one it has, as long as that lives and both reach it; else that with the
   * lowest sum of both latencies. Undefined when there is none. Throws `RangeError` for a node and itself.
   */
  choose(a: NodeKey, b: NodeKey, nowMs: number): RelayPlace | undefined {
    const pair = nodePair(a, b).join();
    const relays = this.list(nowMs);
    const chosen = this.#choices.get(pair);
    const kept = relays.find(({ relayKey }) => relayKey === chosen?.relay);
    const isMissed = kept && [a, b].some((node) => this.#misses(node, kept));
    const place = kept && !isMissed ? kept : this.#nearest(a, b, relays);
    this.#choices.delete(pair);
    if (!place) return undefined;
    this.#choices.set(pair, { relay: place.relayKey, keptUntilMs: nowMs + CHOICE_KEPT_MS });
    if (this.#choices.size > MAX_CHOICES) {
      const [oldest] = this.#choices.keys();
      this.#choices.delete(oldest!);
    }
    return place;
  }

  /** The node reaches other relays, and not this one. A node without UDP measures none. */
  #misses(node: NodeKey, { relayKey }: RelayPlace): boolean {
    const measured = this.#latencies.get(node);
    return measured !== undefined && measured.size > 0 && !measured.has(relayKey);
  }

  #nearest(a: NodeKey, b: NodeKey, relays: RelayPlace[]): RelayPlace | undefined {
    const latency = (node: NodeKey, { relayKey }: RelayPlace) =>
      this.#latencies.get(node)?.get(relayKey) ?? UNKNOWN_LATENCY_MS;
    const sum = (place: RelayPlace) => latency(a, place) + latency(b, place);
    return relays.toSorted((x, y) => sum(x) - sum(y))[0];
  }

  grant(a: NodeKey, b: NodeKey, relay: NodeKey, wallMs: number): Grant {
    return { relay, nodes: nodePair(a, b), endsSeconds: Math.ceil((wallMs + GRANT_MS) / 1000) };
  }

  /** Forgets relays and choices that are over, and reports of nodes that are not known any more. */
  sweep(nowMs: number, isKnown: (node: NodeKey) => boolean): void {
    for (const [key, { leaseEndsMs }] of this.#others) {
      if (leaseEndsMs <= nowMs) this.#others.delete(key);
    }
    for (const node of this.#latencies.keys()) {
      if (!isKnown(node)) this.#latencies.delete(node);
    }
    for (const [pair, { keptUntilMs }] of this.#choices) {
      if (keptUntilMs > nowMs) break; // the others were asked for later
      this.#choices.delete(pair);
    }
  }
}
