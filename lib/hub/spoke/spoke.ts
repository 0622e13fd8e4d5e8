/**
 * `gretun spoke`: one tunnel to one hub. What a protocol sends is in `protocol/`; here are the link,
 * its program, the way to the hub, and signals.
 */
import { type Endpoint, equalEndpoints, formatEndpoint, type Ip } from "../../addr.ts";
import { Alarm } from "../../alarm.ts";
import { toHex } from "../../bytes.ts";
import { aborted } from "../../edges.ts";
import type { PlaneOptions } from "../../dataplane/mod.ts";
import { errorFields, errorText, GretunError } from "../../errors.ts";
import { lockPort } from "../../links/mod.ts";
import { endpointOf, type SockAddr } from "../../linux/mod.ts";
import type { RtNetlink } from "../../netlink.ts";
import type { StateDir } from "../../state_dir.ts";
import { checkBind, pairOf } from "../addresses.ts";
import { planeOptionsOf, programOptionsOf } from "../hub_core.ts";
import { serveControl, type SpokeReport } from "../control.ts";
import { linkEnvironment } from "../programs/environment.ts";
import { Programs } from "../programs/program.ts";
import type { Refusal } from "../protocol/gretun/auth.ts";
import { GretunSpoke } from "../protocol/gretun/spoke.ts";
import { IpipouSpoke } from "../protocol/ipipou/spoke.ts";
import { JtunnelSpoke } from "../protocol/jtunnel/spoke.ts";
import { spokeLine } from "../report.ts";
import {
  HUB_LINK,
  type SpokeCore,
  type SpokeEdges,
  type SpokeOptions,
  type SpokeProtocol,
} from "./spoke_core.ts";
import { firstLookUp, WayToHub } from "./way.ts";

const CHANGE_SETTLE_MS = 100;

/** Runs until `signal` is aborted, then removes all that it made. Throws what stops a start. */
export async function runSpoke(
  options: SpokeOptions,
  edges: SpokeEdges,
  signal: AbortSignal,
): Promise<void> {
  checkBind(edges.host, options.bind);
  const stateDir = edges.openStateDir(options.stateDir);
  using _lock = lockPort(edges.host.locks, { port: options.port, role: "spoke", flag: "--port" });
  await using stack = new AsyncDisposableStack();
  const hub = await firstLookUp(options, edges, signal);
  if (!hub) return;
  const spoke = stack.use(new SpokeDaemon(options, edges, stateDir, hub));
  stack.use(edges.onSignal("SIGUSR1", () => spoke.reauth()));
  await spoke.start();
  stack.use(edges.host.watchNetwork(() => spoke.networkChanged()));
  stack.use(
    await serveControl(edges, { stateDir: options.stateDir, role: "spoke", port: options.port }, {
      report: () => spoke.report(),
      reauth: () => spoke.reauth(),
    }),
  );
  edges.ready(() => spokeLine(spoke.report()));
  await Promise.race([aborted(signal), spoke.failed]);
}

function programError(program: string, why: string): GretunError {
  return new GretunError(
    `program ${program} ${why}`,
    "Correct it, or leave --program-must-succeed away",
  );
}

class SpokeDaemon implements SpokeCore, AsyncDisposable {
  readonly options: SpokeOptions;
  readonly edges: SpokeEdges;
  readonly planeOptions: PlaneOptions;
  readonly #rtnl: RtNetlink;
  readonly #way: WayToHub;
  readonly #programs: Programs;
  readonly #protocol: SpokeProtocol;
  readonly #settle: Alarm;
  #link: { ifname: string; mtu: number; local?: Ip; peer?: Ip } | undefined;
  #wanted: Parameters<SpokeCore["setLink"]>[0] | undefined;
  readonly #failed = Promise.withResolvers<never>();
  #closed = false;

  constructor(
    options: SpokeOptions,
    edges: SpokeEdges,
    stateDir: StateDir,
    hub: Endpoint,
  ) {
    this.options = options;
    this.edges = edges;
    this.#rtnl = edges.host.openRtNetlink();
    this.planeOptions = { ...planeOptionsOf("spoke", options, edges.log), onDatagram: () => {} };
    const { program, programMustSucceed } = options;
    const onFailed = (_name: string, why: string) => {
      if (programMustSucceed) this.#failed.reject(programError(program[0]!, why));
    };
    const programs = programOptionsOf("spoke", options, onFailed);
    this.#programs = new Programs(programs, { ...edges, stateDir });
    this.failed.catch(() => {}); // it may come before anybody waits for it
    this.#way = new WayToHub(options.hub.host, hub, this.#rtnl, edges);
    this.#settle = new Alarm(edges.clock, () => this.#lookAtNetwork());
    this.setUp(false);
    this.#protocol = this.#openProtocol();
    options.metrics.watch(() => this.#protocol.plane.refused());
  }

  #openProtocol(): SpokeProtocol {
    switch (this.options.protocol) {
      case "gretun":
        return new GretunSpoke(this);
      case "ipipou":
        return new IpipouSpoke(this);
      case "jtunnel":
        return new JtunnelSpoke(this);
      default:
        return this.options.protocol satisfies never;
    }
  }

  get hub(): Endpoint {
    return this.#way.hub;
  }

  readonly isHub = (source: SockAddr) => equalEndpoints(endpointOf(source), this.hub);

  /** Rejects when the spoke has to end. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  async start(): Promise<void> {
    const { hub, options: { port, name } } = this;
    await this.#programs.endLeftovers();
    this.edges.log.info("connecting", { hub: formatEndpoint(hub), client: name, port });
    if (!this.#way.isThere) {
      this.edges.log.warn("no route to the hub yet", { hub: formatEndpoint(hub) });
    }
    this.#protocol.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#settle[Symbol.dispose]();
    if (this.#link) this.#programs.down(HUB_LINK, this.#environment());
    await this.#programs.close();
    await this.#protocol[Symbol.asyncDispose]();
    this.#rtnl[Symbol.dispose]();
  }

  reauth(): void {
    this.#protocol.reauth("asked");
  }

  setUp(isUp: boolean): void {
    this.options.metrics.setClients(isUp ? 1 : 0, 1);
  }

  refused(reason: Refusal): void {
    this.options.metrics.refused(reason);
  }

  // --- the link

  setLink(wanted: Parameters<SpokeCore["setLink"]>[0]): boolean {
    const { log } = this.edges;
    const { local, peer } = wanted;
    this.#wanted = wanted;
    try {
      const { keys } = wanted;
      const state = this.#protocol.plane.setLink({
        ...{ id: HUB_LINK, remote: this.hub, routes: this.options.routes },
        addresses: pairOf(wanted),
        ...(keys ? { keys } : {}),
      });
      const isNew = this.#link?.ifname !== state.ifname;
      this.#link = { ...state, ...(local ? { local } : {}), ...(peer ? { peer } : {}) };
      if (!isNew) return true;
      log.info("tunnel up", {
        ...{ ifname: state.ifname, hub: formatEndpoint(this.hub), mtu: state.mtu },
        ...{ plane: this.#protocol.plane.kind, tunnel_ip: local },
      });
      this.#programs.up(HUB_LINK, this.#environment());
      return true;
    } catch (error) {
      log.error("link not set", errorFields(error));
      return false;
    }
  }

  #environment(): Record<string, string> {
    const { name, clientId, routes } = this.options;
    const link = this.#link;
    return linkEnvironment({
      ifname: link?.ifname ?? "",
      mtu: link?.mtu ?? 0,
      client: name,
      clientId: toHex(clientId ?? new TextEncoder().encode(name)),
      ...(link?.local ? { local: link.local } : {}),
      ...(link?.peer ? { peer: link.peer } : {}),
      endpoint: this.hub,
      routes,
    });
  }

  // --- the way to the hub

  networkChanged(): void {
    this.#settle.within(CHANGE_SETTLE_MS);
  }

  #lookAtNetwork(): void {
    try {
      this.#restoreLink();
      this.#protocol.plane.networkChanged();
      if (this.#way.hasChanged()) this.#protocol.reauth("moved");
    } catch (error) {
      this.edges.log.warn("network not looked at", { error: errorText(error) });
    }
  }

  #restoreLink(): void {
    if (!this.#wanted || this.#protocol.plane.missingLinks().length === 0) return;
    this.edges.log.warn("link is gone, making it again");
    this.#programs.down(HUB_LINK, this.#environment());
    this.#link = undefined;
    this.setLink(this.#wanted);
  }

  async lookUpHub(isSilent: boolean): Promise<void> {
    if (await this.#way.hasMoved(isSilent) && !this.#closed) this.#protocol.reauth("moved");
  }

  report(): SpokeReport {
    const { protocol, port } = this.options;
    const { state, observed, encrypt, authentications } = this.#protocol.status();
    const { plane } = this.#protocol;
    const stats = plane.counters().get(HUB_LINK);
    const pid = this.#programs.pid(HUB_LINK);
    return {
      ...{ role: "spoke", protocol, data_plane: plane.kind, port },
      ...{ hub: formatEndpoint(this.hub), state, authentications },
      ...(observed ? { observed: formatEndpoint(observed) } : {}),
      ...(encrypt === undefined ? {} : { encrypt }),
      ...(this.#link ? { ifname: this.#link.ifname, mtu: this.#link.mtu } : {}),
      ...(this.#link?.local ? { address: this.#link.local } : {}),
      ...(this.#link?.peer ? { hub_address: this.#link.peer } : {}),
      ...(pid === undefined ? {} : { pid }),
      refused: this.options.metrics.refusals,
      ...(stats ? { rx_packets: stats.rxPackets, tx_packets: stats.txPackets } : {}),
    };
  }
}
