/** `gretun-coord serve`: the coordinator, with its STUN server and its relay. */
import { type Cidr, familyOf, formatCidr, parseCidr } from "../../addr.ts";
import {
  CoordMetrics,
  RelayDirectory,
  signingKey,
  type Store,
  storedSeed,
} from "../../coord/serve.ts";
import { CoordServer, type CoordServerOptions } from "../../coord/server.ts";
import { type Log, systemClock, systemRandom } from "../../edges.ts";
import { errorText, GretunError, UsageError } from "../../errors.ts";
import { keyBase64 } from "../../keys.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { doubleDashed, flagsHelp } from "../flags.ts";
import { returnMemory } from "../memory.ts";
import { metricsListen } from "../listen.ts";
import { openLog } from "../log.ts";
import { systemManager } from "../service.ts";
import { environmentOf, readSettings, readSettingsFile } from "../settings.ts";
import { serveMetrics } from "../metrics_server.ts";
import { warnOfCollisions } from "./collisions.ts";
import { openControl } from "./control.ts";
import { keyPath, openKeySeed } from "./coordinator_key.ts";
import { httpSettings, MIN_FILES, openHttp } from "./http.ts";
import { onHangup, openPolicy } from "./policy_file.ts";
import { openRelay, relayKeys, relaySettings } from "./relay.ts";
import { relayOnly, type ServeWorld } from "./relay_only.ts";
import { SERVE_FLAGS, type ServeFlags } from "./serve_flags.ts";
import { requireFiles } from "../privilege.ts";
import { openStore } from "./open_store.ts";
import { IN_MEMORY, statePath } from "./state.ts";
import { startStun, stunSettings } from "./stun.ts";
import denoJson from "../../../deno.json" with { type: "json" };

export const command: Command = {
  summary: "be the coordinator of an overlay",
  help: () =>
    `Usage: gretun-coord [serve] [flags]

A setting can also stand in the environment (--listen as GRETUN_LISTEN) or in a configuration file
(listen :8443). A flag wins over the environment, and that over the file.

${flagsHelp(SERVE_FLAGS)}
`,
  run,
};

const DEFAULT_CONFIG = "/etc/gretun/coord.conf";
const EDGES = { clock: systemClock, random: systemRandom };

async function run(args: string[], io: CommandIo): Promise<number> {
  const words = doubleDashed(args, Object.keys(SERVE_FLAGS));
  const file = readSettingsFile(words, DEFAULT_CONFIG);
  const environment = environmentOf(SERVE_FLAGS);
  const flags = readSettings(words, SERVE_FLAGS, { environment, ...(file ? { file } : {}) });
  const log = openLog(io, flags["log-format"], flags.verbose ? "debug" : "info");
  const run = flags["relay-only"] ? relayOnly(flags) : coordinator(flags);
  // Without one there is nothing to read again, and the end of the terminal ends it in order.
  io.outlivesHangup = flags.policy !== undefined && !flags["relay-only"];
  if (flags["check-config"]) {
    io.stdout(`${file?.path ?? "The settings"}: no problem found\n`);
    return EXIT_OK;
  }
  using manager = systemManager();
  await run({ log, manager, stop: io.signal });
  return EXIT_OK;
}

/** What it gives serves until the signal. */
function coordinator(flags: ServeFlags): (world: ServeWorld) => Promise<void> {
  const settings = settingsOf(flags);
  return (world) => serve(settings, world);
}

/** Throws `UsageError`. */
function settingsOf(flags: ServeFlags) {
  if (flags.coordinator !== undefined) {
    throw new UsageError("--coordinator is given without --relay-only", "Give both, or none");
  }
  const stun = stunSettings(flags);
  const relayed = relaySettings(flags);
  const allowed = relayKeys(flags["relay-key"]);
  const metricsAt = metricsListen(flags);
  const http = httpSettings(flags);
  const pool = parsePool(flags.pool);
  const policy = flags.policy === undefined ? undefined : openPolicy(flags.policy);
  const state = statePath(flags.state);
  return { flags, stun, relayed, allowed, metricsAt, http, pool, policy, state };
}

async function serve(
  { flags, stun, relayed, allowed, metricsAt, http, pool, policy, state }: ReturnType<
    typeof settingsOf
  >,
  { log, manager, stop }: ServeWorld,
): Promise<void> {
  requireFiles(MIN_FILES);
  using store = openStore(state);
  const key = await signingKey(keySeed(state, store, log));
  const { publicKey: grantKey, sign } = key;
  const own = relayed && { relayKey: grantKey, udp: relayed.advertise, ws: "" };
  const metrics = new CoordMetrics();
  const coord = openCoordinator({
    pool,
    store,
    clock: systemClock,
    log,
    stun: stun.advertised,
    key,
    debug: flags.debug,
    allowsV1: flags["allow-v1"],
    ...(policy ? { policy: policy.policy } : {}),
    isOpen: flags.open,
    metrics,
    relays: {
      directory: new RelayDirectory({ allowed, ...(own ? { own } : {}) }),
      grantKey,
      sign,
      ...(relayed
        ? { acceptWebSocket: (request, source) => relay!.server.acceptWebSocket(request, source) }
        : {}),
    },
  });
  // A state without nodes has no earlier run whose signatures could be repeated.
  if (store.nodes().length > 0) await nextSecond();
  using relay = relayed &&
    openRelay(relayed, { relayKey: grantKey, grantKey: () => grantKey }, { ...EDGES, log });
  const server = openHttp(http, log, (event) => metrics.connection(event));
  metrics.watchConnections(() => server.connections);
  startStun(stun, { log, signal: stop, isProven: (source) => server.isProven(source) });
  const shown = [metrics, ...(relay ? [relay.server.metrics] : [])];
  await using _metrics = await serveMetrics(metricsAt, shown, log);
  await using _control = await openControl(state, {
    server: coord,
    coordinatorKey: grantKey,
    random: systemRandom,
    ...(policy ? { policy } : {}),
    nowMs: () => systemClock.wallMs(),
    more: () => ({
      version: denoJson.version,
      listening: flags.listen,
      connections: server.connections,
    }),
  }, log);
  log.info("coordinator listening", {
    addr: flags.listen,
    key: keyBase64(grantKey),
    pool: formatCidr(pool),
    tls: http.tls !== undefined,
    stun: stun.advertised.join(","),
    relay: relayed?.advertise,
  });
  policy?.tell(log);
  warnOfCollisions(pool, log);
  if (coord.isOpen) log.warn("anybody may join: the first token closes this coordinator");
  using _memory = returnMemory();
  manager.ready(() => `${store.nodes().length} nodes`);
  using _signal = policy && onHangup(() => policy.reload(coord, log));
  const serving = server.run(
    stop,
    (request, { source, claimed }) => coord.handle(request, source, claimed),
  );
  await coord.run(stop);
  log.info("coordinator shutting down");
  await serving;
}

/** A coordinator in memory has one too: its nodes are to know it again. */
function keySeed(state: string, store: Store, log: Log): Uint8Array {
  const fresh = storedSeed(store, systemRandom);
  try {
    return openKeySeed(keyPath(state), fresh);
  } catch (error) {
    if (state !== IN_MEMORY) throw error;
    log.warn("key not kept: nodes will not take this coordinator after a restart", {
      error: errorText(error),
    });
    return fresh;
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
