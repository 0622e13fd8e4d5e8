/** Two nodes that guess, behind simulated NATs and under virtual time. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { type Endpoint, parseEndpoint, parseIp } from "../../../lib/addr.ts";
import type { NodeNat } from "../../../lib/coord/api.ts";
import { GUESS_AFTER_MS, OPEN_PORTS, type OuterPorts } from "../../../lib/peer/hard_nat.ts";
import type { PathAddress } from "../../../lib/peer/path_address.ts";
import { type GuessPeer, type GuessPort, PortGuesser } from "../../../lib/daemon/port_guesser.ts";
import type { PortGuess } from "../../../lib/disco/mod.ts";
import { silentLog, systemRandom } from "../../../lib/edges.ts";
import type { NodeKey } from "../../../lib/keys.ts";
import { FakeNat } from "../../fakes/symmetric_nat.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const MAIN_PORT = 7777;
const STUN_SERVER = parseEndpoint("203.0.113.9:3478");
const SIGNAL_MS = 30;
const NATS: Record<OuterPorts, NodeNat> = {
  one: { mapping: "easy" },
  sequential: { mapping: "hard", portDelta: 1 },
  random: { mapping: "hard" },
};

/** A node with one peer; a ping that gets through makes a path for both. */
class Node {
  readonly guesser: PortGuesser;
  readonly nat: FakeNat;
  readonly open = new Set<number>();
  readonly told: PortGuess[] = [];
  other!: Node;
  path: PathAddress | undefined;
  pings = 0;
  /** Whether a STUN server answers. */
  isSeen = true;
  maxOpen = 0;
  heardMs = -Infinity;
  /** Called when it has measured and told. */
  onTell = () => {};
  readonly kind: OuterPorts;
  readonly peer: GuessPeer;
  readonly #world: World;
  #nextPort = 50_000;

  constructor(world: World, name: "a" | "b", kind: OuterPorts, aggressive: boolean) {
    this.#world = world;
    this.kind = kind;
    this.nat = new FakeNat(parseIp(name === "a" ? "198.51.100.1" : "198.51.100.2"), kind);
    this.guesser = new PortGuesser({
      aggressive,
      clock: world.clock,
      random: systemRandom,
      log: silentLog,
      ownNat: () => NATS[kind],
      ownMapped: () => this.isSeen ? this.nat.out(MAIN_PORT, STUN_SERVER) : undefined,
      openPort: () => this.#openPort(),
    });
    // deno-lint-ignore no-this-alias
    const node = this;
    this.peer = {
      name: "peer",
      nodeKey: (name === "a" ? "b" : "a") as NodeKey,
      controlling: name === "a",
      get nat() {
        return NATS[node.other.kind];
      },
      get searchingSinceMs() {
        return node.path ? undefined : 0;
      },
      get heardMs() {
        return node.heardMs;
      },
      ping: (to) => this.#send(to),
      open: (to) => void this.nat.out(to.localPort ?? MAIN_PORT, to),
      tell: (message) => {
        this.told.push(message);
        this.onTell();
        world.clock.after(
          SIGNAL_MS,
          () => this.other.guesser.received(this.other.peer, message),
        );
      },
    };
  }

  #openPort(): GuessPort {
    const port = ++this.#nextPort;
    this.open.add(port);
    this.maxOpen = Math.max(this.maxOpen, this.open.size);
    return {
      port,
      send: () => {},
      measure: () => Promise.resolve(this.isSeen ? this.nat.out(port, STUN_SERVER) : undefined),
      [Symbol.dispose]: () => void this.open.delete(port),
    };
  }

  #send(to: PathAddress): void {
    this.pings++;
    const localPort = to.localPort ?? MAIN_PORT;
    const from = this.nat.out(localPort, to);
    const innerPort = this.other.nat.in(to.port, from);
    if (innerPort === undefined || to.ip !== this.other.nat.ip) return;
    this.#world.clock.after(10, () => this.other.arrived(from, innerPort));
    this.#world.clock.after(20, () => this.#take(to));
  }

  /** A ping: it is answered where the NATs let the answer through, which they do. */
  arrived({ ip, port }: Endpoint, innerPort: number): void {
    if (innerPort !== MAIN_PORT && !this.open.has(innerPort)) return;
    this.heardMs = this.#world.clock.nowMs();
    this.#take({ ip, port, ...(innerPort === MAIN_PORT ? {} : { localPort: innerPort }) });
  }

  #take(path: PathAddress): void {
    if (this.path) return;
    this.path = path;
    this.guesser.linkUses(this.peer.nodeKey, path.localPort);
  }
}

class World {
  readonly clock = new VirtualClock();
  readonly a: Node;
  readonly b: Node;

  constructor(kinds: [OuterPorts, OuterPorts], aggressive: [boolean, boolean] = [true, true]) {
    this.a = new Node(this, "a", kinds[0], aggressive[0]);
    this.b = new Node(this, "b", kinds[1], aggressive[1]);
    [this.a.other, this.b.other] = [this.b, this.a];
  }

  /** Daemons look twice a second. True when both have a path within that time. */
  async run(ms: number, lookMs = 500): Promise<boolean> {
    const endMs = this.clock.nowMs() + ms;
    while (this.clock.nowMs() < endMs) {
      for (const node of [this.a, this.b]) node.guesser.look([node.peer]);
      await this.clock.until(this.clock.sleep(lookMs));
      if (this.a.path && this.b.path) break;
    }
    const isDirect = this.a.path !== undefined && this.b.path !== undefined;
    // What is under way notices that.
    await this.clock.until(this.clock.sleep(100));
    return isDirect;
  }

  close(): void {
    for (const { guesser } of [this.a, this.b]) guesser[Symbol.dispose]();
  }
}

const MEETINGS: [OuterPorts, OuterPorts][] = [
  ["one", "sequential"],
  ["sequential", "one"],
  ["sequential", "sequential"],
  ["one", "one"],
];
for (const kinds of MEETINGS) {
  Deno.test(`outer ports ${kinds.join(" and ")}: a path at the first try`, async () => {
    const world = new World(kinds, [false, false]);
    ok(await world.run(GUESS_AFTER_MS + 1_500));
    const { a, b } = world;
    for (const node of [a, b]) {
      const isMoved = node.kind === "sequential" || node.other.kind === node.kind;
      strictEqual(node.path!.localPort !== undefined, isMoved);
      deepStrictEqual([...node.open], isMoved ? [node.path!.localPort] : []);
    }
    world.close();
    for (const node of [a, b]) strictEqual(node.open.size, 0);
  });
}

Deno.test("both sequential, and others take ports meanwhile: a path after some tries", async () => {
  for (const [others, ofB] of [[1, 0], [2, 0], [0, 3], [3, 2], [5, 9]] as const) {
    const world = new World(["sequential", "sequential"]);
    const { a, b } = world;
    a.onTell = () => a.nat.skip(others);
    b.onTell = () => b.nat.skip(ofB);
    ok(await world.run(120_000), `${others} and ${ofB}`);
    world.close();
  }
});

Deno.test("one side random: 256 ports, about a thousand pings, one port is left", async () => {
  let met = 0;
  for (let i = 0; i < 20; i++) {
    const world = new World(i % 2 ? ["one", "random"] : ["random", "one"]);
    const [easy, hard] = i % 2 ? [world.a, world.b] : [world.b, world.a];
    if (await world.run(GUESS_AFTER_MS + 7_000)) {
      met++;
      deepStrictEqual([...hard.open], [hard.path!.localPort]);
    } else strictEqual(hard.open.size, 0);
    strictEqual(hard.maxOpen, OPEN_PORTS.random);
    ok(easy.pings <= 1024, `${easy.pings} pings`);
    world.close();
  }
  ok(met >= 17, `${met} of 20`); // 98.4 % each
});

Deno.test("random ports are guessed only where both sides want it; asking grows rare", async () => {
  for (const aggressive of [[true, false], [false, true], [false, false]] as [boolean, boolean][]) {
    const world = new World(["one", "random"], aggressive);
    ok(!await world.run(1_200_000, 5_000));
    const { a, b } = world;
    strictEqual(a.pings + b.pings, 0);
    strictEqual(b.maxOpen, 0);
    ok(a.told.length <= (aggressive[0] ? 8 : 0), `asked ${a.told.length} times in 20 minutes`);
    world.close();
  }
});

Deno.test("nothing is tried that cannot succeed, nor before it is known what to try", async () => {
  for (const kinds of [["random", "random"], ["random", "sequential"]] as const) {
    const world = new World([...kinds]);
    ok(!await world.run(60_000));
    deepStrictEqual([...world.a.told, ...world.b.told], []);
    world.close();
  }
  const unseen = new World(["sequential", "one"]);
  unseen.a.isSeen = false;
  ok(!await unseen.run(60_000));
  strictEqual(unseen.a.open.size, 0);
  unseen.a.isSeen = true;
  ok(await unseen.run(60_000));
  unseen.close();
});

Deno.test("peers that never answer leave others their turn", async () => {
  const { a, clock } = new World(["one", "one"]);
  const asked: string[] = [];
  const peers = Array.from({ length: 20 }, (_, i): GuessPeer => {
    const nodeKey = `peer ${i}` as NodeKey;
    return { ...a.peer, nodeKey, tell: () => void asked.push(nodeKey) };
  });
  for (let i = 0; i < 200; i++) {
    a.guesser.look(peers);
    await clock.until(clock.sleep(500));
  }
  strictEqual(new Set(asked.slice(0, 20)).size, 20);
  a.guesser[Symbol.dispose]();
});

Deno.test("a peer that asks without end, or repeats itself, opens few ports", async () => {
  const world = new World(["random", "one"]);
  const { a } = world;
  const ask = (attempt: number): PortGuess => ({
    ...{ type: "port-guess", attempt: new Uint8Array(8).fill(attempt), isAnswer: false, round: 0 },
    ...{ ports: "one", delta: 0, endpoint: parseEndpoint("192.0.2.1:1") },
  });
  for (let i = 0; i < 1_000; i++) {
    a.guesser.received(a.peer, ask(i));
    await world.clock.until(world.clock.sleep(100));
  }
  strictEqual(a.maxOpen, OPEN_PORTS.random, "never more at a time");
  strictEqual(a.told.length, 5, "in 100 s, one in 20 s");
  await world.clock.until(world.clock.sleep(60_000));
  const before = a.told.length;
  for (let i = 0; i < 100; i++) {
    a.guesser.received(a.peer, ask(7));
    await world.clock.until(world.clock.sleep(1_000));
  }
  strictEqual(a.told.length, before + 1);
  a.guesser.received(a.peer, { ...ask(8), isAnswer: true }); // to nothing that was asked
  world.close();
});

Deno.test("forget() closes the ports of a peer, a link that leaves a port leaves it open for a while", async () => {
  const world = new World(["sequential", "one"]);
  const { a } = world;
  ok(await world.run(10_000));
  const { localPort } = a.path!;
  ok(a.guesser.port(a.peer.nodeKey, localPort!));
  a.guesser.linkUses(a.peer.nodeKey, localPort);
  strictEqual(a.open.size, 1);
  a.guesser.linkUses(a.peer.nodeKey, undefined);
  await world.clock.until(world.clock.sleep(100_000));
  a.guesser.look([]);
  strictEqual(a.open.size, 1, "it may be back");
  a.guesser.linkUses(a.peer.nodeKey, localPort);
  a.guesser.linkUses(a.peer.nodeKey, undefined);
  await world.clock.until(world.clock.sleep(121_000));
  a.guesser.look([]);
  strictEqual(a.open.size, 0);
  strictEqual(a.guesser.port(a.peer.nodeKey, localPort!), undefined);
  a.guesser.forget(a.peer.nodeKey);
  world.close();
});
