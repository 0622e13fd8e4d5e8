/** Outer packets do not go through other tunnels where they need not, and never through our own. */
import { ok, strictEqual } from "node:assert/strict";
import { type Ip, parseIp } from "../../lib/addr.ts";
import { Lan } from "./world/net.ts";
import { type SimNode, World } from "./world/mod.ts";

/** Another VPN between both hosts: a device with private addresses each. */
function vpn(
  world: World,
  [a, b]: readonly [SimNode, SimNode],
  kind: string | undefined,
  mtu: number,
) {
  const wire = new Lan(world.time, world.dice.fork());
  for (const [i, { host }] of [a, b].entries()) {
    const name = "vpn0";
    const ifindex = host.kernel.addDevice({ name, mtu, wire, ...(kind ? { kind } : {}) });
    const ip = parseIp(`10.77.0.${i + 1}`);
    host.kernel.addAddress(ifindex, ip, 24);
    wire.stations.set(ip, host);
  }
}

async function pair(world: World) {
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  return { coordinator, a, b };
}

for (const [kind, mtu] of [["wireguard", 1420], ["tun", 1500], [undefined, 1280]] as const) {
  Deno.test(`a VPN beside the direct way is left alone: ${kind ?? "by its MTU"}`, async () => {
    await using world = new World();
    const { a, b } = await pair(world);
    vpn(world, [a, b], kind, mtu);
    ok(await world.until(() => a.state(b) === "direct" && b.state(a) === "direct", 10_000));
    await world.run(60_000);
    ok(a.peer(b)!.endpoint!.startsWith("203.0."), a.peer(b)!.endpoint);
    if (kind) ok(!a.report().endpoints!.some((text) => text.startsWith("10.77.")), "not offered");
  });
}

Deno.test("the only way is in a VPN: it is taken, and left for a direct one that comes later", async () => {
  await using world = new World();
  const coordinator = await world.coordinator({ relay: false });
  const [siteA, siteB] = [world.site(), world.site()];
  const endpoint = (ip: string) => ({ endpoints: [{ ip: parseIp(ip), port: 7777 }] });
  const a = await world.up(world.hostBehind("a", siteA), coordinator, endpoint("10.77.0.1"));
  const b = await world.up(world.hostBehind("b", siteB), coordinator, endpoint("10.77.0.2"));
  vpn(world, [a, b], "wireguard", 1420);
  world.internet.cut(siteA.nat.outer, siteB.nat.outer);
  ok(await world.until(() => a.peer(b)?.path === "tunnel", 10_000));
  ok(await world.connects(a, b, 1_000));
  world.internet.cuts.clear();
  ok(await world.until(() => a.peer(b)?.path === "direct", 70_000));
  ok(await world.connects(a, b, 1_000));
});

/** WireGuard inside of the overlay, the usual way to have confidentiality: its far end is an overlay address. */
function insideOverlay(from: SimNode, to: SimNode, own: Ip, far: Ip) {
  const rtnl = from.host.openRtNetlink();
  const tunnel = { remote: to.tunnelIp!, ttl: 64, pmtudisc: true };
  const encap = { type: "fou", sport: 9999, dport: 9999, csum: true } as const;
  const spec = { name: "inner0", kind: "gre", tunnel: { ...tunnel, encap }, up: true } as const;
  const ifindex = rtnl.createLink(spec);
  from.host.openFou().add({ port: 9999, family: 4, type: "direct", ipproto: 47 });
  rtnl.addAddress({ ifindex, local: own, peer: far, prefixLength: 32 });
}

Deno.test("a tunnel inside of ours is no way, though its addresses are offered and answer", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const [ipA, ipB] = [parseIp("10.66.0.1"), parseIp("10.66.0.2")];
  const given = (ip: Ip) => ({ endpoints: [{ ip, port: 7777 }] });
  const a = await world.up(world.hostBehind("a"), coordinator, given(ipA));
  const b = await world.up(world.hostBehind("b"), coordinator, given(ipB));
  ok(await world.connects(a, b, 10_000));
  insideOverlay(a, b, ipA, ipB);
  insideOverlay(b, a, ipB, ipA);
  const rttMs = a.host.kernel.ping(ipB);
  await world.run(1_000);
  ok(await rttMs !== undefined, "the inner tunnel works");
  for (let i = 0; i < 12; i++) {
    await world.run(10_000);
    ok(await world.ping(a, b) !== undefined);
    ok(a.peer(b)!.endpoint!.startsWith("203.0."), a.peer(b)!.endpoint);
  }
});

Deno.test("a route that begins to lead through our own link ends the path", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  ok(await world.connects(a, b, 10_000));
  const link = a.peer(b)!.ifname!;
  const [ip, port] = a.peer(b)!.endpoint!.split(":");
  const rtnl = a.host.openRtNetlink();
  const destination = { ip: parseIp(ip!), prefixLength: 32 };
  const route = { destination, device: a.host.kernel.ifindex(link) };
  rtnl.addRoute(route);
  await world.run(1_000);
  ok(a.peer(b)?.endpoint !== `${ip}:${port}`, "it is not used any more");
  strictEqual(a.ended, undefined);
  rtnl.deleteRoute(route);
  ok(await world.connects(a, b, 20_000));
});

Deno.test("packets that a rule of another program leads past the tunnel: told, and when it ends", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  ok(await world.connects(a, b, 10_000));
  const ip = b.report().tunnel_ip!.split("/")[0]! as Ip;
  a.host.kernel.addRule(ip);
  ok(await world.until(() => a.said(/do not go through the tunnel/).length === 1, 3_000));
  strictEqual(
    a.peer(b)!.findings?.[0]?.text,
    `packets to ${ip} leave by no device, not by the tunnel`,
  );
  a.host.kernel.removeRule(ip);
  ok(await world.until(() => a.peer(b)!.findings === undefined, 3_000));
  ok(await world.connects(a, b, 1_000));
});

Deno.test("packets with a mark that a rule leads elsewhere: named, as they may be meant to", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  ok(await world.connects(a, b, 10_000));
  const ip = b.report().tunnel_ip!.split("/")[0]!;
  a.host.kernel.setMarks([0xca6c]);
  ok(await world.until(() => a.peer(b)!.findings !== undefined, 3_000));
  const [finding] = a.peer(b)!.findings!;
  strictEqual(
    finding?.text,
    `packets with mark 0xca6c to ${ip} leave by no device, not by the tunnel`,
  );
  strictEqual(finding?.harmless, true);
  ok(await world.connects(a, b, 1_000));
  a.host.kernel.setMarks([]);
  ok(await world.until(() => a.peer(b)!.findings === undefined, 3_000));
});

Deno.test("what somebody does to the tunnel's own link is not said to be others' routes", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  ok(await world.connects(a, b, 10_000));
  const rtnl = a.host.openRtNetlink();
  const link = () => rtnl.links().find(({ alias }) => alias?.startsWith("gretun up"))!;
  const changes = [
    () => rtnl.changeLink(link().ifindex, { name: "lan7" }),
    () => rtnl.changeLink(link().ifindex, { up: false }),
    () => rtnl.deleteLink(link().name),
  ];
  for (const change of changes) {
    change();
    await world.run(2_000);
    ok(await world.connects(a, b, 3_000));
  }
  // A name that is another's by now stays: packets go by the link all the same.
  const { ifindex, name } = link();
  rtnl.changeLink(ifindex, { name: "lan7" });
  a.host.kernel.addDevice({ name, mtu: 1500, kind: "dummy" });
  await world.run(5_000);
  ok(await world.connects(a, b, 1_000));
  strictEqual(a.peer(b)!.findings, undefined);
  strictEqual(a.said(/do not go through the tunnel/).length, 0);
});

Deno.test("a link that somebody keeps down is named as that, until it is up again", async () => {
  await using world = new World();
  const { a, b } = await pair(world);
  ok(await world.connects(a, b, 10_000));
  const rtnl = a.host.openRtNetlink();
  const { ifindex } = rtnl.links().find(({ alias }) => alias?.startsWith("gretun up"))!;
  for (let times = 0; times < 20; times++) {
    rtnl.changeLink(ifindex, { up: false });
    await world.run(600);
  }
  strictEqual(a.said(/keeps changing a link of ours/).length, 1);
  const [{ text, remedy } = { text: "" }] = a.peer(b)!.findings!;
  ok(/ leave by .*, not by the tunnel, whose link is down$/.test(text), text);
  ok(/^Find the program that sets the link down/.test(remedy!), remedy);
  ok(await world.connects(a, b, 40_000));
  ok(await world.until(() => a.peer(b)!.findings === undefined, 3_000));
});
