/** Networks change under daemons that run: tunnels are back soon. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { isLoopback, parseIp } from "../../lib/addr.ts";
import type { DaemonOptions } from "../../lib/daemon/mod.ts";
import { NO_UDP, type SimNode, World } from "./world/mod.ts";

/** The coordinator looks for a moment whether the run before is still there: it may be another host. */
const TAKES_OVER_MS = 5_000;

async function pair(world: World, options: Partial<DaemonOptions> = {}) {
  const coordinator = await world.coordinator();
  const [siteA, siteB] = [world.site(), world.site()];
  const a = await world.up(world.hostBehind("a", siteA), coordinator, options);
  const b = await world.up(world.hostBehind("b", siteB), coordinator);
  ok(await world.until(() => a.state(b) === "direct" && b.state(a) === "direct", 5_000));
  return { coordinator, siteA, siteB, a, b };
}

/** Pings go on all the time, as data does. */
async function outageMs(world: World, a: SimNode, b: SimNode): Promise<number> {
  const startMs = world.time.nowMs;
  ok(await world.connects(a, b, 20_000));
  return world.time.nowMs - startMs;
}

Deno.test("a NAT that rebinds costs less than 3 s", async () => {
  await using world = new World();
  const { siteA, a, b } = await pair(world);
  siteA.nat.rebind();
  const tookMs = await outageMs(world, b, a);
  ok(tookMs < 3_000, `${tookMs} ms`);
});

Deno.test("another public address costs less than 3 s", async () => {
  await using world = new World();
  const { siteA, a, b } = await pair(world);
  siteA.nat.setOuter(world.publicIp());
  const tookMs = await outageMs(world, b, a);
  ok(tookMs < 3_000, `${tookMs} ms`);
});

Deno.test("a host that moves to another network is back in less than 3 s", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  a.host.kernel.setUp("eth0", false);
  world.plugIntoSite(a.host, world.site(), "wlan0");
  const tookMs = await outageMs(world, a, b);
  ok(tookMs < 3_000, `${tookMs} ms`);
});

Deno.test("a host without any network for a while is back soon after", async () => {
  await using world = new World();
  const { a, b, siteA } = await pair(world);
  a.host.kernel.setUp("eth0", false);
  await world.run(60_000);
  strictEqual(a.ended, undefined);
  a.host.kernel.setUp("eth0", true);
  const gateway = parseIp(`${siteA.prefix}.1`);
  const destination = { ip: parseIp("0.0.0.0"), prefixLength: 0 };
  const device = a.host.kernel.ifindex("eth0");
  a.host.openRtNetlink().addRoute({ destination, gateway, device });
  const tookMs = await outageMs(world, a, b);
  ok(tookMs < 5_000, `${tookMs} ms`);
});

Deno.test("UDP that is blocked at this host's card costs less than 4 s: a connection carries the data", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  await world.run(30_000);
  a.host.kernel.firewall = ({ kind, to }) => kind === "udp" && !isLoopback(to.ip);
  strictEqual(await world.ping(a, b), undefined);
  const tookMs = await outageMs(world, a, b);
  ok(tookMs < 4_000, `${tookMs} ms`);
  strictEqual(a.peer(b)!.path, "relay-tcp");
});

Deno.test("a link that somebody removes is made again", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  a.host.kernel.removeLink(a.peer(b)!.ifname!);
  const tookMs = await outageMs(world, a, b);
  ok(tookMs < 2_000, `${tookMs} ms`);
});

Deno.test("a daemon that is killed leaves its link, and the next one takes it over", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  const { ifname } = a.peer(b)!;
  a.kill();
  ok(await world.ping(b, a) !== undefined, "the kernel goes on");
  const ifindex = a.host.kernel.ifindex(ifname!);
  await a.start();
  ok(await world.until(() => a.state(b) === "direct", TAKES_OVER_MS));
  strictEqual(a.host.kernel.ifindex(a.peer(b)!.ifname!), ifindex, "it is the same link");
  ok(await world.connects(a, b, 1_000));
});

Deno.test("a daemon that keeps its links is exchanged, and its peers do not notice", async () => {
  await using world = new World();
  const { a, b } = await pair(world, { keepsLinks: () => true });
  const ifindex = a.host.kernel.ifindex(a.peer(b)!.ifname!);
  const stopped = a.stop();
  ok(await world.until(() => a.ended !== undefined, 5_000));
  await stopped;
  ok(await world.ping(b, a) !== undefined, "no program runs, and data flows");
  await a.start();
  ok(await world.until(() => a.state(b) === "direct", TAKES_OVER_MS));
  ok(await world.ping(b, a) !== undefined);
  strictEqual(a.host.kernel.ifindex(a.peer(b)!.ifname!), ifindex, "it is the same link");
  strictEqual(b.said(/peer gone|path lost/).length, 0);
});

Deno.test("a daemon that ends leaves nothing behind", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  const stopped = a.stop();
  ok(await world.until(() => a.ended !== undefined, 5_000));
  await stopped;
  strictEqual(a.ended, "ended");
  const names = [...a.host.kernel.links.values()].map(({ name }) => name);
  strictEqual(names.join(), "lo,eth0");
  strictEqual(a.host.kernel.fouPorts.length, 0);
  ok(await world.until(() => b.peer(a)?.offline === true, 10_000));
  strictEqual(b.peer(a)?.ifname, undefined);
});

Deno.test("a direct way that was blocked for minutes is found again, while data flows by the relay", async () => {
  await using world = new World();
  const { a, b, siteA, siteB } = await pair(world);
  const flow = async (ms: number, isOver = () => false) => {
    for (const endMs = world.time.nowMs + ms; world.time.nowMs < endMs && !isOver();) {
      for (const [from, to] of [[a, b], [b, a]] as const) {
        void from.host.kernel.ping(to.tunnelIp!, { timeoutMs: 90 });
      }
      await world.run(100);
    }
  };
  const others = [siteA.nat.outer, siteB.nat.outer];
  const { kernel } = a.host;
  kernel.firewall = (packet) =>
    packet.kind === "udp" && (others.includes(packet.to.ip) || others.includes(packet.from.ip));
  await flow(300_000);
  strictEqual(a.state(b), "relay");
  kernel.firewall = () => false;
  await flow(130_000, () => a.state(b) === "direct" && b.state(a) === "direct");
  strictEqual(a.state(b), "direct");
});

for (const greKeys of [true, false]) {
  Deno.test(`what a peer sends from a relay that is not known yet is relayed, with keys: ${greKeys}`, async () => {
    await using world = new World();
    const coordinator = await world.coordinator();
    const a = await world.up(world.hostBehind("a"), coordinator, { greKeys });
    const b = await world.up(world.hostBehind("b", NO_UDP), coordinator, { greKeys });
    const isRelayed = () => a.state(b) === "relay" && b.state(a) === "relay";
    ok(await world.until(isRelayed, 30_000));
    a.kill();
    await world.run(1_000);
    coordinator.proxy = async (request, pass) => {
      if (request.url.includes("/v1/relay")) await a.host.clock.sleep(3_000);
      return await pass();
    };
    await a.start();
    ok(await world.until(() => a.state(b) === "direct", 3_000), "as it looks");
    ok(await world.until(() => a.state(b) === "relay", 30_000));
    // A program's socket gets the packets as they are, with checksums that nobody fills in any more.
    deepStrictEqual([...a.host.summed], [a.peer(b)!.ifname]);
  });
}
