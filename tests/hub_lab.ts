/** A hub in a lab, and as many spokes as a test wants: the programs themselves. */
import { ok } from "node:assert/strict";
import { toBase64 } from "../lib/bytes.ts";
import { publicKeyOf } from "../lib/ed25519.ts";
import { askControl, type ClientReport, type HubReport, type SpokeReport } from "../lib/hub/mod.ts";
import { type Host, Lab } from "./lab/mod.ts";
import { GRETUN, until } from "./overlay.ts";
import { pingUntilAnswered } from "./pings.ts";

export const HUB_PORT = 7788;

/** How a client and the hub know each other: lines of the client's file, flags of the spoke. */
export interface Scheme {
  file: string;
  args: string[];
}

/** One program of the test, its log and its end. */
class Daemon {
  readonly host: Host;
  process!: Deno.ChildProcess;
  log = "";
  ended: Promise<void> = Promise.resolve();
  readonly #args: string[];
  readonly #env: Record<string, string>;
  readonly #gretun: string;

  constructor(host: Host, args: string[], env: Record<string, string>, gretun: string) {
    this.host = host;
    this.#args = args;
    this.#env = env;
    this.#gretun = gretun;
    this.start();
  }

  start(): void {
    const options = { stderr: "piped", env: this.#env } as const;
    this.process = this.host.spawn(this.#gretun, this.#args, options);
    const { stderr } = this.process;
    this.ended = (async () => {
      for await (const text of stderr.pipeThrough(new TextDecoderStream())) this.log += text;
    })();
  }

  /** The exit code. */
  async stop(signal: Deno.Signal): Promise<number> {
    this.process.kill(signal);
    const { code } = await this.process.status;
    // Programs that a killed one leaves behind keep its standard error open.
    if (signal !== "SIGKILL") await this.ended;
    return code;
  }

  /** Waits until two pings are answered: an end that has just come up may lose some. */
  async ping(to: string, args: string[] = []): Promise<void> {
    const { text, answered } = await pingUntilAnswered(this.host, to, { args });
    ok(answered.length === 2, `${this.host.name} to ${to}: ${text}\n${this.log}`);
  }

  async linkNames(): Promise<string[]> {
    const { stdout } = await this.host.run("ip", ["-o", "link"]);
    return [...stdout.matchAll(/^\d+: ([^:@]+)/gm)].map(([, name]) => name!)
      .filter((name) => /^(hub|spoke)\d/.test(name)).sort();
  }
}

export class HubLab implements AsyncDisposable {
  readonly lab: Lab;
  readonly host: Host;
  readonly directory = Deno.makeTempDirSync();
  readonly clientsDir = `${this.directory}/clients`;
  readonly spokes: SpokeDaemon[] = [];
  readonly #hubSeed = crypto.getRandomValues(new Uint8Array(32));
  hub!: Daemon;

  constructor({ ipv6 = false } = {}) {
    this.lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-`, ipv6 });
    this.host = this.lab.publicHost("hub", { families: ipv6 ? "dual" : "ipv4" });
    Deno.mkdirSync(this.clientsDir);
    this.secretFile("hub.key", `private-key ${toBase64(this.#hubSeed)}\n`);
  }

  get publicKey(): string {
    return toBase64(publicKeyOf(this.#hubSeed));
  }

  /** A file that only its owner can read; its path. */
  secretFile(name: string, text: string): string {
    const path = `${this.directory}/${name}`;
    Deno.writeTextFileSync(path, text, { mode: 0o600 });
    return path;
  }

  clientFile(name: string, text: string): void {
    const temporary = `${this.clientsDir}/.${name}`;
    Deno.writeTextFileSync(temporary, text, { mode: 0o600 });
    Deno.renameSync(temporary, `${this.clientsDir}/${name}`);
  }

  removeClient(name: string): void {
    Deno.removeSync(`${this.clientsDir}/${name}`);
  }

  /** Resolves once it answers. */
  async startHub(
    args: string[],
    env: Record<string, string> = {},
    gretun = GRETUN,
  ): Promise<void> {
    const [flags, program] = split(args);
    const own = ["--clients", this.clientsDir, "--state-dir", `${this.directory}/hub`];
    const key = flags.includes("jtunnel") ? [] : ["--key-file", `${this.directory}/hub.key`];
    this.hub = new Daemon(this.host, ["hub", ...own, ...key, ...flags, ...program], env, gretun);
    await this.hubReady();
  }

  async hubReady(): Promise<void> {
    await until(
      "the hub to answer",
      () => this.report().catch(() => undefined),
      () => this.hub.log,
    );
  }

  async report(): Promise<HubReport> {
    const place = { stateDir: `${this.directory}/hub`, role: "hub", port: this.hubPort } as const;
    return await askControl(place) as HubReport;
  }

  hubPort = HUB_PORT;

  async client(name: string): Promise<ClientReport> {
    const found = (await this.report()).clients.find((client) => client.name === name);
    ok(found, `no client ${name}`);
    return found;
  }

  async clientUp(name: string): Promise<ClientReport> {
    return await until(`${name} to be up`, async () => {
      const { clients } = await this.report();
      return clients.find((client) => client.name === name && client.state === "up");
    }, () => this.hub.log);
  }

  /** A key pair of its own, as file and flags. */
  keyScheme(name: string): Scheme {
    const seed = crypto.getRandomValues(new Uint8Array(32));
    const file = this.secretFile(`${name}.key`, `private-key ${toBase64(seed)}\n`);
    return {
      file: `public-key ${toBase64(publicKeyOf(seed))}\n`,
      args: ["--key-file", file, "--hub-key", this.publicKey],
    };
  }

  /** Authorises the client and starts its spoke on the host. */
  spoke(
    name: string,
    host: Host,
    {
      file,
      scheme = this.keyScheme(name),
      args = [],
      env = {},
      authorised = true,
      gretun = GRETUN,
    }: {
      file: string;
      /** A program of another version. */
      gretun?: string;
      scheme?: Scheme;
      args?: string[];
      env?: Record<string, string>;
      authorised?: boolean;
    },
  ): SpokeDaemon {
    if (authorised) this.clientFile(name, scheme.file + file);
    const [flags, program] = split(args);
    const own = ["--name", name, "--state-dir", `${this.directory}/${name}`];
    const hub = args.includes("--hub") ? [] : ["--hub", `${this.host.ip}:${this.hubPort}`];
    const words = ["spoke", ...own, ...hub, ...scheme.args, ...flags, ...program];
    const spoke = new SpokeDaemon(host, words, env, { directory: this.directory, name, gretun });
    this.spokes.push(spoke);
    return spoke;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
    await Promise.all([this.hub, ...this.spokes].map((daemon) => daemon?.ended));
    await Deno.remove(this.directory, { recursive: true });
  }
}

function split(args: string[]): [string[], string[]] {
  const i = args.indexOf("--");
  return i < 0 ? [args, []] : [args.slice(0, i), args.slice(i)];
}

export class SpokeDaemon extends Daemon {
  readonly #stateDir: string;
  readonly #port: number;

  constructor(
    host: Host,
    args: string[],
    env: Record<string, string>,
    { directory, name, gretun }: { directory: string; name: string; gretun: string },
  ) {
    super(host, args, env, gretun);
    this.#stateDir = `${directory}/${name}`;
    const i = args.indexOf("--port");
    this.#port = i < 0 ? HUB_PORT : Number(args[i + 1]);
  }

  async report(): Promise<SpokeReport> {
    const place = { stateDir: this.#stateDir, role: "spoke", port: this.#port } as const;
    return await askControl(place) as SpokeReport;
  }

  async up(): Promise<SpokeReport> {
    return await until(`${this.host.name} to be connected`, async () => {
      const report = await this.report().catch(() => undefined);
      return report?.state === "up" && report.ifname !== undefined && report;
    }, () => this.log);
  }
}
