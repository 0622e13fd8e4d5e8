/** ipipou's protocol, hub and spokes in memory. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseEndpoint, parseIp } from "../../../lib/addr.ts";
import type { IpipouScheme, SpokeOptions, SpokeReport } from "../../../lib/hub/mod.ts";
import { HUB_IP, HUB_PORT, HubSim, ipv4 } from "./hub_sim.ts";

const [SERVER, CLIENT] = ["172.28.0.6", "172.28.0.7"];
const HUB = parseEndpoint(`${HUB_IP}:${HUB_PORT}`);

interface Known {
  file: string;
  ipipou: IpipouScheme;
}

const SCHEMES: Record<string, (sim: HubSim) => Known> = {
  token: () => ({
    file: "token Elephant\n",
    ipipou: { kind: "token", token: new TextEncoder().encode("Elephant") },
  }),
  key: (sim) => {
    const { file, credential } = sim.keys();
    const { ownSeed: seed } = credential as { ownSeed: Uint8Array };
    return {
      file: `${file}secret topsecret\n`,
      ipipou: { kind: "key", seed, secret: "topsecret" },
    };
  },
  address: () => ({ file: "remote 203.0.113.2\n", ipipou: { kind: "none" } }),
};

async function start(sim: HubSim, { file, ipipou }: Known, change: Partial<SpokeOptions> = {}) {
  sim.file("alice", `${file}hub-address ${SERVER}\naddress ${CLIENT}\n`);
  await sim.startHub({ protocol: "ipipou", idleMs: 0 });
  const addresses = { address: parseIp(CLIENT), hubAddress: parseIp(SERVER) };
  const alice = sim.spoke("alice", {
    ...{ protocol: "ipipou", dataPlane: "tun", keepaliveMs: 0, ipipou, ...addresses },
    ...change,
  });
  await sim.clock.runFor(200);
  return alice;
}

for (const [name, make] of Object.entries(SCHEMES)) {
  Deno.test(`ipipou: a client is known by ${name}; its spoke says up when something came back`, async () => {
    await using sim = new HubSim();
    const alice = await start(sim, make(sim));
    const state = async () => (await alice.report<SpokeReport>()).state;
    strictEqual((await sim.client("alice"))!.state, "up");
    strictEqual(await state(), "connecting");
    ok(await sim.passes(alice, sim.hub, ipv4(CLIENT, SERVER)));
    ok(await sim.passes(sim.hub, alice, ipv4(SERVER, CLIENT)));
    await sim.clock.runFor(1000);
    strictEqual(await state(), "up");
    await sim.clock.runFor(120_000);
    strictEqual(await state(), "up", "an idle tunnel");
  });
}

Deno.test("ipipou: a spoke whose authentications nobody answers is unanswered, not up", async () => {
  await using sim = new HubSim();
  const alice = await start(sim, SCHEMES.token!(sim), {
    ipipou: { kind: "token", token: new TextEncoder().encode("Mouse") },
    keepaliveMs: 1000,
  });
  await sim.clock.runFor(10_000);
  const { state, ifname, authentications } = await alice.report<SpokeReport>();
  deepStrictEqual([state, ifname], ["unanswered", "spoke0"]);
  ok(authentications >= 10);
  strictEqual(await alice.countUp(), 0);
  ok((await sim.refused())["bad-token"]! >= 10);
  const [line] = alice.log.of("hub does not answer");
  deepStrictEqual([line!.level, alice.log.of("hub does not answer").length], ["warn", 1]);
});

Deno.test("ipipou: the hub's reply is an answer", async () => {
  await using sim = new HubSim();
  const known = SCHEMES.key!(sim);
  sim.file("alice", known.file);
  await sim.startHub({ protocol: "ipipou", replyOnAuthOk: true, idleMs: 0 });
  const alice = sim.spoke("alice", {
    ...{ protocol: "ipipou", dataPlane: "tun", keepaliveMs: 0, ipipou: known.ipipou },
  });
  await sim.clock.runFor(500);
  strictEqual((await alice.report<SpokeReport>()).state, "up");
});

Deno.test("ipipou: an authentication moves the client; captured it is worth nothing", async () => {
  await using sim = new HubSim();
  const alice = await start(sim, SCHEMES.key!(sim), { keepaliveMs: 25_000 });
  const captured = sim.network.seen.filter(({ bytes }) => bytes.length === 73);
  strictEqual(captured.length, 1);
  sim.network.forge(parseEndpoint("192.0.2.66:1"), captured[0]!.bytes, HUB);
  await sim.clock.runFor(1000);
  strictEqual((await sim.refused()).replayed, 1);
  strictEqual((await sim.client("alice"))!.endpoint, `203.0.113.2:${HUB_PORT}`);
  alice.host.move("203.0.113.99");
  await sim.clock.runFor(1000);
  strictEqual((await sim.client("alice"))!.endpoint, `203.0.113.99:${HUB_PORT}`);
  ok(await sim.passes(sim.hub, alice, ipv4(SERVER, CLIENT)));
});

Deno.test("ipipou: data of strangers is refused, and so is IPv6", async () => {
  await using sim = new HubSim();
  const alice = await start(sim, SCHEMES.token!(sim));
  sim.network.forge(parseEndpoint("192.0.2.66:1"), ipv4(CLIENT, SERVER), HUB);
  await sim.clock.runFor(100);
  strictEqual((await sim.refused())["wrong-address"], 1);
  const ipv6 = new Uint8Array(60).fill(0);
  ipv6[0] = 0x60;
  strictEqual(await sim.passes(alice, sim.hub, ipv6), false);
});

Deno.test("ipipou: 5,000 forged signatures a second in a client's place and elsewhere end no tunnel", async () => {
  await using sim = new HubSim();
  const alice = await start(sim, SCHEMES.key!(sim), { keepaliveMs: 500 });
  const bob = SCHEMES.token!(sim);
  const junk = () => {
    const bytes = sim.random(73);
    bytes[0] = 0x91;
    return bytes;
  };
  let sent = 0;
  const flood = () => {
    for (let i = 0; i < 5; i++) {
      const place = parseEndpoint(`198.18.${sent >> 8 & 255}.${sent & 255}:5`);
      sim.network.forge(sent % 50 ? place : { ip: alice.host.ip, port: HUB_PORT }, junk(), HUB);
      sent++;
    }
    sim.network.seen.length = 0;
    if (sent < 15_000) sim.clock.timer(1, flood);
  };
  flood();
  await sim.clock.runFor(2000);
  const before = (await sim.client("alice"))!.authentications;
  sim.file("bob", bob.file);
  sim.spoke("bob", {
    ...{ protocol: "ipipou", dataPlane: "tun", keepaliveMs: 500, ipipou: bob.ipipou },
  });
  await sim.clock.runFor(900);
  ok((await sim.client("alice"))!.authentications > before, "its repeats are taken");
  strictEqual((await sim.client("bob"))!.state, "up", "a newcomer by token");
  ok((await sim.refused())["rate-limited"]! > 1000);
});
