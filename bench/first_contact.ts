/**
 * First contact: from the start of the second node's `gretun up` to the first answered ping through
 * the tunnel, between two hosts behind two port-restricted NATs. See README.md. Needs root.
 */
import { parseArgs } from "@std/cli/parse-args";
import { type Ip, parseIp } from "../lib/addr.ts";
import { systemRandom } from "../lib/edges.ts";
import { decodeEchoReply, encodeEcho } from "../lib/health/icmp.ts";
import type { Host } from "../tests/lab/mod.ts";
import { IcmpSocket, Poller } from "../lib/linux/mod.ts";
import { Overlay, OverlayNode, sleep, until } from "../tests/overlay.ts";

const TARGET_MEDIAN_MS = 200;
const TARGET_WORST_MS = 2_000;
const PING_INTERVAL_MS = 5;
/** The first node's calls are held by the coordinator by then. */
const SETTLE_MS = 500;
const GIVE_UP_MS = 60_000;

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, {
    string: ["runs", "coord-delay-ms", "data-plane"],
    boolean: ["log", "trace"],
    default: { runs: "20", "coord-delay-ms": "10", "data-plane": "auto" },
  });
  const runs = Number(flags.runs);
  const coordDelayMs = Number(flags["coord-delay-ms"]);
  const times: number[] = [];
  for (let run = 1; run <= runs; run++) {
    const { ms, plane, log, stages } = await firstContact(coordDelayMs, flags["data-plane"]);
    times.push(ms);
    console.log(`run ${String(run).padStart(2)}: ${ms.toFixed(0)} ms (${plane})`);
    if (flags.log) console.log(log);
    if (flags.trace) console.log(stages.join("\n"));
  }
  times.sort((a, b) => a - b);
  const worst = times.at(-1)!;
  console.log(
    `first contact, coordinator ${2 * coordDelayMs} ms away (round trip), ${runs} runs: ` +
      `median ${median(times).toFixed(0)} ms (target at 20 ms: under ${TARGET_MEDIAN_MS}), ` +
      `worst ${worst.toFixed(0)} ms (target at 20 ms: under ${TARGET_WORST_MS})`,
  );
}

/** One overlay, fresh keys, two nodes. */
async function firstContact(coordDelayMs: number, dataPlane: string) {
  await using overlay = await Overlay.start({ coordDelayMs });
  const { lab } = overlay;
  const first = overlay.node("first", lab.nat("nat-1"), ["--data-plane", dataPlane]);
  const tunnelIp = parseIp(await first.tunnelIp());
  await until("the first node's endpoints", () => hasMapping(first), () => first.log);
  await sleep(SETTLE_MS);
  const host = lab.host("second", { behind: lab.nat("nat-2") });
  // The kernel may take a second until it sends on a new link, which no program is to blame for.
  const pingCoordinator = ["-n", "-c", "1", "-W", "1", overlay.coord.ip];
  await until("the second host's network", async () => {
    return (await host.run("ping", pingCoordinator)).code === 0;
  });
  const second = new OverlayNode(overlay, host, ["--data-plane", dataPlane]);
  await using poller = new Poller();
  using pinger = new Pinger(host, tunnelIp, poller);
  const startMs = performance.now();
  const startWallMs = Date.now();
  second.start();
  overlay.nodes.push(second);
  const late = setTimeout(() => pinger.giveUp(), GIVE_UP_MS);
  const answeredMs = await pinger.answeredMs.finally(() => clearTimeout(late));
  const { data_plane: plane } = await second.report();
  const ms = answeredMs - startMs;
  const stages = stagesOf([first, second], { startMs: startWallMs, endMs: startWallMs + ms });
  return { ms, plane, log: `${first.log}\n${second.log}`, stages };
}

/** What the nodes logged, in order, by ms since the start. */
function stagesOf(nodes: OverlayNode[], { startMs, endMs }: { startMs: number; endMs: number }) {
  const lines = nodes.flatMap(({ log, host }) =>
    [...log.matchAll(/^time=(\S+) level=\w+ msg=("[^"]*"|\S+)/gm)]
      .map(([, time, message]) => ({ atMs: Date.parse(time!), text: `${host.name}: ${message}` }))
  );
  return lines.filter(({ atMs }) => atMs >= startMs && atMs <= endMs)
    .sort((a, b) => a.atMs - b.atMs)
    .map(({ atMs, text }) => `${String(atMs - startMs).padStart(6)} ms  ${text}`);
}

/** Whether its public address is known to the coordinator, or about to be. */
async function hasMapping(node: OverlayNode): Promise<boolean> {
  const { endpoints } = await node.report();
  return endpoints!.length > 1;
}

/** Pings all the time, from before there is a way there: without one the packets are lost. */
class Pinger implements Disposable {
  readonly #socket: IcmpSocket;
  readonly #timer: number;
  readonly #token = systemRandom(8);
  readonly #answer = Promise.withResolvers<number>();
  #sequence = 0;

  constructor(from: Host, to: Ip, poller: Poller) {
    this.#socket = from.within(() =>
      IcmpSocket.open({ family: 4, poller }, ({ from, message }) => {
        const reply = decodeEchoReply(4, message);
        if (from !== to || !reply || reply.data.join() !== this.#token.join()) return;
        this.#answer.resolve(performance.now());
      })
    );
    this.#timer = setInterval(() => this.#send(to), PING_INTERVAL_MS);
  }

  /** When the first answer came, in monotonic ms. */
  get answeredMs(): Promise<number> {
    return this.#answer.promise;
  }

  giveUp(): void {
    this.#answer.reject(new Error(`no ping was answered in ${GIVE_UP_MS / 1000} s`));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#socket[Symbol.dispose]();
  }

  #send(to: Ip): void {
    const sequence = this.#sequence++ & 0xffff;
    try {
      this.#socket.send(encodeEcho(4, { identifier: 1, sequence, data: this.#token }), to);
    } catch {
      // no way there yet, which is what is being measured
    }
  }
}

function median(sorted: number[]): number {
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

await main();
