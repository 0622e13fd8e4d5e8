/**
 * `gretun hub`: one port and one process for all clients. What a protocol makes of packets is in
 * `protocol/`; here is who is authorised, what became of each, and when it is looked at again.
 */
import type { Endpoint } from "../addr.ts";
import { Alarm } from "../alarm.ts";
import { aborted } from "../edges.ts";
import type { PlaneOptions } from "../dataplane/mod.ts";
import { errorFields } from "../errors.ts";
import { lockPort } from "../links/mod.ts";
import { checkBind } from "./addresses.ts";
import { ClientLinks } from "./client_links.ts";
import type { ClientFile } from "./clients.ts";
import { type HubReport, serveControl } from "./control.ts";
import { ClientDirectory, type DirectoryEvents } from "./directory.ts";
import {
  type HubCore,
  type HubEdges,
  type HubEntry,
  type HubOptions,
  type HubProtocol,
  planeOptionsOf,
  programOptionsOf,
} from "./hub_core.ts";
import {
  type HubClientEffect,
  type HubClientEvent,
  type HubClientLimits,
  newHubClient,
  nextHubClientTickMs,
  stepHubClient,
} from "./hub_policy.ts";
import { type ProgramOptions, Programs } from "./programs/program.ts";
import type { Refusal } from "./protocol/gretun/auth.ts";
import { GretunHub } from "./protocol/gretun/hub.ts";
import { IpipouHub } from "./protocol/ipipou/hub.ts";
import { JtunnelHub } from "./protocol/jtunnel/hub.ts";
import { RefusalLog } from "./refusal_log.ts";
import { hubLine, hubReport } from "./report.ts";
import type { StateDir } from "../state_dir.ts";

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
  checkBind(edges.host, options.bind);
  const stateDir = edges.openStateDir(options.stateDir);
  using _lock = lockPort(edges.host.locks, { port: options.port, role: "hub", flag: "--port" });
  await using stack = new AsyncDisposableStack();
  const hub = stack.use(new Hub(options, edges, stateDir));
  stack.use(edges.onSignal("SIGHUP", () => hub.reread()));
  await hub.start();
  stack.use(edges.host.watchNetwork(() => hub.linksChanged()));
  stack.use(
    await serveControl(edges, { stateDir: options.stateDir, role: "hub", port: options.port }, {
      report: () => hub.report(),
      reauth: () => {},
    }),
  );
  edges.ready(() => hubLine(hub.report()));
  edges.log.info("hub ready", { clients: hub.entries.size });
  await aborted(signal);
}

class Hub implements HubCore, DirectoryEvents, AsyncDisposable {
  options: HubOptions;
  readonly edges: HubEdges;
  readonly entries = new Map<string, HubEntry>();
  readonly #directory: ClientDirectory;
  readonly #programs: Programs;
  readonly #protocol: HubProtocol;
  readonly #links: ClientLinks;
  readonly #refusals: RefusalLog;
  readonly #ticks: Alarm;
  #rereading = Promise.resolve();
  #closed = false;

  constructor(options: HubOptions, edges: HubEdges, stateDir: StateDir) {
    this.options = options;
    this.edges = edges;
    this.#refusals = new RefusalLog(edges);
    this.#ticks = new Alarm(edges.clock, () => this.#tick());
    this.#directory = new ClientDirectory(options.clientsDir, edges, this);
    this.#programs = new Programs(this.#programOptions(), { ...edges, stateDir });
    this.#protocol = this.#openProtocol();
    options.metrics.watch(() => this.#protocol.plane.refused());
    this.#links = new ClientLinks({
      ...{ world: edges, programs: this.#programs, protocol: this.#protocol },
      ...{ entries: this.entries, options: () => this.options },
    });
  }

  #openProtocol(): HubProtocol {
    const plane: PlaneOptions = {
      ...planeOptionsOf("hub", this.options, this.edges.log),
      onDatagram: (datagram) => this.#protocol.signal?.(datagram),
    };
    switch (this.options.protocol) {
      case "gretun":
        return new GretunHub(this, plane);
      case "ipipou":
        return new IpipouHub(this, plane);
      case "jtunnel":
        return new JtunnelHub(this, plane);
      default:
        return this.options.protocol satisfies never;
    }
  }

  #programOptions(): ProgramOptions {
    return programOptionsOf("hub", this.options, (name) => this.#programFailed(name));
  }

  async start(): Promise<void> {
    const { log, clock } = this.edges;
    const { port, clientsDir } = this.options;
    await this.#programs.endLeftovers();
    log.info("listening", { port, plane: this.#protocol.plane.kind, clients_dir: clientsDir });
    this.#directory.open();
    this.#links.adopt((entry, endpoint) =>
      this.#dispatch(entry, { kind: "adopted", nowMs: clock.nowMs(), endpoint })
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const part of [this.#ticks, this.#directory, this.#links]) part[Symbol.dispose]();
    // Links go after the programs that use them have been asked to end.
    for (const entry of this.entries.values()) this.#links.programDown(entry);
    await this.#programs.close();
    await this.#protocol.plane[Symbol.asyncDispose]();
  }

  // --- configuration

  /** The clients first: whoever is not there any more has to go, whatever the configuration says. */
  reread(): void {
    if (this.#closed) return;
    this.#directory.reload();
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
      log.error("configuration not taken, the old one goes on", errorFields(error));
    }
  }

  #reconfigure(next: HubOptions): void {
    this.options = next;
    this.#programs.options = this.#programOptions();
    this.#protocol.reconfigured?.();
    for (const entry of this.entries.values()) {
      // Spokes of our own protocol are told of new times when they authenticate: not before that.
      if (next.protocol === "gretun" && entry.link) continue;
      entry.policy = { ...entry.policy, limits: this.#limits(entry.file) };
      this.#ticks.setEarlier(nextHubClientTickMs(entry.policy));
    }
  }

  #limits(file: ClientFile): HubClientLimits {
    const { idleMs, lifetimeMs } = this.options;
    return { idleMs, lifetimeMs: file.lifetimeMs ?? lifetimeMs };
  }

  // --- what the directory tells

  known(name: string): ClientFile | undefined {
    return this.entries.get(name)?.file;
  }

  names(): Iterable<string> {
    return this.entries.keys();
  }

  added(file: ClientFile): string | undefined {
    const entry: HubEntry = {
      file,
      policy: newHubClient(this.#limits(file)),
      ...{ retryMs: -Infinity, notedMs: -Infinity, roamLoggedMs: -Infinity },
      ...{ authentications: 0, roams: 0 },
    };
    const problem = this.#protocol.admit(entry);
    if (problem) return problem;
    this.entries.set(file.name, entry);
    this.edges.log.info("client authorised", { client: file.name });
    return undefined;
  }

  removed(name: string, why: string): void {
    const entry = this.entries.get(name)!;
    this.entries.delete(name);
    this.#protocol.forget(entry);
    this.#dispatch(entry, { kind: "revoked" });
    this.edges.log.info("client not authorised any more", { client: name, reason: why });
  }

  looked(): void {
    this.#protocol.plane.refresh();
    this.#protocol.looked?.();
    this.#links.count();
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

  carried(name: string): void {
    const entry = this.entries.get(name);
    if (entry) this.heard(entry);
  }

  bye(entry: HubEntry): void {
    this.#dispatch(entry, { kind: "bye" });
  }

  refused(reason: Refusal): void {
    this.options.metrics.refused(reason);
  }

  refusedAuthentication(reason: Refusal, from: Endpoint, client?: string): void {
    this.refused(reason);
    this.#refusals.refused(reason, from, client);
  }

  lookAgain(): void {
    this.#directory.lookAgain();
  }

  /** Somebody else may have removed links. */
  linksChanged(): void {
    this.#links.changed();
  }

  // --- the loop

  #dispatch(entry: HubEntry, event: HubClientEvent): void {
    const [policy, effects] = stepHubClient(entry.policy, event);
    entry.policy = policy;
    for (const effect of effects) this.#perform(entry, effect);
    this.#ticks.setEarlier(nextHubClientTickMs(entry.policy));
  }

  /** The first client wants its tick, or may by now want a later one. */
  #tick(): void {
    const nowMs = this.edges.clock.nowMs();
    for (const entry of this.entries.values()) {
      const dueMs = nextHubClientTickMs(entry.policy);
      if (dueMs <= nowMs) this.#dispatch(entry, { kind: "tick", nowMs });
      else this.#ticks.setEarlier(dueMs);
    }
  }

  #perform(entry: HubEntry, effect: HubClientEffect): void {
    switch (effect.kind) {
      case "set-link":
        for (const other of this.#links.othersAt(entry, effect.endpoint)) this.bye(other);
        if (this.#links.set(entry, effect.endpoint, effect.change)) return;
        return this.#dispatch(entry, { kind: "link-failed" });
      case "remove-link":
        return this.#links.remove(entry, effect.reason);
      default:
        effect satisfies never;
    }
  }

  #programFailed(name: string): void {
    const entry = this.entries.get(name);
    if (!entry || this.#closed || !this.options.programMustSucceed) return;
    entry.retryMs = this.edges.clock.nowMs() + PROGRAM_RETRY_MS;
    this.#dispatch(entry, { kind: "program-failed" });
  }

  report(): HubReport {
    return hubReport({
      ...{ options: this.options, protocol: this.#protocol, entries: this.entries.values() },
      problems: this.#directory.problems,
      pidOf: (name) => this.#programs.pid(name),
      nowMs: this.edges.clock.nowMs(),
    });
  }
}
