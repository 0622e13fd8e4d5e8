/** Nothing that the coordinator, or somebody in its place, says or does not say ends a daemon. */
import { match, ok, strictEqual } from "node:assert/strict";
import { type SimCoordinator, type SimNode, World } from "./world/mod.ts";

async function pair(world: World) {
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  ok(await world.connects(a, b, 5_000));
  return { coordinator, a, b };
}

/** The tunnel carries data at each look, and the daemons run. */
async function staysUp(world: World, a: SimNode, b: SimNode, forMs: number): Promise<void> {
  const endMs = world.time.nowMs + forMs;
  while (world.time.nowMs < endMs) {
    strictEqual(a.ended ?? b.ended, undefined);
    ok(await world.ping(a, b) !== undefined, `no ping after ${world.time.nowMs} ms`);
    await world.run(2_000);
  }
}

/** Somebody new is seen: calls reach the coordinator and its answers are taken. */
async function newcomerIsMet(world: World, coordinator: SimCoordinator, a: SimNode) {
  const c = await world.up(world.hostBehind("newcomer"), coordinator);
  ok(await world.connects(a, c, 35_000));
  c.kill();
}

Deno.test("a coordinator that is away, and back", async () => {
  await using world = new World();
  const { coordinator, a, b } = await pair(world);
  coordinator.stop();
  await staysUp(world, a, b, 60_000);
  await coordinator.start();
  await newcomerIsMet(world, coordinator, a);
  strictEqual(a.said(/does not answer, trying again/).length, 1);
  strictEqual(a.said(/is back/).length, 1);
});

Deno.test("a peer that stays away is told again after a minute, by its name and key", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  b.kill();
  await world.run(70_000);
  const still = a.said(/peer still away.*"since"/);
  strictEqual(still.length, 1);
  const { peer, key } = still[0]!.fields!;
  strictEqual(peer, b.host.name);
  strictEqual(key, b.identity.nodeKey.slice(0, 8));
});

const HTML = "<!doctype html><html><body>log in</body></html>";
const ANSWERS: Record<string, () => Response> = {
  "401": () => new Response("log in", { status: 401 }),
  "403": () => new Response(HTML, { status: 403 }),
  "404": () => new Response("no such service\n", { status: 404 }),
  "407": () => new Response("proxy log-in", { status: 407 }),
  "429": () => new Response("slow down", { status: 429 }),
  "502": () => new Response(HTML, { status: 502 }),
  "a page of HTML": () => new Response(HTML, { headers: { "content-type": "text/html" } }),
  "foreign JSON": () => Response.json({ status: "maintenance" }),
  "a JSON list": () => Response.json([]),
  "nothing at all": () => new Response(""),
  "a foreign clock": () =>
    new Response(HTML, { status: 401, headers: { date: "Thu, 01 Jan 1970 00:00:00 GMT" } }),
};

for (const [name, answer] of Object.entries(ANSWERS)) {
  Deno.test(`in place of the coordinator somebody answers: ${name}`, async () => {
    await using world = new World();
    const { coordinator, a, b } = await pair(world);
    let asked = 0;
    coordinator.proxy = async () => {
      asked++;
      return answer();
    };
    coordinator.host.resetConnections();
    await staysUp(world, a, b, 60_000);
    ok(asked < 200, `asked ${asked} times in a minute`);
    coordinator.proxy = undefined;
    ok(
      await world.until(() => a.report().coordinator_error === undefined, 7_000),
      "seen to be back",
    );
    await newcomerIsMet(world, coordinator, a);
  });

  Deno.test(`a daemon that starts waits while somebody answers: ${name}`, async () => {
    await using world = new World();
    const coordinator = await world.coordinator();
    coordinator.proxy = async () => answer();
    const a = await world.up(world.hostBehind("a"), coordinator);
    await world.run(10_000);
    strictEqual(a.ended, undefined);
    ok(a.said(/trying again/).length > 0);
    coordinator.proxy = undefined;
    ok(await world.until(() => a.tunnelIp !== undefined, 8_000));
  });
}

for (const seconds of [90, -90, 7_200, 86_400, -86_400]) {
  Deno.test(`clocks that are set by ${seconds} s, here and there, change nothing`, async () => {
    await using world = new World();
    const { coordinator, a, b } = await pair(world);
    a.host.clock.wallStepMs += seconds * 1000;
    await staysUp(world, a, b, 40_000);
    await newcomerIsMet(world, coordinator, a);
    strictEqual(a.said(/clocks differ.*Set this host's/).length, 1);
    match(a.report().findings![0]!.text, new RegExp(`${Math.abs(seconds)} s (ahead|behind)`));
    a.host.clock.wallStepMs = 0;
    coordinator.host.clock.wallStepMs += seconds * 1000;
    await staysUp(world, a, b, 40_000);
    await newcomerIsMet(world, coordinator, a);
    strictEqual(b.said(/clocks differ.*Set the coordinator's/).length, 1);
  });
}

Deno.test("a host that starts in 1970 joins, and says whose clock is wrong", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const host = world.hostBehind("a");
  host.clock.wallStepMs = -host.clock.wallMs();
  const a = await world.up(host, coordinator);
  ok(await world.until(() => a.tunnelIp !== undefined, 1_000));
  strictEqual(a.said(/clocks differ.*Set this host's/).length, 1);
});

Deno.test("a coordinator that lost its state: nodes register anew", async () => {
  await using world = new World();
  const { coordinator, a, b } = await pair(world);
  coordinator.stop();
  await world.run(5_000);
  await coordinator.startAfresh();
  await staysUp(world, a, b, 20_000);
  await newcomerIsMet(world, coordinator, a);
});

Deno.test("a coordinator with another pool: addresses are changed in place", async () => {
  await using world = new World();
  const { coordinator, a, b } = await pair(world);
  const ifindex = a.host.kernel.ifindex(a.peer(b)!.ifname!);
  coordinator.stop();
  await world.run(5_000);
  await coordinator.startAfresh("10.99.0.0/24");
  ok(
    await world.until(
      () => a.tunnelIp!.startsWith("10.99.") && b.tunnelIp!.startsWith("10.99."),
      10_000,
    ),
  );
  ok(await world.connects(a, b, 5_000));
  strictEqual(a.host.kernel.ifindex(a.peer(b)!.ifname!), ifindex, "it is the same link");
  strictEqual(a.said(/another address/).length >= 1, true);
  const own = a.host.kernel.addresses.filter((address) => address.ifindex === ifindex);
  strictEqual(own.map(({ local }) => local).join(), a.tunnelIp);
});

Deno.test("a full pool does not end who has an address of an earlier one", async () => {
  await using world = new World();
  const { coordinator, a, b } = await pair(world);
  coordinator.stop();
  await coordinator.startAfresh("10.99.0.0/30"); // one address for nodes
  await staysUp(world, a, b, 1_000).catch(() => {}); // whose address changes, cannot be reached for now
  await world.run(60_000);
  strictEqual(a.ended ?? b.ended, undefined);
});

Deno.test("a proxy that cuts held calls after 5 s: no alarm, and newcomers are met at once", async () => {
  await using world = new World();
  const { coordinator, a } = await pair(world);
  coordinator.proxy = async (_request, pass) => {
    const cut = coordinator.host.clock.sleep(5_000)
      .then(() => new Response("<html>504 gateway time-out</html>", { status: 504 }));
    return await Promise.race([pass(), cut]);
  };
  await world.run(29_000); // calls are held for some seconds then
  coordinator.host.resetConnections();
  await world.run(75_000);
  const c = await world.up(world.hostBehind("c"), coordinator);
  ok(await world.connects(a, c, 5_000));
  strictEqual(a.said(/does not answer/).length, 0);
});

Deno.test("a network that comes up late: the daemon joins within seconds of that", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const host = world.hostBehind("a");
  const { routes } = host.kernel;
  host.kernel.setUp("eth0", false);
  const a = await world.up(host, coordinator);
  await world.run(60_000);
  strictEqual(a.ended, undefined);
  host.kernel.setUp("eth0", true);
  for (const route of routes) host.openRtNetlink().addRoute(route);
  ok(await world.until(() => a.tunnelIp !== undefined, 3_000));
});
