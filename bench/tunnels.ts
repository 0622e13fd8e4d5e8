/**
 * 1000 plain tunnels made, listed and deleted by one process, ours and `ip -batch` in turns; and
 * `gretun list` of one tunnel from a cold start. See README.md. Needs root and a kernel with GRE.
 */
import { parseArgs } from "@std/cli/parse-args";
import { parseIp } from "../lib/addr.ts";
import { parseLines } from "../lib/cli/gretun/create.ts";
import { createNamedNetns, deleteNamedNetns, type Fd, withNetns } from "../lib/linux/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import {
  createTunnels,
  formatStep,
  listTunnels,
  openHost,
  planRemoval,
  planTunnels,
  type TunnelHost,
} from "../lib/tunnel/mod.ts";
import { GRETUN } from "../tests/overlay.ts";
import { deleteTunnels } from "../tests/tunnel_specs.ts";

const NETNS = "gretun-bench";
const TARGET_COLD_MS = 80;
const PHASES = ["create", "list", "delete"] as const;
type Times = Record<typeof PHASES[number], number>;

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, {
    string: ["tunnels", "rounds", "cold-runs"],
    default: { tunnels: "1000", rounds: "3", "cold-runs": "10" },
  });
  using space = namespace();
  const count = Number(flags.tunnels);
  const lines = batchLines(count);
  const rounds: { ours: Times; ip: Times }[] = [];
  for (let round = 0; round < Number(flags.rounds); round++) {
    rounds.push({ ours: ourTimes(space, lines, count), ip: await ipTimes(space, lines) });
  }
  for (const phase of PHASES) {
    const [ours, ip] = (["ours", "ip"] as const).map((who) =>
      median(rounds.map((r) => r[who][phase]))
    );
    report(`${phase} ${count} tunnels`, ours!, ip!);
  }
  const total = (times: Times) => PHASES.reduce((sum, phase) => sum + times[phase], 0);
  const [ours, ip] = (["ours", "ip"] as const).map((who) =>
    median(rounds.map((r) => total(r[who])))
  );
  report("all three", ours!, ip!);
  await reportCold(space, Number(flags["cold-runs"]));
}

function report(what: string, ours: number, ip: number): void {
  const ratio = (ours / ip).toFixed(2);
  console.log(
    `${what.padEnd(20)} gretun ${ours.toFixed(0).padStart(6)} ms, ip ${
      ip.toFixed(0).padStart(6)
    } ms: ` +
      `ratio ${ratio} (target: at most 1)`,
  );
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;

// --- a host with a way out

interface Space extends Disposable {
  netns: Fd;
  host: TunnelHost;
}

function namespace(): Space {
  const stack = new DisposableStack();
  const netns = stack.use(createNamedNetns(NETNS));
  stack.defer(() => deleteNamedNetns(NETNS));
  const host = stack.use(withNetns(netns, openHost));
  const { rtnl } = host;
  rtnl.createLink({ name: "up0", kind: "veth", peerName: "up1", up: true });
  const { ifindex } = rtnl.link("up0")!;
  rtnl.addAddress({ ifindex, local: parseIp("192.0.2.1"), prefixLength: 24 });
  for (const name of ["lo", "up1"]) rtnl.changeLink(rtnl.link(name)!.ifindex, { up: true });
  return { netns, host, [Symbol.dispose]: () => stack.dispose() };
}

/** Each with an address and a route. */
function batchLines(count: number): string {
  return Array.from({ length: count }, (_, i) =>
    JSON.stringify({
      name: `t${i}`,
      local: "192.0.2.1",
      remote: "192.0.2.2",
      key: i + 1,
      tunnel_ip: `10.${i >> 6 & 0xff}.${(i & 63) << 2}.1/30`,
      route: `172.${16 + (i >> 8)}.${i & 0xff}.0/24`,
    })).join("\n");
}

// --- one round each

function timed(body: () => void): number {
  const start = performance.now();
  body();
  return performance.now() - start;
}

/** From the text of the batch on, as `gretun create --batch` does. */
function ourTimes({ netns, host }: Space, lines: string, count: number): Times {
  return withNetns(netns, () => ({
    create: timed(() => createTunnels(host, parseLines(lines))),
    list: timed(() => {
      const text = JSON.stringify(listTunnels(host));
      if (JSON.parse(text).length !== count) throw new Error("tunnels are missing");
    }),
    delete: timed(() => deleteTunnels(host, "all")),
  }));
}

/** The same commands that a dry run prints, by one `ip` for each phase. */
async function ipTimes(space: Space, lines: string): Promise<Times> {
  const { host } = space;
  const steps = (body: () => { steps: Parameters<typeof formatStep>[0][] }) =>
    withNetns(space.netns, body).steps.map(formatStep).filter((line) => line.startsWith("ip "))
      .map((line) => line.replace(/^ip /, "")).join("\n");
  const create = steps(() => planTunnels(host, parseLines(lines)));
  return {
    create: await timedIp(space, ["-batch", "-"], create),
    list: await timedIp(space, ["-d", "-j", "address", "show"]),
    delete: await timedIp(space, ["-batch", "-"], steps(() => planRemoval(host, "all"))),
  };
}

async function timedIp({ netns }: Space, args: string[], input = ""): Promise<number> {
  const command = new Deno.Command("ip", { args, stdin: "piped", stdout: "piped" });
  const start = performance.now();
  const child = withNetns(netns, () => command.spawn());
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { success } = await child.output();
  if (!success) throw new Error(`ip ${args.join(" ")} failed`);
  return performance.now() - start;
}

// --- cold start

async function reportCold({ netns, host }: Space, runs: number): Promise<void> {
  withNetns(netns, () => createTunnels(host, parseLines(batchLines(1))));
  const times: number[] = [];
  for (let i = 0; i < runs; i++) {
    const command = new Deno.Command(GRETUN, { args: ["list"], stdout: "null" });
    const start = performance.now();
    const child = withNetns(netns, () => command.spawn());
    const { success } = await child.status;
    if (!success) throw new Error("gretun list failed");
    times.push(performance.now() - start);
  }
  console.log(
    `gretun list of one tunnel, whole process, ${runs} runs: median ${
      median(times).toFixed(0)
    } ms ` +
      `(target: under ${TARGET_COLD_MS} on a machine that is not emulated)`,
  );
}

RtNetlink.open()[Symbol.dispose]();
await main();
