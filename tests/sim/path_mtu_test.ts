/** Paths that carry less than their routes say, and tell nobody: links are as small as they ask. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { DaemonOptions } from "../../lib/daemon/mod.ts";
import { FAIR, type SimNode, type Weather, World } from "./world/mod.ts";

/** A key of GRE, GRE, UDP and IPv4. */
const OVERHEAD = 36;
const [KERNEL, USER] = ["fou", "tun"] as const;

async function pair(weather: Partial<Weather>, options: Partial<DaemonOptions> = {}, seed = 1) {
  const world = new World(seed, { ...FAIR, ...weather });
  const coordinator = await world.coordinator();
  const [siteA, siteB] = [world.site(), world.site()];
  const a = await world.up(world.hostBehind("a", siteA), coordinator, options);
  const b = await world.up(world.hostBehind("b", siteB), coordinator, options);
  ok(await world.until(() => a.state(b) === "direct" && b.state(a) === "direct", 10_000));
  return { world, coordinator, siteA, siteB, a, b };
}

function linkMtu(node: SimNode, to: SimNode): number | undefined {
  return node.host.openRtNetlink().links()
    .find(({ name }) => name === node.peer(to)?.ifname)?.mtu;
}

/** Pings through the tunnel as long as the path's MTU lets them be, each way, until it is `mtu`. */
async function carries(world: World, [a, b]: [SimNode, SimNode], mtu: number, withinMs: number) {
  const isSo = (from: SimNode, to: SimNode) => linkMtu(from, to) === mtu - OVERHEAD;
  const endMs = world.time.nowMs + withinMs;
  while (!(isSo(a, b) && isSo(b, a)) && world.time.nowMs < endMs) {
    await Promise.all([world.ping(a, b, { timeoutMs: 100 }), world.ping(b, a, { timeoutMs: 100 })]);
    await world.run(withinMs / 20);
  }
  deepStrictEqual([linkMtu(a, b), linkMtu(b, a)], [mtu - OVERHEAD, mtu - OVERHEAD]);
  const size = mtu - OVERHEAD - 28;
  ok(await world.ping(a, b, { size }) !== undefined, "as large as the link's packets are");
}

for (const dataPlane of [KERNEL, USER]) {
  for (const mtu of [576, 1280, 1337, 1492, 1500]) {
    Deno.test(`${dataPlane}: a path of ${mtu} bytes is found within 3 s of use`, async () => {
      const { world, a, b } = await pair({ mtu }, { dataPlane });
      await using _world = world;
      await carries(world, [a, b], mtu, 3_000);
      await world.run(1_000);
      strictEqual(a.peer(b)!.mtu, mtu - OVERHEAD);
      strictEqual(a.peer(b)!.path_mtu, mtu);
      const found = (a.peer(b)!.findings ?? []).map(({ text }) => text).join();
      strictEqual(found.includes(`carries packets of ${mtu} bytes`), mtu < 1500);
    });
  }

  Deno.test(`${dataPlane}: a path of 9000 bytes keeps them, and one of 1500 behind jumbo cards is found`, async () => {
    for (const mtu of [9000, 1500]) {
      await using world = new World(1, { ...FAIR, mtu });
      const coordinator = await world.coordinator();
      const [a, b] = await Promise.all(["a", "b"].map((name) => {
        const host = world.publicHost(name);
        host.openRtNetlink().changeLink(host.kernel.ifindex("eth0"), { mtu: 9000 });
        return world.up(host, coordinator, { dataPlane });
      })) as [SimNode, SimNode];
      ok(await world.until(() => a.state(b) === "direct" && b.state(a) === "direct", 5_000));
      await carries(world, [a, b], mtu, 5_000);
    }
  });
}

Deno.test("a path that becomes narrower is followed within 3 s of silence, a wider one in minutes", async () => {
  const { world, a, b } = await pair({});
  await using _world = world;
  await carries(world, [a, b], 1500, 1_000);
  await world.run(60_000);
  world.internet.weather = { ...FAIR, mtu: 1400 };
  // Nothing that is large is answered.
  const before = world.time.nowMs;
  while (linkMtu(a, b) !== 1400 - OVERHEAD && world.time.nowMs - before < 3_000) {
    await world.ping(a, b, { timeoutMs: 200, size: 1400 });
  }
  strictEqual(linkMtu(a, b), 1400 - OVERHEAD);
  await carries(world, [a, b], 1400, 12_000);
  world.internet.weather = FAIR;
  await carries(world, [a, b], 1500, 240_000);
  strictEqual(a.peer(b)!.findings, undefined);
});

Deno.test("a rebound NAT, another network and a restart keep what is true of each path", async () => {
  const { world, siteA, a, b } = await pair({ mtu: 1400 });
  await using _world = world;
  await carries(world, [a, b], 1400, 3_000);
  siteA.nat.rebind();
  ok(await world.connects(a, b, 3_000));
  await carries(world, [a, b], 1400, 3_000);
  a.kill();
  await a.start();
  ok(await world.until(() => a.report().state === "running" && a.state(b) === "direct", 20_000));
  strictEqual(linkMtu(a, b), 1400 - OVERHEAD, "as the link of the run before had it");
  await carries(world, [a, b], 1400, 3_000);
  world.internet.weather = FAIR;
  a.host.kernel.setUp("eth0", false);
  world.plugIntoSite(a.host, world.site(), "wlan0");
  ok(await world.connects(a, b, 10_000));
  await carries(world, [a, b], 1500, 10_000);
});

Deno.test("a card with another MTU is followed, and looked at", async () => {
  const { world, a, b } = await pair({});
  await using _world = world;
  const setCard = (mtu: number) => {
    a.host.openRtNetlink().changeLink(a.host.kernel.ifindex("eth0"), { mtu });
  };
  setCard(1400);
  ok(await world.until(() => linkMtu(a, b) === 1400 - OVERHEAD, 3_000));
  world.internet.weather = { ...FAIR, mtu: 1450 };
  await world.run(5_000);
  setCard(1500);
  ok(await world.until(() => linkMtu(a, b) === 1500 - OVERHEAD, 3_000));
  ok(await world.until(() => linkMtu(a, b) === 1450 - OVERHEAD, 3_000), "without any use");
  setCard(1400);
  await world.run(5_000);
  setCard(1500);
  ok(await world.until(() => linkMtu(a, b) !== 1400 - OVERHEAD, 3_000));
  strictEqual(linkMtu(a, b), 1450 - OVERHEAD, "as is known already");
});

for (const loss of [0.05, 0.3]) {
  Deno.test(`a line that loses ${loss * 100} % is not taken for narrow`, async () => {
    const { world, a, b } = await pair({ loss }, {}, 7);
    await using _world = world;
    for (let i = 0; i < 100; i++) {
      await world.ping(a, b, { timeoutMs: 3_000 });
      await world.run(2_000);
      for (const [from, to] of [[a, b], [b, a]] as const) {
        const mtu = from.peer(to)?.path_mtu;
        ok(mtu === undefined || mtu === 1500, `${mtu}`);
      }
    }
  });
}

Deno.test("over a relay the narrower of both ways counts", async () => {
  await using world = new World(1, { ...FAIR, mtu: 1380 });
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a", { udp: false }), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  ok(await world.until(() => a.state(b) === "relay" && b.state(a) === "relay", 30_000));
  ok(await world.until(() => linkMtu(b, a) === 1380 - OVERHEAD, 5_000), `${linkMtu(b, a)}`);
  ok(await world.ping(b, a, { size: 1380 - OVERHEAD - 28 }) !== undefined);
});

Deno.test("an idle tunnel costs nothing more when its path is known", async () => {
  const { world, a, b } = await pair({ mtu: 1400 });
  await using _world = world;
  await world.run(10_000);
  const looked = a.peer(b)!.path_mtu_looked_s!;
  await world.run(600_000);
  strictEqual(a.peer(b)!.path_mtu_looked_s, looked + 600);
});
