/** A hub and its spokes in one process, with a simulated clock and network: what runs is theirs. */
import { ok } from "node:assert/strict";
import { concatBytes, toBase64, Writer } from "../../../lib/bytes.ts";
import { type Ip, ipBytes, parseIp } from "../../../lib/addr.ts";
import { publicKeyOf } from "../../../lib/ed25519.ts";
import {
  type Credential,
  HubMetrics,
  type HubOptions,
  type HubReport,
  runHub,
  runSpoke,
  type SpokeOptions,
  type SpokeReport,
} from "../../../lib/hub/mod.ts";
import { MemoryMachine, seededRandom } from "../../fakes/world.ts";
import { settle } from "../../fakes/settle.ts";
import { HubClock, ProcessClock } from "./clock.ts";
import { type HubSite, type SimHost, SimNetwork } from "./network.ts";

export const HUB_IP = "203.0.113.1";
export const HUB_PORT = 7788;
export const HUB_INNER = "10.90.0.1" as Ip;
const CLIENTS_DIR = "/etc/gretun/clients";
const STATE_DIR = "/run/gretun";

type Role = "hub" | "spoke";

/** A program on its machine: started, asked, stopped, killed. */
export class SimDaemon {
  readonly machine: MemoryMachine;
  readonly host: SimHost;
  readonly metrics = new HubMetrics();
  readonly #clock: HubClock;
  readonly #role: Role;
  #process: ProcessClock;
  #stop = new AbortController();
  /** Rejects with what ended it. */
  ended: Promise<void> = Promise.resolve();

  constructor(role: Role, host: SimHost, clock: HubClock, seed: number) {
    this.#role = role;
    this.#clock = clock;
    this.host = host;
    this.machine = new MemoryMachine({ clock, seed, host });
    this.#process = new ProcessClock(clock);
  }

  get log() {
    return this.machine.log;
  }

  get isKilled(): boolean {
    return this.#process.isKilled;
  }

  start(
    run: (world: ReturnType<MemoryMachine["world"]>, signal: AbortSignal) => Promise<void>,
  ): void {
    this.#process = new ProcessClock(this.#clock);
    this.#stop = new AbortController();
    const world = { ...this.machine.world(), clock: this.#process };
    this.ended = run(world, this.#stop.signal);
    this.ended.catch(() => {}); // tests look at it when they want to
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#clock.run(this.ended);
  }

  /** As by SIGKILL: its sockets and TUN devices end, programs that it started go on. */
  kill(): void {
    this.#process.isKilled = true;
    this.host.closeAll();
    this.machine.dropHandlers();
  }

  async report<R extends HubReport | SpokeReport>(): Promise<R> {
    const path = `${STATE_DIR}/${this.#role}-${HUB_PORT}.sock`;
    const text = await this.machine.ask(path, "/v1/status");
    ok(text !== undefined, `no ${this.#role} answers: ${JSON.stringify(this.log.lines)}`);
    return JSON.parse(text);
  }

  /** What its metrics tell of clients, or of itself, that are up. */
  async countUp(): Promise<number> {
    return Number(/^gretun_hub_clients\{state="up"\} (\d+)$/m.exec(await this.metrics.text())![1]);
  }

  /** Interfaces of ours. */
  get linkNames(): string[] {
    using rtnl = this.host.openRtNetlink();
    return rtnl.links().map(({ name }) => name).filter((name) => /^(hub|spoke)\d/.test(name));
  }
}

export class HubSim implements AsyncDisposable {
  readonly clock = new HubClock();
  readonly network = new SimNetwork(this.clock.time);
  readonly hub = new SimDaemon("hub", this.network.host(parseIp(HUB_IP)), this.clock, 1);
  readonly spokes = new Map<string, SimDaemon>();
  /** Addresses of names. */
  readonly names = new Map<string, [Ip, ...Ip[]]>();
  readonly random = seededRandom(99);
  readonly hubSeed = this.random(32);
  /** What the configuration says when it is read again. */
  reread: Partial<HubOptions> | Error = {};
  #options!: HubOptions;
  #nextHost = 2;

  get publicKey(): Uint8Array {
    return publicKeyOf(this.hubSeed);
  }

  site(): HubSite {
    return this.network.site(parseIp(`198.51.100.${this.#nextHost++}`));
  }

  // --- the hub

  async startHub(change: Partial<HubOptions> = {}): Promise<void> {
    this.#options = {
      ...{ protocol: "gretun", dataPlane: "tun", port: HUB_PORT, ifnamePattern: "hub%d" },
      ...{ encapCsum: "auto", allowFragments: false },
      ...{ clientsDir: CLIENTS_DIR, stateDir: STATE_DIR, address: HUB_INNER },
      ...{ ownSeed: this.hubSeed, publicEndpoints: [], keepaliveMs: 25_000, idleMs: 180_000 },
      ...{ lifetimeMs: 0, encrypt: true, replyOnAuthOk: false, maxTimeDiscrepancyS: 120 },
      ...{ program: [], programMustSucceed: false, programGraceMs: 5000 },
      metrics: this.hub.metrics,
      ...change,
    };
    this.restartHub();
    await this.clock.runUntil("the hub", () => this.hub.log.of("hub ready").length > 0, 1000);
  }

  /** As it was started before. */
  restartHub(): void {
    const reread = (running: HubOptions) => {
      if (this.reread instanceof Error) return Promise.reject(this.reread);
      const changed = Object.keys(this.reread);
      return Promise.resolve({ options: { ...running, ...this.reread }, changed });
    };
    this.hub.start((world, signal) => runHub(this.#options, { ...world, reread }, signal));
  }

  /** Authorises a client: its file. */
  file(name: string, text: string): void {
    this.hub.machine.files.put(`${CLIENTS_DIR}/${name}`, text);
  }

  removeFile(name: string): void {
    this.hub.machine.files.delete(`${CLIENTS_DIR}/${name}`);
  }

  async client(name: string) {
    const { clients } = await this.hub.report<HubReport>();
    return clients.find((client) => client.name === name);
  }

  async refused(): Promise<Record<string, number>> {
    return (await this.hub.report<HubReport>()).refused;
  }

  // --- spokes

  /** A key pair of the client's: its line of the file, and what the spoke has. */
  keys(): { file: string; credential: Credential } {
    const ownSeed = this.random(32);
    const ownPublic = publicKeyOf(ownSeed);
    return {
      file: `public-key ${toBase64(ownPublic)}\n`,
      credential: { kind: "key", ownSeed, ownPublic, peerPublic: this.publicKey },
    };
  }

  /** A spoke that the hub knows by a key, with the n-th inner address. */
  async connected(name: string, n: number, change: Partial<SpokeOptions> = {}, site?: HubSite) {
    const { file, credential } = this.keys();
    this.file(name, `${file}address 10.90.0.${n}\n`);
    const spoke = this.spoke(name, { credential, ...change }, site);
    await this.up(spoke);
    return spoke;
  }

  spoke(name: string, change: Partial<SpokeOptions>, site?: HubSite): SimDaemon {
    const n = this.#nextHost++;
    const host = this.network.host(parseIp(`${site ? "192.168.0" : "203.0.113"}.${n}`), site);
    const spoke = new SimDaemon("spoke", host, this.clock, 1000 + n);
    this.spokes.set(name, spoke);
    this.startSpoke(name, spoke, change);
    return spoke;
  }

  startSpoke(name: string, spoke: SimDaemon, change: Partial<SpokeOptions>): void {
    const options: SpokeOptions = {
      ...{ protocol: "gretun", dataPlane: "auto", hub: { host: HUB_IP, port: HUB_PORT } },
      ...{ name, port: HUB_PORT, ifnamePattern: "spoke%d", encapCsum: "auto" },
      ...{ allowFragments: false, stateDir: STATE_DIR, routes: [] },
      ...{ credential: { kind: "address" }, ipipou: { kind: "none" }, serverIds: [] },
      ...{ keepaliveMs: 25_000, encrypt: true },
      ...{ program: [], programMustSucceed: false, programGraceMs: 5000 },
      metrics: spoke.metrics,
      ...change,
    };
    const resolve = async (host: string) => this.names.get(host) ?? [host as Ip] as const;
    spoke.start((world, signal) => runSpoke(options, { ...world, resolve }, signal));
  }

  async up(spoke: SimDaemon): Promise<void> {
    await this.clock.runUntil("a spoke to be up", () => {
      return spoke.log.of("connected").length > 0 && spoke.linkNames.length > 0;
    }, 300_000);
  }

  /** Whether a packet from one end, by its only or its first link, comes out of the other's as it was. */
  async passes(from: SimDaemon, to: SimDaemon, packet: Uint8Array): Promise<boolean> {
    const text = String(packet);
    const count = () =>
      to.host.tuns.flatMap(({ written }) => written).filter((each) => String(each) === text).length;
    const before = count();
    from.host.tuns.find(({ isClosed }) => !isClosed)!.receive(packet);
    await this.clock.runFor(50);
    return count() > before;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const daemon of [...this.spokes.values(), this.hub]) {
      if (!daemon.isKilled) await daemon.stop().catch(() => {});
    }
    await settle();
  }
}

/** An IPv4 packet without sense, between two inner addresses. */
export function ipv4(source: string, destination: string, length = 40): Uint8Array {
  const header = new Writer("network", 20).u8(0x45).u8(0).u16(length).u32(0).u8(64).u8(17).u16(0)
    .bytes(ipBytes(source as Ip)).bytes(ipBytes(destination as Ip)).finish();
  return concatBytes(header, new Uint8Array(length - header.length));
}
