/** The coordinator program: flags, store, serve, stop on a signal. */
import { type Cidr, familyOf, formatCidr, type Ip, parseCidr } from "./lib/addr.ts";
import { errorLine, EXIT_OK, exitCode } from "./lib/cli/command.ts";
import { doubleDashed, flagsHelp, parseFlags } from "./lib/cli/flags.ts";
import { ALL, type ListenAddress, openListen, parseListen, serveHttp } from "./lib/cli/listen.ts";
import { serveMetrics } from "./lib/cli/metrics_server.ts";
import { openRelay, RELAY_FLAGS, relayKeys, relaySettings } from "./lib/cli/coord/relay.ts";
import { publicKeyOf, type Sign, signer } from "./lib/coord/auth.ts";
import { CoordClient, parseCoordinatorUrl } from "./lib/coord/client.ts";
import { RelayRole } from "./lib/coord/relay_role.ts";
import { RelayDirectory } from "./lib/coord/relays.ts";
import { CoordServer, type CoordServerOptions } from "./lib/coord/server.ts";
import { SqliteStore } from "./lib/coord/sqlite.ts";
import type { Store } from "./lib/coord/store.ts";
import { type Log, systemClock, systemRandom } from "./lib/edges.ts";
import { errorText, GretunError, UsageError } from "./lib/errors.ts";
import { KEY_LENGTH, keyBase64, type NodeKey } from "./lib/keys.ts";
import { sourceAddress } from "./lib/linux/mod.ts";
import { textLog } from "./lib/log.ts";
import { StunService } from "./lib/stun/mod.ts";
import denoJson from "./deno.json" with { type: "json" };

const FLAGS = {
  listen: {
    type: "string",
    default: ":8443",
    placeholder: "HOST:PORT",
    help: "where HTTP or HTTPS is served",
  },
  pool: {
    type: "string",
    default: "100.64.0.0/24",
    placeholder: "CIDR",
    help: "addresses for nodes",
  },
  cert: { type: "string", placeholder: "FILE", help: "certificate, PEM; with --key: HTTPS" },
  key: { type: "string", placeholder: "FILE", help: "private key of the certificate, PEM" },
  state: {
    type: "string",
    placeholder: "FILE",
    help: "database (default /var/lib/gretun-coord/coord.db as root), or :memory:",
  },
  "stun-listen": {
    type: "list",
    placeholder: "HOST:PORT",
    help: "UDP port of the STUN server, repeatable, or off (default :3478, and :3480 besides)",
  },
  "stun-advertise": {
    type: "list",
    placeholder: "HOST:PORT",
    help: "STUN servers that nodes are told of (default: this one)",
  },
  ...RELAY_FLAGS,
  "metrics-addr": {
    type: "string",
    placeholder: "HOST:PORT",
    help: "serve the relay's Prometheus metrics at /metrics (default off)",
  },
  debug: { type: "boolean", help: "serve /debug/peers to everybody" },
  verbose: { type: "boolean", short: "v", help: "log more" },
} as const;

type Handle = (request: Request, source: string) => Response | Promise<Response>;

const EDGES = { clock: systemClock, random: systemRandom };
/** Answers come from there when a node wants to know how its NAT filters. */
const SECOND_STUN_PORT = 3480;
const SHUTDOWN_MS = 3_000;
const RESTART_MS = 500;

const write = (stream: { writeSync(bytes: Uint8Array): number }, text: string) =>
  void stream.writeSync(new TextEncoder().encode(text));

async function main(words: string[]): Promise<number> {
  const args = doubleDashed(words, [...Object.keys(FLAGS), "help", "version"]);
  if (args.includes("--help") || args.includes("-h")) {
    write(Deno.stdout, `Usage: gretun-coord [flags]\n\n${flagsHelp(FLAGS)}\n`);
    return EXIT_OK;
  }
  if (args.includes("--version")) {
    write(Deno.stdout, `gretun-coord ${denoJson.version}\n`);
    return EXIT_OK;
  }
  try {
    await serve(parseFlags(args, FLAGS));
    return EXIT_OK;
  } catch (error) {
    write(Deno.stderr, errorLine(error) + "\n");
    return exitCode(error);
  }
}

type Flags = ReturnType<typeof parseFlags<typeof FLAGS>>;

async function serve(flags: Flags): Promise<void> {
  const log = textLog(
    (line) => write(Deno.stderr, line),
    flags.verbose ? "debug" : "info",
    systemClock,
  );
  if (flags["relay-only"]) return await serveRelay(flags, log);
  if (flags.coordinator !== undefined) {
    throw new UsageError("--coordinator is given without --relay-only", "Give both, or none");
  }
  const listen = parseListen("listen", flags.listen);
  const stunListen = flags["stun-listen"].length > 0 ? flags["stun-listen"] : [":3478"];
  const stunEndpoints = stunListen[0] === "off"
    ? []
    : stunListen.map((text) => parseListen("stun-listen", text));
  const relayed = relaySettings(flags);
  const allowed = relayKeys(flags["relay-key"]);
  const metricsAddr = flags["metrics-addr"];
  const metricsListen = metricsAddr ? parseListen("metrics-addr", metricsAddr) : undefined;
  const tls = await readTls(flags.cert, flags.key);
  using store = openStore(flags.state ?? defaultState());
  const { publicKey: grantKey, sign } = await ownKey(store);
  const pool = parsePool(flags.pool);
  const advertised = flags["stun-advertise"].length > 0
    ? flags["stun-advertise"]
    : [...new Set(stunEndpoints.map(({ port }) => `:${port}`))];
  const own = relayed && { relayKey: grantKey, udp: relayed.advertise, ws: "" };
  const coord = openCoordinator({
    pool,
    store,
    clock: systemClock,
    log,
    stun: advertised,
    debug: flags.debug,
    relays: {
      directory: new RelayDirectory({ allowed, ...(own ? { own } : {}) }),
      grantKey,
      sign,
      ...(relayed
        ? { acceptWebSocket: (request, source) => relay!.server.acceptWebSocket(request, source) }
        : {}),
    },
  });
  const stop = stopSignal();
  // A state without nodes has no earlier run whose signatures could be repeated.
  if (store.nodes().length > 0) await nextSecond();
  const stun = new StunService({ signal: stop, log, localAddress });
  for (const address of stunEndpoints) await startStun(stun, address);
  if (flags["stun-listen"].length === 0) await startSecondStun(stun, log);
  using relay = relayed &&
    openRelay(relayed, { relayKey: grantKey, grantKey: () => grantKey }, { ...EDGES, log });
  await using _metrics = metricsListen && relay
    ? await serveMetrics(metricsListen, relay.server.metrics, log)
    : undefined;
  const handle: Handle = (request, source) => coord.handle(request, source);
  const start = (address: ListenAddress) => serveHttp({ ...address, ...tls, signal: stop }, handle);
  const servers = await startHttp(listen, start, tls !== undefined);
  log.info("coordinator listening", {
    addr: flags.listen,
    pool: formatCidr(pool),
    tls: tls !== undefined,
    stun: advertised.join(","),
    relay: relayed?.advertise,
  });
  const serving = Promise.all(servers.map((server) => keepServing(server, stop, log)));
  await Promise.race([coord.run(stop), serving]);
  log.info("coordinator shutting down");
  await Promise.race([serving, systemClock.sleep(SHUTDOWN_MS)]);
}

/** A relay of another coordinator, which tells nodes of it. */
async function serveRelay(flags: Flags, log: Log): Promise<void> {
  const settings = relaySettings(flags);
  if (!settings || flags.coordinator === undefined) {
    throw new UsageError(
      settings ? "--relay-only without --coordinator" : "--relay-only with --relay-listen off",
      "Give the URL of the coordinator whose relay to be, and a port to listen on",
    );
  }
  const coordinator = parseCoordinatorUrl(flags.coordinator);
  const listen = parseListen("listen", flags.listen);
  const metricsAddr = flags["metrics-addr"];
  const metricsListen = metricsAddr ? parseListen("metrics-addr", metricsAddr) : undefined;
  const tls = await readTls(flags.cert, flags.key);
  using store = openStore(flags.state ?? defaultState());
  const { publicKey: relayKey, sign } = await ownKey(store);
  const stop = stopSignal();
  const host = settings.advertise.replace(/:\d+$/, "");
  using client = new CoordClient({
    url: coordinator.href,
    identity: { nodeKey: relayKey, sign },
    ...EDGES,
  });
  const role = new RelayRole({
    coordinator: client,
    registration: {
      udp: settings.advertise,
      http: `${host}:${listen.port}`,
      tls: tls !== undefined,
    },
    relayKey,
    clock: systemClock,
    log,
  });
  const keys = { relayKey, grantKey: () => role.grantKey };
  using relay = openRelay(settings, keys, { ...EDGES, log });
  await using _metrics = metricsListen
    ? await serveMetrics(metricsListen, relay.server.metrics, log)
    : undefined;
  const handle: Handle = (request, source) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/v1/relay/ws") return relay.server.acceptWebSocket(request, source);
    if (pathname === "/healthz") return new Response("ok\n");
    return new Response("not found\n", { status: 404 });
  };
  const start = (address: ListenAddress) => serveHttp({ ...address, ...tls, signal: stop }, handle);
  const servers = await startHttp(listen, start, tls !== undefined);
  const key = keyBase64(relayKey);
  log.info("relay listening", { addr: flags["relay-listen"], http: flags.listen, key });
  const serving = Promise.all(servers.map((server) => keepServing(server, stop, log)));
  await Promise.race([role.run(stop), serving]);
  log.info("relay shutting down");
  await Promise.race([serving, systemClock.sleep(SHUTDOWN_MS)]);
}

/** Of the coordinator, or of a relay of its own: made once, kept in the state. */
async function ownKey(store: Store): Promise<{ publicKey: NodeKey; sign: Sign }> {
  const seed = store.seed("relay", systemRandom(KEY_LENGTH));
  return { publicKey: await publicKeyOf(seed), sign: await signer(seed) };
}

interface HttpListener {
  server: Deno.HttpServer;
  start: () => Deno.HttpServer;
}

async function startHttp(
  listen: ListenAddress,
  start: (address: ListenAddress) => Deno.HttpServer,
  hasTls: boolean,
): Promise<HttpListener[]> {
  try {
    return await openListen(listen, (address) => ({
      server: start(address),
      start: () => start(address),
    }));
  } catch (cause) {
    throw new GretunError(
      `cannot listen on ${listen.hostname}:${listen.port}: ${errorText(cause)}`,
      hasTls ? "Check --listen, --cert and --key" : "Choose another address with --listen",
      { cause },
    );
  }
}

/** A server that fails, as when files run out, is started again. */
async function keepServing(
  { server: first, start }: HttpListener,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  for (let server: Deno.HttpServer | undefined = first; !stop.aborted; server = undefined) {
    try {
      await (server ?? start()).finished;
    } catch (error) {
      log.error("HTTP server failed, starting it again", { error: errorText(error) });
      await systemClock.sleep(RESTART_MS, stop).catch(() => {});
    }
  }
}

function localAddress(to: Ip): Ip | undefined {
  return familyOf(to) === 4 ? sourceAddress(to) : undefined;
}

async function startStun(stun: StunService, address: ListenAddress): Promise<void> {
  try {
    await openListen(address, (each) => stun.listen(each));
  } catch (cause) {
    throw new GretunError(
      `cannot serve STUN on ${address.hostname}:${address.port}: ${errorText(cause)}`,
      "Choose another address with --stun-listen, or turn it off with --stun-listen off",
      { cause },
    );
  }
}

/** Nothing depends on it but what nodes learn about their NATs. */
async function startSecondStun(stun: StunService, log: Log): Promise<void> {
  try {
    await openListen({ hostname: ALL, port: SECOND_STUN_PORT }, (each) => stun.listen(each));
  } catch (error) {
    log.warn("no second STUN port", { port: SECOND_STUN_PORT, error: errorText(error) });
  }
}

async function readTls(cert: string | undefined, key: string | undefined) {
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined) {
    throw new UsageError(
      `--${cert === undefined ? "key" : "cert"} is given alone`,
      "Give both --cert and --key for HTTPS, or none",
    );
  }
  try {
    return { cert: await Deno.readTextFile(cert), key: await Deno.readTextFile(key) };
  } catch (cause) {
    throw new GretunError(
      `cannot read the certificate: ${errorText(cause)}`,
      "Check --cert and --key",
      { cause },
    );
  }
}

function parsePool(text: string): Cidr {
  try {
    const pool = parseCidr(text);
    if (familyOf(pool.ip) === 4 && pool.prefixLength >= 8 && pool.prefixLength <= 30) return pool;
  } catch {
    // said below
  }
  throw new UsageError(
    `--pool ${JSON.stringify(text)} is no pool of addresses`,
    "Give an IPv4 prefix from /8 to /30, such as 100.64.0.0/24",
  );
}

function defaultState(): string {
  if (Deno.uid() === 0) return "/var/lib/gretun-coord/coord.db";
  const home = Deno.env.get("XDG_STATE_HOME") ?? `${Deno.env.get("HOME") ?? "."}/.local/state`;
  return `${home}/gretun-coord/coord.db`;
}

/** The database's directory and file are this user's alone. */
function openStore(path: string): Store {
  if (path !== ":memory:") {
    const directory = path.includes("/") ? path.replace(/\/[^/]*$/, "") || "/" : ".";
    try {
      Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
      Deno.openSync(path, { write: true, create: true, mode: 0o600 }).close();
    } catch (cause) {
      throw new GretunError(
        `cannot write ${path}: ${errorText(cause)}`,
        "Give a file that you may write with --state, or :memory:",
        { cause },
      );
    }
  }
  return SqliteStore.open(path);
}

function openCoordinator(options: CoordServerOptions): CoordServer {
  try {
    return new CoordServer(options);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new GretunError(
      `--pool ${formatCidr(options.pool)} does not fit the state: ${cause.message}`,
      "Give the pool that the state was made with, or another --state",
      { cause },
    );
  }
}

/** Requests are dated in whole seconds: one from before a restart must look older than it. */
function nextSecond(): Promise<void> {
  return systemClock.sleep(1001 - systemClock.wallMs() % 1000);
}

function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(name, () => controller.abort());
  }
  return controller.signal;
}

Deno.exit(await main(Deno.args));
