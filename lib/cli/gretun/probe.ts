/** `gretun probe`: whether a host answers, by ICMP echo, TCP or HTTP, and how fast. */
import { type Family, familyOf, formatEndpoint, isLinkLocal } from "../../addr.ts";
import { systemClock, systemRandom } from "../../edges.ts";
import { GretunError, InterruptedError, UsageError } from "../../errors.ts";
import {
  httpAttempt,
  icmpSockets,
  ping,
  type ProbeOptions,
  type ProbeResult,
  runProbes,
  type Statistics,
  statistics,
  tcpAttempt,
} from "../../health/mod.ts";
import { Poller } from "../../linux/mod.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, type FlagValues, parseFlags, withPositional } from "../flags.ts";
import { type HostName, parseHost, resolveHost } from "../resolve.ts";
import { printable } from "../table.ts";

const DEFAULT_THRESHOLD = 2;
const MAX_COUNT = 1_000_000;

const FLAGS = {
  target: flag.text("HOST", "name, IPv4 or IPv6 address to probe"),
  tcp: flag.integer("PORT", "connect to that port instead of pinging", { min: 1, max: 65535 }),
  "first-byte": flag.on("with --tcp: also wait for the first byte from the server"),
  http: flag.text(
    "URL",
    "send a GET request instead and wait for the response's headers; no redirects, no proxy",
  ),
  family: flag.choice(["any", "4", "6"], "any", "resolve a name to IPv4 or IPv6 only", {
    placeholder: "4|6",
  }),
  count: flag.integer("N", "number of probes", { min: 1, max: MAX_COUNT, default: 3 }),
  interval: flag.duration("TIME", "time from one probe to the next", {
    min: 1,
    max: 3_600_000,
    default: 100,
  }),
  // Below the time in which the 16-bit sequence number comes round at the shortest interval.
  timeout: flag.duration("TIME", "time limit of each probe", {
    min: 1,
    max: 60_000,
    default: 2000,
  }),
  threshold: flag.integer(
    "N",
    `answers needed to be healthy (default ${DEFAULT_THRESHOLD}, or --count if that is less)`,
    { min: 1, max: MAX_COUNT },
  ),
  size: flag.integer("BYTES", "bytes of data in each ping (default 56)", { min: 8, max: 65507 }),
  json: flag.on("JSON on standard output, after the last probe"),
} as const;

const NOTE = `The exit code is 0 when enough probes were answered, else 1. Ctrl-C ends the run and
prints what was found so far. Pings need root, CAP_NET_RAW, or a group in the sysctl
net.ipv4.ping_group_range.
`;

export const command: Command = {
  summary: "probe a host through a tunnel: ICMP echo, TCP or HTTP",
  help: () =>
    `Usage: gretun probe HOST [flags]\n` +
    `       gretun probe --http URL [flags]\n\n${flagsHelp(FLAGS)}\n\n${NOTE}`,
  run,
};

type Flags = FlagValues<typeof FLAGS>;

/** What is probed, as the flags say it. */
type Target =
  | { method: "icmp"; host: HostName; sizeBytes: number | undefined }
  | { method: "tcp"; host: HostName; port: number; firstByte: boolean }
  | { method: "http"; url: URL };

/** What is probed, ready to be probed. */
interface Subject {
  method: Target["method"];
  /** As the user gave it. */
  target: string;
  /** For the lines of text. */
  label: string;
  /** What was found out about the target, for JSON. */
  facts: { ip?: string; port?: number };
  run(options: ProbeOptions): Promise<ProbeResult[]>;
}

const HINTS = {
  icmp: "Look at the tunnel with gretun status, and whether a firewall drops ICMP echo",
  tcp: "Check that a server listens on that port there, and that no firewall drops it",
  http: "Check the server and the URL, and ping its host with gretun probe HOST",
} as const;

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(withPositional(args, "target", FLAGS), FLAGS);
  const threshold = parseThreshold(flags);
  const target = parseTarget(flags);
  const subject = await prepare(target, flags, io.signal);
  const results = await subject.run({
    count: flags.count,
    intervalMs: flags.interval,
    timeoutMs: flags.timeout,
    clock: systemClock,
    signal: io.signal,
    onResult: (result) => flags.json || io.stdout(resultLine(subject, result)),
  });
  const sums = statistics(results);
  const isHealthy = sums.received >= threshold;
  const report = { subject, results, sums, threshold, isHealthy };
  io.stdout(flags.json ? formatJson(report) : formatSummary(report));
  if (isHealthy) return EXIT_OK;
  throw new GretunError(
    `${subject.label} is unhealthy: ${sums.received} of ${sums.sent} probes were answered, ` +
      `${threshold} needed`,
    HINTS[subject.method],
  );
}

// --- what is asked for

function parseThreshold({ threshold, count }: Flags): number {
  if (threshold === undefined) return Math.min(DEFAULT_THRESHOLD, count);
  if (threshold <= count) return threshold;
  throw new UsageError(
    `--threshold ${threshold} is more than --count ${count}`,
    "Ask for no more answers than there are probes",
  );
}

function parseTarget(flags: Flags): Target {
  const { target, tcp: port, http, size: sizeBytes, "first-byte": firstByte } = flags;
  refuseMixed(flags);
  if (http !== undefined) return { method: "http", url: parseUrl(http) };
  if (target === undefined) {
    throw new UsageError("--target is missing", "Add --target HOST, or --http URL");
  }
  const host = parseHost("target", target);
  refuseOtherFamily(host, flags.family);
  if (port !== undefined) return { method: "tcp", host, port, firstByte };
  return { method: "icmp", host, sizeBytes };
}

function refuseMixed(flags: Flags): void {
  const { target, tcp, http, size, family } = flags;
  const refuse = (flag: string, other: string, hint: string): never => {
    throw new UsageError(`--${flag} cannot be given with --${other}`, hint);
  };
  const isHttp = http !== undefined;
  if (isHttp && target !== undefined) refuse("target", "http", "The URL names the host");
  if (isHttp && tcp !== undefined) refuse("tcp", "http", "Choose one of the two");
  if (isHttp && family !== "any") refuse("family", "http", "Give an address in the URL");
  if (size !== undefined && (isHttp || tcp !== undefined)) {
    refuse("size", isHttp ? "http" : "tcp", "It is the size of pings");
  }
  if (flags["first-byte"] && tcp === undefined) {
    throw new UsageError("--first-byte is for --tcp only", "Add --tcp PORT, or leave it out");
  }
}

function refuseOtherFamily(host: HostName, family: Flags["family"]): void {
  if (!("ip" in host)) return;
  if (familyOf(host.ip) === 6 && isLinkLocal(host.ip)) {
    throw new UsageError(
      `--target ${host.ip} is link-local, which does not tell the interface`,
      "Give another address of that host",
    );
  }
  if (family === "any" || Number(family) === familyOf(host.ip)) return;
  throw new UsageError(
    `--target ${host.ip} is not an address of --family ${family}`,
    "Leave out --family, or give a name",
  );
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "http:" || url?.protocol === "https:") return url;
  throw new UsageError(
    `--http ${JSON.stringify(text)} is not a URL of HTTP`,
    "Give it as in http://10.0.0.2:8080/health",
  );
}

// --- how it is probed

async function prepare(target: Target, flags: Flags, signal: AbortSignal): Promise<Subject> {
  if (target.method === "http") return httpSubject(target.url);
  const family = flags.family === "any" ? undefined : Number(flags.family) as Family;
  const ip = await resolveHost(target.host, { signal, ...(family ? { family } : {}) })
    .catch((error) => {
      throw signal.aborted
        ? new InterruptedError("interrupted", "Run it again to probe anew")
        : error;
    });
  const name = "name" in target.host ? target.host.name : ip;
  const beside = name === ip ? "" : ` (${ip})`;
  const { method } = target;
  if (method === "tcp") {
    const { port, firstByte } = target;
    const connect = (to: { ip: string; port: number }, signal: AbortSignal) =>
      Deno.connect({ hostname: to.ip, port: to.port, signal });
    return {
      method,
      target: name,
      label: name === ip ? formatEndpoint({ ip, port }) : `${name}:${port}${beside}`,
      facts: { ip, port },
      run: (options) => runProbes(tcpAttempt({ ip, port }, { connect, firstByte }), options),
    };
  }
  const size = target.sizeBytes === undefined ? {} : { sizeBytes: target.sizeBytes };
  return {
    method,
    target: name,
    label: name + beside,
    facts: { ip },
    async run(options) {
      await using poller = new Poller();
      const open = icmpSockets({ poller });
      return await ping(ip, { ...options, ...size, open, random: systemRandom });
    },
  };
}

function httpSubject(url: URL): Subject {
  const shown = new URL(url);
  [shown.username, shown.password] = ["", ""];
  return {
    method: "http",
    target: shown.href,
    label: shown.href,
    facts: {},
    async run(options) {
      ignoreProxies();
      // A new connection for each probe: otherwise all but the first would skip the handshakes.
      using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
      const get = (url: string, init: RequestInit) => fetch(url, { ...init, client });
      return await runProbes(httpAttempt(url.href, get), options);
    },
  };
}

/** A proxy would answer for the server. */
function ignoreProxies(): void {
  for (const name of ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]) {
    Deno.env.delete(name);
    Deno.env.delete(name.toLowerCase());
  }
}

// --- what is printed

interface Report {
  subject: Subject;
  results: ProbeResult[];
  sums: Statistics;
  threshold: number;
  isHealthy: boolean;
}

function resultLine({ label }: Subject, result: ProbeResult): string {
  const { sequence, rttMs, status, error } = result;
  const found = rttMs === undefined ? `error=${error}` : `rtt=${rttMs.toFixed(2)}ms`;
  const code = status === undefined ? "" : ` status=${status}`;
  return printable(`probe ${sequence}: ${label}${code} ${found}`) + "\n";
}

function formatSummary({ sums, isHealthy }: Report): string {
  const { sent, received, lossPercent, rtt } = sums;
  const counts = `${received}/${sent} answered, ${round(lossPercent, 1)}% lost`;
  const status = `status: ${isHealthy ? "healthy" : "unhealthy"}\n`;
  if (!rtt) return `\n${counts}\n${status}`;
  const times = [rtt.minMs, rtt.avgMs, rtt.maxMs, rtt.stddevMs].map((ms) => ms.toFixed(2));
  return `\n${counts}, rtt min/avg/max/stddev ${times.join("/")} ms\n${status}`;
}

function formatJson({ subject, results, sums, threshold, isHealthy }: Report): string {
  const { rtt } = sums;
  const report = {
    target: subject.target,
    method: subject.method,
    ...subject.facts,
    healthy: isHealthy,
    threshold,
    sent: sums.sent,
    received: sums.received,
    loss_percent: round(sums.lossPercent, 1),
    ...(rtt
      ? {
        min_ms: round(rtt.minMs, 3),
        avg_ms: round(rtt.avgMs, 3),
        max_ms: round(rtt.maxMs, 3),
        stddev_ms: round(rtt.stddevMs, 3),
      }
      : {}),
    results: results.map(({ wallMs, rttMs, status, error }) => ({
      target: subject.target,
      success: rttMs !== undefined,
      ...(rttMs === undefined ? {} : { rtt_ms: round(rttMs, 3) }),
      ...(status === undefined ? {} : { status }),
      ...(error === undefined ? {} : { error }),
      timestamp: new Date(wallMs).toISOString(),
    })),
  };
  return JSON.stringify(report, null, 2) + "\n";
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
