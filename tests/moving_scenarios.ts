/**
 * What happens to a path while data flows through the tunnel, on either plane, and for how long the
 * data stops then. Nothing is done on the other side.
 */
import { notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { type Lab, type Nat, type NatOptions, SYMMETRIC } from "./lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { Overlay, type OverlayNode, sleep, until } from "./overlay.ts";
import { lossIn, pingUntilAnswered } from "./pings.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const INTERVAL_MS = 50;
/** So many answers in a row, without a pause of half of that, mean that data flows again. */
const STEADY_MS = 1_000;
/** A router comes back with other ports. */
const OTHER_PORTS = { ports: "random" } as const;

/** Pings through the tunnel, 20 a second. */
class Flow implements AsyncDisposable {
  readonly #answers: { sequence: number; atMs: number }[] = [];
  readonly #ping: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  readonly #nodes: readonly OverlayNode[];
  #text = "";

  static async start(from: OverlayNode, to: OverlayNode): Promise<Flow> {
    const flow = new Flow(from, to, await to.tunnelIp());
    await until("data to flow", async () => flow.#answers.length > 10, () => flow.#explain());
    return flow;
  }

  private constructor(from: OverlayNode, to: OverlayNode, ip: string) {
    this.#nodes = [from, to];
    const args = ["-n", "-D", "-i", String(INTERVAL_MS / 1000), ip];
    this.#ping = from.host.spawn("ping", args, { stdout: "piped" });
    this.#reading = this.#read(this.#ping.stdout);
  }

  async #read(stdout: ReadableStream<Uint8Array>): Promise<void> {
    let rest = "";
    for await (const text of stdout.pipeThrough(new TextDecoderStream())) {
      this.#text += text;
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const [, seconds, sequence] = /^\[(\d+\.\d+)\] .*bytes from .*icmp_seq=(\d+)/.exec(line) ??
          [];
        if (!seconds) continue;
        this.#answers.push({ sequence: Number(sequence), atMs: 1000 * Number(seconds) });
      }
    }
  }

  /**
   * For how long nothing came after `sinceMs`, the longest time, once data has flowed for a second
   * and `minimumMs` have passed.
   */
  async gapSince(sinceMs: number, minimumMs = 1_200): Promise<number> {
    await until("data to flow again", async () => {
      if (Date.now() < sinceMs + minimumMs) return false;
      const recent = this.#answers.filter(({ atMs }) => atMs > Date.now() - STEADY_MS);
      return recent.length > STEADY_MS / INTERVAL_MS / 2;
    }, () => this.#explain());
    return Math.max(...this.#gaps().filter(({ endMs }) => endMs > sinceMs).map(({ ms }) => ms));
  }

  #gaps(): { endMs: number; ms: number }[] {
    return this.#answers.slice(1).map(({ atMs }, i) => ({
      endMs: atMs,
      ms: atMs - this.#answers[i]!.atMs,
    }));
  }

  /** Pings without answer among those answered after `sinceMs`. */
  lostSince(sinceMs: number): number {
    const sequences = this.#answers.filter(({ atMs }) => atMs > sinceMs).map((a) => a.sequence);
    return sequences.at(-1)! - sequences[0]! + 1 - new Set(sequences).size;
  }

  #explain(): string {
    const [from, to] = this.#nodes;
    return `${this.#text.slice(-2000)}\n--- from\n${from!.log}\n--- to\n${to!.log}`;
  }

  /** Fails the test when data stopped for longer. */
  async within(what: string, limitMs: number, sinceMs: number, minimumMs?: number): Promise<void> {
    const gapMs = Math.round(await this.gapSince(sinceMs, minimumMs));
    console.log(`${what}: data stopped for ${gapMs} ms`);
    ok(gapMs <= limitMs, `${gapMs} ms\n${this.#explain()}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#ping.kill("SIGINT");
    } catch {
      // it has ended
    }
    await this.#ping.status;
    await this.#reading;
  }
}

interface Pair {
  overlay: Overlay;
  alice: OverlayNode;
  bob: OverlayNode;
  natA: Nat;
  natB: Nat;
}

async function pair(overlay: Overlay, plane: Plane, behaviour: NatOptions = {}): Promise<Pair> {
  const natA = overlay.lab.nat("nat-a", behaviour);
  const natB = overlay.lab.nat("nat-b", behaviour);
  const args = ["--data-plane", plane];
  const alice = overlay.node("alice", natA, args);
  const bob = overlay.node("bob", natB, args);
  return { overlay, alice, bob, natA, natB };
}

const now = () => Date.now();
const peerOf = async (node: OverlayNode) => (await node.report()).peers[0]!;

/** Lets the two routers exchange nothing: hosts behind them still reach everybody else. */
async function block(nat: Nat, other: Nat): Promise<void> {
  const rules = `table ip block { chain forward { type filter hook forward priority -10; ` +
    `ip daddr ${other.ip} drop; ip saddr ${other.ip} drop; }; }`;
  strictEqual((await nat.run("nft", [rules])).code, 0);
}

async function unblock(nat: Nat): Promise<void> {
  strictEqual((await nat.run("nft", ["delete table ip block"])).code, 0);
}

type Plane = "fou" | "tun";

/**
 * By how much the limits, which are those of a quiet machine, may be missed; what was measured is printed. The
 * kernel plane is in an emulated machine: slow, by a clock that counts instructions. On a machine that does
 * something else there is no limit: data flows again. The figures themselves: tests/sim/moving_test.ts.
 */
const SLACK: Record<Plane, number> = { fou: 10, tun: Infinity };

/** A test's step: what data does after the change. */
function stepOf(t: Deno.TestContext, plane: Plane, flow: Flow) {
  return (what: string, limitMs: number, change: () => unknown) =>
    t.step(what, async () => {
      const sinceMs = now();
      await change();
      await flow.within(`${plane}: ${what}`, limitMs * SLACK[plane], sinceMs);
    });
}

export function testNewMappings(plane: Plane): void {
  Deno.test(`${plane}: data flows on when NATs map anew`, async (t) => {
    await using overlay = await Overlay.start();
    const { alice, bob, natA, natB } = await pair(overlay, plane);
    await overlay.allDirect();
    await sleep(1_000); // what they do when a link is new is done then
    await using flow = await Flow.start(alice, bob);
    const step = stepOf(t, plane, flow);
    const isControlling = (await alice.report()).node_key < (await bob.report()).node_key;
    const roles = isControlling ? ["picks paths", "follows"] : ["follows", "picks paths"];
    for (const [i, [whose, nat]] of ([["sender", natA], ["receiver", natB]] as const).entries()) {
      const what = `the NAT of the ${whose}, who ${roles[i]}, maps anew`;
      await step(what, 1_000, () => nat.restart(OTHER_PORTS));
    }
    await alice.transfers(bob);
  });
}

export function testMoving(plane: Plane): void {
  Deno.test(`${plane}: data flows on when NATs and hosts move`, async (t) => {
    await using overlay = await Overlay.start();
    const { alice, bob, natA, natB } = await pair(overlay, plane);
    await overlay.allDirect();
    const ifindexes = async () => [await alice.ifindex("gretun0"), await bob.ifindex("gretun0")];
    const before = await ifindexes();
    await using flow = await Flow.start(alice, bob);
    const step = stepOf(t, plane, flow);

    for (const nat of plane === "tun" ? [natA, natB] : [natA]) {
      await step(`${nat.name} restarts, away for 2 s`, 2_000 + 5_000, async () => {
        nat.restart(OTHER_PORTS, { udpTo: [], tcpTo: [] });
        await sleep(2_000);
        nat.restart(OTHER_PORTS);
      });
    }
    await step("the sender's address changes", 5_000, () => alice.moveTo("10.0.1.99"));
    await step("the receiver's address changes", 5_000, () => bob.moveTo("10.0.2.99"));
    await step("the sender slept for 7 s while its NAT forgot it", 7_000 + 5_000, async () => {
      alice.process.kill("SIGSTOP");
      await sleep(3_000);
      natA.restart(OTHER_PORTS);
      await sleep(4_000);
      alice.process.kill("SIGCONT");
      const isAwake = async () => /awake after a pause/.test(alice.log);
      await until("alice to notice that she slept", isAwake, () => alice.log);
    });

    await overlay.allDirect();
    await step("the direct path dies, the relay takes over", 5_000, async () => {
      const sinceMs = now();
      await block(natA, natB);
      const hasNoticed = async () => (await peerOf(alice)).state !== "direct";
      await until("the dead path to be noticed", hasNoticed);
      const noticedMs = now() - sinceMs;
      console.log(`${plane}: a dead path was noticed after ${noticedMs} ms`);
      ok(noticedMs <= 3_000 * SLACK[plane]);
    });
    await t.step("from the relay back to a direct path", async () => {
      strictEqual((await peerOf(alice)).state, "relay");
      await alice.transfers(bob);
      const sinceMs = now();
      await unblock(natA);
      await overlay.allDirect();
      await sleep(500);
      const lost = flow.lostSince(sinceMs);
      console.log(`${plane}: back to a direct path, ${lost} packets lost`);
      ok(lost <= 1, `${lost} packets lost`);
    });

    const elsewhere = overlay.lab.nat("elsewhere");
    for (const { host } of [alice, bob]) {
      await step(`${host.name} moves to another network`, 5_000, () => host.moveTo(elsewhere));
    }
    await alice.pathTo("bob", /^10\./);
    await alice.transfers(bob);
    strictEqual((await ifindexes()).join(), before.join());
  });

  Deno.test(`${plane}: a relay that dies while data goes through it`, async () => {
    await using overlay = await Overlay.start();
    const relays = await overlay.startRelays("relay-a", "relay-b");
    const { alice, bob } = await pair(overlay, plane, SYMMETRIC);
    for (const node of [alice, bob]) {
      const isRelayed = async () => (await peerOf(node).catch(() => undefined))?.state === "relay";
      await until(`${node.host.name} to be relayed`, isRelayed, () => node.log);
    }
    await using flow = await Flow.start(alice, bob);
    const relayIp = async () => (await peerOf(alice)).endpoint!.split(":")[0]!;
    const before = await relayIp();
    const sinceMs = now();
    relays.get(before)!.kill("SIGKILL");
    await flow.within(`${plane}: another relay takes over`, 8_000 * SLACK[plane], sinceMs);
    notStrictEqual(await relayIp(), before);
    await alice.transfers(bob);
  });
}

/** `lossyNat` has a line that loses 20 % and takes 200 ms, one way at least. */
export function testLossyLine(
  plane: Plane,
  lossyNat: (lab: Lab) => Nat | Promise<Nat>,
): void {
  Deno.test(`${plane}: nodes meet over a line of 200 ms that loses 20 %`, async () => {
    await using overlay = await Overlay.start();
    const args = ["--data-plane", plane];
    const alice = overlay.node("alice", await lossyNat(overlay.lab), args);
    const bob = overlay.node("bob", overlay.lab.nat("nat-b"), args);
    const startMs = now();
    await overlay.allDirect();
    console.log(`${plane}: direct after ${now() - startMs} ms`);
    const count = 13;
    const { text, answered } = await pingUntilAnswered(alice.host, await bob.tunnelIp(), { count });
    const loss = lossIn(answered);
    console.log(`${plane}: ${Math.round(100 * loss)} % of pings without answer`);
    // Of twice 20 %, 36.
    ok(answered.length === count && loss < 0.75, `${text}\n${alice.log}\n${bob.log}`);
    for (const node of [alice, bob]) strictEqual((await peerOf(node)).state, "direct", node.log);
  });
}
