/** What is wrong around a daemon is said by it: in its log, and to who asks. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { isLoopback } from "../../lib/addr.ts";
import { type SimNode, World } from "./world/mod.ts";

const kinds = (node: SimNode) =>
  (node.report().findings ?? []).map((finding) => "kind" in finding ? finding.kind : "");

Deno.test("two hosts with one key: the younger waits, and says what to do", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  await world.run(5_000);
  const { identity } = a;
  const clone = await world.up(world.hostBehind("clone"), coordinator, { identity });
  await world.run(30_000);
  ok(clone.said(/another host with the same node key/).length > 0);
  strictEqual(clone.ended ?? clone.tunnelIp, undefined);
  ok(a.tunnelIp);
});

Deno.test("a host that is started again, moves, or loses its coordinator is no twin of itself", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const site = world.site();
  const a = await world.up(world.hostBehind("a", site), coordinator);
  await world.run(5_000);
  a.kill();
  await a.start();
  await world.run(10_000);
  site.nat.setOuter(world.publicIp());
  await world.run(30_000);
  coordinator.stop();
  site.nat.setOuter(world.publicIp());
  await world.run(30_000);
  await coordinator.startAfresh();
  await world.run(60_000);
  strictEqual(kinds(a).includes("twin"), false);
});

Deno.test("a firewall that drops what comes to the port is told from a network without UDP", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const host = world.hostBehind("a");
  host.kernel.firewall = (packet, direction) =>
    direction === "in" && packet.kind === "udp" && packet.to.port === 7777;
  const a = await world.up(host, coordinator);
  const b = await world.up(world.hostBehind("b", { udp: false }), coordinator);
  ok(await world.until(() => kinds(a).includes("port-filtered"), 60_000));
  ok(!kinds(b).includes("port-filtered"));
  host.kernel.firewall = () => false;
  ok(await world.until(() => !kinds(a).includes("port-filtered"), 30_000));
});

Deno.test("a firewall that drops UDP on loopback is said, where a relay by WebSocket needs it", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const host = world.hostBehind("a", { udp: false });
  host.kernel.firewall = ({ kind, to }) => kind === "udp" && isLoopback(to.ip);
  const a = await world.up(host, coordinator);
  const b = await world.up(world.hostBehind("b", { udp: false }), coordinator);
  ok(await world.until(() => kinds(a).includes("loopback-filtered"), 60_000));
  await world.run(30_000);
  ok(!kinds(b).includes("loopback-filtered"));
  strictEqual(a.ended, undefined);
  host.kernel.firewall = () => false;
  ok(await world.connects(a, b, 60_000));
  ok(await world.until(() => !kinds(a).includes("loopback-filtered"), 200_000));
});

Deno.test("all peers lost at once is said, one of them is not", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const others = await world.upAll(["b", "c", "d"], coordinator);
  ok(await world.until(() => others.every((node) => a.state(node) === "direct"), 10_000));
  others[0]!.host.kernel.setUp("eth0", false);
  await world.run(40_000);
  strictEqual(kinds(a).join(), "");
  a.host.kernel.firewall = () => true;
  ok(await world.until(() => kinds(a).includes("all-peers-lost"), 40_000));
  a.host.kernel.firewall = () => false;
  ok(await world.until(() => !kinds(a).includes("all-peers-lost"), 30_000));
});

Deno.test("peers that were lost at once, and have left, are no finding any more", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const others = await world.upAll(["b", "c"], coordinator);
  ok(await world.until(() => others.every((node) => a.state(node) === "direct"), 10_000));
  for (const { host } of others) host.kernel.setUp("eth0", false);
  ok(await world.until(() => kinds(a).includes("all-peers-lost"), 60_000));
  // The coordinator has not heard of them for so long that it does not tell of them any more.
  ok(await world.until(() => !kinds(a).includes("all-peers-lost"), 400_000));
  ok(others.every((node) => a.state(node) !== "direct"));
});

Deno.test("a relay that a proxy gives no way to is named, until there is a way", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  let isBlocked = true;
  coordinator.proxy = (request, pass) =>
    isBlocked && request.url.endsWith("/v1/relay/ws")
      ? Promise.resolve(new Response("no CONNECT", { status: 403 }))
      : pass();
  const a = await world.up(world.hostBehind("a", { udp: false }), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  ok(await world.until(() => kinds(a).includes("no-relay"), 30_000));
  strictEqual(a.said(/^the relay does not answer at ws:.*: refused/).length, 1);
  isBlocked = false;
  ok(await world.connects(a, b, 40_000));
  ok(!kinds(a).includes("no-relay"));
});

Deno.test("a node that the operator gives another name is no twin of itself, and says so", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  ok(await world.until(() => a.state(b) === "direct", 10_000));
  const record = coordinator.server!.nodes.get(a.identity.nodeKey)!;
  coordinator.server!.nodes.edit(record, { givenName: "anna" });
  coordinator.server!.edited(record);
  ok(await world.until(() => b.peer(a)?.name === "anna", 2_000));
  await world.run(10_000);
  strictEqual(kinds(a).includes("twin"), false);
  const { node_name, listed_name } = a.report();
  deepStrictEqual([node_name, listed_name], ["a", "anna"]);
});
