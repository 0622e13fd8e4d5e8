/** Looks at everything at once, within a time limit: what has been found until then is reported. */
import { type Endpoint, equalEndpoints, type Family, familyOf } from "../addr.ts";
import { askStunServers } from "../coord/client.ts";
import type { Dialer } from "../dial/mod.ts";
import { aborted, systemClock, systemRandom } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { RtNetlink } from "../netlink.ts";
import { findGateway, probePortMapping } from "../portmap/mod.ts";
import {
  DEFAULT_STUN_PORT,
  filteringBehaviour,
  type FilteringTest,
  mappingBehaviour,
  resolveServers,
  type StunAnswer,
  type StunServer,
  testFiltering,
} from "../stun/mod.ts";
import type {
  CoordinatorReport,
  FamilyReport,
  NetReport,
  PortMapReport,
  ServerReport,
} from "./report.ts";
import { findNarrowPath } from "./path_mtu.ts";
import { StunSocket } from "./socket.ts";

const COORDINATOR_MS = 3000;
const RESOLVE_MS = 3000;
const STUN_MS = 3000;
/** How long the first answer waits for others. */
const STUN_GRACE_MS = 1000;
const FILTERING_MS = 1500;
const HAIRPIN_MS = 800;
const PATH_MTU_MS = 6000;
const HAIRPIN_PAUSE_MS = 100;
/** Each takes a few packets and tells the same. */
const MAX_FILTERING_TESTS = 3;
const PROBE_LENGTH = 20;

export interface NetCheckOptions {
  /** STUN servers; where there are none, those of the coordinator. */
  serverNames: readonly string[];
  /** Where the coordinator has none either. */
  fallbackNames: readonly string[];
  coordinator?: URL;
  /** To the coordinator; the system's where there is none. */
  dialer?: Dialer;
  /** Local UDP port to ask from; a free one unless told. */
  port?: number;
  /** For all of it. */
  timeoutMs: number;
  signal: AbortSignal;
}

/** Time left, and who may end it earlier. */
interface Limit {
  left(atMostMs: number): number;
  signal: AbortSignal;
  /** Of STUN: those of the coordinator are asked. */
  hasOurServers: boolean;
}

/** Throws `GretunError` where the port cannot be had, and the signal's reason. */
export async function checkNetwork(options: NetCheckOptions): Promise<NetReport> {
  const { timeoutMs, signal } = options;
  const endMs = systemClock.nowMs() + timeoutMs;
  const limit: Limit = {
    left: (atMostMs) => Math.max(0, Math.min(atMostMs, endMs - systemClock.nowMs())),
    signal,
    hasOurServers: options.serverNames.length === 0 && options.coordinator !== undefined,
  };
  const [portMap, found] = await Promise.all([
    checkPortMapping(limit),
    checkServers(options, limit),
  ]);
  signal.throwIfAborted();
  return { ...found, ...(portMap ? { portMap } : {}) };
}

async function checkServers(
  { serverNames, fallbackNames, coordinator: url, dialer, port }: NetCheckOptions,
  limit: Limit,
): Promise<NetReport> {
  const asked = url && checkCoordinator(url, dialer, limit);
  const told = serverNames.length > 0 ? serverNames : (await asked)?.stun ?? [];
  const names = new Set(told.length > 0 ? told : fallbackNames);
  const servers = await resolve([...names], limit);
  const udp = await checkUdp(
    servers.flatMap((s) => s.endpoint ? [s as StunServer] : []),
    port,
    limit,
  );
  const coordinator = (await asked)?.report;
  return {
    servers: servers.map((server) => withLatency(server, udp.answers)),
    ...udp.found,
    ...(coordinator ? { coordinator } : {}),
  };
}

async function checkCoordinator(
  url: URL,
  dialer: Dialer | undefined,
  limit: Limit,
): Promise<{ report: CoordinatorReport; stun: string[] }> {
  const report = { url: url.href.replace(/\/+$/, "") };
  const ownServer = [`${url.hostname}:${DEFAULT_STUN_PORT}`];
  const timeout = AbortSignal.timeout(limit.left(COORDINATOR_MS));
  const startMs = systemClock.nowMs();
  try {
    const either = AbortSignal.any([limit.signal, timeout]);
    const stun = await askStunServers(url, either, dialer);
    const rttMs = systemClock.nowMs() - startMs;
    return { report: { ...report, rttMs }, stun: stun ?? ownServer };
  } catch (error) {
    const hint = error instanceof GretunError ? `. ${error.hint}` : "";
    const why = timeout.aborted ? "no answer in time" : errorText(error) + hint;
    return { report: { ...report, error: why }, stun: ownServer };
  }
}

/** In the order of the names, IPv4 first. */
async function resolve(names: readonly string[], limit: Limit): Promise<ServerReport[]> {
  const timeUp = AbortSignal.timeout(limit.left(RESOLVE_MS));
  const either = AbortSignal.any([limit.signal, timeUp]);
  const over = aborted(either).then((): StunServer[] => []);
  const found = await Promise.all(names.map(async (name): Promise<ServerReport[]> => {
    const ofFamily = (family: Family) =>
      Promise.race([over, resolveServers([name], { family }).catch(() => [])]);
    const servers = (await Promise.all([ofFamily(4), ofFamily(6)])).flat();
    return servers.length > 0 ? servers : [{ name }];
  }));
  return found.flat();
}

function withLatency(server: ServerReport, answers: readonly StunAnswer[]): ServerReport {
  const answer = answers.find((answer) => isOf(answer.server, server));
  return answer
    ? { name: server.name, endpoint: answer.server.endpoint, rttMs: answer.rttMs }
    : server;
}

/** Another address of the name may have answered. */
function isOf(answered: StunServer, { name, endpoint, others = [] }: Partial<StunServer>): boolean {
  return answered.name === name &&
    [endpoint, ...others].some((each) => each && equalEndpoints(each, answered.endpoint));
}

// --- UDP

interface UdpFound {
  found: Pick<NetReport, "ipv4" | "ipv6" | "hairpins">;
  answers: StunAnswer[];
}

/** `port` is that of the IPv4 socket: one port is enough to tell how a NAT treats it. */
async function checkUdp(
  servers: readonly StunServer[],
  port: number | undefined,
  limit: Limit,
): Promise<UdpFound> {
  const ofFamily = (family: Family) =>
    servers.filter(({ endpoint }) => familyOf(endpoint.ip) === family);
  const [ipv4, ipv6] = await Promise.all([
    checkFamily(4, ofFamily(4), port, limit),
    checkFamily(6, ofFamily(6), undefined, limit),
  ]);
  return {
    found: {
      ...(ipv4 ? { ipv4: ipv4.report } : {}),
      ...(ipv6 ? { ipv6: ipv6.report } : {}),
      ...(ipv4?.hairpins === undefined ? {} : { hairpins: ipv4.hairpins }),
    },
    answers: [...ipv4?.answers ?? [], ...ipv6?.answers ?? []],
  };
}

interface FamilyFound {
  report: FamilyReport;
  answers: StunAnswer[];
  hairpins?: boolean;
}

/** Undefined where no server answers. */
async function checkFamily(
  family: Family,
  servers: readonly StunServer[],
  port: number | undefined,
  limit: Limit,
): Promise<FamilyFound | undefined> {
  if (servers.length === 0) return undefined;
  using socket = open(family, port);
  if (!socket) return undefined;
  const { signal } = limit;
  const timing = { timeoutMs: limit.left(STUN_MS), graceMs: STUN_GRACE_MS, signal };
  const answers = await socket.client.query(servers, timing);
  const [first] = answers;
  if (!first) return undefined;
  const { mapped } = first;
  const isTranslated = !isOwn(mapped, socket.port);
  const [tests, hairpins, narrowPath] = await Promise.all([
    testFilters(socket, answers, limit),
    isTranslated && family === 4 ? checkHairpin(socket, first, limit) : undefined,
    findNarrowPath({
      ...{ server: first.server, isOurs: limit.hasOurServers, signal },
      leftMs: () => limit.left(PATH_MTU_MS),
    }),
  ]);
  const all = [...answers, ...tests.flatMap(({ answers }) => answers)];
  const report: FamilyReport = {
    mapped,
    localPort: socket.port,
    isTranslated,
    mapping: isTranslated ? mappingBehaviour(all) : "endpoint-independent",
    filtering: filteringBehaviour(tests.map(({ sighting }) => sighting)),
    ...(narrowPath ? { narrowPath } : {}),
  };
  return { report, answers, ...(hairpins === undefined ? {} : { hairpins }) };
}

/** Undefined where this host has no IPv6 at all. */
function open(family: Family, port: number | undefined): StunSocket | undefined {
  try {
    return new StunSocket(family, port);
  } catch (error) {
    if (family === 6) return undefined;
    throw error;
  }
}

function isOwn(mapped: Endpoint, localPort: number): boolean {
  using rtnl = RtNetlink.open();
  return mapped.port === localPort && rtnl.addresses().some(({ local }) => local === mapped.ip);
}

function testFilters(
  asking: StunSocket,
  answers: readonly StunAnswer[],
  limit: Limit,
): Promise<FilteringTest[]> {
  const able = answers.flatMap(({ server, other }) => other ? [{ server, other }] : []);
  return Promise.all(
    able.slice(0, MAX_FILTERING_TESTS).map(async ({ server, other }) => {
      using fresh = new StunSocket(familyOf(server.endpoint.ip));
      return await testFiltering({
        fresh: fresh.client,
        asking: asking.client,
        server,
        other,
        timeoutMs: limit.left(2 * FILTERING_MS) / 2,
        signal: limit.signal,
      });
    }),
  );
}

/** Two sockets send to each other's mapped address, as two hosts behind this NAT would. */
async function checkHairpin(
  socket: StunSocket,
  { server, mapped }: StunAnswer,
  limit: Limit,
): Promise<boolean | undefined> {
  using other = new StunSocket(4);
  const { signal } = limit;
  const [answer] = await other.client.query([server], { timeoutMs: limit.left(STUN_MS), signal });
  if (!answer) return undefined;
  const probe = systemRandom(PROBE_LENGTH);
  let hasArrived = false;
  const look = (bytes: Uint8Array) => {
    hasArrived ||= bytes.length === probe.length && bytes.every((byte, i) => byte === probe[i]);
  };
  socket.onOther = other.onOther = look;
  const endMs = systemClock.nowMs() + limit.left(HAIRPIN_MS);
  while (!hasArrived && systemClock.nowMs() < endMs) {
    socket.send(probe, answer.mapped);
    other.send(probe, mapped);
    await systemClock.sleep(HAIRPIN_PAUSE_MS, signal);
  }
  return hasArrived;
}

// --- port mapping

/** Undefined without a router, and where the time is up before it has been asked. */
async function checkPortMapping(limit: Limit): Promise<PortMapReport | undefined> {
  using rtnl = RtNetlink.open();
  const way = findGateway(rtnl);
  if (!way) return undefined;
  const timeUp = AbortSignal.timeout(limit.left(Infinity));
  try {
    const signal = AbortSignal.any([limit.signal, timeUp]);
    return { gateway: way.gateway, protocols: await probePortMapping({ ...way, signal }) };
  } catch (error) {
    if (timeUp.aborted || limit.signal.aborted) return undefined;
    throw error;
  }
}
