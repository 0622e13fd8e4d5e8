/** `gretun-coord --relay-only`: a relay of another coordinator, which tells nodes of it. */
import { type ClockNews, CoordClient, parseCoordinatorUrl } from "../../coord/client.ts";
import { type HttpHandler, RelayRole, signingKey, storedSeed } from "../../coord/serve.ts";
import { systemDialer } from "../../dial/mod.ts";
import { type Log, systemClock, systemRandom } from "../../edges.ts";
import { UsageError } from "../../errors.ts";
import { keyBase64 } from "../../keys.ts";
import { textAnswer } from "../../server_http.ts";
import { parseCoordinatorKey } from "../coordinator_key.ts";
import { metricsListen } from "../listen.ts";
import { serveMetrics } from "../metrics_server.ts";
import type { ServiceManager } from "../../service/mod.ts";
import { httpSettings, MIN_FILES, openHttp } from "./http.ts";
import { openRelay, relaySettings } from "./relay.ts";
import type { ServeFlags } from "./serve_flags.ts";
import { requireFiles } from "../privilege.ts";
import { openStore } from "./open_store.ts";
import { statePath } from "./state.ts";

const EDGES = { clock: systemClock, random: systemRandom };

export interface ServeWorld {
  log: Log;
  manager: ServiceManager;
  stop: AbortSignal;
}

/** Checks the settings; what it gives serves until the signal. Throws `GretunError`. */
export function relayOnly(flags: ServeFlags): (world: ServeWorld) => Promise<void> {
  const settings = settingsOf(flags);
  return (world) => serve(settings, world);
}

function settingsOf(flags: ServeFlags) {
  const settings = relaySettings(flags);
  if (!settings || flags.coordinator === undefined) {
    throw new UsageError(
      settings ? "--relay-only without --coordinator" : "--relay-only with --relay-listen off",
      "Give the URL of the coordinator whose relay to be, and a port to listen on",
    );
  }
  const coordinator = parseCoordinatorUrl(flags.coordinator);
  const keyText = flags["coordinator-key"];
  const coordinatorKey = keyText === undefined ? undefined : parseCoordinatorKey(keyText);
  const metricsAt = metricsListen(flags);
  const http = httpSettings(flags);
  return { flags, settings, coordinator, coordinatorKey, metricsAt, http };
}

async function serve(
  { flags, settings, coordinator, coordinatorKey, metricsAt, http }: ReturnType<
    typeof settingsOf
  >,
  { log, manager, stop }: ServeWorld,
): Promise<void> {
  requireFiles(MIN_FILES);
  using store = openStore(statePath(flags.state));
  const { publicKey: relayKey, sign } = await signingKey(storedSeed(store, systemRandom));
  const host = settings.advertise.replace(/:\d+$/, "");
  using client = new CoordClient({
    url: coordinator.href,
    identity: { nodeKey: relayKey, sign },
    ...(coordinatorKey ? { coordinatorKey } : {}),
    onFirstContact: (met) => log.info("first contact", { coordinator_key: keyBase64(met) }),
    onClock: (news) => tellClock(log, news),
    dialer: systemDialer(flags.ca === undefined ? {} : { caFile: flags.ca }),
    ...EDGES,
  });
  const role = new RelayRole({
    coordinator: client,
    registration: {
      udp: settings.advertise,
      http: `${host}:${http.listen.port}`,
      tls: http.tls !== undefined,
    },
    relayKey,
    clock: systemClock,
    log,
  });
  const keys = { relayKey, grantKey: () => role.grantKey };
  using relay = openRelay(settings, keys, { ...EDGES, log, wallMs: () => client.wallMs() });
  await using _metrics = await serveMetrics(metricsAt, [relay.server.metrics], log);
  const server = openHttp(http, log);
  const key = keyBase64(relayKey);
  log.info("relay listening", { addr: flags["relay-listen"], http: flags.listen, key });
  const handle: HttpHandler = (request, { source }) => {
    const { path } = request;
    if (path === "/v1/relay/ws") return relay.server.acceptWebSocket(request, source);
    return path === "/healthz" ? textAnswer(200, "ok\n") : textAnswer(404, "not found\n");
  };
  manager.ready(() => `relay of ${coordinator.href}`);
  const serving = server.run(stop, handle);
  await role.run(stop);
  log.info("relay shutting down");
  await serving;
}

function tellClock(log: Log, { aheadMs }: ClockNews): void {
  const seconds = Math.round(aheadMs / 1000);
  if (seconds === 0) return log.info("clocks agree again");
  log.warn("clocks differ", {
    coordinator: `${Math.abs(seconds)} s ${seconds > 0 ? "ahead" : "behind"}`,
    hint: "Set the one that is wrong; until then the coordinator's time is taken",
  });
}
