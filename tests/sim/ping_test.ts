/** `gretun ping`: what a daemon tells who asks it to ping a peer. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { World } from "./world/mod.ts";

const WISH = { count: 10, untilDirect: true };
const SYMMETRIC = { mapping: "address-and-port-dependent", ports: "random" } as const;

Deno.test("a direct peer: one answer on the path, one through the tunnel", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  ok(await world.until(() => a.state(b) === "direct", 10_000));
  await world.run(2_000);
  const heard = a.ping(b, WISH);
  ok(await world.until(() => heard.hasEnded, 5_000));
  deepStrictEqual(heard.answers.map(({ via, peer }) => [via, peer.path]), [
    ["path", "direct"],
    ["tunnel", "direct"],
  ]);
  ok(heard.answers.every(({ rtt_ms }) => rtt_ms !== undefined && rtt_ms > 0));
  const counted = a.ping(b, { count: 3, untilDirect: false });
  ok(await world.until(() => counted.hasEnded, 10_000));
  deepStrictEqual(counted.answers.map(({ via }) => via), ["path", "path", "path", "tunnel"]);
});

Deno.test("a relayed peer is pinged so many times, and why it is relayed is said", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a", SYMMETRIC), coordinator);
  const b = await world.up(world.hostBehind("b", SYMMETRIC), coordinator);
  ok(await world.until(() => a.state(b) === "relay", 20_000));
  await world.run(5_000);
  const heard = a.ping(b, { count: 4, untilDirect: true });
  ok(await world.until(() => heard.hasEnded, 30_000));
  deepStrictEqual(heard.answers.map(({ via }) => via), ["path", "path", "path", "path", "tunnel"]);
  const { peer, rtt_ms } = heard.answers[0]!;
  strictEqual(peer.path, "relay-udp");
  ok(rtt_ms! > 0);
  strictEqual(peer.why_not_direct, "both NATs give each remote another port");
});

Deno.test("a peer that is away has no answers, and no tunnel is tried", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  ok(await world.until(() => a.state(b) === "direct", 10_000));
  b.kill();
  const silent = a.ping(b, { count: 2, untilDirect: true });
  ok(await world.until(() => silent.hasEnded, 15_000));
  ok(
    silent.answers.filter(({ via }) => via === "path").every(({ rtt_ms }) => rtt_ms === undefined),
  );
  ok(await world.until(() => a.peer(b)?.path === undefined, 120_000));
  const away = a.ping(b, { count: 2, untilDirect: true });
  ok(await world.until(() => away.hasEnded, 15_000));
  deepStrictEqual(away.answers.map(({ via, rtt_ms }) => [via, rtt_ms]), [
    ["path", undefined],
    ["path", undefined],
  ]);
});
