/**
 * What many nodes cost the coordinator: so many hold their call for the list of peers, nothing
 * happens for a while, then nodes join one after the other. See README.md.
 */
import { parseArgs } from "@std/cli/parse-args";
import { toBase64 } from "../lib/bytes.ts";
import { signRequest } from "../lib/coord/auth.ts";
import { CoordClient } from "../lib/coord/client.ts";
import { systemClock, systemRandom } from "../lib/edges.ts";
import { readKernelFile } from "../lib/linux/mod.ts";
import { CoordinatorProcess, cpuMs } from "../tests/fakes/coordinator_process.ts";
import { type FakeNode, fakeNode } from "../tests/fakes/fake_node.ts";
import { sleep } from "../tests/overlay.ts";

const NEVER = new AbortController().signal;
/** Longer than a call is held. */
const IDLE_MS = 30_000;
const AT_ONCE = 20;
const MAX_FILES = 65_536;

const flags = parseArgs(Deno.args, {
  string: ["nodes", "joins"],
  default: { nodes: "1000", joins: "5" },
});

/** Nodes that hold their calls, and what has come to them. */
class Crowd {
  bytes = 0;
  readonly #coord: CoordinatorProcess;
  readonly #asks: string;
  readonly #etags = new Map<FakeNode, string>();
  readonly #stop = new AbortController();
  readonly #polls: Promise<void>[] = [];
  #count = 0;

  constructor(coord: CoordinatorProcess, asks: string) {
    this.#coord = coord;
    this.#asks = asks;
  }

  async join(): Promise<FakeNode> {
    const node = await fakeNode(`node-${++this.#count}`);
    await this.#client(node).register({ discoKey: node.discoKey, nodeName: node.name }, NEVER);
    return node;
  }

  poll(node: FakeNode): void {
    this.#polls.push(this.#pollUntilStopped(node));
  }

  /** Resolves when all but `late` know the list that is there now. */
  async hasHeard(late: FakeNode): Promise<void> {
    const { etag } = await this.#client(late).peers(undefined, NEVER);
    while ([...this.#etags.values()].some((known) => known < etag)) await sleep(1);
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#polls);
  }

  #client(node: FakeNode): CoordClient {
    const { url } = this.#coord;
    return new CoordClient({ url, identity: node, clock: systemClock, random: systemRandom });
  }

  async #pollUntilStopped(node: FakeNode): Promise<void> {
    this.#etags.set(node, "");
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const headers = await signRequest(
        {
          ...{ method: "GET", path: "/v1/peers", body: new Uint8Array() },
          timestamp: String(Math.floor(Date.now() / 1000)),
          nonce: toBase64(systemRandom(16)),
        },
        node.nodeKey,
        node.sign,
      );
      const query = `since=${this.#etags.get(node)}${this.#asks}`;
      try {
        const response = await fetch(`${this.#coord.url}/v1/peers?${query}`, { headers, signal });
        const body = await response.arrayBuffer();
        this.bytes += body.byteLength;
        const start = new TextDecoder().decode(body.slice(0, 64));
        const etag = /"etag":"([0-9a-f]+)"/.exec(start)?.[1];
        if (etag === undefined) throw new Error(`no list: ${start}`);
        this.#etags.set(node, etag);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
  }
}

function rssMb(pid: number): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB/m.exec(readKernelFile(`/proc/${pid}/status`))!;
  return Math.round(Number(kilobytes) / 1024);
}

interface Cost {
  cpuMs: number;
  bytes: number;
}

async function run(name: string, asks: string, { nodes, joins }: { nodes: number; joins: number }) {
  const args = ["--state", ":memory:", "--pool", "100.64.0.0/16"];
  await using coord = await CoordinatorProcess.start(args, { maxFiles: MAX_FILES });
  const crowd = new Crowd(coord, asks);
  const cost = async (body: () => Promise<unknown>): Promise<Cost> => {
    const [cpu, bytes] = [cpuMs(coord.pid), crowd.bytes];
    await body();
    return { cpuMs: cpuMs(coord.pid) - cpu, bytes: crowd.bytes - bytes };
  };
  for (let i = 0; i < nodes; i += AT_ONCE) {
    const members = await Promise.all(Array.from({ length: AT_ONCE }, () => crowd.join()));
    for (const member of members) crowd.poll(member);
  }
  await crowd.hasHeard(await crowd.join());
  const idle = await cost(() => sleep(IDLE_MS));
  const heardMs: number[] = [];
  const joining = await cost(async () => {
    for (let i = 0; i < joins; i++) {
      const startMs = performance.now();
      await crowd.hasHeard(await crowd.join());
      heardMs.push(performance.now() - startMs);
    }
  });
  await crowd.end();
  const seconds = IDLE_MS / 1000;
  const kilobytes = (bytes: number) => `${(bytes / 1000).toFixed(bytes < 10_000 ? 1 : 0)} kB`;
  console.log(
    `${name}, ${nodes} nodes: idle ${(idle.cpuMs / IDLE_MS * 100).toFixed(1)} % of a core, ` +
      `${kilobytes(idle.bytes / seconds)}/s; a node joins: all know after ` +
      `${heardMs.toSorted((a, b) => a - b)[Math.floor(joins / 2)]!.toFixed(0)} ms (median), ` +
      `${(joining.cpuMs / joins).toFixed(0)} ms of CPU, ${kilobytes(joining.bytes / joins)}; ` +
      `${rssMb(coord.pid)} MB`,
  );
  return { idle, joining };
}

const size = { nodes: Number(flags.nodes), joins: Number(flags.joins) };
const changes = await run("changes", "&changes=1", size);
const whole = await run("whole lists", "", size);
const ratio = (a: number, b: number) => (a / b).toFixed(4);
console.log(
  `changes : whole lists: idle bytes ${ratio(changes.idle.bytes, whole.idle.bytes)}, ` +
    `CPU ${ratio(changes.idle.cpuMs, whole.idle.cpuMs)}; ` +
    `a join's bytes ${ratio(changes.joining.bytes, whole.joining.bytes)}, ` +
    `CPU ${ratio(changes.joining.cpuMs, whole.joining.cpuMs)}`,
);
