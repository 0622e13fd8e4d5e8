/** Overlay addresses that a host cannot spare are not set, and told; data that does not arrive is, too. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseIp } from "../../lib/addr.ts";
import { Lan } from "./world/net.ts";
import { type SimNode, World } from "./world/mod.ts";

async function pair(world: World): Promise<[SimNode, SimNode]> {
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  return [a, b];
}

/** A card in a network that has the overlay's addresses. */
function joinSameNetwork(world: World, { host }: SimNode): number {
  const ifindex = host.kernel.addDevice({
    name: "lan0",
    mtu: 1500,
    wire: new Lan(world.time, world.dice.fork()),
  });
  host.kernel.addAddress(ifindex, parseIp("100.64.0.200"), 24);
  return ifindex;
}

Deno.test("a host whose network has the overlay's addresses keeps it, and says so", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const host = world.hostBehind("a");
  const b = await world.up(world.hostBehind("b"), coordinator);
  const a = await world.up(host, coordinator);
  joinSameNetwork(world, a);
  ok(await world.until(() => a.state(b) === "direct" && b.state(a) === "direct", 10_000));
  ok(await world.until(() => a.said(/address collides, not set/).length > 0, 3_000));
  const [line] = a.said(/address collides, not set/);
  strictEqual(line?.fields.with, "100.64.0.0/24 of lan0");
  deepStrictEqual(a.peer(b)!.findings?.length, 1);
  ok(a.peer(b)!.findings![0]!.text.endsWith("is not set: it collides with 100.64.0.0/24 of lan0"));
  const ours = host.openRtNetlink().addresses().filter(({ peer }) => peer !== undefined);
  deepStrictEqual(ours, []);
  strictEqual(a.ended, undefined);
  deepStrictEqual(b.peer(a)!.findings, undefined);
});

Deno.test("the coordinator is told what collides at a node, also after it was started again", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const ifindex = joinSameNetwork(world, a);
  const b = await world.up(world.hostBehind("b"), coordinator);
  const told = (node: SimNode) => coordinator.server?.collisionsOf(node.identity.nodeKey) ?? [];
  ok(await world.until(() => told(a).length > 0, 10_000));
  ok(told(a)[0]!.endsWith("collides with 100.64.0.0/24 of lan0"), told(a)[0]);
  coordinator.stop();
  await world.run(1_000);
  await coordinator.start();
  ok(await world.until(() => told(a).length > 0, 10_000));
  a.host.openRtNetlink().deleteLink(ifindex);
  ok(await world.until(() => told(a).length === 0, 10_000));
  deepStrictEqual(told(b), []);
});

Deno.test("a host that leaves such a network has its overlay at once", async () => {
  await using world = new World();
  const [a, b] = await pair(world);
  ok(await world.connects(a, b, 10_000));
  const ifindex = joinSameNetwork(world, a);
  ok(await world.until(() => a.peer(b)?.findings !== undefined, 3_000));
  a.host.openRtNetlink().deleteLink(ifindex);
  ok(await world.until(() => a.peer(b)?.findings === undefined, 3_000));
  ok(await world.connects(a, b, 3_000));
  strictEqual(a.said(/address collides no more/).length, 1);
});

Deno.test("a path that works while nothing comes out of the tunnel is a finding, until it does", async () => {
  await using world = new World();
  const [a, b] = await pair(world);
  a.answersPings = false;
  ok(await world.until(() => a.peer(b)?.findings !== undefined, 20_000));
  strictEqual(a.said(/pings in the tunnel are not answered.*firewall/i).length, 1);
  strictEqual(a.state(b), "direct");
  a.answersPings = true;
  ok(await world.until(() => a.peer(b)?.findings === undefined, 65_000));
});

Deno.test("a tunnel that data came out of, and comes out of no more, is a finding while data is sent", async () => {
  await using world = new World();
  const [a, b] = await pair(world);
  ok(await world.connects(a, b, 10_000));
  await world.run(60_000);
  // A firewall that somebody loads there.
  b.host.kernel.firewall = ({ kind }, way) => kind === "echo" && way === "in";
  a.answersPings = false;
  await world.run(60_000);
  strictEqual(a.peer(b)?.findings, undefined);
  for (let second = 0; second < 10; second++) await world.ping(a, b);
  ok(a.peer(b)?.findings?.some(({ text }) => /answers no pings in the tunnel/.test(text)));
  strictEqual(a.state(b), "direct");
  // A peer that is gone has no path that works.
  b.host.kernel.firewall = () => true;
  ok(await world.until(() => a.state(b) !== "direct", 30_000));
  strictEqual(a.peer(b)?.findings, undefined);
  b.host.kernel.firewall = () => false;
  a.answersPings = true;
  ok(await world.until(() => a.peer(b)?.findings === undefined, 65_000));
});

Deno.test("a path that dies while the tunnel is looked at is no finding", async () => {
  await using world = new World();
  const [a, b] = await pair(world);
  ok(await world.connects(a, b, 10_000));
  await world.run(60_000);
  a.answersPings = false;
  b.host.kernel.firewall = () => true;
  for (let second = 0; second < 10; second++) await world.ping(a, b);
  deepStrictEqual([a.said(/pings in the tunnel/), a.peer(b)?.findings], [[], undefined]);
});

Deno.test("a firewall that this host loads behind the link is found while data flows", async () => {
  await using world = new World();
  const [a, b] = await pair(world);
  ok(await world.connects(a, b, 10_000));
  await world.run(60_000);
  a.host.kernel.firewall = ({ kind }, way) => kind === "echo" && way === "in";
  a.answersPings = false;
  for (let second = 0; second < 30; second++) await world.ping(a, b);
  ok(a.peer(b)?.findings?.some(({ text }) => /answers no pings in the tunnel/.test(text)));
});
