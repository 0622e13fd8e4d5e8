/** What peers cost a daemon while no data flows, that answer and that do not. See README.md. */
import { parseArgs } from "@std/cli/parse-args";
import { parseIp } from "../lib/addr.ts";
import { CoordClient } from "../lib/coord/client.ts";
import { newIdentity } from "../lib/daemon/identity.ts";
import {
  boxKey,
  decodeMessage,
  encodeMessage,
  open,
  readEnvelope,
  seal,
} from "../lib/disco/mod.ts";
import { signer } from "../lib/ed25519.ts";
import { greKey } from "../lib/gre_key.ts";
import { systemClock, systemListenUdp, systemRandom } from "../lib/edges.ts";
import { readKernelFile } from "../lib/linux/mod.ts";
import { DENO_RUN } from "../tests/deno_run.ts";
import { Overlay, type OverlayNode, sleep, until } from "../tests/overlay.ts";

const NEVER = new AbortController().signal;
/** Under the time after which the coordinator takes a silent node from its list. */
const RENEW_MS = 40_000;
const FIRST_MS = 10_000;
const MEASURED_MS = 60_000;
const CLOCK_TICKS_PER_SECOND = 100;
const FIRST_PORT = 20_000;
/** Pings to one address that has not answered are few, whoever says to be there. */
const ADDRESSES = 32;
const READY = "ready";

// --- the crowd, a process of its own

/** GRE with a key, and IPv4 inside (RFC 2890); what an echo request starts with (RFC 792). */
const GRE = [0x20, 0, 8, 0];
const GRE_LENGTH = 8;
const ICMP_ECHO = 8;

/** Makes the answer of a ping through the tunnel; false for anything else. */
function answerInner(bytes: Uint8Array, greKey: number): boolean {
  const inner = bytes.subarray(GRE_LENGTH);
  const icmp = inner.subarray((inner[0]! & 0x0f) * 4);
  if (GRE.some((byte, i) => byte !== bytes[i]) || icmp[0] !== ICMP_ECHO) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint32(GRE.length, greKey);
  const source = inner.slice(12, 16);
  inner.copyWithin(12, 16, 20);
  inner.set(source, 16);
  icmp[0] = 0;
  const sumAt = icmp.byteOffset - bytes.byteOffset + 2;
  const sum = view.getUint16(sumAt) + (ICMP_ECHO << 8);
  view.setUint16(sumAt, (sum & 0xffff) + (sum >> 16));
  return true;
}

/** Answers pings of the disco protocol, as a program of before sessions, and through the tunnel; or nothing. */
async function receive(
  socket: Deno.DatagramConn,
  { discoKey, discoPrivate }: Awaited<ReturnType<typeof newIdentity>>,
  answers: boolean,
): Promise<void> {
  const keys = new Map<string, { box: Uint8Array<ArrayBuffer>; gre: number }>();
  let daemon: { box: Uint8Array<ArrayBuffer>; gre: number } | undefined;
  for await (const [bytes, from] of socket) {
    if (!answers) continue;
    if (daemon && answerInner(bytes, daemon.gre)) await socket.send(bytes, from);
    const envelope = readEnvelope(bytes);
    if (!envelope) continue;
    const { sender } = envelope;
    daemon = keys.get(sender);
    if (!daemon) {
      const box = boxKey(discoPrivate, sender);
      daemon = { box, gre: await greKey(box, { key: discoKey }, { key: sender }) };
      keys.set(sender, daemon);
    }
    const plaintext = open(envelope, daemon.box);
    const message = plaintext && decodeMessage(plaintext);
    if (message?.type !== "ping") continue;
    const { hostname, port } = from as Deno.NetAddr;
    const source = { ip: parseIp(hostname), port };
    const pong = encodeMessage({ type: "pong", txId: message.txId, source });
    await socket.send(seal(pong, discoKey, daemon.box, systemRandom), from);
  }
}

async function member(url: string, ip: string, index: number, answers: boolean): Promise<void> {
  const identity = await newIdentity(systemRandom);
  const sign = await signer(identity.nodeSeed);
  const client = new CoordClient({
    ...{ url, clock: systemClock, random: systemRandom },
    identity: { ...identity, sign },
  });
  const port = FIRST_PORT + index;
  void receive(systemListenUdp(ip, port), identity, answers);
  const nodeName = `member-${index}`;
  await client.register({ discoKey: identity.discoKey, nodeName }, NEVER);
  const endpoints = [{ endpoint: { ip: parseIp(ip), port }, source: "local" as const }];
  const tell = () => client.postEndpoints(endpoints, NEVER).catch(() => {});
  await tell();
  setInterval(tell, RENEW_MS);
}

async function crowd([url, ips, count, answers]: string[]): Promise<void> {
  const addresses = ips!.split(",");
  for (let index = 0; index < Number(count); index++) {
    await member(url!, addresses[index % addresses.length]!, index, answers === "true");
  }
  console.log(READY);
}

// --- the daemon

interface Reading {
  cpuMs: number;
  sent: number;
  received: number;
}

function read(node: OverlayNode): Reading {
  const { pid } = node.process;
  const [, times] = readKernelFile(`/proc/${pid}/stat`).split(") ");
  const [utime, stime] = times!.split(" ").slice(11, 13).map(Number);
  const [, line] = readKernelFile(`/proc/${pid}/net/dev`).split("eth0:");
  const counters = line!.trim().split(/\s+/).map(Number);
  return {
    cpuMs: 1000 * (utime! + stime!) / CLOCK_TICKS_PER_SECOND,
    received: counters[1]!,
    sent: counters[9]!,
  };
}

/** Of its own, of files (mostly the program, which other processes share), both, and the peak of both. */
type Memory = "RssAnon" | "RssFile" | "VmRSS" | "VmHWM";

function megabytes(node: OverlayNode, what: Memory): number {
  const status = readKernelFile(`/proc/${node.process.pid}/status`);
  return Math.round(Number(new RegExp(`^${what}:\\s+(\\d+) kB`, "m").exec(status)![1]) / 1024);
}

/** What it takes in so long, as text. */
async function cost(node: OverlayNode, ms: number): Promise<string> {
  const before = read(node);
  await sleep(ms);
  const after = read(node);
  const rate = (from: number, to: number) => ((to - from) / ms * 1000).toFixed(1);
  const cpu = ((after.cpuMs - before.cpuMs) / ms * 100).toFixed(1);
  const parts = `${megabytes(node, "RssAnon")} own + ${megabytes(node, "RssFile")} of files`;
  return `${megabytes(node, "VmRSS")} MB (${parts}), ${cpu} % of a core, ` +
    `${rate(before.sent, after.sent)} packets/s out, ${rate(before.received, after.received)} in`;
}

async function run(count: number, answers: boolean, settleMs: number): Promise<void> {
  await using overlay = await Overlay.start({ coordArgs: ["--pool", "100.64.0.0/16"] });
  const { lab, url } = overlay;
  const host = lab.publicHost("crowd");
  const ips = Array.from({ length: ADDRESSES }, (_, i) => host.ip.replace(/\d+$/, `${200 + i}`));
  for (const ip of ips) await host.run("ip", ["addr", "add", `${ip}/24`, "dev", "eth0"]);
  const script = new URL(import.meta.url).pathname;
  const args = [...DENO_RUN, script, "crowd", url, ips.join(), `${count}`, `${answers}`];
  const child = host.spawn(Deno.execPath(), args, { stdout: "piped" });
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  if (!(await reader.read()).value?.includes(READY)) throw new Error("the crowd has not joined");
  const node = overlay.join(lab.publicHost("daemon"), ["--data-plane", "tun"]);
  await node.tunnelIp();
  const first = await cost(node, FIRST_MS);
  await sleep(settleMs);
  const later = await cost(node, MEASURED_MS);
  const report = () => node.report().catch(() => undefined);
  const { peers } = await until("the daemon's report", report, () => node.log);
  const direct = peers.filter(({ state }) => state === "direct").length;
  console.log(
    `${count} peers that ${answers ? `answer (${direct} direct)` : "do not answer"}\n` +
      `  first ${FIRST_MS / 1000} s: ${first}\n` +
      `  a minute, ${settleMs / 1000} s later: ${later}; peak ${megabytes(node, "VmHWM")} MB`,
  );
  node.process.kill("SIGTERM");
  await reader.cancel();
}

if (Deno.args[0] === "crowd") await crowd(Deno.args.slice(1));
else {
  const flags = parseArgs(Deno.args, {
    string: ["peers", "settle", "only"],
    default: { peers: "0,50,250,1000", settle: "240" },
  });
  for (const count of flags.peers.split(",").map(Number)) {
    for (const answers of [true, false]) {
      if (flags.only && flags.only !== (answers ? "answer" : "silent")) continue;
      await run(count, answers, Number(flags.settle) * 1000);
    }
  }
}
