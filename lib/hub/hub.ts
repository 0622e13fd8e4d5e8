/**
 * `gretun hub`: one port and one process for all clients. What a protocol makes of packets is in
 * `hub_gretun.ts`, `hub_ipipou.ts` and `hub_jtunnel.ts`; here are the clients, their links and
 * programs, the directory, and the clock.
 */
import {
  type Endpoint,
  equalEndpoints,
  familyOf,
  formatCidr,
  formatEndpoint,
  type Ip,
} from "../addr.ts";
import { toHex } from "../bytes.ts";
import { errorText, GretunError } from "../errors.ts";
import { lockPort } from "../links/mod.ts";
import { fileLocks, Poller } from "../linux/mod.ts";
import { LinkMonitor } from "../netlink.ts";
import { checkBind } from "./addresses.ts";
import type { Refusal } from "./protocol/gretun/auth.ts";
import { allowedSources, type ClientFile } from "./clients.ts";
import { type ClientReport, type HubReport, makeStateDir, serveControl } from "./control.ts";
import { readDirectory, watchDirectory } from "./directory.ts";
import { linkEnvironment, onSignal } from "./programs/environment.ts";
import type { HubCore, HubEdges, HubEntry, HubOptions, HubProtocol } from "./hub_core.ts";
import { GretunHub } from "./protocol/gretun/hub.ts";
import { IpipouHub } from "./protocol/ipipou/hub.ts";
import { JtunnelHub } from "./protocol/jtunnel/hub.ts";
import {
  type HubClientEffect,
  type HubClientEvent,
  type HubClientLimits,
  newHubClient,
  nextHubClientTickMs,
  stepHubClient,
} from "./hub_policy.ts";
import type { PlaneOptions } from "./plane.ts";
import { type ProgramOptions, Programs } from "./programs/program.ts";
import { equalValues } from "./reload.ts";

/** Timers and the control socket wait for no longer while data flows through this process. */
const BUSY_MS = 4;
const RELOAD_GAP_MS = 1_000;
const LINK_CHANGE_SETTLE_MS = 200;
/** Looking at hundreds of links takes its time. */
const LINK_LOOK_GAP_MS = 2_000;
const ROAM_LOG_GAP_MS = 1_000;
/** A flood must not fill the log. */
const REFUSAL_LOG_GAP_MS = 10_000;
const HINTS: Partial<Record<Refusal, string>> = {
  "unknown-client": "no file of the clients' directory has this name",
  "wrong-address": "its file has another remote",
  "wrong-hub-address": "it calls the hub by an address that --public-address does not have",
  "bad-mac": "keys, token or secret are not those of its file",
  "bad-proof": "keys or secret are not those of a file",
  "bad-token": "the token is not that of a file",
  "stale": "clocks differ by more than --max-time-discrepancy",
  "replayed": "the packet was used before",
};
/** After its program failed a client is let in again. */
const PROGRAM_RETRY_MS = 10_000;
/** Signs of life are noted no more often. */
const HEARD_GAP_MS = 500;

/** Runs until `signal` is aborted, then removes all that it made. Throws what stops a start. */
export async function runHub(
  options: HubOptions,
  edges: HubEdges,
  signal: AbortSignal,
): Promise<void> {
  checkBind(options.bind);
  await makeStateDir(options.stateDir);
  using _lock = lockPort(fileLocks(), { port: options.port, role: "hub", flag: "--port" });
  await using stack = new AsyncDisposableStack();
  const poller = stack.use(new Poller({ busyMs: BUSY_MS }));
  const hub = stack.use(new Hub(options, edges, poller));
  await hub.start();
  stack.use(LinkMonitor.open(poller, () => hub.linksChanged()));
  stack.use(watchDirectory(options.clientsDir, () => hub.reload()));
  stack.use(onSignal("SIGHUP", () => hub.reread()));
  stack.use(
    await serveControl({ stateDir: options.stateDir, role: "hub", port: options.port }, {
      report: () => hub.report(),
      reauth: () => {},
    }),
  );
  edges.log.info("hub ready", { clients: hub.entries.size });
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

class Hub implements HubCore, AsyncDisposable {
  options: HubOptions;
  readonly edges: HubEdges;
  readonly entries = new Map<string, HubEntry>();
  readonly #protocol: HubProtocol;
  readonly #programs: Programs;
  #problems: string[] = [];
  #timer: number | undefined;
  #timerAtMs = Infinity;
  #reloadTimer: number | undefined;
  #reloadedMs = -Infinity;
  #settleTimer: number | undefined;
  #lookedMs = -Infinity;
  #refusalLoggedMs = -Infinity;
  #rereading = Promise.resolve();
  #closed = false;

  constructor(options: HubOptions, edges: HubEdges, poller: Poller) {
    this.options = options;
    this.edges = edges;
    this.#programs = new Programs(this.#programOptions(), edges);
    this.#protocol = this.#openProtocol(poller);
  }

  #openProtocol(poller: Poller): HubProtocol {
    const { port, bind, ifnamePattern, mtu, encapCsum } = this.options;
    const plane: PlaneOptions = {
      ...{ owner: "hub" as const, port, ifnamePattern, encapCsum },
      ...(bind ? { bind } : {}),
      ...(mtu ? { mtu } : {}),
      onSignal: (datagram) => this.#protocol.signal(datagram),
      onRefused: (reason) => this.refused(reason),
      onFault: (what, error) => this.edges.log.error(what, { error: errorText(error) }),
    };
    switch (this.options.protocol) {
      case "gretun":
        return new GretunHub(this, plane, poller);
      case "ipipou":
        return new IpipouHub(this, plane, poller);
      case "jtunnel":
        return new JtunnelHub(this, plane, poller);
      default:
        return this.options.protocol satisfies never;
    }
  }

  #programOptions(): ProgramOptions {
    const { program, programGraceMs, onUp, onDown, stateDir, port } = this.options;
    return {
      ...{ argv: program, graceMs: programGraceMs, stateFile: `${stateDir}/hub-${port}.programs` },
      ...(onUp ? { onUp } : {}),
      ...(onDown ? { onDown } : {}),
      onFailed: (name) => this.#programFailed(name),
    };
  }

  async start(): Promise<void> {
    const { log } = this.edges;
    const { port, clientsDir } = this.options;
    await this.#programs.endLeftovers();
    log.info("listening", { port, plane: this.#protocol.plane.kind, clients_dir: clientsDir });
    this.#load();
    this.#adopt();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#reloadTimer);
    clearTimeout(this.#settleTimer);
    // Links go after the programs that use them have been asked to end.
    for (const entry of this.entries.values()) if (entry.link) this.#programsDown(entry);
    await this.#programs.close();
    await this.#protocol.plane[Symbol.asyncDispose]();
  }

  // --- configuration

  /** The clients first: whoever is not there any more has to go, whatever the configuration says. */
  reread(): void {
    this.reload();
    this.#rereading = this.#rereading.then(() => this.#readConfiguration());
  }

  async #readConfiguration(): Promise<void> {
    const { log } = this.edges;
    try {
      const { options, changed } = await this.edges.reread(this.options);
      if (this.#closed) return;
      this.#reconfigure(options);
      log.info("configuration read again", { changed: changed.join(",") || "nothing" });
    } catch (error) {
      log.error("configuration not taken, the old one goes on", {
        error: errorText(error),
        ...(error instanceof GretunError ? { hint: error.hint } : {}),
      });
    }
  }

  #reconfigure(next: HubOptions): void {
    this.options = next;
    this.#programs.options = this.#programOptions();
    this.#protocol.reconfigured();
    for (const entry of this.entries.values()) {
      // Spokes of our own protocol are told of new times when they authenticate: not before that.
      if (next.protocol === "gretun" && entry.link) continue;
      entry.policy = { ...entry.policy, limits: this.#limits(entry.file) };
      this.#arm(nextHubClientTickMs(entry.policy));
    }
  }

  #limits(file: ClientFile): HubClientLimits {
    const { idleMs, lifetimeMs } = this.options;
    return { idleMs, lifetimeMs: file.lifetimeMs ?? lifetimeMs };
  }

  // --- clients

  /** Reads the directory again; whoever is not there any more is disconnected. */
  reload(): void {
    if (this.#closed) return;
    try {
      this.#load();
    } catch (error) {
      this.edges.log.error("clients not read, the old ones stay", { error: errorText(error) });
    }
  }

  lookAgain(): void {
    if (this.#reloadTimer !== undefined || this.#closed) return;
    const waitMs = Math.max(0, this.#reloadedMs + RELOAD_GAP_MS - this.edges.clock.nowMs());
    this.#reloadTimer = setTimeout(() => {
      this.#reloadTimer = undefined;
      this.reload();
    }, waitMs);
  }

  #load(): void {
    const { log, clock } = this.edges;
    this.#reloadedMs = clock.nowMs();
    const { clients, problems } = readDirectory(this.options.clientsDir);
    const listed = new Map(clients.map((client) => [client.name, client]));
    for (const [name, entry] of this.entries) {
      const file = listed.get(name);
      if (file && equalValues(file, entry.file)) listed.delete(name);
      else this.#remove(entry, file ? "changed" : "removed");
    }
    for (const file of listed.values()) problems.push(...this.#add(file));
    for (const problem of problems) {
      if (!this.#problems.includes(problem)) log.warn("client not authorised", { problem });
    }
    this.#problems = problems;
    this.#protocol.plane.refresh();
    this.#countClients();
  }

  #add(file: ClientFile): string[] {
    const entry: HubEntry = {
      file,
      policy: newHubClient(this.#limits(file)),
      ...{ retryMs: 0, notedMs: 0, roamLoggedMs: 0, authentications: 0, roams: 0 },
    };
    const problem = this.#protocol.admit(entry);
    if (problem) return [`${this.options.clientsDir}/${file.name}: ${problem}`];
    this.entries.set(file.name, entry);
    this.edges.log.info("client authorised", { client: file.name });
    return [];
  }

  #remove(entry: HubEntry, why: string): void {
    this.entries.delete(entry.file.name);
    this.#protocol.forget(entry);
    this.#dispatch(entry, { kind: "revoked" });
    this.edges.log.info("client not authorised any more", { client: entry.file.name, reason: why });
  }

  /** Links of a killed run: those of clients that are still authorised go on. */
  #adopt(): void {
    const { log, clock } = this.edges;
    const { plane } = this.#protocol;
    for (const { name, endpoint, ifname, mtu } of plane.adopted()) {
      const entry = this.entries.get(name);
      if (!entry) {
        log.info("link of a client that is gone removed", { client: name, ifname });
        plane.removeLink(name);
        continue;
      }
      log.info("link adopted", { client: name, ifname, endpoint: formatEndpoint(endpoint) });
      entry.link = { ifname, mtu, ...this.#addresses(entry.file) };
      this.#dispatch(entry, { kind: "adopted", nowMs: clock.nowMs(), endpoint });
      this.#programs.up(name, this.#environment(entry));
    }
    this.#countClients();
  }

  // --- what protocols tell

  authenticated(entry: HubEntry, from: Endpoint): boolean {
    const nowMs = this.edges.clock.nowMs();
    if (nowMs < entry.retryMs) return false;
    entry.authentications++;
    this.options.metrics.authenticated();
    entry.policy = { ...entry.policy, limits: this.#limits(entry.file) };
    this.#dispatch(entry, { kind: "authenticated", nowMs, from });
    return entry.link !== undefined;
  }

  heard(entry: HubEntry): void {
    const nowMs = this.edges.clock.nowMs();
    if (nowMs - entry.notedMs < HEARD_GAP_MS) return;
    entry.notedMs = nowMs;
    [entry.policy] = stepHubClient(entry.policy, { kind: "heard", nowMs });
  }

  bye(entry: HubEntry): void {
    this.#dispatch(entry, { kind: "bye" });
  }

  refused(reason: Refusal): void {
    this.options.metrics.refused(reason);
  }

  refusedAuthentication(reason: Refusal, from: Endpoint, client?: string): void {
    this.refused(reason);
    const { log, clock } = this.edges;
    const fields = { client, endpoint: formatEndpoint(from), reason, hint: HINTS[reason] };
    const isDue = clock.nowMs() - this.#refusalLoggedMs >= REFUSAL_LOG_GAP_MS;
    if (isDue) this.#refusalLoggedMs = clock.nowMs();
    log[isDue ? "warn" : "debug"]("client refused", fields);
  }

  // --- the loop

  #dispatch(entry: HubEntry, event: HubClientEvent): void {
    const [policy, effects] = stepHubClient(entry.policy, event);
    entry.policy = policy;
    for (const effect of effects) this.#perform(entry, effect);
    this.#arm(nextHubClientTickMs(entry.policy));
  }

  /** Sleeps until the first client wants its tick, which may by then want a later one. */
  #arm(dueMs: number): void {
    if (this.#closed || dueMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = dueMs;
    const waitMs = Math.max(0, Math.ceil(dueMs - this.edges.clock.nowMs()));
    this.#timer = setTimeout(() => this.#tick(), Math.min(waitMs, 2 ** 31 - 1));
  }

  #tick(): void {
    const nowMs = this.edges.clock.nowMs();
    this.#timerAtMs = Infinity;
    for (const entry of this.entries.values()) {
      if (nextHubClientTickMs(entry.policy) <= nowMs) {
        this.#dispatch(entry, { kind: "tick", nowMs });
      } else this.#arm(nextHubClientTickMs(entry.policy));
    }
  }

  #perform(entry: HubEntry, effect: HubClientEffect): void {
    switch (effect.kind) {
      case "set-link":
        return this.#setLink(entry, effect.endpoint, effect.change);
      case "remove-link":
        return this.#removeLink(entry, effect.reason);
      default:
        effect satisfies never;
    }
  }

  #setLink(entry: HubEntry, endpoint: Endpoint, change: "new" | "moved" | "renewed"): void {
    const { log, clock } = this.edges;
    const { name } = entry.file;
    const fields = { client: name, endpoint: formatEndpoint(endpoint) };
    if (change === "moved") {
      entry.roams++;
      this.options.metrics.roamed();
      if (clock.nowMs() - entry.roamLoggedMs >= ROAM_LOG_GAP_MS) {
        log.info("client moved", { ...fields, roams: entry.roams });
        entry.roamLoggedMs = clock.nowMs();
      }
    }
    this.#endOthersAt(entry, endpoint);
    try {
      const state = this.#protocol.plane.setLink({
        ...{ name, endpoint, routes: entry.file.routes },
        ...this.#addresses(entry.file),
        ...this.#protocol.linkExtras(entry),
        ...(this.options.protocol === "jtunnel" ? {} : { sources: allowedSources(entry.file) }),
      });
      const isNew = !entry.link;
      entry.link = { ...state, ...this.#addresses(entry.file) };
      if (!isNew) return;
      log.info("client up", { ...fields, ifname: state.ifname, mtu: state.mtu });
      this.#programs.up(name, this.#environment(entry));
      this.#countClients();
    } catch (error) {
      log.error("link not set", { ...fields, error: errorText(error) });
      this.#dispatch(entry, { kind: "link-failed" });
    }
  }

  /** A NAT has given one client's mapping to another: the first cannot be there any more. */
  #endOthersAt(entry: HubEntry, endpoint: Endpoint): void {
    for (const other of this.entries.values()) {
      if (other === entry || !other.policy.endpoint) continue;
      if (equalEndpoints(other.policy.endpoint, endpoint)) this.#dispatch(other, { kind: "bye" });
    }
  }

  #removeLink(entry: HubEntry, reason: string): void {
    const { name } = entry.file;
    if (entry.link) this.#programsDown(entry);
    this.#protocol.disconnected(entry);
    try {
      this.#protocol.plane.removeLink(name);
    } catch (error) {
      this.edges.log.warn("link not removed", { client: name, error: errorText(error) });
    }
    delete entry.link;
    this.edges.log.info("client down", { client: name, reason });
    this.#countClients();
  }

  #programFailed(name: string): void {
    const entry = this.entries.get(name);
    if (!entry || this.#closed || !this.options.programMustSucceed) return;
    entry.retryMs = this.edges.clock.nowMs() + PROGRAM_RETRY_MS;
    this.#dispatch(entry, { kind: "program-failed" });
  }

  #programsDown(entry: HubEntry): void {
    this.#programs.down(entry.file.name, this.#environment(entry));
  }

  /** Somebody else may have removed links. */
  linksChanged(): void {
    if (this.#closed) return;
    const sinceMs = this.edges.clock.nowMs() - this.#lookedMs;
    this.#settleTimer ??= setTimeout(() => {
      this.#settleTimer = undefined;
      this.#lookedMs = this.edges.clock.nowMs();
      this.#restoreLinks();
    }, Math.max(LINK_CHANGE_SETTLE_MS, LINK_LOOK_GAP_MS - sinceMs));
  }

  #restoreLinks(): void {
    for (const name of this.#protocol.plane.missingLinks()) {
      const entry = this.entries.get(name);
      if (!entry?.link || !entry.policy.endpoint) continue;
      this.edges.log.warn("link is gone, making it again", { client: name });
      this.#programsDown(entry);
      delete entry.link;
      this.#setLink(entry, entry.policy.endpoint, "new");
    }
  }

  // --- what others see

  /** The hub's and the client's inner addresses. */
  #addresses({ address, hubAddress }: ClientFile): { local?: Ip; peer?: Ip } {
    const local = hubAddress ?? this.options.address;
    if (!address || !local || familyOf(address.ip) !== familyOf(local)) return {};
    return { local, peer: address.ip };
  }

  #environment({ file, link, policy }: HubEntry): Record<string, string> {
    const isId = this.options.protocol === "jtunnel";
    return linkEnvironment({
      ifname: link?.ifname ?? "",
      mtu: link?.mtu ?? 0,
      client: file.name,
      clientId: isId ? file.name.toLowerCase() : toHex(new TextEncoder().encode(file.name)),
      ...(link?.local ? { local: link.local } : {}),
      ...(link?.peer ? { peer: link.peer } : {}),
      ...(policy.endpoint ? { endpoint: policy.endpoint } : {}),
      routes: file.routes,
    });
  }

  #countClients(): void {
    const up = [...this.entries.values()].filter(({ link }) => link).length;
    this.options.metrics.setClients(up, this.entries.size);
  }

  report(): HubReport {
    const { protocol, port, encrypt, metrics } = this.options;
    const { plane, publicKey } = this.#protocol;
    const counters = plane.counters();
    return {
      ...{ role: "hub", protocol, data_plane: plane.kind, port },
      ...(publicKey ? { public_key: publicKey } : {}),
      ...(plane.kind === "tun" && protocol === "gretun" ? { encrypt } : {}),
      refused: metrics.refusals,
      problems: this.#problems,
      clients: [...this.entries.values()].map((entry) => {
        const { file, link, policy } = entry;
        const stats = counters.get(file.name);
        const pid = this.#programs.pid(file.name);
        const heardMs = this.edges.clock.nowMs() - policy.heardMs;
        const report: ClientReport = {
          name: file.name,
          state: link ? "up" : "down",
          ...(policy.endpoint ? { endpoint: formatEndpoint(policy.endpoint) } : {}),
          ...(file.address ? { address: file.address.ip } : {}),
          ...(file.routes.length > 0 ? { routes: file.routes.map(formatCidr) } : {}),
          ...(link ? { ifname: link.ifname, mtu: link.mtu } : {}),
          ...(link ? { heard_s: Math.round(heardMs / 100) / 10 } : {}),
          authentications: entry.authentications,
          roams: entry.roams,
          ...(pid === undefined ? {} : { pid }),
          ...(stats
            ? {
              ...{ rx_packets: stats.rxPackets, tx_packets: stats.txPackets },
              ...{ rx_bytes: stats.rxBytes, tx_bytes: stats.txBytes },
            }
            : {}),
        };
        return report;
      }),
    };
  }
}
