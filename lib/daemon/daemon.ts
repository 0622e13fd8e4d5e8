/**
 * `gretun up`: opens the data plane, registers with the coordinator, keeps endpoints fresh, and
 * feeds peers with what arrives. Each concern is one loop that ends with the daemon's signal.
 */
import { type Cidr, type Endpoint, formatCidr, formatEndpoint } from "../addr.ts";
import type { Sign } from "../coord/auth.ts";
import { natJson } from "../coord/api.ts";
import { type AllPeers, CoordClient, CoordError } from "../coord/client.ts";
import { type DataPlane, type EncapCsum, GreCodec, openPlane } from "../dataplane/mod.ts";
import { DISCO_PATTERN, isDisco } from "../disco/mod.ts";
import type { Dialer } from "../dial/mod.ts";
import type { Clock, Datagram, Log, Random } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { linuxHost } from "../host/mod.ts";
import { lockPort } from "../links/mod.ts";
import { fileLocks } from "../linux/mod.ts";
import type { RtNetlink } from "../netlink.ts";
import { RelayClient } from "../relay/mod.ts";
import { STUN_PATTERN, StunClient } from "../stun/mod.ts";
import { watchForSleep } from "./awakening.ts";
import { type DaemonReport, serveControl } from "./control.ts";
import type { Identity } from "./identity.ts";
import type { DaemonMetrics } from "./metrics.ts";
import { ExtraStun, type StunPort } from "./own/extra_stun.ts";
import { OwnEndpoints, SETTLE_MS } from "./own/own_endpoints.ts";
import { OwnNat } from "./own/own_nat.ts";
import { Peers } from "./peers.ts";
import { PortGuesser } from "./port_guesser.ts";
import { PortMapper } from "./own/port_mapper.ts";
import { resolveReachable } from "./own/reachable.ts";

/** Waits between tries of the coordinator, doubling. */
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 30_000;
const LEAVE_TIMEOUT_MS = 2_000;
const RELAY_MEASURE_MS = 300_000;
/** Where no relay answered by UDP: the network may just have been busy. */
const RELAY_NO_UDP_MS = 60_000;
/** Between two measurements at least, whatever changes. */
const RELAY_MEASURE_GAP_MS = 10_000;
/** A mapping whose port is to be guessed soon is measured, or not at all. */
const MEASURE_TIMEOUT_MS = 1_000;

export interface DaemonOptions {
  coordinator: URL;
  nodeName: string;
  identity: Identity;
  stateDir: string;
  port: number;
  ifnamePattern: string;
  encapCsum: EncapCsum;
  dataPlane: "fou" | "tun" | "auto";
  greKeys: boolean;
  /** Replaces the servers that the coordinator names. */
  stunServers: string[];
  /** Endpoints that the user knows of, besides those that are found. */
  endpoints: Endpoint[];
  /** Whether a router may be asked for a port. */
  portMapping: boolean;
  /** Whether ports that a NAT chooses at random may be guessed, by a thousand pings. */
  aggressivePunch: boolean;
  metrics: DaemonMetrics;
}

export interface DaemonEdges {
  clock: Clock;
  random: Random;
  log: Log;
  sign: Sign;
  /** To the coordinator, and to relays by WebSocket. */
  dialer: Dialer;
}

/** Runs until `signal` is aborted, then removes all that it made. Throws what stops a start. */
export async function runDaemon(
  options: DaemonOptions,
  edges: DaemonEdges,
  signal: AbortSignal,
): Promise<void> {
  using _lock = lockPort(fileLocks(), { port: options.port, role: "up", flag: "--fou-port" });
  await using stack = new AsyncDisposableStack();
  const host = stack.use(linuxHost());
  const rtnl = stack.use(host.openRtNetlink());
  const plane = stack.use(openPlane(
    { wanted: options.dataPlane, kernel: "fou", codec: () => new GreCodec() },
    {
      role: "up",
      port: options.port,
      portFlag: "--fou-port",
      ifnamePattern: options.ifnamePattern,
      encapCsum: options.encapCsum,
      signalling: { kind: "patterns", any: [DISCO_PATTERN, STUN_PATTERN] },
      onDatagram: (datagram, localPort) => daemon.datagram(datagram, localPort),
      onRefused: (reason) => edges.log.debug("packet refused", { reason }),
      onFault: (what, error) => edges.log.error(what, { error: errorText(error) }),
    },
    { host, clock: edges.clock, log: edges.log },
  ));
  const daemon = stack.use(new Daemon(options, edges, signal, { rtnl, plane }));
  stack.use(host.watchNetwork(() => daemon.networkChanged()));
  stack.use(await serveControl(options.stateDir, () => daemon.report()));
  await daemon.run();
}

class Daemon implements AsyncDisposable {
  readonly #options: DaemonOptions;
  readonly #edges: DaemonEdges;
  readonly #signal: AbortSignal;
  readonly #coord: CoordClient;
  readonly #rtnl: RtNetlink;
  readonly #plane: DataPlane;
  readonly #stun: StunClient;
  readonly #extraStun: ExtraStun;
  readonly #relays: RelayClient;
  #networkNews = new AbortController();
  #peers: Peers | undefined;
  #tunnelIp: Cidr | undefined;
  #own: OwnEndpoints | undefined;
  #ownNat: OwnNat | undefined;
  readonly #portMapper: PortMapper | undefined;
  /** Resolved when the coordinator does not know what is advertised. */
  #postIsDue = Promise.withResolvers<void>();
  /** Set while the coordinator does not answer: all calls together warn once. */
  #coordinatorIsAway = false;
  /** More such news may follow the first before our links are looked at. */
  #isSettling = false;

  constructor(
    options: DaemonOptions,
    edges: DaemonEdges,
    signal: AbortSignal,
    { rtnl, plane }: { rtnl: RtNetlink; plane: DataPlane },
  ) {
    this.#options = options;
    this.#edges = edges;
    this.#signal = signal;
    this.#rtnl = rtnl;
    this.#plane = plane;
    const { coordinator, identity } = options;
    const { clock, random, sign, dialer } = edges;
    this.#coord = new CoordClient({
      url: coordinator.href,
      identity: { nodeKey: identity.nodeKey, sign },
      clock,
      random,
      dialer,
    });
    this.#stun = new StunClient({ send: plane.send, clock, random });
    this.#extraStun = new ExtraStun({ plane, clock, random });
    this.#relays = new RelayClient({
      nodeKey: identity.nodeKey,
      coordinator: this.#coord,
      send: plane.send,
      nodePort: options.port,
      resolve: async (name) => {
        const servers = await resolveReachable([name], plane.families, rtnl);
        return servers.flatMap(({ endpoint, others = [] }) => [endpoint, ...others]);
      },
      onLost: (path, reason) => this.#peers?.relayLost(path, reason),
      ...edges,
    });
    if (options.portMapping) {
      this.#portMapper = new PortMapper({
        rtnl,
        port: options.port,
        secret: identity.discoPrivate,
        ...edges,
        onChange: () => this.#own?.look(),
      });
    }
  }

  /** Tells the coordinator, if it answers in time; links and ports go with the data plane. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#peers?.close();
    using _coord = this.#coord;
    await this.#relays[Symbol.asyncDispose]();
    if (!this.#tunnelIp) return;
    const leave = this.#coord.leave(AbortSignal.timeout(LEAVE_TIMEOUT_MS));
    await leave.catch((error) => {
      this.#edges.log.debug("coordinator not told", { error: errorText(error) });
    });
  }

  async run(): Promise<void> {
    const { log } = this.#edges;
    const { kind: plane, families } = this.#plane;
    log.info("listening", { port: this.#options.port, plane, ipv6: families.includes(6) });
    if (!await this.#withCoordinator("register", () => this.#register())) return;
    await Promise.all([
      this.#own!.run(this.#signal),
      this.#ownNat!.run(this.#signal),
      this.#portMapper?.run(this.#signal),
      this.#measureRelays(),
      watchForSleep(this.#edges.clock, () => this.#awoke(), this.#signal),
      this.#postEndpoints(),
      this.#pollPeers(),
      this.#pullSignals(),
    ]);
  }

  report(): DaemonReport {
    const { identity, nodeName, coordinator, port } = this.#options;
    return {
      node_key: identity.nodeKey,
      node_name: nodeName,
      coordinator: coordinator.href,
      state: this.#peers ? "running" : "waiting for the coordinator",
      ...(this.#tunnelIp ? { tunnel_ip: formatCidr(this.#tunnelIp) } : {}),
      data_plane: this.#plane.kind,
      port,
      endpoints: this.#own?.list.map(({ endpoint }) => formatEndpoint(endpoint)) ?? [],
      ...natJson(this.#ownNat?.nat),
      peers: this.#peers?.report() ?? [],
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

  /**
   * Repeats `call` until it succeeds; a coordinator that is away is waited out with one warning.
   * Undefined when the daemon is stopped meanwhile; throws what waiting cannot mend.
   */
  async #withCoordinator<T>(what: string, call: () => Promise<T>): Promise<T | undefined> {
    const { log, clock } = this.#edges;
    let waitMs = RETRY_MIN_MS;
    while (!this.#signal.aborted) {
      let askedMs = 0;
      try {
        const result = await call();
        if (this.#coordinatorIsAway) this.#coordinatorIsBack();
        return result;
      } catch (error) {
        if (this.#signal.aborted) return undefined;
        if (!(error instanceof CoordError)) throw error;
        if (error.status === 404 && what !== "register") await this.#register().catch(() => {});
        else if (!error.retryable) throw error;
        askedMs = error.retryAfterMs ?? 0;
        const fields = { call: what, error: errorText(error) };
        if (this.#coordinatorIsAway) log.debug("coordinator still away", fields);
        else log.warn("coordinator does not answer, trying again", { ...fields, hint: error.hint });
        this.#coordinatorIsAway = true;
      }
      // Nodes that fell out of the same coordinator do not come back to it in step.
      const jitteredMs = Math.max(waitMs, askedMs * 4 / 3) * (0.75 + 0.5 * Math.random());
      await clock.sleep(jitteredMs, this.#signal).catch(() => {});
      waitMs = Math.min(2 * waitMs, RETRY_MAX_MS);
    }
    return undefined;
  }

  #coordinatorIsBack(): void {
    this.#coordinatorIsAway = false;
    this.#edges.log.info("coordinator is back");
    this.#own?.look(); // its STUN server is back too, as a rule
    this.#postIsDue.resolve(); // it does not store all that it was told
  }

  async #register() {
    const { identity, nodeName } = this.#options;
    const answer = await this.#coord.register({
      discoKey: identity.discoKey,
      nodeName,
      ...(this.#tunnelIp ? { requestedTunnelIp: this.#tunnelIp.ip } : {}),
    }, this.#signal);
    if (this.#tunnelIp && formatCidr(this.#tunnelIp) !== formatCidr(answer.tunnelIp)) {
      throw new GretunError(
        `the coordinator now gives ${formatCidr(answer.tunnelIp)} instead of ${
          formatCidr(this.#tunnelIp)
        }: it lost its state`,
        "Start gretun up again on every node",
      );
    }
    if (this.#tunnelIp) this.#postIsDue.resolve(); // it did not know this node any more
    else this.#start(answer.tunnelIp, answer.stun);
    return answer;
  }

  #start(tunnelIp: Cidr, stunServers: string[]): void {
    const { log, clock, random } = this.#edges;
    const { identity, greKeys, metrics, coordinator } = this.#options;
    this.#tunnelIp = tunnelIp;
    log.info("registered", { coord: coordinator.href, tunnel_cidr: formatCidr(tunnelIp) });
    this.#own = this.#watchEndpoints(tunnelIp, stunServers);
    this.#ownNat = this.#watchNat(stunServers);
    this.#peers = new Peers({
      identity,
      tunnelIp,
      greKeys,
      plane: this.#plane,
      clock,
      random,
      log,
      metrics,
      signal: async (to, sealed) => {
        await this.#coord.sendSignal(to, sealed, this.#signal).catch((error) => {
          if (this.#signal.aborted) return;
          log.debug("call-me-maybe not sent", { error: errorText(error) });
        });
      },
      allocateRelay: (peer, signal) => this.#relays.allocate(peer, signal),
      onDoubt: () => this.#own!.doubt(),
      onStuck: () => void this.#lookElsewhere(),
      isRelay: (ip) => this.#relays.isRelay(ip),
      ownEndpoints: () => this.#own!.list.map(({ endpoint }) => endpoint),
      guesser: this.#openGuesser(),
    });
  }

  /** Where each remote sees another port anyway, one more of them is of no use to anybody. */
  async #lookElsewhere(): Promise<void> {
    if (this.#ownNat!.nat?.mapping !== "easy") return;
    await this.#own!.lookElsewhere(this.#signal).catch((error) => {
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
      ownMapped: () => this.#own!.seenByNewcomers,
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

  #watchNat(advertisedStun: string[]): OwnNat {
    const { stunServers } = this.#options;
    return new OwnNat({
      openPort: () => this.#extraStun.openPort(),
      stunServers: stunServers.length > 0 ? stunServers : advertisedStun,
      ...this.#edges,
      onChange: () => {
        // Half a list would have peers punch at half of the places.
        if (this.#own!.isTold) this.#postIsDue.resolve();
      },
    });
  }

  #watchEndpoints(overlay: Cidr, advertisedStun: string[]): OwnEndpoints {
    const { log, clock } = this.#edges;
    const { port, stunServers, endpoints } = this.#options;
    return new OwnEndpoints({
      rtnl: this.#rtnl,
      port,
      families: this.#plane.families,
      overlay,
      stun: this.#stun,
      stunServers: stunServers.length > 0 ? stunServers : advertisedStun,
      given: endpoints,
      portMapped: () => this.#portMapper?.external,
      clock,
      log,
      onChange: (list) => {
        const text = list.map(({ endpoint }) => formatEndpoint(endpoint)).join(",");
        log.info("endpoints", { endpoints: text });
        this.#postIsDue.resolve();
      },
      onMoved: (what) => {
        this.#peers!.moved(); // its messages go out before what else is to be said
        if (what !== "more") this.#reconnect();
        this.#ownNat!.look();
      },
    });
  }

  /** Connections that there are may be dead without anybody having said so. */
  #reconnect(): void {
    this.#coord.reconnect();
    this.#relays.check();
  }

  #awoke(): void {
    this.#edges.log.info("awake after a pause, looking at all paths");
    this.#peers?.moved();
    this.#reconnect();
    this.networkChanged();
  }

  async #pollPeers(): Promise<void> {
    let known: AllPeers | undefined;
    const own = this.#options.identity.nodeKey;
    while (!this.#signal.aborted) {
      const answer = await this.#withCoordinator(
        "peers",
        () => this.#coord.peers(known, this.#signal),
      );
      if (!answer || this.#signal.aborted) return;
      const isNews = answer.etag !== known?.etag;
      known = answer;
      if (!isNews) continue;
      this.#peers!.list(answer.peers.filter(({ nodeKey }) => nodeKey !== own));
    }
  }

  async #pullSignals(): Promise<void> {
    while (!this.#signal.aborted) {
      const envelopes = await this.#withCoordinator(
        "signals",
        () => this.#coord.takeSignals(this.#signal),
      );
      for (const { sealed } of envelopes ?? []) this.#peers!.signal(sealed);
    }
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
    this.#own?.look();
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
    try {
      this.#peers?.restoreLinks();
    } catch (error) {
      this.#edges.log.warn("links not looked at", { error: errorText(error) });
    }
  }

  /** Apart from looking at them: that goes on while the coordinator is away. */
  async #postEndpoints(): Promise<void> {
    const stopped = new Promise<void>((resolve) => {
      this.#signal.addEventListener("abort", () => resolve(), { once: true });
    });
    while (!this.#signal.aborted) {
      await Promise.race([this.#postIsDue.promise, stopped]);
      if (this.#signal.aborted) return;
      this.#postIsDue = Promise.withResolvers();
      // Each try posts what is known by then.
      const post = () =>
        this.#coord.postEndpoints([...this.#own!.list], this.#signal, this.#ownNat!.nat);
      await this.#withCoordinator("endpoints", post);
    }
  }
}
