/** An overlay in a lab: the programs themselves, a coordinator and as many nodes as a test wants. */
import { deepStrictEqual, ok } from "node:assert/strict";
import { concatBytes, toHex } from "../lib/bytes.ts";
import { askDaemon, controlPath, type DaemonReport } from "../lib/daemon/control.ts";
import { type Families, type Host, Lab, type Nat } from "./lab/mod.ts";
import { pingWithoutLoss } from "./pings.ts";

const program = (name: string) => new URL(`../${name}`, import.meta.url).pathname;
export const GRETUN = program("gretun");
export const GRETUN_COORD = program("gretun-coord");

/** Long for a machine under emulation. */
const PATIENCE_MS = 100_000;
/**
 * For guessing random ports: an attempt in fifty fails, on a busy machine, which gets fewer pings out, more of
 * them; the second one comes after a minute, the third after three.
 */
export const GUESSING_MS = 400_000;
const POLL_MS = 25;
/** After a second. Looking is most of what an emulated machine does while it waits. */
const LATER_POLL_MS = 100;

/** Made by the kernel in each namespace when it loads a module. */
const FALLBACK_DEVICES = ["gre0", "gretap0", "erspan0", "tunl0", "ip6gre0", "ip6tnl0"];

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Polls until `look` gives something; throws with `what` and `explain` when it does not. */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined | false>,
  explain: () => string = () => "",
  patienceMs = PATIENCE_MS,
): Promise<T> {
  const startMs = performance.now();
  for (let passedMs = 0; passedMs < patienceMs; passedMs = performance.now() - startMs) {
    const value = await look();
    if (value !== undefined && value !== false) return value;
    await sleep(passedMs < 1_000 ? POLL_MS : LATER_POLL_MS);
  }
  throw new Error(`still waiting for: ${what}\n${explain()}`);
}

const TRANSFER_BYTES = 1024 * 1024;

/** 1 MB by TCP each way at once, and a digest of what came: the same that was sent, or it throws. */
export async function transfer(
  what: string,
  { from, to, ip }: { from: Host; to: Host; ip: string },
  explain: () => string = () => "",
): Promise<void> {
  const { listener } = to.within(() => ({ listener: Deno.listen({ hostname: ip, port: 0 }) }));
  using _listener = listener;
  const { port } = listener.addr as Deno.NetAddr;
  // An object, because a promise would be waited for inside.
  const { connecting } = from.within(() => ({ connecting: Deno.connect({ hostname: ip, port }) }));
  const bothWays = Promise.all([connecting, listener.accept()]).then(async (connections) => {
    using near = connections[0];
    using far = connections[1];
    const digests = await Promise.all([send(near), send(far), receive(far), receive(near)]);
    deepStrictEqual(digests.slice(2), digests.slice(0, 2), what);
  });
  let timer;
  const late = new Promise<never>((_, reject) => {
    const error = () => reject(new Error(`still waiting for: ${what}\n${explain()}`));
    timer = setTimeout(error, PATIENCE_MS);
  });
  try {
    await Promise.race([bothWays, late]);
  } finally {
    clearTimeout(timer);
    connecting.then((connection) => connection.close()).catch(() => {});
    bothWays.catch(() => {});
  }
}

async function send(connection: Deno.TcpConn): Promise<string> {
  const bytes = new Uint8Array(TRANSFER_BYTES);
  for (let at = 0; at < bytes.length; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  }
  for (let rest = bytes; rest.length > 0;) rest = rest.subarray(await connection.write(rest));
  await connection.closeWrite();
  return await digest(bytes);
}

async function receive(connection: Deno.TcpConn): Promise<string> {
  const parts: Uint8Array[] = [];
  const buffer = new Uint8Array(65_536);
  for (let n; (n = await connection.read(buffer)) !== null;) parts.push(buffer.slice(0, n));
  return await digest(concatBytes(...parts));
}

async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

/** iperf3's server for one client, once it listens. */
export async function iperfServer(host: Host, ...args: string[]): Promise<Deno.ChildProcess> {
  const server = host.spawn("iperf3", ["-s", "-1", ...args]);
  await until("iperf3 to listen", async () => {
    const { stdout } = await host.run("cat", ["/proc/net/tcp", "/proc/net/tcp6"]);
    return /:1451 \S+ 0A /.test(stdout); // port 5201, TCP_LISTEN
  });
  return server;
}

/** The answer to a request made inside of a host, headers and all. */
export async function httpGet(host: Host, address: string, path: string): Promise<string> {
  const { hostname, port } = new URL(`http://${address}`);
  // An object, because a promise would be waited for inside.
  const { connecting } = host.within(() => ({
    connecting: Deno.connect({ hostname, port: Number(port) }),
  }));
  using connection = await connecting;
  const request = `GET ${path} HTTP/1.1\r\nhost: ${address}\r\nconnection: close\r\n\r\n`;
  await connection.write(new TextEncoder().encode(request));
  let text = "";
  for await (const chunk of connection.readable.pipeThrough(new TextDecoderStream())) text += chunk;
  return text;
}

export interface OverlayOptions {
  /** One way, between the coordinator and everybody. */
  coordDelayMs?: number;
  /** Keeps the coordinator's state in a file, so that it can be started again. */
  keepState?: boolean;
  /** Coordinator and internet have IPv6 besides IPv4. */
  ipv6?: boolean;
  /** More flags of the coordinator. */
  coordArgs?: string[];
  /** Where programs of another version are. */
  coordProgram?: string;
}

export class Overlay implements AsyncDisposable {
  readonly lab: Lab;
  readonly coord: Host;
  readonly nodes: OverlayNode[] = [];
  readonly directory = Deno.makeTempDirSync();
  readonly #keepState: boolean;
  readonly #coordProgram: string;
  readonly #drained: Promise<void>[] = [];
  coordinator!: Deno.ChildProcess;
  /** All that it has logged. */
  coordinatorLog = "";

  static async start(options: OverlayOptions = {}): Promise<Overlay> {
    const overlay = new Overlay(options);
    try {
      await overlay.startCoordinator(...options.coordArgs ?? []);
      return overlay;
    } catch (error) {
      await overlay[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(options: OverlayOptions) {
    const { coordDelayMs = 0, keepState = false, ipv6 = false, coordProgram = GRETUN_COORD } =
      options;
    this.#coordProgram = coordProgram;
    this.lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-`, ipv6 });
    const families = ipv6 ? "dual" : "ipv4";
    this.coord = this.lab.publicHost("coord", { delayMs: coordDelayMs, families });
    this.#keepState = keepState;
  }

  get url(): string {
    return `http://${this.coord.ip}:8443`;
  }

  /** The same coordinator, for hosts without IPv4. */
  get url6(): string {
    return `http://[${this.coord.ip6}]:8443`;
  }

  /** Resolves once it answers. */
  async startCoordinator(...more: string[]): Promise<void> {
    const state = this.#keepState ? `${this.directory}/coord.db` : ":memory:";
    const { ip, ip6 } = this.coord;
    this.coordinator = this.coord.spawn(this.#coordProgram, [
      ...["--state", state, "--debug"],
      ...(ip6 ? ["--stun-advertise", `${ip}:3478`, "--stun-advertise", `[${ip6}]:3478`] : [
        ...["--listen", `${ip}:8443`],
        ...["--stun-listen", `${ip}:3478`, "--stun-listen", `${ip}:3480`],
      ]),
      ...more,
      // In memory it keeps its key where its state would be.
    ], { stderr: "piped", env: { STATE_DIRECTORY: this.directory } });
    this.#drained.push(this.#drainLog(this.coordinator.stderr));
    await until("the coordinator to listen", async () => {
      try {
        const connect = () => Deno.connect({ hostname: this.coord.ip, port: 8443 });
        (await this.coord.within(connect)).close();
        return true;
      } catch {
        return false;
      }
    });
  }

  async #drainLog(stderr: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stderr.pipeThrough(new TextDecoderStream())) {
      this.coordinatorLog += text;
    }
  }

  /** Name, address and endpoints of every node that it lists. */
  async coordinatorKnows(): Promise<string> {
    const answer = await httpGet(this.coord, `${this.coord.ip}:8443`, "/debug/peers");
    const { peers } = JSON.parse(answer.slice(answer.indexOf("\r\n\r\n"))) as {
      peers: { node_name: string; tunnel_ip: string; endpoints: { addr: string }[] | null }[];
    };
    return peers.map(({ node_name, tunnel_ip, endpoints }) =>
      [node_name, tunnel_ip, ...(endpoints ?? []).map(({ addr }) => addr)].join(" ")
    ).join("\n");
  }

  async killCoordinator(): Promise<void> {
    this.coordinator.kill("SIGKILL");
    await this.coordinator.status;
  }

  /**
   * Relays of a role of their own on public hosts; the coordinator is started anew to take them, and to
   * have none itself. Gives their processes, by their addresses, in that order.
   */
  async startRelays(
    ...places: (string | { name: string; delayMs: number })[]
  ): Promise<Map<string, Deno.ChildProcess>> {
    const relays = places.map((place) => {
      const { name, ...line } = typeof place === "string" ? { name: place } : place;
      return new RelayOnly(this, this.lab.publicHost(name, line));
    });
    this.#drained.push(...relays.map(({ drained }) => drained));
    const keys = await Promise.all(relays.map((relay) => relay.key()));
    await this.killCoordinator();
    await this.startCoordinator(
      "--relay-listen",
      "off",
      ...keys.flatMap((k) => ["--relay-key", k]),
    );
    for (const relay of relays) await relay.says("registered with");
    return new Map(relays.map(({ host, process }) => [host.ip, process]));
  }

  /** A host behind the NAT with `gretun up` running on it. */
  node(name: string, behind: Nat, args: string[], families: Families = "ipv4"): OverlayNode {
    return this.join(this.lab.host(name, { behind, families }), args);
  }

  /** Starts `gretun up` on that host. */
  join(host: Host, args: string[], program = GRETUN): OverlayNode {
    const node = new OverlayNode(this, host, args);
    node.program = [program];
    node.start();
    this.nodes.push(node);
    return node;
  }

  /** Waits until every node has a direct path to every other one. */
  async allDirect(nodes = this.nodes, patienceMs = PATIENCE_MS): Promise<void> {
    for (const node of nodes) await node.directTo(nodes.length - 1, patienceMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
    await Promise.all([...this.nodes.map((node) => node.ended), ...this.#drained]);
    await Deno.remove(this.directory, { recursive: true });
  }
}

class RelayOnly {
  readonly host: Host;
  readonly process: Deno.ChildProcess;
  readonly drained: Promise<void>;
  #log = "";

  constructor({ url, directory }: Overlay, host: Host) {
    this.host = host;
    const args = ["--relay-only", "--coordinator", url, "--listen", `${host.ip}:8443`];
    const state = ["--state", `${directory}/${host.name}.db`];
    this.process = host.spawn(GRETUN_COORD, [...args, ...state], { stderr: "piped" });
    this.drained = this.#drain();
  }

  async #drain(): Promise<void> {
    const text = this.process.stderr.pipeThrough(new TextDecoderStream());
    for await (const part of text) this.#log += part;
  }

  async says(what: string): Promise<void> {
    const hasSaid = async () => this.#log.includes(what);
    await until(`${this.host.name} to say ${what}`, hasSaid, () => this.#log);
  }

  async key(): Promise<string> {
    await this.says("relay listening");
    return /msg="relay listening".* key="?([^\s"]+)/.exec(this.#log)![1]!;
  }
}

export class OverlayNode {
  readonly host: Host;
  readonly stateDir: string;
  /** What is started, and its first arguments. */
  program: readonly string[] = [GRETUN];
  process!: Deno.ChildProcess;
  /** All that its daemons have logged. */
  log = "";
  ended: Promise<void> = Promise.resolve();
  readonly #args: string[];

  constructor(overlay: Overlay, host: Host, args: string[]) {
    this.host = host;
    this.stateDir = `${overlay.directory}/${host.name}`;
    const url = host.ip === host.ip6 ? overlay.url6 : overlay.url;
    this.#args = ["up", "--coordinator", url, "--state-dir", this.stateDir];
    this.#args.push("--node-name", host.name, ...args);
  }

  start(): void {
    const [program, ...first] = this.program;
    this.process = this.host.spawn(program!, [...first, ...this.#args], { stderr: "piped" });
    const { stderr } = this.process;
    this.ended = (async () => {
      for await (const text of stderr.pipeThrough(new TextDecoderStream())) this.log += text;
    })();
  }

  /** The daemon's exit code. */
  async stop(signal: Deno.Signal): Promise<number> {
    this.process.kill(signal);
    const { code } = await this.process.status;
    await this.ended;
    return code;
  }

  report(): Promise<DaemonReport> {
    return askDaemon(controlPath(this.stateDir));
  }

  /** Undefined while no daemon answers. */
  #tryReport(): Promise<DaemonReport | undefined> {
    return this.report().catch(() => undefined);
  }

  async tunnelIp(): Promise<string> {
    const ip = async () => (await this.#tryReport())?.tunnel_ip;
    const cidr = await until(`${this.host.name} to be registered`, ip, () => this.log);
    return cidr.split("/")[0]!;
  }

  /** Waits until so many peers are reached directly, and no other ones are there. */
  async directTo(count: number, patienceMs = PATIENCE_MS): Promise<DaemonReport> {
    return await until(
      `${this.host.name} to be direct to ${count} peers`,
      async () => {
        const report = await this.#tryReport();
        const there = report?.peers.filter(({ offline }) => !offline) ?? [];
        const direct = there.filter(({ state }) => state === "direct");
        return direct.length === count && there.length === count && report;
      },
      () => this.log,
      patienceMs,
    );
  }

  /** Waits until the peer is reached by an endpoint that fits. */
  async pathTo(peer: string, endpoint: RegExp): Promise<void> {
    await until(`${this.host.name} to reach ${peer} at ${endpoint}`, async () => {
      const found = (await this.#tryReport())?.peers.find(({ name }) => name === peer);
      return found?.state === "direct" && endpoint.test(found.endpoint ?? "");
    }, () => this.log);
  }

  /** Gives its host another address on the same network, as a new DHCP lease would. */
  async moveTo(ip: string): Promise<void> {
    const gateway = ip.replace(/\d+$/, "1");
    const commands = [
      ["addr", "flush", "dev", "eth0"],
      ["addr", "add", `${ip}/24`, "dev", "eth0"],
      ["route", "replace", "default", "via", gateway],
    ];
    for (const args of commands) {
      const { code, stderr } = await this.host.run("ip", args);
      ok(code === 0, stderr);
    }
  }

  async ifindex(ifname: string): Promise<number> {
    const { stdout } = await this.host.run("ip", ["-o", "link", "show", "dev", ifname]);
    return parseInt(stdout);
  }

  /** Names of the interfaces that are there, loopback and the kernel's own fallback devices aside. */
  async linkNames(): Promise<string[]> {
    const { stdout } = await this.host.run("ip", ["-o", "link"]);
    const names = [...stdout.matchAll(/^\d+: ([^:@]+)/gm)].map(([, name]) => name!);
    return names.filter((name) => !FALLBACK_DEVICES.includes(name) && name !== "lo");
  }

  /** Waits until a ping is answered. */
  async reaches(to: OverlayNode): Promise<void> {
    const ping = ["-n", "-c", "1", "-W", "1", await to.tunnelIp()];
    const isAnswered = async () => (await this.host.run("ping", ping)).code === 0;
    const what = `${this.host.name} to reach ${to.host.name}`;
    await until(what, isAnswered, () => `${this.log}\n${to.log}`);
  }

  /** Fails the test unless every ping is answered, be it late. */
  async ping(to: OverlayNode, { count = 2, sizeBytes = 56 } = {}): Promise<void> {
    const pings = { count, args: ["-M", "do", "-s", String(sizeBytes)] };
    const explain = () => `${this.host.name} to ${to.host.name}\n${this.log}\n${to.log}`;
    await pingWithoutLoss(this.host, await to.tunnelIp(), pings, explain);
  }

  /**
   * Carries data by TCP both ways at once and compares its digests: pings pass where checksums that
   * were left to a network card are wrong, and where large packets are lost.
   */
  async transfers(to: OverlayNode): Promise<void> {
    const what = `${this.host.name} and ${to.host.name} to carry TCP`;
    const explain = () => `${this.log}\n${to.log}`;
    await transfer(what, { from: this.host, to: to.host, ip: await to.tunnelIp() }, explain);
  }

  /** Packets that its links have received and sent, by `ip -s link`. */
  async linkCounters(
    prefix = "gretun",
  ): Promise<{ kind: string; rxPackets: number; txPackets: number }[]> {
    const { stdout } = await this.host.run("ip", ["-s", "-d", "-j", "link"]);
    const links = JSON.parse(stdout) as {
      ifname: string;
      linkinfo?: { info_kind: string };
      stats64: { rx: { packets: number }; tx: { packets: number } };
    }[];
    return links.filter(({ ifname }) => ifname.startsWith(prefix)).map((link) => ({
      kind: link.linkinfo?.info_kind ?? "",
      rxPackets: link.stats64.rx.packets,
      txPackets: link.stats64.tx.packets,
    }));
  }
}
