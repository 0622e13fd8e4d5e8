/**
 * All peers of this node: feeds events to the reducer of `lib/peer`, hands its effects on, and wakes
 * each peer when it asks for it. JavaScript runs one thing at a time, so dispatching an event is
 * the whole of the loop; only asynchronous effects come back as events.
 */
import { type Cidr, cidrContains, type Endpoint, type Ip, isUsableEndpoint } from "../addr.ts";
import { Alarm } from "../alarm.ts";
import { equalBytes } from "../bytes.ts";
import type { NodeNat, PeerRecord } from "../coord/api.ts";
import * as disco from "../disco/mod.ts";
import type { Datagram } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { type DiscoKey, keyBytes, type NodeKey } from "../keys.ts";
import { COLLISION_HINT, type HostViewOptions, type NeededAddress } from "../links/mod.ts";
import {
  type Detours,
  newPeer,
  nextTickMs,
  type PathAddress,
  type PeerEvent,
  type PeerState,
  PendingPings,
  SeenIds,
  standing,
  step,
} from "../peer/mod.ts";
import type { Access } from "../policy/access.ts";
import type { RelayPath } from "../relay/mod.ts";
import { Collisions } from "./collisions.ts";
import type { Diversion } from "./detours.ts";
import { Effects, type EffectsOptions, NOMINATING_PADDING } from "./effects.ts";
import { type Entry, innerOf, isRelayed } from "./entry.ts";
import { Trouble } from "../trouble.ts";
import { InnerChecks, type InnerChecksOptions } from "./inner_checks.ts";
import { PairSession } from "./pair_session.ts";
import { PathProbes } from "./path_probes.ts";
import { type Finding, type PeerReport, reportPeer } from "./peer_report.ts";
import type { PingTarget } from "./ping.ts";
import type { GuessPeer } from "./port_guesser.ts";
import { narrowPathFinding } from "./probed_path.ts";
import { peerFields } from "./words.ts";

/** Between looks at the links' counters: while data flows, and while none does. */
const BUSY_INTERVAL_MS = 100;
const IDLE_INTERVAL_MS = 500;
/** Of peers that are lost together, rather than one by one. */
const LOST_AT_ONCE_MS = 10_000;
const LOST_AT_LEAST = 2;
/** For a ping that a user asked for. */
const PING_TIMEOUT_MS = 2_000;
/** Data that is sent for so long, and none received, may be lost in the tunnel. */
const DOUBTFUL_MS = 3_000;
/** More than the pings themselves, which would go on for ever. */
const MUCH_PACKETS = 20;
/** As many endpoints as one node has. */
const MAX_TOLD = 32;

export interface PeersOptions extends EffectsOptions {
  greKeys: boolean;
  /** This node's address and the overlay's prefix length. */
  tunnelIp: Cidr;
  ownNat: () => NodeNat | undefined;
  /** Whether a relay has that address. */
  isRelay: (ip: Ip) => boolean;
  /** Whether that address means anything here. */
  reaches: (ip: Ip) => boolean;
  /** Where packets to it are sent, where a network translates between families. */
  translated: (endpoint: Endpoint) => Endpoint;
  /** Which of these addresses are reached through tunnels. */
  detours: (ips: Iterable<Ip>) => Detours;
  /** It was heard, or else listed, so long ago for the last time. */
  onLastSeen: (nodeKey: NodeKey, agoMs: number) => void;
  /** Whose packets to that address leave by another device, if anybody's do. */
  diversion: (ip: Ip, peer: NodeKey) => Diversion | undefined;
  /** Paths to all peers, of so many, were lost in a few seconds; and one is there again, or all of them have left. */
  onAllLost: (count: number) => void;
  onLossOver: () => void;
  hostView: HostViewOptions;
  /** What cannot be set here may be something else now. */
  onCollisions: () => void;
  /** What this node itself has to reach, besides its peers. */
  needed: () => readonly NeededAddress[];
  pingThrough: InnerChecksOptions["ping"];
}

export class Peers {
  readonly #options: PeersOptions;
  readonly #byNode = new Map<NodeKey, Entry>();
  readonly #byDisco = new Map<DiscoKey, Entry>();
  readonly #pending = new PendingPings();
  /** Of this run. */
  readonly #epoch: Uint8Array;
  readonly #collisions: Collisions;
  readonly #innerChecks: InnerChecks;
  readonly #effects: Effects;
  readonly #probes: PathProbes;
  readonly #closed = new AbortController();
  #tunnelIp: Cidr;
  /** When the first peer wants its tick. */
  readonly #alarm: Alarm;
  #trafficTimer: Disposable;

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#tunnelIp = options.tunnelIp;
    this.#epoch = options.random(disco.EPOCH_LENGTH);
    this.#alarm = new Alarm(options.clock, () => this.#tick());
    this.#collisions = new Collisions({
      ...options,
      ...options.hostView,
      needed: () => [...options.needed(), ...this.#remotes()],
      onChange: (count) => {
        options.metrics.collided(count);
        options.onCollisions();
      },
    });
    this.#innerChecks = new InnerChecks({
      ...options,
      ping: options.pingThrough,
      pingPath: async (peer) => {
        const entry = this.#byNode.get(peer);
        return entry && await this.#pingPath(entry);
      },
    });
    this.#effects = new Effects({
      ...options,
      pending: this.#pending,
      collisions: this.#collisions,
      innerChecks: this.#innerChecks,
      tunnelIp: () => this.#tunnelIp,
      closed: this.#closed.signal,
      onEvent: (entry, event) => this.#event(entry, event),
      onForget: (entry) => this.#forget(entry),
      isCurrent: (entry) => this.#isCurrent(entry),
    });
    this.#probes = new PathProbes({
      ...options,
      ping: (entry, to, how) => this.#effects.sendPing(entry, to, how),
      onChange: (entry) => this.#effects.resize(entry),
      closed: this.#closed.signal,
    });
    this.#trafficTimer = options.clock.timer(IDLE_INTERVAL_MS, () => this.#lookAtTraffic());
  }

  /** Where packets of links go to. */
  #remotes(): NeededAddress[] {
    return [...this.#byNode.values()].flatMap(({ peer: { path }, record: { name } }) =>
      path ? [{ ip: path.endpoint.ip, what: `the endpoint of ${name}` }] : []
    );
  }

  /** This node has another address in the overlay: every link gets it, in place. */
  readdress(tunnelIp: Cidr): void {
    this.#tunnelIp = tunnelIp;
    const nowMs = this.#options.clock.nowMs();
    for (const entry of this.#byNode.values()) this.#dispatch(entry, { kind: "link-gone", nowMs });
    this.#arm();
  }

  /**
   * The coordinator's whole list, without us. Tunnels to others that are `away` may work on; absent:
   * to all others.
   */
  list(records: readonly PeerRecord[], away?: readonly NodeKey[]): void {
    const listed = new Set(records.map(({ nodeKey }) => nodeKey));
    const mayStay = away && new Set(away);
    const nowMs = this.#options.clock.nowMs();
    for (const [nodeKey, entry] of this.#byNode) {
      if (listed.has(nodeKey)) continue;
      if (mayStay && !mayStay.has(nodeKey)) this.#forget(entry);
      else this.#dispatch(entry, { kind: "unlisted", nowMs });
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
    if (entry && entry.record.discoKey !== record.discoKey) {
      this.#forget(entry); // another peer as far as sealing goes
      entry = undefined;
    }
    const knownIp = entry?.record.tunnelIp;
    const isCut = !this.#allow(entry, record);
    entry ??= this.#add(record, nowMs);
    if (!entry) return;
    entry.record = record;
    // The policy closed it to them: a check that had begun would find fault with that.
    if (record.isSilent) this.#innerChecks.stop(record.nodeKey);
    if (isCut && entry.peer.link.kind === "set") {
      this.#dispatch(entry, { kind: "link-gone", nowMs });
    }
    if (knownIp && knownIp !== record.tunnelIp) {
      this.#options.log.info("peer has another address", {
        ...peerFields(record),
        tunnel_ip: record.tunnelIp,
      });
      this.#dispatch(entry, { kind: "link-gone", nowMs });
    }
    const endpoints = this.#told(entry, record.endpoints.map(({ endpoint }) => endpoint));
    this.#dispatch(entry, { kind: "listed", nowMs, endpoints });
  }

  /** What the peer may open here now. False: that cannot be kept, and its link is removed. */
  #allow(entry: Entry | undefined, { nodeKey, inbound }: PeerRecord): boolean {
    if (entry && isSameAccess(entry.record.inbound, inbound)) return true;
    const { plane } = this.#options;
    try {
      plane.allow(nodeKey, inbound);
      return true;
    } catch (error) {
      if (!(error instanceof GretunError)) throw error;
      plane.removeLink(nodeKey); // why is told when it is to be made again
      return false;
    }
  }

  #add(record: PeerRecord, nowMs: number): Entry | undefined {
    const { identity, log } = this.#options;
    let boxKey;
    try {
      boxKey = disco.boxKey(identity.discoPrivate, record.discoKey);
    } catch (error) {
      log.warn("peer refused", { ...peerFields(record), error: errorText(error) });
      return undefined;
    }
    const controlling = identity.nodeKey < record.nodeKey;
    const adopted = this.#adoptedPath(record);
    const entry: Entry = {
      guessed: this.#guessed(() => entry),
      record,
      peer: newPeer({ controlling, nowMs, ...(adopted ? { adopted: adopted.path } : {}) }),
      boxKey,
      session: new PairSession({
        epoch: this.#epoch,
        random: this.#options.random,
        boxKey,
        identity,
        peer: record.discoKey,
        hasKeys: this.#options.greKeys,
        adopted: this.#options.plane.adopted().find(({ id }) => id === record.nodeKey)?.session,
      }),
      seenPings: new SeenIds(),
      dueMs: -Infinity,
      rxPackets: 0,
      txPackets: 0,
    };
    this.#options.log.info("peer found", { ...peerFields(record), tunnel_ip: record.tunnelIp });
    if (adopted) this.#probes.adopt(entry, adopted.path, adopted.pathMtu);
    this.#byNode.set(record.nodeKey, entry);
    this.#byDisco.set(record.discoKey, entry);
    this.#options.metrics.peerAdded(entry.peer.state);
    return entry;
  }

  /** Where the peer's link of an earlier run goes, unless that is a relay: it is asked for anew. */
  #adoptedPath(record: PeerRecord): { path: PathAddress; pathMtu: number } | undefined {
    const { plane } = this.#options;
    const { nodeKey, endpoints } = record;
    const adopted = plane.adopted().find(({ id }) => id === nodeKey);
    if (!adopted) return undefined;
    plane.confine(record.nodeKey, innerOf(record, this.#tunnelIp.ip));
    const { remote, extraPort, pathMtu } = adopted;
    if (extraPort) {
      const measure = () => Promise.resolve(undefined);
      this.#options.guesser.adopt(nodeKey, Object.assign(extraPort, { measure }));
    }
    if (!endpoints.some(({ endpoint }) => endpoint.ip === remote.ip)) return undefined;
    const path = { ...remote, ...(extraPort ? { localPort: extraPort.port } : {}) };
    return { path, pathMtu };
  }

  /** The peer as one whose NAT's ports may have to be guessed. */
  #guessed(entry: () => Entry): GuessPeer {
    return {
      get name() {
        return entry().record.name;
      },
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
      ping: (to) => {
        // Its answer alone tells of the address: by then there is nothing left to send a ping there for.
        const onPong = () =>
          this.#event(entry(), { kind: "found", nowMs: this.#options.clock.nowMs(), from: to });
        this.#effects.sendPing(entry(), to, { isGuess: true, onPong });
      },
      open: (to) => this.#effects.sendOpener(entry(), to, true),
      tell: (message) => {
        this.#options.signal(entry().record.discoKey, this.#effects.seal(entry(), message));
      },
    };
  }

  /** Addresses inside the overlay would send the tunnel through itself. */
  #usable(endpoints: readonly Endpoint[]): Endpoint[] {
    return endpoints.filter((endpoint) =>
      isUsableEndpoint(endpoint) && !cidrContains(this.#tunnelIp, endpoint.ip)
    );
  }

  /** Those where the peer may be, by what was said of it. */
  #told(entry: Entry, endpoints: readonly Endpoint[]): Endpoint[] {
    const { reaches, translated } = this.#options;
    const first = endpoints.slice(0, MAX_TOLD).filter(({ ip }) => reaches(ip));
    return this.#routable(entry, first.map(translated));
  }

  /** Those that packets do not go to by our own links; the peer is told of detours among them. */
  #routable(entry: Entry, endpoints: readonly Endpoint[]): Endpoint[] {
    const usable = this.#usable(endpoints);
    this.#lookAtRoutes(entry, usable.map(({ ip }) => ip));
    return usable.filter(({ ip }) => entry.peer.detours.get(ip) !== "own");
  }

  #lookAtRoutes(entry: Entry, newIps: readonly Ip[] = []): void {
    const known = [...entry.peer.candidates.values()].map(({ endpoint }) => endpoint.ip);
    const detours = this.#options.detours(new Set([...known, ...newIps]));
    if (equalDetours(detours, entry.peer.detours)) return;
    this.#dispatch(entry, { kind: "routed", nowMs: this.#options.clock.nowMs(), detours });
  }

  /** Links, addresses or routes of this host are others now. */
  routesChanged(): void {
    for (const entry of this.#byNode.values()) {
      this.#lookAtRoutes(entry);
      this.#probes.rerouted(entry);
    }
    this.#arm();
  }

  /**
   * Whether that may be the peer itself. What it sends through a relay may come before the relay is
   * ours as well, and is no sign of a direct path.
   */
  #isDirect(entry: Entry, from: Endpoint): boolean {
    return this.#usable([from]).length > 0 && !this.#isRelays(entry, from);
  }

  #isRelays({ record }: Entry, { ip }: Endpoint): boolean {
    return this.#options.isRelay(ip) &&
      !record.endpoints.some(({ endpoint }) => endpoint.ip === ip);
  }

  /** The relays are others now. What came from one that was not known looked as if it were the peer itself. */
  relaysChanged(): void {
    const nowMs = this.#options.clock.nowMs();
    for (const entry of this.#byNode.values()) {
      for (const { endpoint } of [...entry.peer.candidates.values()]) {
        if (!this.#isRelays(entry, endpoint) || isRelayed(entry, endpoint)) continue;
        this.#dispatch(entry, { kind: "not-direct", nowMs, endpoint });
      }
    }
    this.#arm();
  }

  /** A disco datagram from the data port, or from an extra one. */
  datagram({ bytes, from: endpoint }: Datagram, localPort?: number): void {
    const opened = this.#open(bytes);
    if (!opened) return;
    const { entry, message } = opened;
    const from = { ...endpoint, ...(localPort === undefined ? {} : { localPort }) };
    if (message.type === "ping") this.#pinged(entry, message, from, bytes.length);
    else if (message.type === "pong") this.#ponged(entry, message, from);
  }

  #pinged(entry: Entry, ping: disco.Ping, from: PathAddress, lengthBytes: number): void {
    if (!isOwnPing(entry, ping) || !entry.seenPings.add(ping.txId)) return;
    const nowMs = this.#options.clock.nowMs();
    // A pong is longer than such a ping: nobody has us send more to others than they send to us.
    if (!ping.nodeKey && standing(entry.peer, from, nowMs) !== "proven") return;
    const isTaken = isRelayed(entry, from) ||
      (this.#isDirect(entry, from) && this.#routable(entry, [from]).length > 0);
    if (!isTaken) return;
    const { txId, extension, padding } = ping;
    this.#effects.pinged(from, lengthBytes);
    if (!entry.session.pinged(extension)) return this.#challenge(entry, ping, from);
    entry.heardMs = nowMs;
    const nominating = extension ? extension.nominating : padding === NOMINATING_PADDING;
    const isNews = extension !== undefined && entry.session.isNews(extension);
    this.#event(entry, { kind: "ping", nowMs, from, txId, nominating, isNews });
  }

  /**
   * The peer does not know of our run yet, or somebody has recorded what it sent to an earlier one. It
   * has its answer, and counts for nothing until it answers in turn.
   */
  #challenge(entry: Entry, { txId, extension }: disco.Ping, from: PathAddress): void {
    const ping = {
      echo: extension!.epoch,
      onPong: () => {
        this.#event(entry, { kind: "found", nowMs: this.#options.clock.nowMs(), from });
      },
    };
    this.#effects.sendPong(entry, from, txId, ping);
    this.#effects.sendPing(entry, from, ping);
  }

  #ponged(entry: Entry, { txId, extension }: disco.Pong, from: PathAddress): void {
    const nowMs = this.#options.clock.nowMs();
    const rttMs = this.#pending.take(txId, entry.record.nodeKey, from, nowMs);
    // One that was asked for through a relay may come when that is not ours any more.
    if (rttMs === undefined || !(isRelayed(entry, from) || this.#isDirect(entry, from))) return;
    entry.heardMs = nowMs;
    this.#options.metrics.pongReceived();
    const isOtherRun = entry.session.answered(extension);
    this.#event(entry, { kind: "pong", nowMs, from, rttMs });
    // So that it need not ask itself.
    if (isOtherRun) this.#effects.sendPing(entry, from);
    const { link } = entry.peer;
    if (link.kind !== "set" || entry.linkKeys === entry.session.keys) return;
    this.#event(entry, { kind: "link-gone", nowMs });
  }

  /** A sealed message that came through the coordinator: nothing else counts there. */
  signal(sealed: Uint8Array): void {
    const opened = this.#open(sealed);
    if (!opened) return;
    const { entry, message } = opened;
    if (message.type === "port-guess") {
      // Port 0 stands for many, and is told of an address alone.
      const { ip, port } = message.endpoint;
      const isUsable = this.#told(entry, [{ ip, port: port || 1 }]).length > 0;
      if (isUsable) this.#options.guesser.received(entry.guessed, message);
    } else if (message.type === "call-me-maybe") {
      const endpoints = this.#told(entry, message.endpoints);
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
    for (const entry of this.#byNode.values()) {
      this.#dispatch(entry, { kind: "moved", nowMs });
      this.#probes.again(entry);
    }
    this.#arm();
  }

  /** Links or addresses have changed: puts ours right, and makes those again that are gone. */
  restoreLinks(): void {
    if (this.#closed.signal.aborted) return;
    const nowMs = this.#options.clock.nowMs();
    for (const id of this.#options.plane.missingLinks()) {
      const nodeKey = id as NodeKey;
      const entry = this.#byNode.get(nodeKey);
      if (entry?.peer.link.kind !== "set") continue;
      this.#options.log.warn("link is gone, making it again", {
        ...peerFields(entry.record),
        ifname: entry.ifname,
      });
      this.#dispatch(entry, { kind: "link-gone", nowMs });
    }
    for (const nodeKey of this.#collisions.changed()) {
      const entry = this.#byNode.get(nodeKey);
      if (entry?.peer.link.kind === "set") this.#dispatch(entry, { kind: "link-gone", nowMs });
    }
    this.#arm();
    this.#options.plane.networkChanged();
    this.#lookForDiversions();
  }

  /** Routes that others made, or rules that put their tables before ours, are theirs: they are told, and left. */
  #lookForDiversions(): void {
    for (const entry of this.#byNode.values()) {
      const { record, ifname } = entry;
      const diverted = this.#isLinked(entry) ? this.#diversionOf(entry) : undefined;
      if (isSameDiversion(diverted, entry.diverted)) continue;
      entry.diverted = diverted;
      const fields = { ...peerFields(record), ifname };
      if (!diverted) {
        this.#options.log.info("packets to the peer go through the tunnel again", fields);
      } else {
        this.#options.log.warn("packets to the peer do not go through the tunnel", {
          ...fields,
          device: diverted.device,
          ...(diverted.whose ? { whose: diverted.whose } : {}),
          hint: diversionHint(record.tunnelIp, diverted.isDown),
        });
      }
    }
  }

  #isLinked({ record, peer, linkTrouble }: Entry): boolean {
    const collides = this.#collisions.of(record.nodeKey).length > 0;
    return peer.link.kind === "set" && !linkTrouble && !collides;
  }

  #diversionOf({ record: { tunnelIp, nodeKey }, ifname }: Entry): Diversion | undefined {
    return ifname === undefined ? undefined : this.#options.diversion(tunnelIp, nodeKey);
  }

  /** As their texts, of all peers. */
  get collisions(): string[] {
    return this.#collisions.texts;
  }

  report(entries: readonly Entry[] = [...this.#byNode.values()]): PeerReport[] {
    const counters = this.#options.plane.counters();
    const look = { nowMs: this.#options.clock.nowMs(), ownNat: this.#options.ownNat() };
    return entries.map((entry) =>
      reportPeer(entry, {
        ...look,
        counters: counters.get(entry.record.nodeKey),
        findings: this.#findings(entry),
      })
    );
  }

  /** The peer as one that a user pings; undefined: there is none with that key. */
  pingTarget(nodeKey: string): PingTarget | undefined {
    const entry = this.#byNode.get(nodeKey as NodeKey);
    if (!entry) return undefined;
    const { clock, pingThrough } = this.#options;
    return {
      report: () => this.#isCurrent(entry) ? this.report([entry])[0] : undefined,
      search: () => this.#event(entry, { kind: "moved", nowMs: clock.nowMs() }),
      pingPath: () => this.#pingPath(entry),
      pingTunnel: async () =>
        entry.ifname && await pingThrough({ ip: entry.record.tunnelIp, ifname: entry.ifname })
            .catch(() => undefined) || undefined,
    };
  }

  #pingPath(entry: Entry): Promise<number | undefined> {
    const { path } = entry.peer;
    if (!path || path.dead) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      this.#options.clock.timer(PING_TIMEOUT_MS, () => resolve(undefined));
      this.#effects.sendPing(entry, path.endpoint, { onPong: resolve });
    });
  }

  #findings(entry: Entry): Finding[] {
    const { nodeKey, tunnelIp, isSilent } = entry.record;
    const collisions = this.#collisions.of(nodeKey).map(({ wanted, found }) => ({
      text: `${wanted} is not set: it collides with ${found}`,
      remedy: COLLISION_HINT,
    }));
    const found = [
      ...collisions,
      ...narrowPathFinding(entry.probed),
      ...(entry.linkFinding ? [entry.linkFinding] : []),
      ...(entry.diverted ? [diversion(tunnelIp, entry.diverted)] : []),
    ];
    const isThere = entry.peer.path?.dead === false;
    if (isSilent || !isThere || !this.#innerChecks.isSilent(nodeKey)) return found;
    const text = `the path works, but ${tunnelIp} answers no pings in the tunnel`;
    return [...found, { text, remedy: "See whether a firewall drops them, here or there" }];
  }

  /** UDP works again: paths that made do with TCP are tried anew. */
  retryTcpRelays(): void {
    const nowMs = this.#options.clock.nowMs();
    for (const entry of this.#byNode.values()) {
      if (entry.relay?.kind !== "relay-tcp") continue;
      this.#effects.closeRelay(entry);
      this.#event(entry, { kind: "relay-closed", nowMs });
    }
  }

  /** The coordinator, without which there are no relays, answers again. */
  coordinatorIsBack(): void {
    const nowMs = this.#options.clock.nowMs();
    for (const entry of this.#byNode.values()) {
      this.#dispatch(entry, { kind: "relay-ready", nowMs });
    }
    this.#arm();
  }

  /** The relay has forgotten us, or is away. */
  relayLost(relay: RelayPath, reason: string): void {
    const entry = this.#byNode.get(relay.peer);
    if (entry?.relay !== relay || this.#closed.signal.aborted) return;
    delete entry.relay;
    const { clock, log } = this.#options;
    log.warn("relay lost", { ...peerFields(entry.record), reason });
    this.#event(entry, { kind: "relay-closed", nowMs: clock.nowMs() });
  }

  close(): void {
    this.#closed.abort();
    this.#alarm[Symbol.dispose]();
    for (const entry of this.#byNode.values()) {
      this.#lastSeen(entry);
      this.#probes.forget(entry);
    }
    this.#trafficTimer[Symbol.dispose]();
    this.#options.guesser[Symbol.dispose]();
    this.#innerChecks[Symbol.dispose]();
  }

  /** The kernel moves the data: only its counters tell that nothing comes back any more. */
  #lookAtTraffic(): void {
    for (const entry of this.#byNode.values()) this.#lookWhetherAway(entry);
    const isBusy = this.#byNode.size > 0 && this.#takeCounters();
    const waitMs = isBusy ? BUSY_INTERVAL_MS : IDLE_INTERVAL_MS;
    this.#trafficTimer = this.#options.clock.timer(waitMs, () => this.#lookAtTraffic());
  }

  #lookWhetherAway(entry: Entry): void {
    const { clock, log } = this.#options;
    const { peer, record } = entry;
    if (peer.path && !peer.path.dead) return void delete entry.away;
    entry.away ??= new Trouble(clock, entry.heardMs ?? peer.punchingSinceMs);
    if (entry.away.news() !== "still") return;
    log.warn("peer still away", { ...peerFields(record), since: entry.away.since });
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
      if (sent) this.#probes.used(entry, !received);
      this.#lookWhetherAnswered(entry, received);
    }
    this.#options.guesser.look([...this.#byNode.values()].map(({ guessed }) => guessed));
    this.#arm();
    return isBusy;
  }

  /**
   * Data was sent or received. None that comes is reason to look whether any can; so is much that does,
   * for this host's own firewall may drop it behind the link.
   */
  #lookWhetherAnswered(entry: Entry, isReceived: boolean): void {
    const nowMs = this.#options.clock.nowMs();
    if (isReceived) delete entry.unansweredMs;
    else entry.unansweredMs ??= nowMs;
    const isUnanswered = nowMs - (entry.unansweredMs ?? nowMs) >= DOUBTFUL_MS;
    const sent = entry.txPackets - (entry.txPacketsChecked ?? 0);
    const isMuch = sent >= MUCH_PACKETS || sent < 0; // of a link that was made again
    const { record: { name, nodeKey, tunnelIp: ip, isSilent }, ifname } = entry;
    if (!(isUnanswered || isMuch) || isSilent || !ifname || !this.#isLinked(entry)) return;
    const isAsked = this.#innerChecks.doubt(nodeKey, { name, ip, ifname });
    if (isAsked) entry.txPacketsChecked = entry.txPackets;
  }

  // --- the loop

  /** Most change nothing of when the next tick is due, and the others need not be looked at. */
  #event(entry: Entry, event: PeerEvent): void {
    this.#dispatch(entry, event);
    this.#alarm.setEarlier(entry.dueMs);
  }

  #dispatch(entry: Entry, event: PeerEvent): void {
    const [peer, effects] = step(entry.peer, event);
    const before = entry.peer.state;
    this.#options.metrics.peerChanged(before, peer.state);
    entry.peer = peer;
    entry.dueMs = nextTickMs(peer);
    if (before !== peer.state) this.#stateChanged(entry, before);
    for (const effect of effects) this.#effects.perform(entry, effect);
    this.#probes.look(entry);
  }

  #stateChanged(entry: Entry, before: PeerState): void {
    if (isConnected(entry.peer.state)) return this.#options.onLossOver();
    if (!isConnected(before)) return;
    const nowMs = this.#options.clock.nowMs();
    entry.lostMs = nowMs;
    const entries = [...this.#byNode.values()];
    const lost = entries.filter(({ lostMs = -Infinity }) => nowMs - lostMs <= LOST_AT_ONCE_MS);
    const isAnyLeft = entries.some(({ peer }) => isConnected(peer.state));
    if (!isAnyLeft && lost.length >= LOST_AT_LEAST) this.#options.onAllLost(lost.length);
  }

  #arm(): void {
    let dueMs = Infinity;
    for (const entry of this.#byNode.values()) dueMs = Math.min(dueMs, entry.dueMs);
    this.#alarm.set(dueMs);
  }

  #tick(): void {
    const nowMs = this.#options.clock.nowMs();
    for (const entry of this.#byNode.values()) {
      if (entry.dueMs <= nowMs) this.#dispatch(entry, { kind: "tick", nowMs });
    }
    this.#arm();
  }

  /** Whether the entry still stands for its peer, after something was waited for. */
  #isCurrent(entry: Entry): boolean {
    return !this.#closed.signal.aborted && this.#byNode.get(entry.record.nodeKey) === entry;
  }

  #lastSeen({ record, heardMs }: Entry): void {
    const nowMs = this.#options.clock.nowMs();
    this.#options.onLastSeen(record.nodeKey, nowMs - (heardMs ?? nowMs));
  }

  #forget(entry: Entry): void {
    const { record, peer } = entry;
    if (this.#byNode.get(record.nodeKey) !== entry) return;
    this.#byNode.delete(record.nodeKey);
    this.#byDisco.delete(record.discoKey);
    const isLost = (each: Entry) => each.lostMs !== undefined && !isConnected(each.peer.state);
    if (![...this.#byNode.values()].some(isLost)) this.#options.onLossOver();
    this.#lastSeen(entry);
    this.#effects.closeRelay(entry);
    this.#probes.forget(entry);
    this.#collisions.forget(record.nodeKey);
    this.#innerChecks.stop(record.nodeKey);
    this.#options.metrics.peerRemoved(peer.state);
    try {
      this.#options.plane.removeLink(record.nodeKey);
      this.#options.plane.allow(record.nodeKey, undefined);
      this.#options.guesser.forget(record.nodeKey);
      this.#options.log.info("peer gone", peerFields(record));
    } catch (error) {
      this.#options.log.warn("link not removed", {
        ...peerFields(record),
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

function isSameAccess(a: Access | undefined, b: Access | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function isSameDiversion(a: Diversion | undefined, b: Diversion | undefined): boolean {
  return a?.device === b?.device && a?.whose === b?.whose && a?.isDown === b?.isDown;
}

/** Others' packets may well be meant to go elsewhere. */
function diversion(ip: Ip, { device, whose, isDown }: Diversion): Finding {
  const text = `packets ${whose && `${whose} `}to ${ip} leave by ${device}, not by the tunnel` +
    (isDown ? ", whose link is down" : "");
  return { text, remedy: diversionHint(ip, isDown), ...(whose ? { harmless: true } : {}) };
}

function diversionHint(ip: Ip, isDown: boolean): string {
  return isDown
    ? "Find the program that sets the link down, such as a network manager"
    : `Find the rule or route of another program with: ip route get ${ip}; ip rule`;
}

function equalDetours(a: Detours, b: Detours): boolean {
  return a.size === b.size && [...a].every(([ip, kind]) => b.get(ip) === kind);
}

function isConnected(state: PeerState): boolean {
  return state === "direct" || state === "relay";
}
