/**
 * A hub's tunnels beside those of others, in one run: throughput of each data plane and of `fastd`
 * and `socat` as ratios, and how long N clients take to connect. See README.md. Needs root.
 */
import { RtNetlink } from "../lib/netlink.ts";
import { parseFlags } from "../lib/cli/flags.ts";
import { HUB_PORT, HubLab } from "../tests/hub_lab.ts";
import { sleep, until } from "../tests/overlay.ts";
import {
  CLIENT_IP,
  type Ends,
  fastd,
  FASTD_PORT,
  fastdKeys,
  HUB_IP,
  PeerLab,
  socat,
} from "./other_tunnels.ts";

const FLAGS = {
  seconds: { type: "integer", min: 1, max: 60, default: 5, help: "how long each run takes" },
  rounds: { type: "integer", min: 1, max: 20, default: 3, help: "in turns; medians are printed" },
  clients: { type: "integer", min: 0, max: 200, default: 20, help: "0 leaves connecting out" },
} as const;

/** Debian's packages of the same names. */
const PROGRAMS = ["iperf3", "fastd", "socat"] as const;

interface Tunnel {
  name: string;
  peer: string;
  needs?: typeof PROGRAMS[number];
  /** Undefined where this kernel cannot. */
  open: () => Promise<Ends | undefined>;
}

const TUNNELS: Tunnel[] = [
  { name: "tun, encrypted", peer: "fastd salsa2012+umac", open: () => gretun("tun", "on") },
  { name: "tun, not encrypted", peer: "fastd null", open: () => gretun("tun", "off") },
  { name: "gre-fou", peer: "fastd null", open: () => gretun("gre-fou") },
  { name: "ipip-fou", peer: "fastd null", open: () => gretun("ipip-fou") },
  { name: "fastd salsa2012+umac", peer: "", needs: "fastd", open: () => fastd("salsa2012+umac") },
  { name: "fastd null", peer: "", needs: "fastd", open: () => fastd("null") },
  { name: "socat", peer: "fastd null", needs: "socat", open: socat },
];

// --- tunnels

async function gretun(plane: string, encrypt = "on"): Promise<Ends | undefined> {
  const lab = new HubLab();
  try {
    const flags = ["--data-plane", plane, "--encrypt", encrypt];
    await Promise.race([lab.startHub([...flags, "--address", HUB_IP]), lab.hub.process.status]);
    if (/no module/.test(lab.hub.log)) return void await lab[Symbol.asyncDispose]();
    const host = lab.lab.publicHost("client");
    const args = ["--encrypt", encrypt];
    await lab.spoke("client", host, { file: `address ${CLIENT_IP}\n`, args }).up();
    return { hub: lab.host, client: host, [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose]() };
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
}

// --- throughput

/** Mbit/s from the client to the hub; undefined where this kernel cannot. */
async function throughput(tunnel: Tunnel): Promise<number | undefined> {
  const ends = await tunnel.open();
  if (!ends) return undefined;
  await using _ends = ends;
  const { hub, client } = ends;
  await until(`${tunnel.name} to carry data`, async () => {
    return (await client.run("ping", ["-n", "-c", "1", "-W", "1", HUB_IP!])).code === 0;
  });
  await client.run("ip", ["link", "set", "bench0", "mtu", "1471"]); // socat's; others have no such
  hub.spawn("iperf3", ["-s", "-1", "-B", HUB_IP!]);
  await sleep(500);
  const args = ["-c", HUB_IP!, "-t", String(flags.seconds), "-J"];
  const { stdout } = await client.run("iperf3", args);
  const { end, error } = JSON.parse(stdout);
  if (error) throw new Error(`${tunnel.name}: iperf3: ${error}`);
  return end.sum_received.bits_per_second / 1e6;
}

async function compareThroughput(tunnels: Tunnel[]): Promise<void> {
  const rates = new Map<string, number[]>();
  for (let round = 0; round < flags.rounds; round++) {
    for (const tunnel of tunnels) {
      const rate = await throughput(tunnel);
      if (rate !== undefined) rates.set(tunnel.name, [...rates.get(tunnel.name) ?? [], rate]);
    }
  }
  for (const { name, peer } of tunnels) {
    const rate = rates.get(name);
    const other = rates.get(peer);
    const ratio = rate && other
      ? `, ${(median(rate) / median(other)).toFixed(2)} of ${peer}'s`
      : "";
    const text = rate ? `${median(rate).toFixed(0).padStart(6)} Mbit/s` : "not in this kernel";
    console.log(`${name.padEnd(22)} ${text}${ratio}`);
  }
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;

// --- connecting

/** From the start of so many client processes until the server has them all. */
async function connectGretun(count: number): Promise<number> {
  await using lab = new HubLab();
  await lab.startHub(["--address", HUB_IP!]);
  const clients = Array.from({ length: count }, (_, i) => {
    const scheme = lab.keyScheme(`c${i}`);
    lab.clientFile(`c${i}`, `${scheme.file}address 10.91.${i >> 7}.${1 + (i & 127)}\n`);
    return scheme;
  });
  await until("the files to be read", async () => (await lab.report()).clients.length === count);
  const host = lab.lab.publicHost("clients");
  const startMs = performance.now();
  for (const [i, scheme] of clients.entries()) {
    const args = ["--port", String(HUB_PORT + 1 + i)];
    lab.spoke(`c${i}`, host, { file: "", scheme, args, authorised: false });
  }
  await until("all clients", async () => {
    return (await lab.report()).clients.every(({ state }) => state === "up");
  });
  return performance.now() - startMs;
}

async function connectFastd(count: number): Promise<number> {
  await using lab = new PeerLab();
  const hub = await fastdKeys();
  const keys = await Promise.all(Array.from({ length: count }, fastdKeys));
  const peers = keys.map((key, i) => `peer "c${i}" { key "${key.public}"; }`).join("\n");
  const established = lab.file("established", "");
  const common = `mode multitap; log level error; method "salsa2012+umac"; `;
  const config = `${common} interface "fd-%n"; secret "${hub.secret}"; bind any:${FASTD_PORT};
    on establish "echo $PEER_NAME >> ${established}"; ${peers}`;
  lab.hub.spawn("fastd", ["-c", lab.file("hub", config)], { stderr: "inherit" });
  await sleep(1000);
  const startMs = performance.now();
  for (const [i, { secret }] of keys.entries()) {
    const remote = `peer "hub" { key "${hub.public}"; remote ${lab.hub.ip} port ${FASTD_PORT}; }`;
    const text = `${common} interface "fd${i}"; secret "${secret}"; ${remote}`;
    lab.client.spawn("fastd", ["-c", lab.file(`c${i}`, text)], { stderr: "inherit" });
  }
  await until("all clients", async () => {
    return (await Deno.readTextFile(established)).split("\n").length > count;
  });
  return performance.now() - startMs;
}

async function compareConnecting(count: number): Promise<void> {
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round < flags.rounds; round++) {
    ours.push(await connectGretun(count));
    theirs.push(await connectFastd(count));
  }
  const ratio = (median(ours) / median(theirs)).toFixed(2);
  console.log(
    `${count} clients, from the start of their processes: gretun ${median(ours).toFixed(0)} ms, ` +
      `fastd ${median(theirs).toFixed(0)} ms: ratio ${ratio}`,
  );
}

// --- all of it

/** Says what is missing and how to get it. */
async function missingPrograms(): Promise<string[]> {
  const missing: string[] = [];
  for (const program of PROGRAMS) {
    const args = ["-c", `command -v ${program}`];
    const { success } = await new Deno.Command("sh", { args, stdout: "null" }).output();
    if (!success) missing.push(program);
  }
  if (missing.length > 0) {
    const names = missing.join(" ");
    console.log(`Missing here, and left out: ${names}. Run: apt-get install ${names}`);
  }
  return missing;
}

const flags = parseFlags(Deno.args, FLAGS);
RtNetlink.open()[Symbol.dispose]();
const missing = await missingPrograms();
if (missing.includes("iperf3")) Deno.exit(1);
await compareThroughput(TUNNELS.filter(({ needs }) => !needs || !missing.includes(needs)));
if (flags.clients > 0 && !missing.includes("fastd")) await compareConnecting(flags.clients);
// A hub whose plane this kernel has not is still waited for.
Deno.exit();
