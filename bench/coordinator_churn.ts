/**
 * What nodes leave behind at the coordinator: they hold their calls, and each changes its address
 * every few seconds without closing what it had. Descriptors and memory have to stay where they are.
 * See README.md.
 */
import { parseArgs } from "@std/cli/parse-args";
import { parseEndpoint } from "../lib/addr.ts";
import { CoordClient } from "../lib/coord/client.ts";
import { systemClock, systemRandom } from "../lib/edges.ts";
import { listKernelDirectory, readKernelFile } from "../lib/linux/mod.ts";
import { CoordinatorProcess } from "../tests/fakes/coordinator_process.ts";
import { type FakeNode, fakeNode } from "../tests/fakes/fake_node.ts";
import { sleep } from "../tests/overlay.ts";

const MAX_FILES = 65_536;
const REPORT_MS = 30_000;
const TOLD_FAILURES = 3;

const flags = parseArgs(Deno.args, {
  string: ["nodes", "seconds", "move-every"],
  default: { nodes: "200", seconds: "600", "move-every": "20" },
});
const [nodes, seconds] = [Number(flags.nodes), Number(flags.seconds)];
const moveEveryMs = Number(flags["move-every"]) * 1000;

const stop = new AbortController();
let moves = 0;
let failures = 0;

/** Polls for as long as it is where the node is; its connections stay open after that. */
async function poll(client: CoordClient, isHere: () => boolean): Promise<void> {
  let known;
  while (isHere()) known = await client.peers(known, stop.signal);
}

async function takeMail(client: CoordClient, isHere: () => boolean): Promise<void> {
  while (isHere()) await client.takeSignals(stop.signal);
}

async function live(url: string, node: FakeNode): Promise<void> {
  for (let place = 0; !stop.signal.aborted; place++) {
    const left = new AbortController();
    const isHere = () => !left.signal.aborted && !stop.signal.aborted;
    const client = new CoordClient({
      url,
      identity: node,
      clock: systemClock,
      random: systemRandom,
    });
    const failed = (error: Error) => {
      if (stop.signal.aborted) return;
      if (failures++ < TOLD_FAILURES) console.log(error.message);
    };
    await client.register({ discoKey: node.discoKey, nodeName: node.name }, stop.signal)
      .catch(failed);
    const endpoint = parseEndpoint(`198.51.100.${place % 256}:7777`);
    await client.postEndpoints([{ endpoint, source: "stun" }], stop.signal).catch(failed);
    for (const act of [poll, takeMail]) void act(client, isHere).catch(() => {});
    await systemClock.sleep(moveEveryMs * (0.5 + Math.random()), stop.signal).catch(() => {});
    left.abort();
    moves++;
  }
}

function rssMb(pid: number): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB/m.exec(readKernelFile(`/proc/${pid}/status`))!;
  return Math.round(Number(kilobytes) / 1024);
}

const args = ["--state", ":memory:", "--pool", "100.64.0.0/16"];
await using coord = await CoordinatorProcess.start(args, { maxFiles: MAX_FILES });
const lives = [];
for (let i = 0; i < nodes; i++) lives.push(live(coord.url, await fakeNode(`node-${i}`)));
const startMs = performance.now();
while (performance.now() - startMs < seconds * 1000) {
  await sleep(Math.min(REPORT_MS, seconds * 1000));
  const files = listKernelDirectory(`/proc/${coord.pid}/fd`).length;
  const passed = Math.round((performance.now() - startMs) / 1000);
  console.log(
    `${passed} s, ${moves} moves, ${failures} calls failed: ${files} files, ${rssMb(coord.pid)} MB`,
  );
}
stop.abort();
await Promise.all(lives);
