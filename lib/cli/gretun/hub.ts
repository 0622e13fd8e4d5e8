/** `gretun hub`: the server of tunnels without a coordinator; its status; keys. */
import { type Endpoint, parseEndpoint } from "../../addr.ts";
import { fromHex, toBase64 } from "../../bytes.ts";
import { type Log, systemRandom } from "../../edges.ts";
import { errorText, UsageError } from "../../errors.ts";
import { linuxHost } from "../../host/mod.ts";
import type * as Hub from "../../hub/mod.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags } from "../flags.ts";
import { refusedText } from "../refused.ts";
import {
  BUSY_MS,
  COMMON_FLAGS,
  DEFAULT_PORT,
  endOptions,
  parseId,
  readSettings,
  type Settings,
  showStatus,
  STATUS_FLAGS,
} from "./hub_options.ts";
import { checkIfacePattern } from "./iface_pattern.ts";
import { parseListen } from "../listen.ts";
import { isThere } from "../../state_dir.ts";
import { openLog } from "../log.ts";
import { requireCapabilities } from "../privilege.ts";
import { formatTable } from "../table.ts";
import { systemManager } from "../service.ts";
import { serveMetrics } from "../metrics_server.ts";

const FLAGS = {
  ...COMMON_FLAGS,
  clients: flag.text("DIR", "authorised clients, one file each", {
    default: "/etc/gretun/clients",
  }),
  iface: flag.text("PATTERN", "interface names, %d counts", { default: "hub%d" }),
  "public-address": flag.list(
    "IP:PORT",
    "where clients reach this hub; others are refused; repeatable (default any)",
  ),
  keepalive: flag.duration("TIME", "told to clients of our own protocol", {
    min: 1000,
    max: 3_600_000,
    default: 25_000,
  }),
  idle: flag.duration(
    "TIME",
    "silent clients are let go; 0s: never (default 180s; others' protocols 0s)",
  ),
  lifetime: flag.duration(
    "TIME",
    "how long an authentication is good; 0s: until the client is silent",
    { default: 0 },
  ),
  "reply-on-auth-ok": flag.on("ipipou: answer a packet that moved the tunnel"),
  "max-time-discrepancy": flag.duration(
    "TIME",
    "ipipou: how far a signed packet's time may be off; 0s: any",
    { default: 120_000 },
  ),
} as const;

const KEYGEN_FLAGS = {
  out: flag.text("FILE", "write the private key there, mode 0600"),
} as const;

const DEFAULT_IDLE_MS = 180_000;

export const command: Command = {
  summary: "serve tunnels to spokes, without a coordinator",
  ownSignals: ["SIGHUP"],
  help: () =>
    `Usage: gretun hub [flags] [-- PROGRAM ARGS...]
       gretun hub status [flags]
       gretun hub keygen [flags]

The program is run for each client, with TUN_DEV_NAME and TUN_CLIENT_ID. SIGHUP reads the
clients' directory again, which is watched anyway, and the configuration file; nobody is disconnected.

${flagsHelp(FLAGS)}

hub status:
${flagsHelp(STATUS_FLAGS)}

hub keygen prints a key pair:
${flagsHelp(KEYGEN_FLAGS)}
`,
  run,
};

function run(args: string[], io: CommandIo): Promise<number> {
  if (args[0] === "status") return showStatus("hub", args.slice(1), io, formatReport);
  if (args[0] === "keygen") return keygen(args.slice(1), io);
  return serve(args, io);
}

async function serve(args: string[], io: CommandIo): Promise<number> {
  const hub = await import("../../hub/mod.ts");
  const metrics = new hub.HubMetrics();
  const { options, ...first } = readHub(args, hub, metrics);
  let { flags } = first;
  if (flags["check-config"]) {
    const { problems } = hub.readDirectory(hub.systemFiles, options.clientsDir);
    io.stdout("The configuration is right.\n");
    for (const problem of problems) io.stdout(`Not authorised: ${problem}\n`);
    return EXIT_OK;
  }
  requireCapabilities("hub");
  const log = openLog(io, () => flags["log-format"], () => flags.verbose ? "debug" : "info");
  await using host = linuxHost({ busyMs: BUSY_MS });
  await using server = new MetricsServer(metrics, log);
  await server.listenAt(flags["metrics-addr"]);
  const reread = async (running: Hub.HubOptions) => {
    const next = readHub(args, hub, metrics);
    const changed = [
      ...hub.liveChanges(running, next.options),
      ...(["metrics-addr", "verbose", "log-format"] as const).filter((name) =>
        next.flags[name] !== flags[name]
      ),
    ];
    flags = next.flags;
    await server.listenAt(flags["metrics-addr"]);
    return { options: next.options, changed };
  };
  using manager = systemManager();
  const world = hub.systemWorld({ log, host, ready: (line) => manager.ready(line) });
  await hub.runHub(options, { ...world, reread }, io.signal);
  log.info("stopped");
  return EXIT_OK;
}

/** From the command line and the configuration file as it is now. */
function readHub(args: string[], hub: typeof Hub, metrics: Hub.HubMetrics) {
  const settings = readSettings("hub", args, FLAGS, hub.HUB_ALIASES);
  const { flags } = settings;
  if (flags["metrics-addr"]) parseListen("metrics-addr", flags["metrics-addr"]);
  return { flags, options: { ...hubOptions(settings, hub), metrics } };
}

/** Metrics over HTTP, at an address that may change. */
class MetricsServer implements AsyncDisposable {
  readonly #metrics: Hub.HubMetrics;
  readonly #log: Log;
  #address: string | undefined;
  #server: AsyncDisposable | undefined;

  constructor(metrics: Hub.HubMetrics, log: Log) {
    this.#metrics = metrics;
    this.#log = log;
  }

  /** None for undefined. */
  async listenAt(address: string | undefined): Promise<void> {
    if (address === this.#address) return;
    await this[Symbol.asyncDispose]();
    this.#address = address;
    if (address === undefined) return;
    const listen = parseListen("metrics-addr", address);
    this.#server = await serveMetrics(listen, [this.#metrics], this.#log);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
    this.#server = undefined;
  }
}

function hubOptions(settings: Settings<typeof FLAGS>, hub: typeof Hub) {
  const { flags, rest } = settings;
  const { options, seed, secret, address } = endOptions(settings, rest);
  if (flags.protocol === "jtunnel" && !flags.id) {
    throw new UsageError("--id is missing", "Give the server's identifier, 16 hex digits");
  }
  const id = flags.id ? parseId("id", flags.id, hub.parseJtunnelId) : undefined;
  return {
    ...options,
    port: flags.port ?? DEFAULT_PORT,
    ifnamePattern: checkIfacePattern(flags.iface),
    clientsDir: flags.clients,
    ...(address ? { address } : {}),
    ...(seed ? { ownSeed: seed } : {}),
    ...(secret ? { secret } : {}),
    publicEndpoints: flags["public-address"].map(parsePublic),
    keepaliveMs: flags.keepalive,
    idleMs: idleMs(flags),
    lifetimeMs: flags.lifetime,
    ...(id ? { serverId: fromHex(id) } : {}),
    replyOnAuthOk: flags["reply-on-auth-ok"],
    maxTimeDiscrepancyS: Math.round(flags["max-time-discrepancy"] / 1000),
  };
}

/** Longer than a few keepalives, or connected clients would be let go. */
function idleMs({ protocol, idle, keepalive }: Settings<typeof FLAGS>["flags"]): number {
  if (protocol !== "gretun") return idle ?? 0;
  if (idle === undefined) return Math.max(DEFAULT_IDLE_MS, 4 * keepalive);
  if (idle === 0 || idle >= 2 * keepalive) return idle;
  throw new UsageError(
    `--idle ${idle / 1000}s is less than two keepalives`,
    `Give at least ${2 * keepalive / 1000}s, or a shorter --keepalive`,
  );
}

function parsePublic(text: string): Endpoint {
  try {
    return parseEndpoint(text);
  } catch {
    throw new UsageError(
      `--public-address ${JSON.stringify(text)} is not IP:PORT`,
      "Give for example 203.0.113.1:7788",
    );
  }
}

const HEADINGS = "CLIENT STATE ENDPOINT ADDRESS LINK MTU HEARD ROAMS RX TX".split(" ");

function formatReport(report: Hub.HubReport): string {
  const text = (value: string | number | undefined, unit = "") =>
    value === undefined ? "-" : `${value}${unit}`;
  const rows = report.clients.map((client) => [
    ...[client.name, client.state, text(client.endpoint), text(client.address)],
    ...[text(client.ifname), text(client.mtu), text(client.heard_s, "s"), text(client.roams)],
    ...[text(client.rx_packets), text(client.tx_packets)],
  ]);
  const { protocol, data_plane, port, public_key } = report;
  return formatTable(HEADINGS, rows) +
    `Port ${port}, protocol ${protocol}, data plane ${data_plane}` +
    `${public_key ? `, public key ${public_key}` : ""}.\n` +
    refusedText(report.refused) +
    report.problems.map((problem) => `Not authorised: ${problem}\n`).join("");
}

async function keygen(args: string[], io: CommandIo): Promise<number> {
  const { out } = parseFlags(args, KEYGEN_FLAGS);
  const { publicKeyOf } = await import("../../ed25519.ts");
  const seed = systemRandom(32);
  const publicLine = `public-key ${toBase64(publicKeyOf(seed))}\n`;
  if (out === undefined) {
    io.stdout(`private-key ${toBase64(seed)}\n${publicLine}`);
    return EXIT_OK;
  }
  writeKey(out, `private-key ${toBase64(seed)}\n`);
  io.stdout(publicLine);
  return EXIT_OK;
}

/** A new file, that its owner alone can read; none is left where it cannot be written whole. */
function writeKey(path: string, text: string): void {
  const refuse = (cause: unknown, why: string) =>
    new UsageError(`cannot write ${path}: ${why}`, "Give another file with --out", { cause });
  let file;
  try {
    // The runtime has words of its own for devices.
    if (isThere(path)) throw new Error("it is there already");
    file = Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
  } catch (cause) {
    throw refuse(cause, errorText(cause));
  }
  try {
    using _file = file;
    file.writeSync(new TextEncoder().encode(text));
  } catch (cause) {
    Deno.removeSync(path);
    throw refuse(cause, errorText(cause));
  }
}
