/**
 * The user-space data plane beside what else carries packets through a process, on one machine and
 * in turns. See README.md. Needs root.
 */
import { parseFlags } from "../lib/cli/flags.ts";
import type { Host } from "../tests/lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { HubLab } from "../tests/hub_lab.ts";
import { Overlay, type OverlayNode, sleep, until } from "../tests/overlay.ts";
import {
  CLIENT_IP,
  type Ends,
  fastd,
  HUB_IP,
  nebula,
  PeerLab,
  socat,
  wireguardGo,
} from "./other_tunnels.ts";

const FLAGS = {
  seconds: { type: "integer", min: 1, max: 60, default: 3, help: "how long each run takes" },
  rounds: { type: "integer", min: 1, max: 20, default: 3, help: "in turns; medians are printed" },
  only: { type: "string", default: "", help: "systems whose names contain this" },
  wireguard: { type: "string", default: "wireguard", help: "wireguard-go's program" },
} as const;

const UDP_BYTES = [64, 300, 1400] as const;
/** `sysconf(_SC_CLK_TCK)` of Linux. */
const TICKS_PER_SECOND = 100;
const GIGABYTE = 1e9;

interface System {
  name: string;
  /** Programs without which it is left out. */
  needs?: string[];
  /** The address of the hub that the client's packets go to; {@link HUB_IP} unless told. */
  open: () => Promise<Ends & { ip?: string }>;
}

const flags = parseFlags(Deno.args, FLAGS);
const SYSTEMS: System[] = [
  { name: "veth", open: rawVeth },
  { name: "gretun up", open: gretunUp },
  { name: "gretun hub, plain", open: () => gretunHub("off") },
  { name: "gretun hub, encrypted", open: () => gretunHub("on") },
  {
    name: "wireguard-go",
    needs: [flags.wireguard, "wg"],
    open: () => wireguardGo(flags.wireguard),
  },
  { name: "fastd null", needs: ["fastd"], open: () => fastd("null") },
  { name: "fastd salsa2012+umac", needs: ["fastd"], open: () => fastd("salsa2012+umac") },
  { name: "nebula", needs: ["nebula", "nebula-cert"], open: nebula },
  { name: "socat", needs: ["socat"], open: socat },
];

/** What is measured, in the order of the table. */
const COLUMNS = [
  "TCP Gbit/s",
  "back",
  "4 TCP",
  "CPU s/GB",
  ...UDP_BYTES.map((bytes) => `kpps ${bytes}`),
  "ping ms",
  "loaded ms",
  "RSS MB",
] as const;
type Figures = Partial<Record<typeof COLUMNS[number], number>>;

// --- systems

async function rawVeth() {
  const lab = new PeerLab();
  return { ...ends(lab), ip: lab.hub.ip };
}

async function gretunUp() {
  const overlay = await Overlay.start();
  const [hub, client] = ["hub", "client"].map((name) =>
    overlay.join(overlay.lab.publicHost(name), ["--data-plane", "tun"])
  ) as [OverlayNode, OverlayNode];
  const ip = await hub.tunnelIp();
  await Promise.all([hub.directTo(1), client.directTo(1)]);
  const close = () => overlay[Symbol.asyncDispose]();
  return { hub: hub.host, client: client.host, ip, [Symbol.asyncDispose]: close };
}

async function gretunHub(encrypt: "on" | "off") {
  const lab = new HubLab();
  await lab.startHub(["--data-plane", "tun", "--encrypt", encrypt, "--address", HUB_IP!]);
  const client = lab.lab.publicHost("client");
  const args = ["--encrypt", encrypt];
  await lab.spoke("client", client, { file: `address ${CLIENT_IP}\n`, args }).up();
  return { hub: lab.host, client, [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose]() };
}

function ends(lab: PeerLab): Ends {
  const close = () => lab[Symbol.asyncDispose]();
  return { hub: lab.hub, client: lab.client, [Symbol.asyncDispose]: close };
}

// --- measuring

async function measure(system: System): Promise<Figures> {
  await using opened = await system.open();
  const { hub, client, ip = HUB_IP! } = opened;
  await until(`${system.name} to carry data`, async () => {
    return (await client.run("ping", ["-n", "-c", "1", "-W", "1", ip])).code === 0;
  });
  await client.run("ip", ["link", "set", "bench0", "mtu", "1440"]); // socat's; most have no such
  const daemons = pidsIn(hub, client);
  hub.spawn("iperf3", ["-s", "-B", ip]);
  await sleep(500);
  const figures: Figures = { "ping ms": await ping(client, ip, 100, 0.01) };
  const cpuBefore = cpuSeconds(daemons);
  const loaded = ping(client, ip, flags.seconds * 5, 0.2);
  const tcp = await iperf(client, ip, []);
  figures["TCP Gbit/s"] = tcp.bits_per_second / 1e9;
  figures["CPU s/GB"] = (cpuSeconds(daemons) - cpuBefore) / (tcp.bytes / GIGABYTE);
  figures["loaded ms"] = await loaded;
  figures.back = (await iperf(client, ip, ["-R"])).bits_per_second / 1e9;
  figures["4 TCP"] = (await iperf(client, ip, ["-P", "4"])).bits_per_second / 1e9;
  for (const bytes of UDP_BYTES) {
    const udp = await iperf(client, ip, ["-u", "-b", "0", "-l", String(bytes)]);
    figures[`kpps ${bytes}`] = (udp.packets! - udp.lost_packets!) / udp.seconds / 1000;
  }
  figures["RSS MB"] = Math.max(0, ...daemons.map(residentMb));
  return figures;
}

interface Sum {
  bits_per_second: number;
  bytes: number;
  seconds: number;
  packets?: number;
  lost_packets?: number;
}

/** What arrived. */
async function iperf(client: Host, ip: string, args: string[]): Promise<Sum> {
  const seconds = String(flags.seconds);
  // A path that stalls keeps iperf3 busy for ever.
  const limit = ["-k", "5", String(flags.seconds + 20), "iperf3"];
  const { stdout } = await client.run("timeout", [
    ...limit,
    "-c",
    ip,
    "-t",
    seconds,
    "-J",
    ...args,
  ]);
  const { end, error } = JSON.parse(stdout);
  if (error) throw new Error(`iperf3 ${args.join(" ")}: ${error}`);
  return args.includes("-u") ? end.sum : end.sum_received;
}

/** The median round trip in ms. */
async function ping(host: Host, ip: string, count: number, seconds: number): Promise<number> {
  const { stdout } = await host.run("ping", ["-n", "-c", String(count), "-i", String(seconds), ip]);
  const times = [...stdout.matchAll(/time=([\d.]+)/g)].map(([, ms]) => Number(ms));
  return times.length > 0 ? median(times) : Infinity;
}

/** Programs that carry packets of these hosts. */
function pidsIn(...hosts: Host[]): number[] {
  return hosts.flatMap(({ netnsName }) => {
    const { stdout } = new Deno.Command("ip", { args: ["netns", "pids", netnsName] }).outputSync();
    return new TextDecoder().decode(stdout).split("\n").filter(Boolean).map(Number);
  });
}

function cpuSeconds(pids: number[]): number {
  const ticks = pids.map((pid) => {
    const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).replace(/^.*\) /s, "").split(" ");
    return Number(fields[11]) + Number(fields[12]);
  });
  return ticks.reduce((sum, n) => sum + n, 0) / TICKS_PER_SECOND;
}

function residentMb(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024;
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;

// --- the table

function printTable(rounds: Map<string, Figures[]>): void {
  const width = Math.max(...SYSTEMS.map(({ name }) => name.length));
  console.log(["".padEnd(width), ...COLUMNS.map((name) => name.padStart(10))].join(" "));
  const medians = new Map([...rounds].map(([name, figures]) => [name, medianOf(figures)]));
  for (const [name, figures] of medians) {
    console.log([name.padEnd(width), ...COLUMNS.map((column) => cell(figures[column]))].join(" "));
  }
  const base = medians.get("wireguard-go");
  if (!base) return;
  console.log("\nTimes wireguard-go's:");
  for (const [name, figures] of medians) {
    const cells = COLUMNS.map((column) => cell(figures[column]! / base[column]!));
    console.log([name.padEnd(width), ...cells].join(" "));
  }
}

function medianOf(figures: Figures[]): Figures {
  return Object.fromEntries(COLUMNS.map((column) => {
    return [column, median(figures.map((round) => round[column]!))];
  }));
}

function cell(value: number | undefined): string {
  const text = value === undefined || !Number.isFinite(value)
    ? "-"
    : value.toFixed(value >= 100 ? 0 : 2);
  return text.padStart(10);
}

async function hasProgram(name: string): Promise<boolean> {
  const args = ["-c", `command -v ${name}`];
  return (await new Deno.Command("sh", { args, stdout: "null" }).output()).success;
}

async function availableSystems(): Promise<System[]> {
  const available: System[] = [];
  for (const system of SYSTEMS.filter(({ name }) => name.includes(flags.only))) {
    const missing: string[] = [];
    for (const name of system.needs ?? []) if (!await hasProgram(name)) missing.push(name);
    if (missing.length > 0) console.log(`Left out: ${system.name}, without ${missing.join(" ")}`);
    else available.push(system);
  }
  return available;
}

RtNetlink.open()[Symbol.dispose]();
const systems = await availableSystems();
const rounds = new Map<string, Figures[]>();
for (let round = 0; round < flags.rounds; round++) {
  for (const system of systems) {
    try {
      rounds.set(system.name, [...rounds.get(system.name) ?? [], await measure(system)]);
    } catch (error) {
      console.log(
        `${system.name}, round ${round + 1}: ${error instanceof Error ? error.message : error}`,
      );
    }
  }
}
printTable(rounds);
