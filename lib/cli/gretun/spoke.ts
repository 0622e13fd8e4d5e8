/** `gretun spoke`: the client of a hub. */
import { type Cidr, familyOf, type Ip } from "../../addr.ts";
import { fromBase64, fromHex } from "../../bytes.ts";
import { checkPublicKey } from "../../ed25519.ts";
import { errorText, NoDaemonError, UsageError } from "../../errors.ts";
import { linuxHost } from "../../host/mod.ts";
import type * as Hub from "../../hub/mod.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, type FlagSpecs } from "../flags.ts";
import { refusedText } from "../refused.ts";
import {
  BUSY_MS,
  checkName,
  COMMON_FLAGS,
  DEFAULT_PORT,
  endOptions,
  parseId,
  parseIpFlag,
  parseKey,
  readSecret,
  readSettings,
  type Settings,
  showStatus,
  stateDirOfRunning,
  STATUS_FLAGS,
} from "./hub_options.ts";
import { checkIfacePattern } from "./iface_pattern.ts";
import { metricsListen } from "../listen.ts";
import { openLog } from "../log.ts";
import { requireCapabilities } from "../privilege.ts";
import { type HostName, parseHost, resolveAddresses, tryParseIp } from "../resolve.ts";
import { systemManager } from "../service.ts";
import { serveMetrics } from "../metrics_server.ts";

const FLAGS = {
  ...COMMON_FLAGS,
  hub: flag.text("HOST:PORT", `the hub (port default ${DEFAULT_PORT})`),
  name: flag.text("NAME", "this client's file on the hub (default host name)"),
  "hub-key": flag.text("BASE64", "the hub's public key"),
  "token-file": flag.text("FILE", "token shared with the hub, instead of keys; or GRETUN_TOKEN"),
  iface: flag.text("PATTERN", "interface name, %d counts", { default: "spoke%d" }),
  "hub-id": flag.list(
    "HEX",
    "jtunnel: packets of other servers are dropped; repeatable (default any)",
  ),
  "hub-address": flag.text("IP", "the hub's address in the tunnel"),
  route: flag.list("CIDR", "networks behind the hub; repeatable"),
  keepalive: flag.duration("TIME", "others' protocols; 0s: none (default 25s; ipipou 0s)", {
    max: 3_600_000,
  }),
  number: flag.integer("N", "ipipou: addresses 172.28.0.0+2N, port 10000+N", {
    min: 0,
    max: 32_767,
  }),
  "reauth-only": flag.on("make the running spoke authenticate again, and exit"),
} as const satisfies FlagSpecs;

export const command: Command = {
  summary: "a tunnel to a hub, from behind any NAT",
  ownSignals: ["SIGUSR1"],
  help: () =>
    `Usage: gretun spoke --hub HOST:PORT [flags] [-- PROGRAM ARGS...]
       gretun spoke --protocol jtunnel [flags] ADDRESS PORT [PROGRAM ARGS...]
       gretun spoke status [flags]

SIGUSR1 makes it authenticate again. What it does not need to be told, the hub tells it.

${flagsHelp(FLAGS)}

spoke status:
${flagsHelp(STATUS_FLAGS)}
`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  if (args[0] === "status") return showStatus("spoke", args.slice(1), io, formatReport);
  const hub = await import("../../hub/mod.ts");
  const settings = readSettings("spoke", args, FLAGS, hub.SPOKE_ALIASES);
  const { flags } = settings;
  const metricsAt = metricsListen(flags);
  const options = { ...await spokeOptions(settings, hub), metrics: new hub.HubMetrics() };
  if (flags["check-config"]) {
    io.stdout("The configuration is right.\n");
    return EXIT_OK;
  }
  const { port } = options;
  if (flags["reauth-only"]) {
    const stateDir = await stateDirOfRunning({ "state-dir": flags["state-dir"], port }, "spoke");
    if (await isReauthAsked(hub, { stateDir, port })) return EXIT_OK;
  }
  requireCapabilities("spoke");
  const log = openLog(io, flags["log-format"], flags.verbose ? "debug" : "info");
  const host = parseHost("hub", options.hub.host);
  const resolve = () => resolveHub(host, options, io.signal);
  await using machine = linuxHost({ busyMs: BUSY_MS });
  using manager = systemManager();
  const ready = (line: () => string) => manager.ready(line);
  const edges = { ...hub.systemWorld({ log, host: machine, ready }), resolve };
  await using _metrics = await serveMetrics(metricsAt, [options.metrics], log);
  await hub.runSpoke(options, edges, io.signal);
  log.info("stopped");
  return EXIT_OK;
}

function formatReport(report: Hub.SpokeReport): string {
  const { state, hub, protocol, data_plane, observed, ifname, mtu, address, hub_address } = report;
  const lines = [
    `${state}: hub ${hub}, protocol ${protocol}, data plane ${data_plane}`,
    ...(observed ? [`seen by the hub as ${observed}`] : []),
    ...(ifname ? [`link ${ifname}, MTU ${mtu}`] : []),
    ...(address ? [`address ${address}, hub's ${hub_address}`] : []),
  ];
  return lines.join("\n") + "\n" + refusedText(report.refused);
}

/** Throws `NoDaemonError` when none runs. */
async function isReauthAsked(
  hub: typeof Hub,
  place: { stateDir: string; port: number },
): Promise<boolean> {
  try {
    await hub.askReauth(place);
    return true;
  } catch (error) {
    if (error instanceof NoDaemonError) throw error;
    throw new UsageError(
      `cannot ask the spoke: ${errorText(error)}`,
      "Check --port and --state-dir",
    );
  }
}

async function spokeOptions(settings: Settings<typeof FLAGS>, hub: typeof Hub) {
  const { flags, secrets } = settings;
  const { protocol } = flags;
  const isIpipou = protocol === "ipipou";
  const place = hubPlace(settings);
  const { options, seed, secret, ...own } = endOptions(settings, place.program);
  const number = flags.number ?? 0;
  const token = tokenOf(flags["token-file"], secrets);
  const pair = isIpipou ? hub.ipipouAddresses(number) : undefined;
  const address = own.address ?? pair?.client;
  const hubAddress = flags["hub-address"]
    ? parseIpFlag("hub-address", flags["hub-address"])
    : pair?.server;
  if (protocol === "jtunnel" && !flags.id) {
    throw new UsageError("--id is missing", "Give this client's identifier, 16 hex digits");
  }
  const id = flags.id ? parseId("id", flags.id, hub.parseJtunnelId) : undefined;
  return {
    ...options,
    hub: { host: place.host, port: place.port },
    name: checkName(flags.name ?? (protocol === "gretun" ? Deno.hostname() : "spoke")),
    port: flags.port ?? (isIpipou ? hub.IPIPOU_BASE_PORT + number : DEFAULT_PORT),
    ifnamePattern: checkIfacePattern(flags.iface),
    ...(address ? { address } : {}),
    ...(hubAddress ? { hubAddress } : {}),
    routes: flags.route.map((text) => parseRoute(text, hub)),
    credential: protocol === "gretun"
      ? await credentialOf(flags["hub-key"], { seed, token, secret }, hub)
      : { kind: "address" as const },
    ipipou: ipipouScheme({ seed, token, secret }, hub),
    ...(id ? { clientId: fromHex(id) } : {}),
    serverIds: flags["hub-id"].map((text) => parseId("hub-id", text, hub.parseJtunnelId)),
    keepaliveMs: flags.keepalive ?? (isIpipou ? 0 : 25_000),
  };
}

function tokenOf(
  file: string | undefined,
  secrets: Record<string, string>,
): Uint8Array | undefined {
  const text = readSecret(file, "GRETUN_TOKEN", secrets.token);
  if (text !== undefined) return new TextEncoder().encode(text);
  if (secrets["token-b64"] === undefined) return undefined;
  try {
    return fromBase64(secrets["token-b64"]);
  } catch {
    throw new UsageError("token-b64 is not base64", "Correct the configuration file");
  }
}

/** IPv4 first: so it was before there was IPv6 outside. */
async function resolveHub(
  host: HostName,
  { protocol }: { protocol: string },
  signal: AbortSignal,
): Promise<[Ip, ...Ip[]]> {
  if (protocol === "ipipou") return await resolveAddresses(host, { family: 4, signal });
  const ips = await resolveAddresses(host, { signal });
  return ips.sort((a, b) => familyOf(a) - familyOf(b));
}

/** `--hub`, or as jtunnel has it: ADDRESS PORT before the program. */
function hubPlace({ flags, rest }: Settings<typeof FLAGS>) {
  if (flags.hub !== undefined) {
    const text = tryParseIp(flags.hub)?.includes(":") ? `[${flags.hub}]` : flags.hub;
    const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text);
    const host = match?.[1] ?? match?.[2];
    const port = Number(match?.[3] ?? DEFAULT_PORT);
    if (flags.protocol === "ipipou" && match?.[1]) {
      throw new UsageError(
        `--hub ${flags.hub} is not IPv4`,
        "ipipou's protocol has IPv4 outside: give a name or an IPv4 address",
      );
    }
    if (host && port >= 1 && port <= 65535) return { host, port, program: rest };
    throw new UsageError(
      `--hub ${JSON.stringify(flags.hub)} is not HOST:PORT`,
      "Give for example hub.example.net:7788",
    );
  }
  const [host, port, ...program] = rest;
  if (flags.protocol === "jtunnel" && host !== undefined && /^\d{1,5}$/.test(port ?? "")) {
    return { host, port: Number(port), program };
  }
  throw new UsageError("--hub is missing", "Add --hub HOST:PORT");
}

interface Secrets {
  seed: Uint8Array | undefined;
  token: Uint8Array | undefined;
  secret: string | undefined;
}

async function credentialOf(
  hubKey: string | undefined,
  { seed, token, secret }: Secrets,
  hub: typeof Hub,
): Promise<Hub.Credential> {
  if (seed && hubKey !== undefined) {
    const { publicKeyOf } = await import("../../ed25519.ts");
    return {
      kind: "key",
      ownSeed: seed,
      ownPublic: publicKeyOf(seed),
      peerPublic: parseHubKey(hubKey),
      ...(secret ? { secret: await hub.sha256(secret) } : {}),
    };
  }
  if (seed) {
    throw new UsageError("--hub-key is missing", "Give the hub's public key: its status shows it");
  }
  if (hubKey !== undefined) {
    throw new UsageError(
      "the private key is missing",
      "Make one with gretun hub keygen --out FILE, and give it with --key-file",
    );
  }
  return token ? { kind: "token", key: await hub.sha256(token) } : { kind: "address" };
}

function parseHubKey(text: string): Uint8Array {
  const hint = "Give the one that gretun hub status shows";
  const key = parseKey("--hub-key", text, hint);
  try {
    checkPublicKey(key);
    return key;
  } catch (error) {
    throw new UsageError(
      `--hub-key is no public key: ${errorText(error)}`,
      hint,
    );
  }
}

function ipipouScheme({ seed, token, secret }: Secrets, hub: typeof Hub): Hub.IpipouScheme {
  if (token) return { kind: "token", token };
  if (seed) return { kind: "key", seed, secret: secret ?? hub.IPIPOU_DEFAULT_SECRET };
  return { kind: "none" };
}

function parseRoute(text: string, hub: typeof Hub): Cidr {
  try {
    return hub.parseAddress(text);
  } catch {
    throw new UsageError(
      `--route ${JSON.stringify(text)} is no network`,
      "Give for example 10.0.0.0/8",
    );
  }
}
