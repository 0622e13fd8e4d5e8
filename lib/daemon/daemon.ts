/**
 * `gretun up`: opens the data plane, registers with the coordinator, keeps endpoints fresh, and
 * feeds peers with what arrives. Each concern is one loop that ends with the daemon's signal.
 */
import { type Cidr, type Endpoint, formatCidr, formatEndpoint } from "../addr.ts";
import type { AdvertisedEndpoint } from "../coord/api.ts";
import type { Sign } from "../coord/auth.ts";
import { CoordClient, CoordError } from "../coord/client.ts";
import {
  type DataPlane,
  type DataPlaneKind,
  type EncapCsum,
  openDataPlane,
} from "../dataplane/mod.ts";
import { isDisco } from "../disco/mod.ts";
import type { Clock, Datagram, Log, Random } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { bindAbstractLock, LinkMonitor, Poller, RtNetlink } from "../netlink.ts";
import { resolveServers, StunClient } from "../stun/mod.ts";
import { type DaemonReport, serveControl } from "./control.ts";
import { advertise, localEndpoints, sameEndpoints } from "./endpoints.ts";
import type { Identity } from "./identity.ts";
import type { DaemonMetrics } from "./metrics.ts";
import { Peers } from "./peers.ts";

/** Waits between tries of the coordinator, doubling. */
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 30_000;
/** Well under the 30 s after which many NATs forget a mapping (RFC 4787 section 4.3). */
const STUN_INTERVAL_MS = 20_000;
const STUN_TIMEOUT_MS = 3_000;
/** Several addresses change at once when an interface comes up. */
const LINK_CHANGE_SETTLE_MS = 200;
const LEAVE_TIMEOUT_MS = 2_000;

export interface DaemonOptions {
  coordinator: URL;
  nodeName: string;
  identity: Identity;
  stateDir: string;
  port: number;
  ifnamePattern: string;
  encapCsum: EncapCsum;
  dataPlane: DataPlaneKind | "auto";
  greKeys: boolean;
  /** Replaces the servers that the coordinator names. */
  stunServers: string[];
  metrics: DaemonMetrics;
}

export interface DaemonEdges {
  clock: Clock;
  random: Random;
  log: Log;
  sign: Sign;
}

/** Runs until `signal` is aborted, then removes all that it made. Throws what stops a start. */
export async function runDaemon(
  options: DaemonOptions,
  edges: DaemonEdges,
  signal: AbortSignal,
): Promise<void> {
  using _lock = lockPort(options.port);
  await using stack = new AsyncDisposableStack();
  const poller = stack.use(new Poller());
  const rtnl = stack.use(RtNetlink.open());
  const plane = stack.use(openDataPlane(
    options.dataPlane,
    {
      port: options.port,
      ifnamePattern: options.ifnamePattern,
      encapCsum: options.encapCsum,
      onDatagram: (datagram) => daemon.datagram(datagram),
    },
    poller,
    edges.log,
  ));
  const daemon = stack.use(new Daemon(options, edges, signal, { rtnl, plane }));
  stack.use(LinkMonitor.open(poller, () => daemon.networkChanged()));
  stack.use(await serveControl(options.stateDir, () => daemon.report()));
  await daemon.run();
}

/** One daemon a port and network namespace: two would take each other's links for left-overs. */
function lockPort(port: number): Disposable {
  const lock = bindAbstractLock(`gretun-up-${port}`);
  if (lock) return lock;
  throw new GretunError(
    `another gretun up uses port ${port}`,
    "Stop it first, or choose another port with --fou-port",
  );
}

class Daemon implements AsyncDisposable {
  readonly #options: DaemonOptions;
  readonly #edges: DaemonEdges;
  readonly #signal: AbortSignal;
  readonly #coord: CoordClient;
  readonly #rtnl: RtNetlink;
  readonly #plane: DataPlane;
  readonly #stun: StunClient;
  #peers: Peers | undefined;
  #tunnelIp: Cidr | undefined;
  #advertised: AdvertisedEndpoint[] = [];
  /** Resolved when the coordinator does not know what is advertised. */
  #postIsDue = Promise.withResolvers<void>();
  /** Set while the coordinator does not answer: all calls together warn once. */
  #coordinatorIsAway = false;
  /** Ends the pause between two looks at our endpoints. */
  #wake = new AbortController();
  /** Something changed that those looks have not taken in yet. */
  #hasNews = false;
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
    const { clock, random, sign } = edges;
    this.#coord = new CoordClient({
      url: coordinator.href,
      identity: { nodeKey: identity.nodeKey, sign },
      clock,
      random,
    });
    this.#stun = new StunClient({ send: plane.send, clock, random });
  }

  /** Tells the coordinator, if it answers in time; links and ports go with the data plane. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#peers?.close();
    using _coord = this.#coord;
    if (!this.#tunnelIp) return;
    const leave = this.#coord.leave(AbortSignal.timeout(LEAVE_TIMEOUT_MS));
    await leave.catch((error) => {
      this.#edges.log.debug("coordinator not told", { error: errorText(error) });
    });
  }

  async run(): Promise<void> {
    const { log } = this.#edges;
    log.info("listening", { port: this.#options.port, plane: this.#plane.kind });
    const registered = await this.#withCoordinator("register", () => this.#register());
    if (!registered) return;
    await Promise.all([
      this.#keepEndpointsFresh(registered.stun),
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
      endpoints: this.#advertised.map(({ endpoint }) => formatEndpoint(endpoint)),
      peers: this.#peers?.report() ?? [],
    };
  }

  // --- datagrams

  datagram(datagram: Datagram): void {
    if (isDisco(datagram.bytes)) this.#peers?.datagram(datagram);
    else this.#stun.handle(datagram.bytes, datagram.from);
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
        else log.warn("coordinator does not answer, trying again", fields);
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
    this.#lookAtEndpoints(); // its STUN server is back too, as a rule
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
    else this.#start(answer.tunnelIp);
    return answer;
  }

  #start(tunnelIp: Cidr): void {
    const { log, clock, random } = this.#edges;
    const { identity, greKeys, metrics, coordinator } = this.#options;
    this.#tunnelIp = tunnelIp;
    this.#advertised = advertise(localEndpoints(this.#rtnl, this.#options.port, tunnelIp), []);
    log.info("registered", { coord: coordinator.href, tunnel_cidr: formatCidr(tunnelIp) });
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
      ownEndpoints: (): Endpoint[] => this.#advertised.map(({ endpoint }) => endpoint),
    });
  }

  async #pollPeers(): Promise<void> {
    let etag: string | undefined;
    const own = this.#options.identity.nodeKey;
    while (!this.#signal.aborted) {
      const answer = await this.#withCoordinator(
        "peers",
        () => this.#coord.peers(etag, this.#signal),
      );
      if (!answer || this.#signal.aborted) return;
      if (answer.etag === etag) continue;
      etag = answer.etag;
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

  // --- endpoints

  /** Links or addresses of this host changed: looks at our endpoints and links soon. */
  networkChanged(): void {
    this.#lookAtEndpoints();
    void this.#restoreLinks();
  }

  #lookAtEndpoints(): void {
    this.#hasNews = true;
    this.#wake.abort();
  }

  async #restoreLinks(): Promise<void> {
    if (this.#isSettling) return;
    this.#isSettling = true;
    await this.#edges.clock.sleep(LINK_CHANGE_SETTLE_MS, this.#signal).catch(() => {});
    this.#isSettling = false;
    if (this.#signal.aborted) return;
    try {
      this.#peers?.restoreLinks();
    } catch (error) {
      this.#edges.log.warn("links not looked at", { error: errorText(error) });
    }
  }

  /** Asks STUN at start, each 20 s and when an address changes; tells what is new. */
  async #keepEndpointsFresh(advertisedStun: string[]): Promise<void> {
    const { stunServers, port } = this.#options;
    const names = stunServers.length > 0 ? stunServers : advertisedStun;
    let local = localEndpoints(this.#rtnl, port, this.#tunnelIp!);
    let mapped: Endpoint[] = [];
    let told: AdvertisedEndpoint[] | undefined;
    while (!this.#signal.aborted) {
      mapped = await this.#askStun(names) ?? mapped;
      const endpoints = advertise(local, mapped);
      if (!told || !sameEndpoints(told, endpoints)) {
        this.#advertise(endpoints);
        // The first time all peers learn them from the coordinator anyway.
        if (told) this.#peers!.moved();
        told = endpoints;
      }
      await this.#untilRefresh();
      const localNow = localEndpoints(this.#rtnl, port, this.#tunnelIp!);
      // Peers hear from the new address at once, before STUN has answered.
      if (!sameEndpoints(advertise(localNow, []), advertise(local, []))) {
        this.#coord.reconnect();
        this.#peers!.moved();
      }
      local = localNow;
    }
  }

  #advertise(endpoints: AdvertisedEndpoint[]): void {
    this.#advertised = endpoints;
    const text = endpoints.map(({ endpoint }) => formatEndpoint(endpoint)).join(",");
    this.#edges.log.info("endpoints", { endpoints: text });
    this.#postIsDue.resolve();
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
      const post = () => this.#coord.postEndpoints(this.#advertised, this.#signal);
      await this.#withCoordinator("endpoints", post);
    }
  }

  /** Undefined when no server answered: then what was known stands. */
  async #askStun(names: string[]): Promise<Endpoint[] | undefined> {
    if (names.length === 0) return [];
    const signal = this.#signal;
    try {
      const servers = await resolveServers(names);
      const options = { timeoutMs: STUN_TIMEOUT_MS, signal, firstOnly: true };
      const answers = await this.#stun.query(servers, options);
      if (answers.length > 0) return answers.map(({ mapped }) => mapped);
      this.#edges.log.warn("endpoint collection incomplete", { error: "no STUN server answers" });
    } catch (error) {
      if (signal.aborted) return undefined;
      this.#edges.log.warn("endpoint collection incomplete", { error: errorText(error) });
    }
    return undefined;
  }

  async #untilRefresh(): Promise<void> {
    const { clock } = this.#edges;
    this.#wake = new AbortController();
    const either = AbortSignal.any([this.#wake.signal, this.#signal]);
    if (!this.#hasNews) await clock.sleep(STUN_INTERVAL_MS, either).catch(() => {});
    if (!this.#hasNews) return;
    await clock.sleep(LINK_CHANGE_SETTLE_MS, this.#signal).catch(() => {});
    this.#hasNews = false;
  }
}
