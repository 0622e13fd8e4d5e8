/** `gretun health`: pings the far end of every tunnel, once or again and again. */
import { type Ip, isUnspecified } from "../../addr.ts";
import { systemClock, systemRandom } from "../../edges.ts";
import { askDaemon, type DaemonReport } from "../../daemon/control.ts";
import { GretunError, InterruptedError, NoDaemonError, UsageError } from "../../errors.ts";
import {
  checkTunnels,
  icmpSockets,
  ping,
  type Targets,
  type TunnelHealth,
  tunnelTargets,
} from "../../health/mod.ts";
import { type DaemonMark, portHolder } from "../../links/mod.ts";
import { fileLocks, Poller } from "../../linux/mod.ts";
import { RtNetlink } from "../../netlink.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, type FlagValues, parseFlags, withPositional } from "../flags.ts";
import { LiveText, terminalSize } from "../live_text.ts";
import { isHostAddress, tryParseIp } from "../resolve.ts";
import { formatTable, printable } from "../table.ts";
import { socketToAsk, STATE_FLAGS } from "./state_dir.ts";

const FLAGS = {
  name: flag.list("NAME", "only this tunnel; repeatable"),
  watch: flag.on("repeat until Ctrl-C"),
  interval: flag.duration("TIME", "pause between rounds of --watch", {
    min: 100,
    max: 3_600_000,
    default: 5000,
  }),
  concurrency: flag.integer("N", "pings under way at once", { min: 1, max: 1000, default: 5 }),
  timeout: flag.duration("TIME", "per ping", { min: 1, max: 60_000, default: 2000 }),
  target: flag.list(
    "[NAME=]ADDRESS",
    "ping this through tunnel NAME, or through all whose far address is not known",
  ),
  ...STATE_FLAGS,
  "exit-zero": flag.on("exit with 0 even when a tunnel is down"),
  json: flag.on("JSON on standard output; with --watch one line per tunnel"),
} as const;

const NOTE = `Each tunnel's far inner address is pinged through that tunnel. It is known from a
point-to-point address, from a /30 or /31 (/126, /127), or from the only gateway or the only single
host that is routed through the tunnel. The exit code is 1 when any tunnel is down; with --watch
the last round decides. An overlay of which no peer is reached is down, too. Pings need root, CAP_NET_RAW, or a group in the sysctl
net.ipv4.ping_group_range.
`;

export const command: Command = {
  summary: "ping the far end of every tunnel",
  help: () => `Usage: gretun health [NAME...] [flags]\n\n${flagsHelp(FLAGS)}\n\n${NOTE}`,
  run,
};

type Flags = FlagValues<typeof FLAGS>;

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(withPositional(args, "name", FLAGS), FLAGS);
  const targets = parseTargets(flags.target);
  const show = presenter(flags, io);
  await using poller = new Poller();
  using rtnl = RtNetlink.open();
  let last: TunnelHealth[] | undefined;
  do {
    const round = await checkAll(rtnl, { targets, flags, poller, signal: io.signal });
    if (io.signal.aborted) break;
    show(round);
    last = round;
    if (flags.watch) await systemClock.sleep(flags.interval, io.signal).catch(() => {});
  } while (flags.watch && !io.signal.aborted);
  if (!last) throw new InterruptedError("interrupted", "Let it run for longer, or lower --timeout");
  if (!flags["exit-zero"]) refuseDown(last);
  return EXIT_OK;
}

async function checkAll(
  rtnl: RtNetlink,
  { targets, flags, poller, signal }: {
    targets: Targets;
    flags: Flags;
    poller: Poller;
    signal: AbortSignal;
  },
): Promise<TunnelHealth[]> {
  const locks = fileLocks();
  const state = {
    ...{ links: rtnl.links(), addresses: rtnl.addresses(), routes: rtnl.routes() },
    isRunning: ({ by, port }: DaemonMark) => portHolder(locks, port)?.role === by,
  };
  const limits = { count: 1, intervalMs: 0, timeoutMs: flags.timeout, signal };
  const world = { clock: systemClock, random: systemRandom };
  const overlay = await overlayTargets(
    await socketToAsk(flags),
    (port) => portHolder(locks, port)?.pid,
  );
  const tunnels = [...tunnelTargets(state, targets), ...overlay];
  const wanted = flags.name.map((name) =>
    tunnels.find((each) => each.name === name) ?? { name, fault: "there is no such tunnel" }
  );
  return await checkTunnels(wanted.length > 0 ? wanted : tunnels, {
    concurrency: flags.concurrency,
    async ping(target, device) {
      const open = icmpSockets({ poller, device });
      const [result] = await ping(target, { ...limits, ...world, open });
      return result;
    },
  });
}

/** The overlay as a whole, where all links may be gone; none where no daemon of it runs here. */
async function overlayTargets(
  socket: string,
  holderOf: (port: number) => number | undefined,
): Promise<{ name: string; fault: string }[]> {
  try {
    const report = await askDaemon(socket);
    if (holderOf(report.port ?? 0) === undefined) return []; // it is another namespace's
    const fault = overlayFault(report);
    return fault === undefined ? [] : [{ name: "gretun up", fault }];
  } catch (error) {
    if (error instanceof NoDaemonError) return [];
    throw error;
  }
}

/** Why the overlay is dead; a peer that is away does not make it so. */
export function overlayFault({ state, peers }: DaemonReport): string | undefined {
  if (state !== "running") return state;
  const isReached = peers.some(({ path }) => path !== undefined);
  const expected = peers.filter(({ offline }) => !offline);
  if (isReached || expected.length === 0) return undefined;
  return `none of ${expected.length} peers is reached`;
}

/** Throws {@link UsageError}. */
function parseTargets(texts: readonly string[]): Targets {
  const named = new Map<string, Ip>();
  let other: Ip | undefined;
  for (const text of texts) {
    const refuse = (rule: string) =>
      new UsageError(
        `--target ${JSON.stringify(text)} ${rule}`,
        "Give it as in 10.0.0.2 or tun0=10.0.0.2",
      );
    const cut = text.lastIndexOf("=");
    const name = cut < 0 ? undefined : text.slice(0, cut);
    const ip = tryParseIp(text.slice(cut + 1));
    if (!ip || name === "") throw refuse("is not ADDRESS or NAME=ADDRESS");
    if (isUnspecified(ip) || !isHostAddress(ip)) throw refuse("is not the address of one host");
    if (name === undefined ? other !== undefined : named.has(name)) {
      throw refuse(`is the second one ${name === undefined ? "without a name" : `for ${name}`}`);
    }
    if (name === undefined) other = ip;
    else named.set(name, ip);
  }
  return { named, ...(other ? { other } : {}) };
}

function refuseDown(tunnels: readonly TunnelHealth[]): void {
  const down = tunnels.filter(({ rttMs }) => rttMs === undefined).map(({ name }) => name);
  if (down.length === 0) return;
  throw new GretunError(
    printable(`${down.length} of ${tunnels.length} tunnels down: ${down.join(", ")}`),
    "Look at one with gretun status NAME, and whether a firewall drops ICMP echo",
  );
}

// --- what is printed

function presenter(flags: Flags, io: CommandIo): (tunnels: TunnelHealth[]) => void {
  const now = () => new Date(systemClock.wallMs()).toISOString();
  if (flags.watch && flags.json) {
    return (tunnels) => io.stdout(formatJsonLines(tunnels, now()));
  }
  if (flags.json) {
    return (tunnels) => io.stdout(JSON.stringify(tunnels.map(toJson), null, 2) + "\n");
  }
  if (!flags.watch) return (tunnels) => io.stdout(formatTunnels(tunnels));
  if (!terminalSize()) return (tunnels) => io.stdout(formatLines(tunnels, now()));
  const live = new LiveText();
  const heading = () => `${now()}, every ${flags.interval / 1000}s, Ctrl-C to end\n`;
  return (tunnels) => io.stdout(live.replace(heading() + formatTunnels(tunnels), terminalSize()));
}

function toJson({ name, remote, target, rttMs, error }: TunnelHealth) {
  return {
    name,
    remote: remote ?? null,
    target: target ?? null,
    healthy: rttMs !== undefined,
    rtt_ms: Number((rttMs ?? 0).toFixed(3)),
    ...(error === undefined ? {} : { error }),
  };
}

function formatJsonLines(tunnels: readonly TunnelHealth[], timestamp: string): string {
  return tunnels.map((tunnel) => JSON.stringify({ timestamp, ...toJson(tunnel) }) + "\n").join("");
}

/** One line per tunnel, for logs. */
function formatLines(tunnels: readonly TunnelHealth[], timestamp: string): string {
  return tunnels.map((tunnel) => {
    const { name, target = "-", rttMs, error } = tunnel;
    const found = rttMs === undefined ? `unhealthy error=${error}` : `healthy rtt=${rtt(tunnel)}`;
    return printable(`${timestamp} ${name} ${target} ${found}`) + "\n";
  }).join("");
}

function formatTunnels(tunnels: readonly TunnelHealth[]): string {
  if (tunnels.length === 0) return "There are no tunnels.\n";
  return formatTable(
    ["NAME", "REMOTE", "TARGET", "STATUS", "RTT", "REASON"],
    tunnels.map((tunnel) => [
      tunnel.name,
      tunnel.remote ?? "-",
      tunnel.target ?? "-",
      tunnel.rttMs === undefined ? "unhealthy" : "healthy",
      rtt(tunnel),
      tunnel.error ?? "-",
    ]),
  );
}

function rtt({ rttMs }: TunnelHealth): string {
  return rttMs === undefined ? "-" : `${rttMs.toFixed(2)}ms`;
}
