/**
 * `gretun up`: opens the data plane, registers with the coordinator, keeps endpoints fresh, and
 * feeds peers with what arrives. Each concern is a part of its own that runs until the daemon's
 * signal; here they are put together.
 */
import { type Cidr, type Endpoint, formatCidr, formatEndpoint, type Ip } from "../addr.ts";
import { natJson, type PeerRecord, type RegisterResponse } from "../coord/api.ts";
import { askCoordinatorKey, type ClockNews } from "../coord/client.ts";
import {
  type DataPlane,
  type EncapCsum,
  GreCodec,
  openPlane,
  type UpPlaneKind,
} from "../dataplane/mod.ts";
import { DISCO_PATTERN, isDisco } from "../disco/mod.ts";
import { type Datagram, timeLimit } from "../edges.ts";
import { errorFields, errorText } from "../errors.ts";
import { keyBase64, keyBytes, type NodeKey } from "../keys.ts";
import { lockPort, type NeededAddress } from "../links/mod.ts";
import type { RtNetlink } from "../netlink.ts";
import { RELAY_PATTERN, RelayClient, RelayError, type RelayPath } from "../relay/mod.ts";
import { BINDING_PATTERN, StunClient } from "../stun/mod.ts";
import { prepareSecrets } from "../x25519.ts";
import { watchForSleep } from "./awakening.ts";
import { CollisionReport } from "./collision_report.ts";
import { answersOf, type DaemonReport, type Running } from "./control.ts";
import { dataPathJson } from "./data_path.ts";
import { HostDetours } from "./detours.ts";
import { Findings } from "./findings.ts";
import type { DaemonEdges } from "./edges.ts";
import type { Identity } from "./identity.ts";
import { Known } from "./known.ts";
import type { DaemonMeter } from "./meter.ts";
import { EarlyStun } from "./own/early_stun.ts";
import { ExtraStun, type StunPort } from "./own/extra_stun.ts";
import type { InterfaceChoice } from "./own/endpoints.ts";
import { OwnEndpoints, SETTLE_MS } from "./own/own_endpoints.ts";
import { OwnNat } from "./own/own_nat.ts";
import { PortMapper } from "./own/port_mapper.ts";
import { PrivateNetworks } from "./own/private_networks.ts";
import { resolveReachable } from "./own/reachable.ts";
import { ReversePath } from "./own/reverse_path.ts";
import { Translator } from "./own/translator.ts";
import { type PeerReport, reportAbsent } from "./peer_report.ts";
import { Peers } from "./peers.ts";
import type { PingTarget } from "./ping.ts";
import { PortGuesser } from "./port_guesser.ts";
import { Session } from "./session.ts";
import { Trust } from "./trust.ts";
import { TwinWatch } from "./twins.ts";

const LEAVE_TIMEOUT_MS = 2_000;
/** Between two times that another host with this node's key is told of this one. */
const TELL_TWIN_MS = 60_000;
/** By then it has seen itself listed. */
const TWIN_LEARNS_MS = 5_000;
/** After so long a start, what STUN said at its beginning may not hold any more. */
const EARLY_MS = 3_000;
const RELAY_MEASURE_MS = 300_000;
/** Where no relay answered by UDP: the network may just have been busy. */
const RELAY_NO_UDP_MS = 60_000;
/** A relay that is needed is asked for more often. */
const NO_RELAY_MS = 60_000;
/** Between two measurements at least, whatever changes. */
const RELAY_MEASURE_GAP_MS = 10_000;
/** Peers are invited with what STUN says, if it says so soon. */
const FIRST_LIST_WAIT_MS = 100;
/** Invitations and their answers are under way then. */
const LATER_MS = 250;
/** A mapping whose port is to be guessed soon is measured, or not at all. */
const MEASURE_TIMEOUT_MS = 1_000;

export interface DaemonOptions {
  coordinator: URL;
  nodeName: string;
  /** What lets this node join a coordinator that asks for it. */
  tokenSecret?: Uint8Array;
  /** Whether names and addresses may pass to other keys unasked. */
  acceptsChangedKeys: boolean;
  /** The coordinator's key, as the operator gave it; without it the one that is remembered. */
  coordinatorKey?: NodeKey;
  /** That key, where it was asked for already. */
  met?: Promise<NodeKey | undefined>;
  identity: Identity;
  port: number;
  ifnamePattern: string;
  encapCsum: EncapCsum;
  dataPlane: UpPlaneKind | "auto";
  greKeys: boolean;
  /** Replaces the servers that the coordinator names. */
  stunServers: string[];
  /** Endpoints that the user knows of, besides those that are found. */
  endpoints: Endpoint[];
  /** Whose addresses are told, and whose are not. */
  interfaces: InterfaceChoice;
  /** Whether a router may be asked for a port. */
  portMapping: boolean;
  /** Whether ports that a NAT chooses at random may be guessed, by a thousand pings. */
  aggressivePunch: boolean;
  /** Asked at the end: whether links of the kernel stay for the next start. */
  keepsLinks: () => boolean;
  metrics: DaemonMeter;
}

/** Runs until `signal` is aborted, then removes all that it made. Throws what stops a start. */
export async function runDaemon(
  options: DaemonOptions,
  edges: DaemonEdges,
  signal: AbortSignal,
): Promise<void> {
  const { host, log } = edges;
  using _lock = lockPort(host.locks, { port: options.port, role: "up", flag: "--port" });
  const { coordinator: { href: url }, coordinatorKey } = options;
  await using stack = new AsyncDisposableStack();
  const known = stack.use(new Known({ ...edges, file: edges.knownFile, url }));
  if (coordinatorKey) known.setCoordinatorKey(coordinatorKey);
  // Answered while the data plane opens.
  const met = known.coordinatorKey ? undefined : options.met ?? askCoordinatorKey(url, edges);
  const rtnl = stack.use(host.openRtNetlink());
  const plane = stack.use(openPlane(
    { wanted: options.dataPlane, kernel: "fou", codec: () => new GreCodec() },
    {
      role: "up",
      port: options.port,
      portFlag: "--port",
      ifnamePattern: options.ifnamePattern,
      encapCsum: options.encapCsum,
      signalling: { kind: "patterns", any: [DISCO_PATTERN, BINDING_PATTERN, RELAY_PATTERN] },
      onDatagram: (datagram, localPort) => daemon.datagram(datagram, localPort),
      keepsLinks: options.keepsLinks,
      onFault: (what, error) => log.error(what, errorFields(error)),
    },
    { host, clock: edges.clock, log },
  ));
  const daemon = stack.use(new Daemon(options, edges, signal, { rtnl, plane, known, met }));
  stack.use(host.watchNetwork(() => daemon.networkChanged()));
  void daemon.askStunEarly();
  stack.use(await edges.serveControl(answersOf(daemon, edges.clock)));
  await daemon.run();
}

interface DaemonParts {
  rtnl: RtNetlink;
  plane: DataPlane;
  known: Known;
  /** The coordinator's key, where it is not known yet. */
  met: Promise<NodeKey | undefined> | undefined;
}

class Daemon implements Running, AsyncDisposable {
  readonly #options: DaemonOptions;
  readonly #edges: DaemonEdges;
  readonly #signal: AbortSignal;
  readonly #session: Session;
  readonly #rtnl: RtNetlink;
  readonly #plane: DataPlane;
  readonly #detours: HostDetours;
  readonly #privateNetworks: PrivateNetworks;
  readonly #translator: Translator;
  readonly #findings: Findings;
  readonly #reversePath: ReversePath;
  readonly #twins: TwinWatch;
  readonly #known: Known;
  readonly #trust: Trust;
  /** The coordinator's whole list, without this node. */
  #listed: readonly PeerRecord[] = [];
  /** What the others call this node. */
  #listedName: string | undefined;
  /** Members that are not there. */
  #away: { keys: readonly NodeKey[]; isByPolicy: boolean } = { keys: [], isByPolicy: false };
  #judged: Promise<void> = Promise.resolve();
  readonly #firstJudged = Promise.withResolvers<void>();
  /** When this node last told its endpoints because of another host. */
  #toldTwinMs = -Infinity;
  readonly #stun: StunClient;
  readonly #earlyStun: EarlyStun;
  readonly #extraStun: ExtraStun;
  readonly #relays: RelayClient;
  readonly #collisions: CollisionReport;
  /** Until a failure to reach a relay is forgotten. */
  #noRelay: Disposable | undefined;
  #networkNews = new AbortController();
  #peers: Peers | undefined;
  #tunnelIp: Cidr | undefined;
  #coordinatorIps: readonly Ip[] = [];
  /** Servers that the coordinator names. */
  #advertisedStun: readonly string[] = [];
  readonly #own: OwnEndpoints;
  #ownNat: OwnNat | undefined;
  readonly #portMapper: PortMapper | undefined;
  /** Whether the coordinator has told its list. */
  #isListed = false;
  /** More such news may follow the first before our links are looked at. */
  #isSettling = false;

  constructor(
    options: DaemonOptions,
    edges: DaemonEdges,
    signal: AbortSignal,
    { rtnl, plane, known, met }: DaemonParts,
  ) {
    this.#options = options;
    this.#edges = edges;
    this.#signal = signal;
    this.#rtnl = rtnl;
    options.metrics.watchPlane(plane);
    options.metrics.watchReport(() => this.report());
    this.#plane = plane;
    this.#detours = new HostDetours(rtnl);
    this.#privateNetworks = new PrivateNetworks(rtnl);
    this.#translator = new Translator({
      ...{ rtnl, lookup: edges.lookup },
      onChange: () => {
        if (!this.#peers) return;
        this.#own!.look();
        void this.#judge();
      },
    });
    this.#findings = new Findings(edges.log);
    this.#reversePath = new ReversePath(() => edges.host.readFile("/proc/net/netstat"));
    this.#twins = new TwinWatch();
    const { coordinator, identity, nodeName } = options;
    this.#known = known;
    this.#trust = new Trust({
      ...edges,
      known,
      tunnelIp: () => this.#tunnelIp!,
      acceptsChanges: options.acceptsChangedKeys,
    });
    const { clock, random, portMapNet } = edges;
    const { lookup } = this.#translator;
    this.#session = new Session({
      ...edges,
      url: coordinator.href,
      identity,
      nodeName,
      tokenSecret: options.tokenSecret,
      coordinatorKey: known.coordinatorKey,
      met,
      onFirstContact: (key) => known.setCoordinatorKey(key),
      signal,
      wantedIp: () => this.#tunnelIp?.ip ?? known.address,
      last: known,
      said: () => {
        const endpoints = this.#own.told(this.#earlyStun.seen);
        this.#twins.tells(endpoints);
        const nat = this.#ownNat?.nat;
        const tunnelIp = this.#tunnelIp?.ip;
        return { ...(tunnelIp ? { tunnelIp } : {}), endpoints, ...(nat ? { nat } : {}) };
      },
      onRegistered: (registered) => this.#registered(registered),
      onPeers: ({ peers, away = [], isByPolicy = false }) => {
        this.#lookForTwin(peers);
        this.#listed = peers.filter(({ nodeKey }) => nodeKey !== identity.nodeKey);
        this.#away = { keys: away, isByPolicy };
        return this.#judge();
      },
      onSignal: (sealed) => this.#peers!.signal(sealed),
      onClock: (news) => this.#compareClocks(news),
      onWaiting: () => plane.whileWaiting?.(),
      onBack: () => {
        this.#own.look(); // its STUN server is back too, as a rule
        this.#peers?.coordinatorIsBack();
        this.#collisions.forgotten();
      },
    });
    this.#collisions = new CollisionReport({
      texts: () => this.#peers?.collisions ?? [],
      tell: (texts) => this.#session.coord.tellCollisions(texts, signal),
      ...{ clock, log: edges.log },
    });
    this.#stun = new StunClient({ send: plane.send, clock, random });
    this.#earlyStun = new EarlyStun(this.#stun);
    this.#own = this.#watchEndpoints();
    this.#extraStun = new ExtraStun({ plane, clock, random });
    this.#relays = new RelayClient({
      nodeKey: identity.nodeKey,
      coordinator: this.#session.coord,
      wallMs: () => this.#session.coord.wallMs(),
      send: plane.send,
      nodePort: options.port,
      resolve: async (name) => {
        const servers = await resolveReachable([name], plane.families, rtnl, lookup);
        return servers.flatMap(({ endpoint, others = [] }) => [endpoint, ...others]);
      },
      onRelays: () => this.#peers?.relaysChanged(),
      onLost: (path, reason) => this.#peers?.relayLost(path, reason),
      onLoopback: (isOpen) => this.#loopbackIs(isOpen),
      ...edges,
    });
    if (options.portMapping) {
      this.#portMapper = new PortMapper({
        rtnl,
        port: options.port,
        secret: identity.discoPrivate,
        net: portMapNet,
        ...edges,
        onChange: () => this.#own.look(),
      });
    }
  }

  /** Tells the coordinator, if it answers in time; links and ports go with the data plane. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#peers?.close();
    this.#collisions[Symbol.dispose]();
    this.#noRelay?.[Symbol.dispose]();
    using _session = this.#session;
    await this.#relays[Symbol.asyncDispose]();
    // A node whose kernel carries on is back in a moment, and does not leave.
    if (this.#options.keepsLinks() && this.#plane.kind !== "tun") return;
    using limit = timeLimit(this.#edges.clock, LEAVE_TIMEOUT_MS);
    await this.#session.leave(limit.signal);
  }

  async run(): Promise<void> {
    const { log } = this.#edges;
    const { kind: plane, families } = this.#plane;
    log.info("listening", { port: this.#options.port, plane, ipv6: families.includes(6) });
    log.info("asking the coordinator to join", { coord: this.#options.coordinator.href });
    const startMs = this.#edges.clock.nowMs();
    await this.#session.register();
    if (this.#signal.aborted) return;
    if (this.#edges.clock.nowMs() - startMs > EARLY_MS) this.#earlyStun.forget();
    await Promise.all([
      this.#own.run(this.#signal), // what the first invitation tells
      this.#session.run(),
      watchForSleep(this.#edges.clock, () => this.#awoke(), this.#signal),
      this.#runLater(),
    ]);
  }

  /** What the first invitations do without comes after them. */
  async #runLater(): Promise<void> {
    await this.#withinFirstWait(this.#firstJudged.promise);
    await this.#edges.clock.sleep(LATER_MS, this.#signal).catch(() => {});
    await Promise.all([
      this.#ownNat!.run(this.#signal),
      this.#portMapper?.run(this.#signal),
      this.#measureRelays(),
    ]);
  }

  report(): DaemonReport {
    const refused = [...this.#plane.refused()].filter(([, count]) => count > 0);
    const { identity, nodeName, coordinator, port } = this.#options;
    const { coordinatorKey } = this.#session.coord;
    const there = this.#peers?.report() ?? [];
    const peers = [...there, ...this.#absent(there)];
    const ofPeers = peers.flatMap(({ name, findings = [] }) =>
      findings.map(({ text, ...more }) => ({ text: `${name}: ${text}`, ...more }))
    );
    const findings = [...this.#findings.list, ...this.#trust.findings, ...ofPeers];
    return {
      node_key: identity.nodeKey,
      node_name: nodeName,
      ...((this.#listedName ?? nodeName) === nodeName ? {} : { listed_name: this.#listedName! }),
      coordinator: coordinator.href,
      ...(coordinatorKey ? { coordinator_key: keyBase64(coordinatorKey) } : {}),
      state: this.#peers ? "running" : "waiting for the coordinator",
      ...(this.#tunnelIp ? { tunnel_ip: formatCidr(this.#tunnelIp) } : {}),
      data_plane: this.#plane.kind,
      port,
      endpoints: this.#peers ? this.#own.list.map(({ endpoint }) => formatEndpoint(endpoint)) : [],
      ...natJson(this.#ownNat?.nat),
      ...this.#coordinatorReport(),
      ...(findings.length > 0 ? { findings } : {}),
      peers,
      ...(refused.length > 0 ? { refused: Object.fromEntries(refused) } : {}),
      ...dataPathJson(this.#plane.threads?.()),
    };
  }

  /** Members that this node met before they left. */
  #absent(there: readonly PeerReport[]): PeerReport[] {
    const told = new Set(there.map(({ node_key }) => node_key));
    const { peers } = this.#known;
    return this.#away.keys.flatMap((key) => {
      const peer = told.has(key) ? undefined : peers.get(key);
      return peer?.ip
        ? [reportAbsent(key, { ...peer, ip: peer.ip }, this.#edges.clock.wallMs())]
        : [];
    });
  }

  target(nodeKey: string): PingTarget | undefined {
    return this.#peers?.pingTarget(nodeKey);
  }

  #coordinatorReport(): Pick<
    DaemonReport,
    "coordinator_error" | "coordinator_hint" | "coordinator_since_s"
  > {
    const { outage, connectedSinceMs } = this.#session;
    const sinceMs = outage?.sinceMs ?? connectedSinceMs;
    return {
      ...(outage ? { coordinator_error: outage.error } : {}),
      ...(outage?.hint ? { coordinator_hint: outage.hint } : {}),
      ...(sinceMs === undefined
        ? {}
        : { coordinator_since_s: Math.round((this.#edges.clock.nowMs() - sinceMs) / 1000) }),
    };
  }

  // --- datagrams

  /** `localPort`: an extra one, which it came to. */
  datagram(datagram: Datagram, localPort?: number): void {
    if (isDisco(datagram.bytes)) this.#peers?.datagram(datagram, localPort);
    else if (localPort !== undefined) {
      this.#extraStun.handle(datagram.bytes, datagram.from, localPort);
    } else if (!this.#relays.handle(datagram.bytes, datagram.from)) {
      this.#stun.handle(datagram.bytes, datagram.from);
    }
  }

  // --- the coordinator

  #registered({ tunnelIp, stun }: RegisterResponse): void {
    const { log } = this.#edges;
    const [from, to] = [this.#tunnelIp && formatCidr(this.#tunnelIp), formatCidr(tunnelIp)];
    this.#advertisedStun = stun;
    this.#tunnelIp = tunnelIp;
    this.#known.address = tunnelIp.ip;
    if (!this.#peers) return this.#start(tunnelIp);
    if (from === to) return;
    log.warn("the coordinator gives this node another address", { from, to });
    this.#peers.readdress(tunnelIp);
    this.#own.look();
  }

  /** One list after the other. */
  #judge(): Promise<void> {
    return this.#judged = this.#judged.then(async () => {
      const discoKeys = this.#listed.map(({ discoKey }) => keyBytes(discoKey));
      const [peers] = await Promise.all([
        this.#trust.judge(this.#listed),
        prepareSecrets(this.#options.identity.discoPrivate, discoKeys),
      ]);
      if (!this.#isListed && peers.length > 0) await this.#knowsItself();
      if (this.#signal.aborted) return;
      if (!this.#isListed && peers.length === 0) this.#edges.log.info("no peers yet, waiting");
      this.#isListed = true;
      const { keys, isByPolicy } = this.#away;
      this.#peers!.list(peers, isByPolicy ? keys : undefined);
      this.#firstJudged.resolve();
    });
  }

  /** So that the first invitation of a peer says where this node is. */
  async #knowsItself(): Promise<void> {
    await this.#withinFirstWait(this.#own.firstTold);
  }

  async #withinFirstWait(awaited: Promise<void>): Promise<void> {
    const late = Promise.withResolvers<void>();
    using _timer = this.#edges.clock.timer(FIRST_LIST_WAIT_MS, late.resolve);
    await Promise.race([awaited, late.promise]);
  }

  /** Whether there is such a peer that was refused because of its key. */
  async accept(peer: string): Promise<boolean> {
    const isThere = this.#trust.accept(peer);
    if (isThere) await this.#judge();
    return isThere;
  }

  #compareClocks({ aheadMs, whose }: ClockNews): void {
    const seconds = Math.round(aheadMs / 1000);
    if (seconds === 0) return this.#findings.over("clock");
    const how = `${Math.abs(seconds)} s ${seconds > 0 ? "ahead of" : "behind"}`;
    const what = {
      "this host": "Set this host's",
      "coordinator": "Set the coordinator's",
      "unknown": "Set the one that is wrong",
    }[whose];
    this.#findings.found({
      kind: "clock",
      text: `clocks differ: the coordinator's is ${how} this host's`,
      remedy: `${what}; until then requests are signed with the coordinator's time`,
    });
  }

  #lookForTwin(peers: readonly PeerRecord[]): void {
    const own = peers.find(({ nodeKey }) => nodeKey === this.#options.identity.nodeKey);
    this.#listedName = own?.name;
    if (!own) return;
    if (!this.#twins.isTwin(own)) return;
    const where = own.endpoints.map(({ endpoint }) => formatEndpoint(endpoint)).join(", ");
    this.#findings.found({
      kind: "twin",
      text: `another host runs with this node's key: ${own.name} at ${where || "no endpoints yet"}`,
      remedy:
        "Give each host its own: stop gretun up on one, move its keys.json away, start it again",
    });
    // So that the other one learns of it, too.
    const nowMs = this.#edges.clock.nowMs();
    if (this.#twins.isTold(own.endpoints) || nowMs - this.#toldTwinMs < TELL_TWIN_MS) return;
    this.#toldTwinMs = nowMs;
    this.#edges.clock.sleep(TWIN_LEARNS_MS, this.#signal)
      .then(() => this.#session.post()).catch(() => {});
  }

  /** The port of signalling and data gets no answer from STUN, and others do. */
  #lookAtPort(): void {
    const { port } = this.#options;
    const { silentSinceMs } = this.#own!;
    const { answeredMs, askedMs } = this.#ownNat!;
    if (silentSinceMs === undefined) {
      this.#reversePath.look(); // what was dropped before says nothing of the next silence
      this.#findings.over("rp-filter");
      return this.#findings.over("port-filtered");
    }
    const { server } = this.#ownNat!;
    if (server && !this.#rtnl.tryRouteTo(server.endpoint.ip)) return; // it is this host that is cut off
    if (this.#reversePath.look() > 0) return this.#answersAreDropped();
    if (askedMs <= silentSinceMs) return this.#ownNat!.look();
    if (answeredMs <= silentSinceMs) return;
    this.#findings.found({
      kind: "port-filtered",
      text: `nothing is answered at UDP port ${port}, and another port is`,
      remedy:
        `Look for a firewall that drops UDP port ${port}, here or at the router; and at rp_filter`,
    });
  }

  #answersAreDropped(): void {
    this.#findings.found({
      kind: "rp-filter",
      text: "rp_filter of this host drops packets: routes back lead out by another interface",
      remedy:
        "Look at the routes with ip route get, or allow it: sysctl net.ipv4.conf.all.rp_filter=2",
    });
  }

  #start(tunnelIp: Cidr): void {
    const { log, clock, random, host } = this.#edges;
    const { identity, greKeys, metrics, coordinator } = this.#options;
    void this.#lookUpCoordinator();
    log.info("registered", { coord: coordinator.href, tunnel_cidr: formatCidr(tunnelIp) });
    this.#ownNat = this.#watchNat();
    this.#peers = new Peers({
      identity,
      tunnelIp,
      greKeys,
      plane: this.#plane,
      clock,
      random,
      log,
      metrics,
      signal: (to, sealed) => this.#session.sendSignal(to, sealed),
      allocateRelay: (peer, signal) => this.#allocateRelay(peer, signal),
      onDoubt: () => this.#own.doubt(),
      onStuck: () => void this.#lookElsewhere(),
      isRelay: (ip) => this.#relays.isRelay(ip),
      reaches: (ip) => this.#privateNetworks.reach(ip),
      translated: (endpoint) => this.#translator.reach(endpoint),
      detours: (ips) => this.#detours.of(ips),
      onLastSeen: (nodeKey, agoMs) => this.#known.seen(nodeKey, agoMs),
      diversion: (ip, peer) => this.#detours.diversion(ip, peer),
      onAllLost: (count) =>
        this.#findings.found({
          kind: "all-peers-lost",
          text: `all ${count} peers were lost at once`,
          remedy: "Look at this host's network, its router and its firewall",
        }),
      onLossOver: () => this.#findings.over("all-peers-lost"),
      hostView: {
        ...{ rtnl: this.#rtnl, readFile: (path) => host.readFile(path) },
        daemon: { role: "up", port: this.#options.port },
      },
      needed: () => this.#needed(),
      onCollisions: () => this.#collisions.look(),
      pingThrough: this.#edges.pingThrough,
      ownEndpoints: () => this.#own.list.map(({ endpoint }) => endpoint),
      ownNat: () => this.#ownNat!.nat,
      guesser: this.#openGuesser(),
    });
  }

  /** Who needs one asks again and again: a failure that is old is nobody's any more. */
  async #allocateRelay(peer: NodeKey, signal: AbortSignal): Promise<RelayPath> {
    try {
      const relay = await this.#relays.allocate(peer, signal);
      this.#relayIsThere();
      return relay;
    } catch (error) {
      if (!signal.aborted && error instanceof RelayError && error.code === undefined) {
        this.#findings.found({ kind: "no-relay", text: errorText(error), remedy: error.hint });
        this.#noRelay?.[Symbol.dispose]();
        this.#noRelay = this.#edges.clock.timer(NO_RELAY_MS, () => this.#relayIsThere());
      }
      throw error;
    }
  }

  #loopbackIs(isOpen: boolean): void {
    if (isOpen) return this.#findings.over("loopback-filtered");
    const { port } = this.#options;
    this.#findings.found({
      kind: "loopback-filtered",
      text: `nothing gets to UDP port ${port} on loopback, which a relay by WebSocket needs`,
      remedy: "Have this host's firewall accept what comes in from lo",
    });
  }

  #relayIsThere(): void {
    this.#noRelay?.[Symbol.dispose]();
    this.#findings.over("no-relay");
  }

  async #lookUpCoordinator(): Promise<void> {
    const { hostname } = this.#options.coordinator;
    const lookUp = this.#edges.lookup(hostname.replace(/^\[|\]$/g, ""));
    // Behind a proxy its name may mean nothing here.
    this.#coordinatorIps = await lookUp.catch(() => []);
  }

  /** What overlay addresses must not hide from this node. */
  #needed(): NeededAddress[] {
    const server = this.#ownNat?.server;
    return [
      ...this.#coordinatorIps.map((ip) => ({ ip, what: "the coordinator" })),
      ...(server ? [{ ip: server.endpoint.ip, what: "the STUN server" }] : []),
      ...[...this.#relays.ips].map((ip) => ({ ip, what: "the relay" })),
    ];
  }

  /** Where each remote sees another port anyway, one more of them is of no use to anybody. */
  async #lookElsewhere(): Promise<void> {
    if (this.#ownNat!.nat?.mapping !== "easy") return;
    await this.#own.lookElsewhere(this.#signal).catch((error) => {
      if (!this.#signal.aborted) {
        this.#edges.log.debug("STUN not asked", { error: errorText(error) });
      }
    });
  }

  #openGuesser(): PortGuesser {
    const { clock, random, log } = this.#edges;
    return new PortGuesser({
      aggressive: this.#options.aggressivePunch,
      clock,
      random,
      log,
      ownNat: () => this.#ownNat!.nat,
      ownMapped: () => this.#own.seenByNewcomers,
      openPort: () => {
        const port = this.#extraStun.openPort();
        return { ...port, measure: () => this.#mappedAt(port) };
      },
    });
  }

  async #mappedAt({ stun }: StunPort): Promise<Endpoint | undefined> {
    const { server } = this.#ownNat!;
    const options = { timeoutMs: MEASURE_TIMEOUT_MS, signal: this.#signal };
    const [answer] = server ? await stun.query([server], options) : [];
    return answer?.mapped;
  }

  #stunServers(): readonly string[] {
    const { stunServers } = this.#options;
    return stunServers.length > 0 ? stunServers : this.#advertisedStun;
  }

  /** Beside the rest of the start. */
  async askStunEarly(): Promise<void> {
    const { stunServers, coordinator } = this.#options;
    const { families } = this.#plane;
    const names = stunServers.length > 0 ? stunServers : [coordinator.hostname];
    await this.#lookForTranslator();
    const servers = await resolveReachable(names, families, this.#rtnl, this.#translator.lookup)
      .catch(() => []);
    this.#earlyStun.ask(servers, families);
  }

  async #lookForTranslator(): Promise<void> {
    await this.#translator.changed().catch((error) => {
      this.#edges.log.debug("no translator looked for", { error: errorText(error) });
    });
  }

  #watchNat(): OwnNat {
    return new OwnNat({
      openPort: () => this.#extraStun.openPort(),
      stunServers: () => this.#stunServers(),
      ...this.#edges,
      onChange: () => {
        // Half a list would have peers punch at half of the places.
        if (this.#own.isTold) this.#session.post();
      },
    });
  }

  #watchEndpoints(): OwnEndpoints {
    const { log, clock } = this.#edges;
    const { lookup } = this.#translator;
    const { port, endpoints, interfaces } = this.#options;
    return new OwnEndpoints({
      rtnl: this.#rtnl,
      port,
      families: this.#plane.families,
      overlay: () => this.#tunnelIp,
      interfaces,
      stun: this.#earlyStun,
      stunServers: () => this.#stunServers(),
      lookup,
      given: endpoints,
      portMapped: () => this.#portMapper?.external,
      clock,
      log,
      onChange: (list) => {
        const text = list.map(({ endpoint }) => formatEndpoint(endpoint)).join(",");
        log.info("endpoints", { endpoints: text });
        this.#session.post();
      },
      onSilence: () => this.#lookAtPort(),
      onMoved: (what) => {
        if (what === "mapping") {
          this.#edges.log.info("the router maps this host's port anew", {
            port: this.#options.port,
          });
        }
        this.#moved({ mayBeCutOff: what !== "more" });
      },
      // Where this host is short of processor time answers come late, and nothing was away.
      onBack: (silentSinceMs) =>
        this.#moved({ mayBeCutOff: this.#session.coord.answeredMs <= silentSinceMs }),
    });
  }

  #moved({ mayBeCutOff }: { mayBeCutOff: boolean }): void {
    this.#peers!.moved(); // its messages go out before what else is to be said
    if (mayBeCutOff) this.#reconnect();
    this.#ownNat!.look();
  }

  /** Connections that there are may be dead without anybody having said so. */
  #reconnect(): void {
    this.#session.coord.reconnect();
    this.#relays.networkMoved();
  }

  #awoke(): void {
    this.#edges.log.info("awake after a pause, looking at all paths");
    this.#peers?.moved();
    this.#reconnect();
    this.networkChanged();
  }

  /** The coordinator picks relays by what both nodes of a pair have measured. */
  async #measureRelays(): Promise<void> {
    const { clock, log } = this.#edges;
    while (!this.#signal.aborted) {
      const wake = AbortSignal.any([this.#signal, this.#networkNews.signal]);
      try {
        await this.#relays.measure(this.#signal);
        if (this.#relays.udpWorks) this.#peers?.retryTcpRelays();
      } catch (error) {
        if (!this.#signal.aborted) log.debug("relays not measured", { error: errorText(error) });
      }
      const pauseMs = this.#relays.udpWorks === false ? RELAY_NO_UDP_MS : RELAY_MEASURE_MS;
      await clock.sleep(pauseMs, wake).catch(() => {});
      await clock.sleep(RELAY_MEASURE_GAP_MS, this.#signal).catch(() => {});
    }
  }

  // --- endpoints

  /** Links or addresses of this host changed: looks at our endpoints and links soon. */
  networkChanged(): void {
    this.#own.look();
    this.#portMapper?.networkChanged();
    this.#relays.check();
    this.#networkNews.abort();
    this.#networkNews = new AbortController();
    void this.#restoreLinks();
  }

  async #restoreLinks(): Promise<void> {
    if (this.#isSettling) return;
    this.#isSettling = true;
    await this.#edges.clock.sleep(SETTLE_MS, this.#signal).catch(() => {});
    this.#isSettling = false;
    if (this.#signal.aborted) return;
    this.#session.networkChanged();
    void this.#lookForTranslator();
    try {
      this.#detours.changed();
      this.#privateNetworks.changed();
      this.#peers?.routesChanged();
      this.#peers?.restoreLinks();
    } catch (error) {
      this.#edges.log.warn("links not looked at", { error: errorText(error) });
    }
  }
}
