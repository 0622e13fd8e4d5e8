/** Nobody makes honest hosts a weapon against others, or against each other. */
import { ok, strictEqual } from "node:assert/strict";
import { type Endpoint, parseIp } from "../../lib/addr.ts";
import type { Ping } from "../../lib/disco/mod.ts";
import { extensionOf, HostileMember, Victim } from "./hostile_member.ts";
import { type SimCoordinator, type SimNode, SYMMETRIC, World } from "./world/mod.ts";

/** As many endpoints as a coordinator takes. */
const ENDPOINTS = 32;

interface Pair {
  coordinator: SimCoordinator;
  /** Behind a NAT. */
  a: SimNode;
  /** At a public address. */
  b: SimNode;
  atB: Endpoint;
}

async function pair(world: World): Promise<Pair> {
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const atB = { ip: world.publicIp(), port: 7777 };
  const b = await world.up(world.publicHost("b", atB.ip), coordinator);
  ok(await world.connects(a, b, 10_000));
  return { coordinator, a, b, atB };
}

Deno.test("a member's endpoints and invitations that name a victim make few packets", async () => {
  await using world = new World();
  const { coordinator, a, b } = await pair(world);
  const victim = new Victim(world);
  const mallory = await HostileMember.join(world, coordinator);
  await mallory.claim(victim.ports(ENDPOINTS));
  const attack = async (seconds: number) => {
    for (let second = 0; second < seconds; second++) {
      for (const node of [a, b]) mallory.invite(node, victim.ports(ENDPOINTS));
      await world.run(1_000);
    }
  };
  await attack(60);
  // Each of the two may have looked for it, as for anybody.
  ok(victim.take().packets <= 2 * 300, "for a minute");
  await attack(60);
  ok(victim.take().packets <= 2 * 20, "for another");
  ok(await world.connects(a, b, 1_000));
});

Deno.test("twelve members with one victim: a host sends it four packets a second at most", async () => {
  await using world = new World();
  const { coordinator, a, b } = await pair(world);
  const victim = new Victim(world);
  const members: HostileMember[] = [];
  for (let n = 0; n < 12; n++) {
    const member = await HostileMember.join(world, coordinator, n);
    await member.claim(victim.ports(ENDPOINTS));
    members.push(member);
  }
  victim.take();
  const seconds = 30;
  let isReached = 0;
  for (let second = 0; second < seconds; second++) {
    for (const member of second % 2 ? members : []) {
      for (const node of [a, b]) member.invite(node, victim.ports(ENDPOINTS));
      member.stay();
    }
    await world.run(900);
    if (await world.ping(a, b, { timeoutMs: 100 }) !== undefined) isReached++;
  }
  const { packets } = victim.take();
  ok(packets <= 2 * (128 + 4 * seconds), `${packets} packets`);
  strictEqual(isReached, seconds, "the tunnel of the honest");
  // And newcomers are found as soon as ever.
  const c = await world.up(world.hostBehind("c"), coordinator);
  ok(await world.until(() => a.state(c) === "direct", 2_000), a.state(c));
});

Deno.test("who is at an address that liars name is found all the same", async () => {
  await using world = new World();
  const { coordinator, b } = await pair(world);
  const site = world.site(SYMMETRIC);
  const members: HostileMember[] = [];
  for (let n = 0; n < 12; n++) members.push(await HostileMember.join(world, coordinator, n));
  const places = Array.from(
    { length: ENDPOINTS },
    (_, i) => ({ ip: site.nat.outer, port: 2_000 + i }),
  );
  for (let second = 0; second < 10; second++) {
    for (const member of members) member.invite(b, places);
    await world.run(1_000);
  }
  const c = await world.up(world.hostBehind("c", site), coordinator);
  for (const member of members) member.invite(b, places);
  ok(await world.until(() => b.state(c) === "direct" && c.state(b) === "direct", 2_000));
});

Deno.test("a forged source gets no more bytes than came from it, by the first ping and by many", async () => {
  await using world = new World();
  const { coordinator, b, atB } = await pair(world);
  const mallory = await HostileMember.join(world, coordinator);
  ok(await world.until(() => b.report().peers.length === 2, 5_000));
  const { bytes: random } = world.dice;
  const epoch = await mallory.epochOf(b, atB);
  const kinds: Record<string, () => Partial<Ping>> = {
    "as other programs send it": () => ({}),
    "without a key": () => ({ nodeKey: new Uint8Array() }),
    "to this run": () => ({ extension: extensionOf(random, epoch) }),
    "to an earlier run": () => ({ extension: extensionOf(random, random(8)) }),
    "with room for an answer and a ping": () => ({
      ...{ extension: extensionOf(random, epoch), padTo: 314 },
    }),
    "of 1,200 bytes": () => ({ extension: extensionOf(random, epoch), padTo: 1_200 }),
  };
  for (const [kind, change] of Object.entries(kinds)) {
    const victim = new Victim(world);
    mallory.stay();
    await world.run(100);
    let sent = mallory.ping({ ip: victim.ip, port: 2_000 }, atB, b, change());
    await world.run(10_000);
    const first = victim.take();
    ok(first.bytes <= sent, `${kind}: ${first.bytes} bytes for one ping of ${sent}`);
    ok(first.packets > 0 || kind === "without a key", `${kind}: answered`);
    sent = 0;
    for (let i = 0; i < 150; i++) {
      sent += mallory.ping({ ip: victim.ip, port: 3_000 + i % ENDPOINTS }, atB, b, change());
      await world.run(10);
    }
    await world.run(5_000);
    const { bytes } = victim.take();
    ok(bytes <= sent, `${kind}: ${bytes} bytes for ${sent}`);
  }
});

Deno.test("private addresses are tried only where this host has such a network", async () => {
  await using world = new World();
  const { coordinator, a, b } = await pair(world);
  const tried: string[] = [];
  const transmit = world.internet.transmit.bind(world.internet);
  world.internet.transmit = (packet) => {
    tried.push(packet.to.ip);
    transmit(packet);
  };
  const mallory = await HostileMember.join(world, coordinator);
  const strange = ["10.1.2.3", "172.16.0.9", "192.168.99.1", "100.127.1.1", "240.0.0.1", "0.1.2.3"];
  const endpoints = strange.map((ip) => ({ ip: parseIp(ip), port: 53 }));
  await mallory.claim(endpoints.slice(0, 4));
  for (const node of [a, b]) mallory.invite(node, endpoints);
  await world.run(10_000);
  const found = new Set(strange.filter((ip) => tried.includes(ip)));
  // The one behind a NAT has 192.168.0.0/24: what its router makes of others like it is not known.
  found.delete("192.168.99.1");
  strictEqual([...found].join(), "");
});
