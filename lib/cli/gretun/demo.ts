/** `gretun demo`: coordinator, two NATs and two hosts on this machine, and a tunnel between them. */
import { type Cidr, parseCidr } from "../../addr.ts";
import { UP_PLANES } from "../../dataplane/kinds.ts";
import { systemClock, systemRandom } from "../../edges.ts";
import { GretunError, InterruptedError } from "../../errors.ts";
import type { Host } from "../../lab/mod.ts";
import { parseLogLine } from "../../log.ts";
import { fileLocks, hasCapability, Poller } from "../../linux/mod.ts";
import { type Command, type CommandIo, EXIT_FAILURE, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags } from "../flags.ts";
import { formatTable } from "../table.ts";

const PREFIX = "gretun-demo-";
/** Root's alone, and always the same: what a killed demo left there goes with the next one. */
const DIRECTORY = "/run/gretun-demo";
const STATE = `${DIRECTORY}/coord.db`;
const TOKEN_FILE = `${DIRECTORY}/token`;
const COORDINATOR_PORT = 8443;
const STUN_PORT = 3478;
/** Well over what a punch takes, and short enough that nobody thinks it hangs. */
const CONNECT_TIMEOUT_MS = 10_000;
const PINGS = { count: 5, intervalMs: 100, timeoutMs: 1_000 };

const FLAGS = {
  keep: flag.on("keep it running until Ctrl-C, to look around"),
  "data-plane": flag.choice(["auto", ...UP_PLANES], "auto", "as for gretun up"),
} as const;

export const command: Command = {
  summary: "try it on this machine: two hosts behind two NATs, in namespaces",
  help: () =>
    `Usage: gretun demo [flags]\n\n` +
    `Needs root. Everything runs in network namespaces named ${PREFIX}* and is removed at the end.\n\n` +
    `${flagsHelp(FLAGS)}\n`,
  run,
};

interface Node {
  host: Host;
  stateDir: string;
  /** Known once the coordinator has given it. */
  tunnel?: Cidr;
  /** Where the other one was found, once it is direct. */
  endpoint?: string;
  plane?: string;
}

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(args, FLAGS);
  for (const capability of ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"] as const) {
    if (hasCapability(capability)) continue;
    throw new GretunError(`gretun demo needs ${capability} to make namespaces`, "Run it as root");
  }
  const coordProgram = findCoordinator();
  using _lock = lockDemo();
  const { SmallNet } = await import("../../lab/mod.ts");
  await removeDirectory();
  await Deno.mkdir(DIRECTORY, { mode: 0o700 });
  try {
    await using net = await SmallNet.create(PREFIX);
    const demo = new Demo(io, flags["data-plane"]);
    say(io, "internet", "203.0.113.0/24, with a coordinator and two NATs, all in namespaces");
    const coord = net.publicHost("coord");
    const nodes = ["alice", "bob"].map((name): Node => {
      const { host, outer } = net.home(name);
      say(io, name, `${host.ip} behind a port-restricted NAT, ${outer}`);
      return { host, stateDir: `${DIRECTORY}/${name}` };
    });
    const [alice, bob] = nodes as [Node, Node];
    await demo.startCoordinator(coord, coordProgram);
    await demo.connect(coord, alice, bob);
    const ok = await demo.pingBothWays(alice, bob);
    if (flags.keep && ok) await demo.keep(alice, bob);
    return ok ? EXIT_OK : EXIT_FAILURE;
  } catch (error) {
    if (io.signal.aborted) throw new InterruptedError("stopped", "All of it has been removed");
    throw error;
  } finally {
    await removeDirectory();
  }
}

async function removeDirectory(): Promise<void> {
  try {
    await Deno.remove(DIRECTORY, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Two demos would take each other's namespaces for left-overs. */
function lockDemo(): Disposable {
  const lock = fileLocks().tryLock("demo", "demo");
  if (lock) return lock;
  throw new GretunError("another gretun demo runs", "Wait for it, or stop it with Ctrl-C");
}

function findCoordinator(): string {
  const path = `${Deno.execPath().replace(/[^/]*$/, "")}gretun-coord`;
  try {
    if (Deno.statSync(path).isFile) return path;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  throw new GretunError(`there is no ${path}`, "Put gretun-coord beside gretun");
}

function say(io: CommandIo, who: string, what: string): void {
  io.stdout(`${who.padEnd(9)} ${what}\n`);
}

class Demo {
  readonly #io: CommandIo;
  readonly #dataPlane: string;
  readonly #startMs = systemClock.nowMs();

  constructor(io: CommandIo, dataPlane: string) {
    this.#io = io;
    this.#dataPlane = dataPlane;
  }

  async startCoordinator(coord: Host, program: string): Promise<void> {
    const listen = `${coord.ip}:${COORDINATOR_PORT}`;
    const args = ["--listen", listen, "--stun-listen", `${coord.ip}:${STUN_PORT}`];
    const child = coord.spawn(program, [...args, "--state", STATE], { stderr: "piped" });
    await this.#follow("coord", child, ({ msg }) => msg === "coordinator listening");
    say(this.#io, "coord", `gretun-coord --listen ${listen}`);
    const create = ["token", "create", "--reusable", "--approve"];
    const made = await coord.run(program, [...create, "--state", STATE, "--json"]);
    if (made.code !== 0) {
      throw new GretunError(`no token was made: ${made.stderr.trim()}`, "Try it again");
    }
    await Deno.writeTextFile(TOKEN_FILE, `${JSON.parse(made.stdout).token}\n`, { mode: 0o600 });
    say(this.#io, "coord", `gretun-coord ${create.join(" ")}`);
  }

  async connect(coord: Host, ...nodes: Node[]): Promise<void> {
    const url = `http://${coord.ip}:${COORDINATOR_PORT}`;
    await Promise.all(nodes.map(async (node) => {
      const { name } = node.host;
      const args = ["up", "--coordinator", url, "--state-dir", node.stateDir, "--node-name", name];
      const more = ["--token-file", TOKEN_FILE, "--data-plane", this.#dataPlane];
      const options = { stderr: "piped" } as const;
      const child = node.host.spawn(Deno.execPath(), [...args, ...more], options);
      say(this.#io, name, `gretun up --coordinator ${url} --token-file token`);
      await this.#follow(name, child, (line) => this.#progress(node, line));
    }));
  }

  /** Says what a line of a node's log means; true when the other one is reached. */
  #progress(node: Node, line: Record<string, string>): boolean {
    const tell = (what: string) => say(this.#io, node.host.name, what);
    switch (line.msg) {
      case "registered":
        node.tunnel = parseCidr(line.tunnel_cidr!);
        tell(`registered as ${line.tunnel_cidr}`);
        break;
      case "endpoints":
        tell(`endpoints found: ${line.endpoints!.replaceAll(",", ", ")}`);
        break;
      case "tunnel up":
        node.endpoint = line.endpoint!;
        node.plane = line.plane!;
        tell(
          `punched: peer at ${line.endpoint}; ${line.ifname} is up, ` +
            `${line.plane === "fou" ? "kernel data plane" : "user-space data plane"}, ` +
            `MTU ${line.mtu}`,
        );
        break;
      case "peer found":
        tell("punching");
        break;
      case "peer state change":
        return line.to === "direct";
    }
    return false;
  }

  /** Reads a program's log until `done` says so, and on so that it does not block. */
  async #follow(
    who: string,
    child: Deno.ChildProcess,
    done: (line: Record<string, string>) => boolean,
  ): Promise<void> {
    const seen: string[] = [];
    const reached = new Promise<void>((resolve, reject) => {
      const read = async () => {
        for await (const line of lines(child.stderr)) {
          seen.push(line);
          if (done(parseLogLine(line))) resolve();
        }
        const why = seen.at(-1) ?? "it printed nothing";
        reject(new GretunError(`${who} has ended: ${why}`, "Try again with --data-plane tun"));
      };
      read().catch(reject);
    });
    const { signal } = this.#io;
    const late = systemClock.sleep(CONNECT_TIMEOUT_MS, signal).then(() => {
      throw new GretunError(
        `${who} has not got there in ${CONNECT_TIMEOUT_MS / 1000} s; it last said: ${seen.at(-1)}`,
        "Look for a firewall of this machine that acts on bridged or forwarded packets",
      );
    });
    await Promise.race([reached, late]);
  }

  /** True when every ping was answered; throws when it is stopped meanwhile. */
  async pingBothWays(alice: Node, bob: Node): Promise<boolean> {
    await using poller = new Poller();
    const { signal } = this.#io;
    const options = { ...PINGS, clock: systemClock, random: systemRandom, signal };
    const { icmpSockets, ping, statistics } = await import("../../health/mod.ts");
    const rows = await Promise.all([[alice, bob], [bob, alice]].map(async ([from, to]) => {
      const open = icmpSockets({ poller }, (body) => from!.host.within(body));
      const results = await ping(to!.tunnel!.ip, { ...options, open });
      return { from: from!, to: to!, ...statistics(results) };
    }));
    signal.throwIfAborted();
    const seconds = ((systemClock.nowMs() - this.#startMs) / 1000).toFixed(1);
    this.#io.stdout(`\nPings through the tunnel, ${seconds} s after the start:\n`);
    this.#io.stdout(formatTable(
      ["FROM", "TO", "TUNNEL IP", "BY WAY OF", "DATA PLANE", "SENT", "ANSWERED", "AVERAGE"],
      rows.map(({ from, to, sent, received, rtt }) => [
        from.host.name,
        to.host.name,
        to.tunnel!.ip,
        from.endpoint ?? "-",
        from.plane ?? "-",
        String(sent),
        String(received),
        rtt ? `${rtt.avgMs.toFixed(1)}ms` : "-",
      ]),
    ));
    return rows.every(({ sent, received }) => sent === received);
  }

  async keep(alice: Node, bob: Node): Promise<void> {
    const inside = `nsenter --net=/run/netns/${PREFIX}alice`;
    this.#io.stdout(
      `\nIt stays up until Ctrl-C. In another terminal, for example:\n` +
        `  ${inside} ping ${bob.tunnel!.ip}\n` +
        `  ${inside} ip -s link show type gre\n` +
        `  ${Deno.execPath()} peers --state-dir ${alice.stateDir}\n`,
    );
    await systemClock.sleep(2 ** 31 - 1, this.#io.signal).catch(() => {});
    this.#io.stdout("removing it\n");
  }
}

async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
  if (rest) yield rest;
}
