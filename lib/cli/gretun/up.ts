/** `gretun up`: the daemon in the foreground. */
import { type Endpoint, isUsableEndpoint, parseEndpoint } from "../../addr.ts";
import { MAX_NAME_LENGTH } from "../../coord/api.ts";
import type { DaemonReport } from "../../daemon/control.ts";
import { UP_PLANES } from "../../dataplane/kinds.ts";
import { type Log, systemClock, systemRandom } from "../../edges.ts";
import { UsageError } from "../../errors.ts";
import { SERVICE_USER } from "../../service/mod.ts";
import { groupIdOf } from "../../control_socket.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { parseCoordinatorKey } from "../coordinator_key.ts";
import { exists } from "../exists.ts";
import { checkIfacePattern } from "./iface_pattern.ts";
import { parseJoinToken } from "./join_token.ts";
import { runtimeDir } from "./runtime_dir.ts";
import { flag, flagsHelp, type FlagValues, withPositional } from "../flags.ts";
import type { ListenAddress } from "../../listen.ts";
import { METRICS_FLAG, metricsListen } from "../listen.ts";
import { LOG_FLAGS, openLog } from "../log.ts";
import { returnMemory } from "../memory.ts";
import { requireCapabilities } from "../privilege.ts";
import { systemManager } from "../service.ts";
import { readSecretFile } from "../secret_file.ts";
import { environmentOf, readSettings, readSettingsFile, wordAfter } from "../settings.ts";
import { moveOldState, socketToServe, STATE_FLAGS, stateDirOf } from "./state_dir.ts";

/** Made while the rest of the program is loaded: to register, to be told of peers, and to invite them. */
const FIRST_CONNECTIONS = 3;
const DEFAULT_CONFIG = "/etc/gretun/up.conf";

const FLAGS = {
  coordinator: flag.text("URL", "coordinator to register with, e.g. http://203.0.113.1:8443", {
    required: true,
  }),
  iface: flag.text("PATTERN", "interface names, %d counts", { default: "gretun%d" }),
  port: flag.integer("PORT", "UDP port of signalling and data", {
    formerly: "fou-port",
    min: 1,
    max: 65535,
    default: 7777,
  }),
  "node-name": flag.text("NAME", "display name (default host name)"),
  ...STATE_FLAGS,
  "socket-group": flag.text(
    "GROUP",
    "who may look with status, peers and ping (default gretun, the service's own)",
  ),
  "stun-server": flag.list(
    "HOST:PORT",
    "ask these instead of the coordinator's STUN servers; repeatable",
  ),
  endpoint: flag.list(
    "IP:PORT",
    "another address of this host, such as a forwarded port; repeatable",
  ),
  "advertise-interface": flag.list(
    "PATTERN",
    "tell addresses of these interfaces even if they are tunnels or bridges; repeatable",
  ),
  "exclude-interface": flag.list("PATTERN", "tell no addresses of these interfaces; repeatable"),
  "port-mapping": flag.choice(
    ["on", "off"],
    "on",
    "ask the router for a port (PCP, NAT-PMP, UPnP)",
  ),
  "aggressive-punch": flag.on(
    "guess the ports of NATs that choose them at random, by a thousand pings",
  ),
  "data-plane": flag.choice(["auto", ...UP_PLANES], "auto", "kernel (fou) or user space (tun)"),
  "gre-key": flag.choice(["on", "off"], "on", "GRE keys, 4 bytes a packet; both ends alike"),
  "encap-csum": flag.choice(
    ["auto", "on", "off"],
    "auto",
    "checksum of outer packets over IPv4 (fou); auto: on where a hardware card makes it",
  ),
  ...METRICS_FLAG,
  ca: flag.text(
    "FILE",
    "trust these certificates (PEM) too: the coordinator's own, or its issuer's",
  ),
  "token-file": flag.text(
    "FILE",
    "a token of the coordinator's operator, which lets this host join; or GRETUN_TOKEN",
  ),
  "coordinator-key": flag.text(
    "KEY",
    "the coordinator's key, in base64; without it, a token's, or what the first contact told",
  ),
  "changed-keys": flag.choice(
    ["refuse", "accept"],
    "refuse",
    "of peers that have the name or address of another one that this host knew",
  ),
  token: flag.text("TOKEN", "the token itself: other users of this host can read command lines"),
  "keep-links": flag.on("at SIGTERM leave tunnels of the kernel in place for the next start"),
  config: flag.text(
    "FILE",
    "settings, one KEY VALUE a line (default /etc/gretun/up.conf, if there is one)",
  ),
  "check-config": flag.on("check the settings and exit"),
  ...LOG_FLAGS,
} as const;

type Flags = FlagValues<typeof FLAGS>;

export const command: Command = {
  summary: "connect this host to all others of a coordinator",
  help: () =>
    `Usage: gretun up --coordinator URL [flags]

A setting can also stand in the environment (--node-name as GRETUN_NODE_NAME) or in a configuration
file (node-name NAME). A flag wins over the environment, and that over the file.

${flagsHelp(FLAGS)}
`,
  run,
};

async function run(given: string[], io: CommandIo): Promise<number> {
  const args = withPositional(given, "coordinator", FLAGS);
  const instance = wordAfter(args, "instance");
  const file = readSettingsFile(
    args,
    instance === undefined ? DEFAULT_CONFIG : `/etc/gretun/up-${instance}.conf`,
  );
  const flags = readSettings(args, FLAGS, {
    environment: environmentOf(FLAGS),
    ...(file ? { file } : {}),
  });
  const [
    { askCoordinatorKey, parseCoordinatorUrl },
    { parseServerName },
    { HttpClient, systemDialer },
  ] = await Promise
    .all([
      import("../../coord/client.ts"),
      import("../../stun/mod.ts"),
      import("../../dial/mod.ts"),
    ]);
  const coordinator = parseCoordinatorUrl(flags.coordinator);
  checkIfacePattern(flags.iface);
  flags["stun-server"].forEach(parseServerName);
  const endpoints = flags.endpoint.map(parseOwnEndpoint);
  const nodeName = checkName(flags["node-name"] ?? ownName());
  const metricsAt = metricsListen(flags);
  const dialer = systemDialer(flags.ca === undefined ? {} : { caFile: flags.ca });
  const tokenFile = flags["token-file"];
  // A file wins.
  const tokenText = tokenFile === undefined ? flags.token : readSecretFile(tokenFile);
  const token = tokenText === undefined ? undefined : parseJoinToken(tokenText, tokenFile);
  const keyText = flags["coordinator-key"];
  const coordinatorKey = keyText === undefined ? token?.coordinator : parseCoordinatorKey(keyText);
  if (flags["check-config"]) {
    io.stdout(`${file?.path ?? "The settings"}: no problem found\n`);
    return EXIT_OK;
  }
  requireCapabilities("up");
  using http = new HttpClient(dialer);
  http.prepare(coordinator.href, FIRST_CONNECTIONS);
  const stateDir = stateDirOf(flags);
  // A host that was up before knows it as a rule. The question leaves with the first connection, beside what follows.
  const mayKnowIt = coordinatorKey !== undefined || exists(`${stateDir}/keys.json`);
  const met = mayKnowIt ? undefined : askCoordinatorKey(coordinator.href, {
    ...{ http, clock: systemClock, random: systemRandom },
  });
  const [{ signer }, { loadIdentity, NO_METER, runDaemon, systemEdges }] = await Promise.all([
    import("../../ed25519.ts"),
    import("../../daemon/mod.ts"),
  ]);
  const groupId = socketGroup(flags);
  const control = { path: socketToServe(flags), ...(groupId === undefined ? {} : { groupId }) };
  const log = openLog(io, flags["log-format"], flags.verbose ? "debug" : "info");
  moveOldState(stateDir, log);
  if (wordAfter(args, "token") !== undefined) {
    log.warn("a token on the command line can be read by other users; use --token-file");
  }
  let newKeys: { path: string; written: Promise<void> } | undefined;
  const identity = await loadIdentity(
    stateDir,
    systemRandom,
    (path, written) => newKeys = { path, written },
  );
  await using _keys = { [Symbol.asyncDispose]: async () => await newKeys?.written.catch(() => {}) };
  await using served = metricsAt && await serveMetrics(metricsAt, log);
  const sign = await signer(identity.nodeSeed);
  const asked = new AbortController();
  const onDown = () => asked.abort(new Error("gretun down"));
  await using edges = systemEdges({ log, sign, http, dialer, stateDir, control, onDown });
  using manager = systemManager();
  using _memory = returnMemory();
  await runDaemon(
    {
      coordinator,
      nodeName,
      ...(token ? { tokenSecret: token.secret } : {}),
      ...(coordinatorKey ? { coordinatorKey } : {}),
      ...(met ? { met } : {}),
      acceptsChangedKeys: flags["changed-keys"] === "accept",
      identity,
      port: flags.port,
      ifnamePattern: flags.iface,
      dataPlane: flags["data-plane"],
      encapCsum: flags["encap-csum"],
      greKeys: flags["gre-key"] === "on",
      stunServers: flags["stun-server"],
      endpoints,
      interfaces: {
        advertise: flags["advertise-interface"],
        exclude: flags["exclude-interface"],
      },
      portMapping: flags["port-mapping"] === "on",
      aggressivePunch: flags["aggressive-punch"],
      // "gretun down" means it.
      keepsLinks: () => flags["keep-links"] && !asked.signal.aborted,
      metrics: served?.metrics ?? NO_METER,
    },
    {
      ...edges,
      serveControl: async (asked) => {
        await newKeys?.written;
        const served = await edges.serveControl(asked);
        if (newKeys) log.info("new keys", { path: newKeys.path });
        manager.ready(() => statusLine(asked.report()));
        return served;
      },
    },
    AbortSignal.any([io.signal, asked.signal]),
  );
  log.info("stopped");
  return EXIT_OK;
}

/** Loaded only where somebody looks: they would cost each start a tenth of its time. */
async function serveMetrics(listen: ListenAddress, log: Log) {
  const [{ DaemonMetrics }, { serveMetrics: serve }] = await Promise.all([
    import("../../daemon/metrics.ts"),
    import("../metrics_server.ts"),
  ]);
  const metrics = new DaemonMetrics();
  const server = await serve(listen, [metrics], log);
  return { metrics, [Symbol.asyncDispose]: async () => await server?.[Symbol.asyncDispose]() };
}

/** The service's own group is there only where that is installed. */
function socketGroup({ "socket-group": name, "state-dir": ownDir }: Flags): number | undefined {
  const isDefault = name === undefined;
  if (isDefault && (ownDir !== undefined || runtimeDir() === undefined)) return undefined;
  const id = groupIdOf(name ?? SERVICE_USER);
  if (id !== undefined || isDefault) return id;
  throw new UsageError(
    `--socket-group ${JSON.stringify(name)} is no group of this host`,
    "Name a group of /etc/group",
  );
}

/** For the service manager. */
function statusLine({ state, tunnel_ip, peers }: DaemonReport): string {
  const reached = peers.filter(({ path }) => path !== undefined).length;
  const offline = peers.filter(({ offline }) => offline).length;
  const away = offline > 0 ? `, ${offline} offline` : "";
  return state === "running"
    ? `${tunnel_ip}, ${reached} of ${peers.length - offline} peers reached${away}`
    : state;
}

function parseOwnEndpoint(text: string): Endpoint {
  try {
    const endpoint = parseEndpoint(text);
    if (isUsableEndpoint(endpoint)) return endpoint;
  } catch {
    // told below
  }
  throw new UsageError(
    `--endpoint ${JSON.stringify(text)} is no address that others can send to`,
    "Give IP address and port, as in --endpoint 203.0.113.7:7777",
  );
}

/** A host name may be anything, a tab too. */
function ownName(): string {
  return Deno.hostname().replace(/\p{C}+/gu, "-");
}

function checkName(name: string): string {
  if ([...name].length <= MAX_NAME_LENGTH) return name;
  throw new UsageError(
    `--node-name has ${[...name].length} characters`,
    `Give one of at most ${MAX_NAME_LENGTH}`,
  );
}
