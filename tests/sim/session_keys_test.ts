/** Keys of the data last for one session; what was recorded of signalling, for one run. */
import { deepStrictEqual, notDeepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Endpoint } from "../../lib/addr.ts";
import { encodeGre } from "../gre.ts";
import { isDisco } from "../../lib/disco/mod.ts";
import { Victim } from "./hostile_member.ts";
import { encodeIp, type UdpPacket } from "./world/packet.ts";
import { type Packet, type SimCoordinator, type SimNode, World } from "./world/mod.ts";

interface Pair {
  coordinator: SimCoordinator;
  a: SimNode;
  b: SimNode;
  atA: Endpoint;
  atB: Endpoint;
}

async function pair(world: World, keepsLinks = false): Promise<Pair> {
  const coordinator = await world.coordinator({ relay: false });
  const [atA, atB] = [0, 1].map(() => ({ ip: world.publicIp(), port: 7777 }));
  const options = { keepsLinks: () => keepsLinks };
  const a = await world.up(world.publicHost("a", atA!.ip), coordinator, options);
  const b = await world.up(world.publicHost("b", atB!.ip), coordinator);
  ok(await world.connects(a, b, 10_000));
  return { coordinator, a, b, atA: atA!, atB: atB! };
}

interface Keys {
  ikey: number | undefined;
  okey: number | undefined;
}

function keysOf(node: SimNode): Keys {
  const { tunnel } = node.host.openRtNetlink().links().find(({ tunnel }) => tunnel)!;
  return { ikey: tunnel!.ikey, okey: tunnel!.okey };
}

function areOnePair(a: SimNode, b: SimNode): boolean {
  const [left, right] = [keysOf(a), keysOf(b)];
  return left.ikey === right.okey && left.okey === right.ikey;
}

/** Whether a packet with that key, from where the peer is, gets out of the tunnel. */
async function isTaken(world: World, { a, b, atA, atB }: Pair, key: number): Promise<boolean> {
  const count = () => a.host.openRtNetlink().links().find(({ tunnel }) => tunnel)!.stats.rxPackets;
  const before = count();
  const inner = encodeIp({
    ...{ kind: "echo", isReply: true, id: 1, size: 8, ttl: 64 },
    ...{ from: { ip: b.tunnelIp! }, to: { ip: a.tunnelIp! } },
  });
  const bytes = encodeGre(inner, key)!;
  world.internet.transmit({ kind: "udp", from: atB, to: atA, ttl: 64, bytes });
  await world.run(100);
  return count() > before;
}

Deno.test("a captured key is worth nothing once the path was made anew", async () => {
  await using world = new World();
  const both = await pair(world);
  const { a, b, atA, atB } = both;
  const captured = keysOf(a);
  ok(areOnePair(a, b));
  ok(await isTaken(world, both, captured.ikey!), "as long as the session lasts");
  world.internet.cut(atA.ip, atB.ip);
  ok(await world.until(() => a.state(b) !== "direct" && b.state(a) !== "direct", 60_000));
  world.internet.cuts.clear();
  ok(await world.until(() => a.state(b) === "direct" && b.state(a) === "direct", 60_000));
  ok(await world.connects(a, b, 1_000));
  notDeepStrictEqual(keysOf(a), captured);
  ok(areOnePair(a, b));
  strictEqual(await isTaken(world, both, captured.ikey!), false);
  ok(await isTaken(world, both, keysOf(a).ikey!));
});

Deno.test("a node that starts again has other keys with each peer, and is met as soon as ever", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  const captured = keysOf(b);
  await Promise.all([a.stop(), world.run(1_000)]);
  await a.start();
  ok(await world.connects(a, b, 2_000));
  notDeepStrictEqual(keysOf(b), captured);
  ok(areOnePair(a, b));
});

Deno.test("a link that is adopted keeps its keys, and carries data all the time", async () => {
  await using world = new World();
  const { a, b } = await pair(world, true);
  const before = keysOf(a);
  const tunnelIp = a.tunnelIp!;
  await Promise.all([a.stop(), world.run(500)]);
  await a.start();
  for (let i = 0; i < 50; i++) {
    let isAnswered = false;
    void b.host.kernel.ping(tunnelIp, { timeoutMs: 100 }).then((ms) =>
      isAnswered = ms !== undefined
    );
    await world.run(150);
    ok(isAnswered, `ping ${i}`);
  }
  ok(await world.until(() => a.state(b) === "direct", 1_000));
  deepStrictEqual(keysOf(a), before);
  ok(areOnePair(a, b));
});

Deno.test("both adopt, or one adopts and the other begins anew: they end with keys of one pair", async () => {
  for (const bKeeps of [true, false]) {
    await using world = new World();
    const { a, b } = await pair(world, true);
    a.kill();
    if (bKeeps) b.kill();
    else await Promise.all([b.stop(), world.run(100)]);
    await a.start();
    await b.start();
    ok(await world.connects(a, b, 5_000), `b keeps its links: ${bKeeps}`);
    ok(areOnePair(a, b));
  }
});

Deno.test("recorded pings are worth nothing after a restart", async () => {
  await using world = new World();
  const seen: UdpPacket[] = [];
  const { internet } = world;
  const transmit = internet.transmit.bind(internet);
  internet.transmit = (packet: Packet) => {
    if (packet.kind === "udp" && isDisco(packet.bytes)) seen.push(packet);
    transmit(packet);
  };
  const { a, b, atB } = await pair(world);
  await world.run(60_000); // of keepalives
  const runs = seen.length;
  await Promise.all([b.stop(), world.run(1_000)]);
  await b.start();
  ok(await world.connects(a, b, 2_000));
  internet.transmit = transmit;
  const recorded = seen.slice(0, runs).filter(({ to }) => to.ip === atB.ip);
  ok(recorded.length > 1, `${recorded.length} recorded`);
  const victim = new Victim(world);
  const before = b.peer(a)!.endpoint;
  for (const [i, { bytes }] of recorded.entries()) {
    transmit({ kind: "udp", from: victim.ports(64)[i % 64]!, to: atB, ttl: 64, bytes });
  }
  await world.run(1_000);
  ok(victim.take().packets <= 2 * recorded.length, "each is answered, and asked what it knows");
  await world.run(120_000);
  strictEqual(victim.take().packets, 0, "nobody is looked for there");
  strictEqual(b.peer(a)!.endpoint, before);
});
