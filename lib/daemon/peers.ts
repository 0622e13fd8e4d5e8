/**
 * All peers of this node: feeds events to the reducer of `peer.ts`, performs its effects, and
 * wakes each peer when it asks for it. JavaScript runs one thing at a time, so dispatching an
 * event is the whole of the loop; only asynchronous effects come back as events.
 */
import {
  type Cidr,
  cidrContains,
  type Endpoint,
  equalEndpoints,
  formatEndpoint,
  type Ip,
  isPrivate,
  isUsableEndpoint,
} from "../addr.ts";
import { equalBytes } from "../bytes.ts";
import type { PeerRecord } from "../coord/api.ts";
import type { DataPlane } from "../dataplane/mod.ts";
import * as disco from "../disco/mod.ts";
import type { Clock, Datagram, Log, Random } from "../edges.ts";
import { errorText } from "../errors.ts";
import { type DiscoKey, keyBytes, type NodeKey, shortKey } from "../keys.ts";
import { type LinkCounters, pairAddress } from "../links/mod.ts";
import type { RelayPath } from "../relay/mod.ts";
import { greKey } from "./gre_keys.ts";
import type { Identity } from "./identity.ts";
import type { DaemonMetrics } from "./metrics.ts";
import {
  newPeer,
  nextTickMs,
  type PathAddress,
  type Peer,
  type PeerEffect,
  type PeerEvent,
  PendingPings,
  SeenIds,
  step,
} from "../peer/mod.ts";
import type { GuessPeer, PortGuesser } from "./port_guesser.ts";

/**
 * Padding, in zero bytes, by which a ping of the controlling side says "this path". Any disco
 * implementation takes such a ping as an ordinary one.
 */
const NOMINATING_PADDING = 4;
const TX_ID_LENGTH = 12;
/** Between looks at the links' counters: while data flows, and while none does. */
const BUSY_INTERVAL_MS = 100;
const IDLE_INTERVAL_MS = 500;
/** Past one or two NATs of our own, and hardly ever as far as a NAT of the peer's. */
const OPENER_TTLS = [2, 3, 4] as const;

export interface PeersOptions {
  identity: Identity;
  /** This node's address and the overlay's prefix length. */
  tunnelIp: Cidr;
  greKeys: boolean;
  plane: DataPlane;
  clock: Clock;
  random: Random;
  log: Log;
  metrics: DaemonMetrics;
  /** Sends a sealed message through the coordinator; never rejects. */
  signal: (to: DiscoKey, sealed: Uint8Array) => Promise<void>;
  /** A way to that peer through a relay; rejects when there is none. */
  allocateRelay: (peer: NodeKey, signal: AbortSignal) => Promise<RelayPath>;
  /** Pings stay unanswered: a NAT may have mapped this node anew. */
  onDoubt: () => void;
  /** A search for a direct path has no success; more than once. */
  onStuck: () => void;
  /** Whether a relay has that address. */
  isRelay: (ip: Ip) => boolean;
  /** Where this node believes it can be reached, now. */
  ownEndpoints: () => readonly Endpoint[];
  guesser: PortGuesser;
}

/**
 * How packets get to a peer: over the own network, over the internet, by a port that the peer's
 * router maps or its user gave, or through a relay.
 */
export type PathKind = "lan" | "direct" | "port-mapped" | "relay-udp" | "relay-tcp";

/** What a running daemon tells about a peer. */
export interface PeerReport {
  name: string;
  node_key: NodeKey;
  tunnel_ip: Ip;
  state: string;
  path?: PathKind;
  endpoint?: string;
  /** Of ours, where it is not the main one. */
  local_port?: number;
  rtt_ms?: number;
  ifname?: string;
  mtu?: number;
  rx_packets?: number;
  tx_packets?: number;
}

interface Entry {
  record: PeerRecord;
  peer: Peer;
  boxKey: Uint8Array<ArrayBuffer>;
  keys: Promise<{ ikey: number; okey: number }> | undefined;
  seenPings: SeenIds;
  guessed: GuessPeer;
  relay?: RelayPath;
  /** Of the link, at the last look. */
  rxPackets: number;
  txPackets: number;
  ifname?: string;
  mtu?: number;
}

export class Peers {
  readonly #options: PeersOptions;
  readonly #byNode = new Map<NodeKey, Entry>();
  readonly #byDisco = new Map<DiscoKey, Entry>();
  readonly #pending = new PendingPings();
  #timer: number | undefined;
  #trafficTimer: number;
  readonly #closed = new AbortController();

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#trafficTimer = setTimeout(() => this.#lookAtTraffic(), IDLE_INTERVAL_MS);
  }

  /** The coordinator's whole list, without us. */
  list(records: readonly PeerRecord[]): void {
    const listed = new Set(records.map(({ nodeKey }) => nodeKey));
    const nowMs = this.#options.clock.nowMs();
    for (const [nodeKey, entry] of this.#byNode) {
      if (!listed.has(nodeKey)) this.#dispatch(entry, { kind: "unlisted", nowMs });
    }
    for (const record of records) this.#listOne(record, nowMs);
    const { plane } = this.#options;
    // Of an earlier run, to nodes that are gone.
    for (const { id } of plane.adopted()) {
      if (!this.#byNode.has(id as NodeKey)) plane.removeLink(id);
    }
    this.#arm();
  }

  #listOne(record: PeerRecord, nowMs: number): void {
    let entry = this.#byNode.get(record.nodeKey);
    if (
      entry && (entry.record.discoKey !== record.discoKey ||
        entry.record.tunnelIp !== record.tunnelIp)
    ) {
      // Another disco key or address is another peer as far as sealing and the link go.
      this.#forget(entry);
      entry = undefined;
    }
    entry ??= this.#add(record, nowMs);
    if (!entry) return;
    entry.record = record;
    const endpoints = this.#usable(record.endpoints.map(({ endpoint }) => endpoint));
    this.#dispatch(entry, { kind: "listed", nowMs, endpoints });
  }

  #add(record: PeerRecord, nowMs: number): Entry | undefined {
    const { identity, log } = this.#options;
    let boxKey;
    try {
      boxKey = disco.boxKey(identity.discoPrivate, record.discoKey);
    } catch (error) {
      log.warn("peer refused", { peer: shortKey(record.nodeKey), error: errorText(error) });
      return undefined;
    }
    const controlling = identity.nodeKey < record.nodeKey;
    const adopted = this.#adoptedPath(record);
    const entry: Entry = {
      guessed: this.#guessed(() => entry),
      record,
      peer: newPeer({ controlling, nowMs, ...(adopted ? { adopted } : {}) }),
      boxKey,
      keys: this.#options.greKeys ? this.#deriveKeys(boxKey, record.discoKey) : undefined,
      seenPings: new SeenIds(),
      rxPackets: 0,
      txPackets: 0,
    };
    this.#byNode.set(record.nodeKey, entry);
    this.#byDisco.set(record.discoKey, entry);
    this.#options.metrics.peerAdded(entry.peer.state);
    return entry;
  }

  /** Where the peer's link of an earlier run goes, unless that is a relay: it is asked for anew. */
  #adoptedPath({ nodeKey, endpoints }: PeerRecord): PathAddress | undefined {
    const adopted = this.#options.plane.adopted().find(({ id }) => id === nodeKey);
    if (!adopted) return undefined;
    const { remote, extraPort } = adopted;
    if (extraPort) {
      const measure = () => Promise.resolve(undefined);
      this.#options.guesser.adopt(nodeKey, Object.assign(extraPort, { measure }));
    }
    if (!endpoints.some(({ endpoint }) => endpoint.ip === remote.ip)) return undefined;
    return { ...remote, ...(extraPort ? { localPort: extraPort.port } : {}) };
  }

  /** The peer as one whose NAT's ports may have to be guessed. */
  #guessed(entry: () => Entry): GuessPeer {
    return {
      get nodeKey() {
        return entry().record.nodeKey;
      },
      get controlling() {
        return entry().peer.controlling;
      },
      get nat() {
        return entry().record.nat;
      },
      get searchingSinceMs() {
        const { state, punchingSinceMs } = entry().peer;
        return state === "punching" || state === "relay" ? punchingSinceMs : undefined;
      },
      get heardMs() {
        const reflexive = [...entry().peer.candidates.values()]
          .filter(({ source }) => source === "reflexive");
        return Math.max(...reflexive.map(({ heardMs = -Infinity }) => heardMs));
      },
      ping: (to) => this.#sendPing(entry(), to, false),
      open: (to) => this.#sendOpener(entry(), to),
      tell: (message) => {
        void this.#options.signal(entry().record.discoKey, this.#seal(entry(), message));
      },
    };
  }

  async #deriveKeys(boxKey: Uint8Array<ArrayBuffer>, peer: DiscoKey) {
    const own = this.#options.identity.discoKey;
    const [ikey, okey] = await Promise.all([greKey(boxKey, peer, own), greKey(boxKey, own, peer)]);
    return { ikey, okey };
  }

  /** Addresses inside the overlay would send the tunnel through itself. */
  #usable(endpoints: readonly Endpoint[]): Endpoint[] {
    return endpoints.filter((endpoint) =>
      isUsableEndpoint(endpoint) && !cidrContains(this.#options.tunnelIp, endpoint.ip)
    );
  }

  /**
   * Whether that may be the peer itself. What it sends through a relay may come before the relay is
   * ours as well, and is no sign of a direct path.
   */
  #isDirect({ record }: Entry, from: Endpoint): boolean {
    if (this.#usable([from]).length === 0) return false;
    return !this.#options.isRelay(from.ip) ||
      record.endpoints.some(({ endpoint }) => endpoint.ip === from.ip);
  }

  /** A disco datagram from the data port, or from an extra one. */
  datagram({ bytes, from: endpoint }: Datagram, localPort?: number): void {
    const opened = this.#open(bytes);
    if (!opened) return;
    const { entry, message } = opened;
    const from = { ...endpoint, ...(localPort === undefined ? {} : { localPort }) };
    const nowMs = this.#options.clock.nowMs();
    if (message.type === "ping") {
      if (!isOwnPing(entry, message) || !entry.seenPings.add(message.txId)) return;
      if (!isRelayed(entry, from) && !this.#isDirect(entry, from)) return;
      const nominating = message.padding === NOMINATING_PADDING;
      this.#event(entry, { kind: "ping", nowMs, from, txId: message.txId, nominating });
    } else if (message.type === "pong") {
      const rttMs = this.#pending.take(message.txId, entry.record.nodeKey, from, nowMs);
      if (rttMs === undefined) return;
      this.#options.metrics.pongReceived();
      this.#event(entry, { kind: "pong", nowMs, from, rttMs });
    }
  }

  /** A sealed message that came through the coordinator: nothing else counts there. */
  signal(sealed: Uint8Array): void {
    const opened = this.#open(sealed);
    if (!opened) return;
    const { entry, message } = opened;
    if (message.type === "port-guess") {
      // Port 0 stands for many, and is told of an address alone.
      const { ip, port } = message.endpoint;
      const isUsable = this.#usable([{ ip, port: port || 1 }]).length > 0;
      if (isUsable) this.#options.guesser.received(entry.guessed, message);
    } else if (message.type === "call-me-maybe") {
      const endpoints = this.#usable(message.endpoints).slice(0, 32);
      const nowMs = this.#options.clock.nowMs();
      this.#event(entry, { kind: "call-me-maybe", nowMs, endpoints });
    }
  }

  #open(bytes: Uint8Array) {
    const envelope = disco.readEnvelope(bytes);
    const entry = envelope && this.#byDisco.get(envelope.sender);
    const plaintext = entry && disco.open(envelope, entry.boxKey);
    if (!entry || !plaintext) return undefined;
    try {
      return { entry, message: disco.decodeMessage(plaintext) };
    } catch {
      return undefined; // a newer peer's message, or a broken one
    }
  }

  /** Our own addresses changed. */
  moved(): void {
    const nowMs = this.#options.clock.nowMs();
    for (const entry of this.#byNode.values()) this.#dispatch(entry, { kind: "moved", nowMs });
    this.#arm();
  }

  /** Links or addresses have changed: puts ours right, and makes those again that are gone. */
  restoreLinks(): void {
    if (this.#closed.signal.aborted) return;
    const nowMs = this.#options.clock.nowMs();
    for (const id of this.#options.plane.missingLinks()) {
      const nodeKey = id as NodeKey;
      const entry = this.#byNode.get(nodeKey as NodeKey);
      if (entry?.peer.link.kind !== "set") continue;
      const peer = shortKey(nodeKey);
      this.#options.log.warn("link is gone, making it again", { peer, ifname: entry.ifname });
      this.#dispatch(entry, { kind: "link-gone", nowMs });
    }
    this.#arm();
    this.#options.plane.networkChanged();
  }

  report(): PeerReport[] {
    const counters = this.#options.plane.counters();
    return [...this.#byNode.values()].map((entry) =>
      this.#reportOne(entry, counters.get(entry.record.nodeKey))
    );
  }

  #reportOne(entry: Entry, counters?: LinkCounters): PeerReport {
    const { record, peer, ifname, mtu } = entry;
    return {
      name: record.name,
      node_key: record.nodeKey,
      tunnel_ip: record.tunnelIp,
      state: peer.state,
      ...(peer.path && !peer.path.dead
        ? {
          path: pathKind(entry, peer.path.endpoint),
          endpoint: formatEndpoint(peer.path.endpoint),
          ...(peer.path.endpoint.localPort ? { local_port: peer.path.endpoint.localPort } : {}),
          rtt_ms: Math.round(peer.path.rttMs * 10) / 10,
        }
        : {}),
      ...(ifname ? { ifname } : {}),
      ...(mtu ? { mtu } : {}),
      ...(counters ? { rx_packets: counters.rxPackets, tx_packets: counters.txPackets } : {}),
    };
  }

  close(): void {
    this.#closed.abort();
    clearTimeout(this.#timer);
    clearTimeout(this.#trafficTimer);
    this.#options.guesser[Symbol.dispose]();
  }

  /** The kernel moves the data: only its counters tell that nothing comes back any more. */
  #lookAtTraffic(): void {
    const isBusy = this.#byNode.size > 0 && this.#takeCounters();
    const waitMs = isBusy ? BUSY_INTERVAL_MS : IDLE_INTERVAL_MS;
    this.#trafficTimer = setTimeout(() => this.#lookAtTraffic(), waitMs);
  }

  /** Whether data went through any link since the last look. */
  #takeCounters(): boolean {
    const nowMs = this.#options.clock.nowMs();
    let isBusy = false;
    for (const [id, { rxPackets, txPackets }] of this.#options.plane.counters()) {
      const entry = this.#byNode.get(id as NodeKey);
      if (!entry) continue;
      const received = rxPackets !== entry.rxPackets;
      const sent = txPackets !== entry.txPackets;
      Object.assign(entry, { rxPackets, txPackets });
      if (!sent && !received) continue;
      isBusy = true;
      this.#dispatch(entry, { kind: "traffic", nowMs, sent, received });
    }
    this.#options.guesser.look([...this.#byNode.values()].map(({ guessed }) => guessed));
    this.#arm();
    return isBusy;
  }

  // --- the loop

  #event(entry: Entry, event: PeerEvent): void {
    this.#dispatch(entry, event);
    this.#arm();
  }

  #dispatch(entry: Entry, event: PeerEvent): void {
    const [peer, effects] = step(entry.peer, event);
    this.#options.metrics.peerChanged(entry.peer.state, peer.state);
    entry.peer = peer;
    for (const effect of effects) this.#perform(entry, effect);
  }

  /** Sleeps until the first peer wants its tick. */
  #arm(): void {
    clearTimeout(this.#timer);
    if (this.#closed.signal.aborted) return;
    let due = Infinity;
    for (const { peer } of this.#byNode.values()) due = Math.min(due, nextTickMs(peer));
    if (due === Infinity) return;
    const waitMs = Math.max(0, Math.ceil(due - this.#options.clock.nowMs()));
    this.#timer = setTimeout(() => this.#tick(), waitMs);
  }

  #tick(): void {
    const nowMs = this.#options.clock.nowMs();
    for (const entry of this.#byNode.values()) {
      if (nextTickMs(entry.peer) <= nowMs) this.#dispatch(entry, { kind: "tick", nowMs });
    }
    this.#arm();
  }

  // --- effects

  #perform(entry: Entry, effect: PeerEffect): void {
    const { log, metrics } = this.#options;
    const peer = shortKey(entry.record.nodeKey);
    switch (effect.kind) {
      case "send-ping":
        return this.#sendPing(entry, effect.to, effect.nominating);
      case "send-opener":
        return this.#sendOpener(entry, effect.to);
      case "send-pong":
        return this.#send(entry, effect.to, {
          type: "pong",
          txId: effect.txId,
          source: effect.to,
        });
      case "send-call-me-maybe":
        return this.#invite(entry);
      case "set-link":
        return void this.#setLink(entry, effect.endpoint);
      case "state-changed":
        if (effect.punchMs !== undefined) metrics.punched(effect.punchMs / 1000);
        return log.info("peer state change", { peer, from: effect.from, to: effect.to });
      case "path-doubted":
        if (isRelayed(entry, effect.endpoint)) entry.relay!.check();
        return this.#options.onDoubt();
      case "path-lost":
        // Known sooner than by its next refresh, if it is the relay that is gone.
        if (isRelayed(entry, effect.endpoint)) entry.relay!.check();
        return log.warn("path lost, searching again", {
          peer,
          endpoint: formatEndpoint(effect.endpoint),
        });
      case "no-path-yet":
        if (effect.rounds === 1) log.warn("no direct path yet, searching on", { peer });
        return this.#options.onStuck();
      case "open-relay":
        this.#options.onStuck();
        return void this.#openRelay(entry);
      case "close-relay":
        return this.#closeRelay(entry);
      case "forget":
        return this.#forget(entry);
      default:
        effect satisfies never;
    }
  }

  #sendOpener(entry: Entry, to: PathAddress): void {
    for (const ttl of OPENER_TTLS) this.#sendPing(entry, to, false, ttl);
  }

  #sendPing(entry: Entry, to: PathAddress, nominating: boolean, ttl?: number): void {
    const { identity, clock, random, metrics } = this.#options;
    const txId = random(TX_ID_LENGTH);
    this.#pending.add(txId, { peer: entry.record.nodeKey, to, sentMs: clock.nowMs() });
    metrics.pingSent();
    const padding = nominating ? NOMINATING_PADDING : 0;
    const nodeKey = keyBytes(identity.nodeKey);
    this.#send(entry, to, { type: "ping", txId, nodeKey, padding }, ttl);
  }

  #send(entry: Entry, to: PathAddress, message: disco.DiscoMessage, ttl?: number): void {
    const { plane, guesser } = this.#options;
    const { localPort } = to;
    const port = localPort === undefined ? plane : guesser.port(entry.record.nodeKey, localPort);
    port?.send(this.#seal(entry, message), to, ttl);
  }

  #seal(entry: Entry, message: disco.DiscoMessage): Uint8Array {
    const { identity, random } = this.#options;
    return disco.seal(disco.encodeMessage(message), identity.discoKey, entry.boxKey, random);
  }

  #invite(entry: Entry): void {
    const endpoints = [...this.#options.ownEndpoints()];
    const sealed = this.#seal(entry, { type: "call-me-maybe", endpoints });
    void this.#options.signal(entry.record.discoKey, sealed);
  }

  async #openRelay(entry: Entry): Promise<void> {
    const { clock, log, allocateRelay } = this.#options;
    const { nodeKey } = entry.record;
    const peer = shortKey(nodeKey);
    try {
      const relay = await allocateRelay(nodeKey, this.#closed.signal);
      if (!this.#isCurrent(entry)) return void relay[Symbol.asyncDispose]();
      entry.relay = relay;
      const endpoint = formatEndpoint(relay.endpoint);
      log.info("relay opened", { peer, endpoint, path: relay.kind });
      const nowMs = clock.nowMs();
      this.#event(entry, { kind: "relay-open", nowMs, endpoint: relay.endpoint });
    } catch (error) {
      if (!this.#isCurrent(entry)) return;
      log.debug("no relay", { peer, error: errorText(error) });
      this.#event(entry, { kind: "relay-closed", nowMs: clock.nowMs() });
    }
  }

  #closeRelay(entry: Entry): void {
    void entry.relay?.[Symbol.asyncDispose]();
    delete entry.relay;
  }

  /** UDP works again: paths that made do with TCP are tried anew. */
  retryTcpRelays(): void {
    const nowMs = this.#options.clock.nowMs();
    for (const entry of this.#byNode.values()) {
      if (entry.relay?.kind !== "relay-tcp") continue;
      this.#closeRelay(entry);
      this.#event(entry, { kind: "relay-closed", nowMs });
    }
  }

  /** The relay has forgotten us, or is away. */
  relayLost(relay: RelayPath, reason: string): void {
    const entry = this.#byNode.get(relay.peer);
    if (entry?.relay !== relay || this.#closed.signal.aborted) return;
    delete entry.relay;
    const { clock, log } = this.#options;
    log.warn("relay lost", { peer: shortKey(relay.peer), reason });
    this.#event(entry, { kind: "relay-closed", nowMs: clock.nowMs() });
  }

  /** Whether the entry still stands for its peer, after something was waited for. */
  #isCurrent(entry: Entry): boolean {
    return !this.#closed.signal.aborted && this.#byNode.get(entry.record.nodeKey) === entry;
  }

  async #setLink(entry: Entry, endpoint: PathAddress): Promise<void> {
    const { plane, tunnelIp, log, clock, guesser } = this.#options;
    const { ip, port, localPort } = endpoint;
    const { record } = entry;
    const peer = shortKey(record.nodeKey);
    const keys = await entry.keys;
    if (!this.#isCurrent(entry)) return;
    try {
      const state = plane.setLink({
        id: record.nodeKey,
        remote: { ip, port },
        addresses: [pairAddress(tunnelIp.ip, record.tunnelIp)],
        routes: [],
        ...(localPort === undefined ? {} : { localPort }),
        ...(keys ? { keys: { kind: "gre", ...keys } } : {}),
      });
      Object.assign(entry, state);
      guesser.linkUses(record.nodeKey, localPort);
      log.info("tunnel up", {
        ifname: state.ifname,
        peer,
        endpoint: formatEndpoint(endpoint),
        port: localPort,
        tunnel_ip: record.tunnelIp,
        mtu: state.mtu,
        plane: plane.kind,
      });
      this.#event(entry, { kind: "link-set", nowMs: clock.nowMs(), endpoint });
    } catch (error) {
      log.error("tunnel not set, trying again", { peer, error: errorText(error) });
      this.#event(entry, { kind: "link-failed", nowMs: clock.nowMs(), endpoint });
    }
  }

  #forget(entry: Entry): void {
    const { record, peer } = entry;
    if (this.#byNode.get(record.nodeKey) !== entry) return;
    this.#byNode.delete(record.nodeKey);
    this.#byDisco.delete(record.discoKey);
    this.#closeRelay(entry);
    this.#options.metrics.peerRemoved(peer.state);
    try {
      this.#options.plane.removeLink(record.nodeKey);
      this.#options.guesser.forget(record.nodeKey);
      this.#options.log.info("peer gone", { peer: shortKey(record.nodeKey) });
    } catch (error) {
      this.#options.log.warn("link not removed", {
        peer: shortKey(record.nodeKey),
        error: errorText(error),
      });
    }
  }
}

/**
 * Whether the peer made it. A pair has one box key for both directions: our own ping opens as well when
 * it comes back under the peer's disco key, but it names our node.
 */
function isOwnPing({ record }: Entry, { nodeKey }: disco.Ping): boolean {
  return nodeKey === undefined || equalBytes(nodeKey, keyBytes(record.nodeKey));
}

function isRelayed({ relay }: Entry, endpoint: Endpoint): boolean {
  return relay !== undefined && equalEndpoints(relay.endpoint, endpoint);
}

function pathKind(entry: Entry, endpoint: Endpoint): PathKind {
  if (isRelayed(entry, endpoint)) return entry.relay!.kind;
  if (isPrivate(endpoint.ip)) return "lan";
  const listed = entry.record.endpoints.find((e) => equalEndpoints(e.endpoint, endpoint));
  return listed?.source === "portmap" || listed?.source === "given" ? "port-mapped" : "direct";
}
