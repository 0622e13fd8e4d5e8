/** What a daemon is given of the world; {@link systemEdges} is the real one. */
import type { CoordHttp } from "../coord/client.ts";
import type { Dialer, HttpClient } from "../dial/mod.ts";
import { type Clock, type Log, type Random, systemClock, systemRandom } from "../edges.ts";
import { icmpSockets, ping } from "../health/mod.ts";
import { type Host, linuxHost } from "../host/mod.ts";
import type { Sign } from "../ed25519.ts";
import { Poller } from "../linux/mod.ts";
import { type PortMapNet, systemNet } from "../portmap/mod.ts";
import { type StandInLine, type StandInOptions, StandIns } from "../relay/mod.ts";
import { openStateDir } from "../state_dir.ts";
import { type Lookup, systemLookup } from "../lookup.ts";
import { type Asked, serveControl } from "./control.ts";
import type { InnerLink } from "./inner_checks.ts";
import type { KnownFile } from "./known.ts";

/** Longer than any path takes on which TCP is of use: who answers late answers. */
const PING_TIMEOUT_MS = 3_000;

export interface DaemonEdges {
  clock: Clock;
  random: Random;
  log: Log;
  /** With the node's key. */
  sign: Sign;
  host: Host;
  /** Calls to the coordinator. */
  http: CoordHttp;
  lookup: Lookup;
  /** A connection to a relay, and the socket on loopback that stands for the peer. */
  openStandIn: (options: StandInOptions, signal: AbortSignal) => Promise<StandInLine>;
  /** The round trip in ms of a ping by that link; undefined: no answer in 3 s. */
  pingThrough: (link: InnerLink) => Promise<number | undefined>;
  /** How routers are asked for a port. */
  portMapNet: PortMapNet;
  /** What is remembered of others. */
  knownFile: KnownFile;
  /** Answers those who ask what the daemon does; throws `GretunError`. */
  serveControl: (asked: Omit<Asked, "down">) => Promise<AsyncDisposable>;
}

export interface SystemEdgesOptions {
  log: Log;
  sign: Sign;
  /** Calls to the coordinator. */
  http: HttpClient;
  /** To relays by WebSocket. */
  dialer: Dialer;
  stateDir: string;
  /** Where the daemon is asked, by its user and by a group. */
  control: { path: string; groupId?: number };
  /** Somebody asks the daemon to end. */
  onDown: () => void;
}

/** To be disposed when the daemon has ended. */
export function systemEdges(
  { log, sign, http, dialer, stateDir, control, onDown }: SystemEdgesOptions,
): DaemonEdges & AsyncDisposable {
  const host = linuxHost();
  const standIns = new StandIns();
  return {
    clock: systemClock,
    random: systemRandom,
    log,
    sign,
    host,
    http,
    lookup: systemLookup,
    openStandIn: (options, signal) => standIns.open({ ...options, dialer }, signal),
    pingThrough,
    portMapNet: systemNet,
    knownFile: knownFileIn(stateDir),
    serveControl: (asked) =>
      serveControl(control.path, { ...asked, down: onDown }, control.groupId),
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  };
}

const KNOWN = "known.json";

/** Throws `GretunError`. */
function knownFileIn(stateDir: string): KnownFile {
  const directory = openStateDir(stateDir);
  return {
    path: `${stateDir}/${KNOWN}`,
    read: () => directory.read(KNOWN),
    write: (text) => directory.write(KNOWN, text),
  };
}

async function pingThrough({ ip, ifname: device }: InnerLink): Promise<number | undefined> {
  await using poller = new Poller();
  const [result] = await ping(ip, {
    ...{ count: 1, intervalMs: 0, timeoutMs: PING_TIMEOUT_MS },
    ...{ clock: systemClock, random: systemRandom, open: icmpSockets({ poller, device }) },
  });
  return result?.rttMs;
}
