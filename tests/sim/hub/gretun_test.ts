/** Our own hub protocol, hub and spokes in memory: who is let in, roaming, crashes, floods. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { type Credential, sha256, type SpokeReport } from "../../../lib/hub/mod.ts";
import * as wire from "../../../lib/hub/protocol/gretun/wire.ts";
import { HUB_INNER, HUB_IP, HUB_PORT, HubSim, ipv4, type SimDaemon } from "./hub_sim.ts";
import { seededRandom } from "../../fakes/world.ts";

const HUB = parseEndpoint(`${HUB_IP}:${HUB_PORT}`);

Deno.test("a spoke behind a NAT connects, data passes both ways, all is removed at the end", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const alice = await sim.connected("alice", 2, {}, sim.site());
  const report = await alice.report<SpokeReport>();
  deepStrictEqual([report.address, report.hub_address, report.mtu, report.encrypt], [
    ...["10.90.0.2", "10.90.0.1", 1440, true],
  ]);
  ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
  ok(await sim.passes(sim.hub, alice, ipv4(HUB_INNER, "10.90.0.2")));
  await alice.stop();
  deepStrictEqual(alice.linkNames, []);
  await sim.clock.runFor(100);
  strictEqual((await sim.client("alice"))!.state, "down", "it has said good-bye");
  await sim.hub.stop();
  deepStrictEqual(sim.hub.linkNames, []);
});

// --- who is let in

type Scheme = { file: string; credential: Credential };
const token = async (text: string): Promise<Scheme> => ({
  file: `token ${text}\n`,
  credential: { kind: "token", key: await sha256(text) },
});
const SCHEMES: Record<string, (sim: HubSim) => Scheme | Promise<Scheme>> = {
  key: (sim) => sim.keys(),
  "key and secret": async (sim) => {
    const { file, credential } = sim.keys();
    const secret = await sha256("topsecret");
    return {
      file: `${file}secret topsecret\n`,
      credential: { ...credential, secret } as Credential,
    };
  },
  token: () => token("a token of some length"),
  address: () => ({ file: "remote 203.0.113.2\n", credential: { kind: "address" } }),
};
for (const [name, make] of Object.entries(SCHEMES)) {
  Deno.test(`a client is known by ${name}`, async () => {
    await using sim = new HubSim();
    const { file, credential } = await make(sim);
    sim.file("alice", `${file}address 10.90.0.2\n`);
    await sim.startHub();
    const alice = sim.spoke("alice", { credential });
    await sim.up(alice);
    ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
  });
}

const REFUSED: [
  string,
  (sim: HubSim) => Promise<{ file?: string; credential: Credential }>,
  string,
][] = [
  ["another key", (sim) => {
    return Promise.resolve({ file: sim.keys().file, credential: sim.keys().credential });
  }, "bad-mac"],
  ["another secret", async (sim) => {
    const { file, credential } = sim.keys();
    const secret = await sha256("wrong");
    return { file: `${file}secret right\n`, credential: { ...credential, secret } as Credential };
  }, "bad-mac"],
  ["another token", async () => {
    const { credential } = await token("one");
    return { file: (await token("other")).file, credential };
  }, "bad-mac"],
  ["another address", (sim) => {
    const { file, credential } = sim.keys();
    return Promise.resolve({ file: `${file}remote 192.0.2.1\n`, credential });
  }, "wrong-address"],
  ["no file", (sim) => Promise.resolve({ credential: sim.keys().credential }), "unknown-client"],
  ["another hub's key", (sim) => {
    const { file, credential } = sim.keys();
    const peerPublic = (sim.keys().credential as { ownPublic: Uint8Array }).ownPublic;
    return Promise.resolve({ file, credential: { ...credential, peerPublic } as Credential });
  }, "bad-mac"],
];
for (const [name, make, reason] of REFUSED) {
  Deno.test(`${name}: no link on either end, counted as ${reason}`, async () => {
    await using sim = new HubSim();
    const { file, credential } = await make(sim);
    if (file) sim.file("alice", file);
    await sim.startHub();
    const alice = sim.spoke("alice", { credential });
    await sim.clock.runFor(30_000);
    ok((await sim.refused())[reason]! >= 2, JSON.stringify(await sim.refused()));
    deepStrictEqual([...sim.hub.linkNames, ...alice.linkNames], []);
    strictEqual((await alice.report<SpokeReport>()).state, "connecting");
    const [line] = sim.hub.log.of("client refused");
    deepStrictEqual([line!.level, line!.reason], ["warn", reason]);
    ok(line!.hint);
  });
}

Deno.test("a public key of small order is nobody's", async () => {
  await using sim = new HubSim();
  sim.file("alice", `public-key AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n`);
  await sim.startHub();
  strictEqual(await sim.client("alice"), undefined);
  strictEqual(sim.hub.log.of("client not authorised").length, 1);
});

Deno.test("a file lets a client in, its removal ends it at once; others are not disturbed", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const bob = await sim.connected("bob", 3);
  const { file, credential } = sim.keys();
  const alice = sim.spoke("alice", { credential });
  await sim.clock.runFor(5000);
  deepStrictEqual(alice.linkNames, []);
  sim.file("alice", `${file}address 10.90.0.2\n`);
  await sim.up(alice);
  strictEqual(sim.hub.linkNames.length, 2);
  sim.removeFile("alice");
  await sim.clock.runFor(100);
  strictEqual(sim.hub.linkNames.length, 1);
  ok(await sim.passes(bob, sim.hub, ipv4("10.90.0.3", HUB_INNER)));
  strictEqual((await sim.client("bob"))!.authentications, 1);
});

Deno.test("where nothing tells of changes, SIGHUP does", async () => {
  await using sim = new HubSim();
  sim.hub.machine.files.canWatch = false;
  await sim.startHub();
  sim.file("alice", sim.keys().file);
  await sim.clock.runFor(5000);
  strictEqual(await sim.client("alice"), undefined);
  sim.hub.machine.signal("SIGHUP");
  strictEqual((await sim.client("alice"))!.state, "down");
});

Deno.test("a client cannot use another's tunnel address", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const alice = await sim.connected("alice", 2);
  strictEqual(await sim.passes(alice, sim.hub, ipv4("10.90.0.3", HUB_INNER)), false);
  strictEqual((await sim.refused())["wrong-inner-address"], 1);
  ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
});

// --- roaming, silence, restarts

Deno.test("a spoke whose host has another address authenticates again, in the same link", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const alice = await sim.connected("alice", 2);
  for (let i = 0; i < 5; i++) {
    alice.host.move(`203.0.113.${100 + i}`);
    await sim.clock.runFor(2000);
    ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)), `move ${i}`);
    ok(await sim.passes(sim.hub, alice, ipv4(HUB_INNER, "10.90.0.2")), `move ${i}`);
  }
  const client = await sim.client("alice");
  deepStrictEqual([client!.roams, client!.endpoint], [5, `203.0.113.104:${HUB_PORT}`]);
  deepStrictEqual([alice.linkNames, sim.hub.linkNames], [["spoke0"], ["hub0"]]);
});

Deno.test("a NAT that forgets is noticed by the next packet or keepalive", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const site = sim.site();
  const alice = await sim.connected("alice", 2, {}, site);
  site.nat.rebind();
  await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER));
  await sim.clock.runFor(500);
  ok(await sim.passes(sim.hub, alice, ipv4(HUB_INNER, "10.90.0.2")), "by data");
  site.nat.rebind();
  await sim.clock.runFor(27_000);
  ok(await sim.passes(sim.hub, alice, ipv4(HUB_INNER, "10.90.0.2")), "by a keepalive");
});

Deno.test("a silent client's link goes after the idle time, and comes back with it", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const alice = await sim.connected("alice", 2);
  sim.network.isLost = () => true;
  await sim.clock.runFor(210_000);
  deepStrictEqual(sim.hub.linkNames, []);
  deepStrictEqual(alice.linkNames, ["spoke0"], "the spoke's stays");
  deepStrictEqual([await alice.countUp(), await sim.hub.countUp()], [0, 0]);
  strictEqual((await alice.report<SpokeReport>()).state, "lost");
  sim.network.isLost = () => false;
  await sim.clock.runFor(20_000);
  ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
  deepStrictEqual([await alice.countUp(), await sim.hub.countUp()], [1, 1]);
});

Deno.test("on a line that loses a third of all packets everybody is let in and stays", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const random = seededRandom(7);
  sim.network.isLost = () => random(1)[0]! < 85;
  const names = ["ann", "ben", "cat", "dan"];
  for (const [i, name] of names.entries()) await sim.connected(name, i + 2, {}, sim.site());
  await sim.clock.runFor(600_000);
  for (const name of names) strictEqual((await sim.client(name))!.state, "up");
});

Deno.test("kill -9 of the hub: spokes are back by themselves, what it left is ended", async () => {
  await using sim = new HubSim();
  await sim.startHub({ program: ["daemon"] });
  const alice = await sim.connected("alice", 2, {}, sim.site());
  sim.hub.kill();
  const [left] = sim.hub.machine.processes.started;
  ok(left && left.signals.length === 0);
  await sim.clock.runFor(5000);
  sim.restartHub();
  await sim.clock.runFor(200);
  deepStrictEqual(left.signals, ["SIGTERM"]);
  await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)).catch(() => {});
  await sim.clock.runFor(1000);
  ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
  ok(await sim.passes(sim.hub, alice, ipv4(HUB_INNER, "10.90.0.2")));
  ok((await sim.client("alice"))!.pid !== left.pid);
});

Deno.test("a hub's name with a dead first address: the others are tried, and the one that answers is kept", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const [dead, live] = [parseIp("203.0.113.250"), parseIp(HUB_IP)];
  sim.names.set("hub.example", [dead, live]);
  const { file, credential } = sim.keys();
  sim.file("alice", `${file}address 10.90.0.2\n`);
  const hub = { host: "hub.example", port: HUB_PORT };
  const alice = sim.spoke("alice", { credential, hub }, sim.site());
  await sim.clock.runUntil("the hub to be found", () => alice.linkNames.length > 0, 10_000);
  await sim.clock.runFor(600_000);
  strictEqual((await sim.client("alice"))!.state, "up");
  strictEqual(alice.log.of("connected").length, 1);
  sim.hub.kill();
  await sim.clock.runFor(60_000);
  sim.restartHub();
  await sim.clock.runFor(40_000);
  ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
});

Deno.test("kill -9 of a spoke, and a new one: one client, one link", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const { file, credential } = sim.keys();
  sim.file("alice", `${file}address 10.90.0.2\n`);
  const site = sim.site();
  const alice = sim.spoke("alice", { credential }, site);
  await sim.up(alice);
  alice.kill();
  site.nat.rebind();
  sim.startSpoke("alice", alice, { credential });
  await sim.clock.runFor(1000);
  ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
  strictEqual((await sim.client("alice"))!.authentications, 2);
  strictEqual(sim.hub.linkNames.length, 1);
});

Deno.test("a link that somebody removes comes back, on either end", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const alice = await sim.connected("alice", 2);
  for (const daemon of [sim.hub, alice]) {
    daemon.host.kernel.removeLink(daemon.linkNames[0]!);
    daemon.host.networkChanged();
    await sim.clock.runFor(3000);
    strictEqual(daemon.linkNames.length, 1);
    strictEqual(daemon.log.of("link is gone, making it again").length, 1);
    ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
    ok(await sim.passes(sim.hub, alice, ipv4(HUB_INNER, "10.90.0.2")));
  }
  strictEqual((await alice.report<SpokeReport>()).authentications, 1);
});

// --- signals and configuration

Deno.test("SIGUSR1 and the control socket make a spoke authenticate", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const alice = await sim.connected("alice", 2);
  alice.machine.signal("SIGUSR1");
  await sim.clock.runFor(1000);
  strictEqual((await sim.client("alice"))!.authentications, 2);
  await alice.machine.ask(`/run/gretun/spoke-${HUB_PORT}.sock`, "/v1/reauth", "POST");
  await sim.clock.runFor(1000);
  strictEqual((await sim.client("alice"))!.authentications, 3);
});

Deno.test("a configuration that is read again holds at once; clients are told with a new session", async () => {
  await using sim = new HubSim();
  await sim.startHub({ keepaliveMs: 1000 });
  const alice = await sim.connected("alice", 2);
  sim.reread = { keepaliveMs: 2000, idleMs: 5000, program: ["daemon"] };
  sim.hub.machine.signal("SIGHUP");
  await sim.clock.runFor(2000);
  strictEqual((await sim.client("alice"))!.authentications, 2);
  // Longer than the new idle time: the client goes by the new keepalive.
  await sim.clock.runFor(20_000);
  strictEqual((await sim.client("alice"))!.state, "up");
  strictEqual((await sim.client("alice"))!.pid, undefined, "its link is older than the program");
  strictEqual(sim.hub.machine.statusLine!(), "1 of 1 clients connected, UDP port 7788");
  strictEqual(alice.machine.statusLine!(), "up: hub 203.0.113.1:7788, address 10.90.0.2");
  await sim.connected("bob", 3);
  ok((await sim.client("bob"))!.pid !== undefined);
  sim.reread = new Error("no such key");
  sim.hub.machine.signal("SIGHUP");
  await sim.clock.runFor(2000);
  strictEqual(sim.hub.log.of("configuration not taken, the old one goes on").length, 1);
  ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
});

Deno.test("a second hub on the port is told who has it", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  sim.hub.machine.log.lines.length = 0;
  const first = sim.hub.ended;
  sim.restartHub();
  let message = "";
  await sim.clock.run(sim.hub.ended.catch((error) => void (message = String(error))));
  ok(/another gretun hub .*uses port 7788/.test(message), message);
  sim.hub.ended = first;
});

// --- programs

Deno.test("programs run with the link, told about it, and end with it", async () => {
  await using sim = new HubSim();
  await sim.startHub({ program: ["daemon"], onUp: "up", onDown: "down" });
  const alice = await sim.connected("alice", 2, { program: ["client"] });
  const { processes } = sim.hub.machine;
  const [daemon] = processes.started;
  const { TUN_DEV_NAME, TUN_CLIENT_ID, GRETUN_PEER_IP, GRETUN_MTU } = daemon!.env;
  deepStrictEqual([TUN_DEV_NAME, TUN_CLIENT_ID, GRETUN_PEER_IP, GRETUN_MTU], [
    ...["hub0", "616c696365", "10.90.0.2", "1440"],
  ]);
  strictEqual(alice.machine.processes.started[0]!.env.TUN_DEV_NAME, "spoke0");
  sim.removeFile("alice");
  await sim.clock.runFor(200);
  deepStrictEqual(daemon!.signals, ["SIGTERM"]);
  deepStrictEqual(processes.commands.map(({ command }) => command), ["up", "down"]);
});

Deno.test("a program that must succeed takes its link with it, and its client waits", async () => {
  await using sim = new HubSim();
  sim.hub.machine.processes.exitCodes.set("false", 1);
  await sim.startHub({ program: ["false"], programMustSucceed: true });
  const { file, credential } = sim.keys();
  sim.file("alice", file);
  sim.spoke("alice", { credential });
  await sim.clock.runFor(60_000);
  const downs = sim.hub.log.of("client down").filter(({ reason }) => reason === "program-failed");
  ok(downs.length >= 2 && downs.length <= 6, `${downs.length} times in a minute`);
  deepStrictEqual(sim.hub.linkNames, []);
});

Deno.test("a spoke ends when its program must succeed and does not", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const { file, credential } = sim.keys();
  sim.file("alice", file);
  const alice = sim.spoke("alice", { credential, program: ["missing"], programMustSucceed: true });
  alice.machine.processes.exitCodes.set("missing", undefined);
  let message = "";
  await sim.clock.run(alice.ended.catch((error) => void (message = String(error))));
  ok(/program missing cannot be started/.test(message), message);
  deepStrictEqual(alice.linkNames, []);
});

// --- captured and forged packets

Deno.test("captured packets are worth nothing: elsewhere, again, or later", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const alice = await sim.connected("alice", 2);
  await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER));
  const captured = sim.network.seen.filter(({ to }) => to.ip === HUB_IP);
  const before = await sim.client("alice");
  const { written } = sim.hub.host.tuns[0]!;
  const count = written.length;
  const mallory = parseEndpoint("192.0.2.66:7788");
  for (const { bytes, from } of captured) {
    for (const place of [from, mallory]) sim.network.forge(place, bytes, HUB);
  }
  await sim.clock.runFor(60_000);
  for (const { bytes } of captured) sim.network.forge(mallory, bytes, HUB);
  await sim.clock.runFor(1000);
  strictEqual(written.length, count, "no data is taken twice");
  const after = await sim.client("alice");
  deepStrictEqual([after!.endpoint, after!.roams], [before!.endpoint, 0]);
  ok(await sim.passes(sim.hub, alice, ipv4(HUB_INNER, "10.90.0.2")));
});

/** Forged packets, five a millisecond, of which nothing answers anything. */
const FORGED: Record<string, (sim: HubSim, i: number, spoke: SimDaemon) => void> = {
  "hellos of the client from everywhere": (sim, i) => {
    const from = parseEndpoint(`198.18.${i >> 8 & 255}.${i & 255}:${1024 + i % 60_000}`);
    sim.network.forge(from, wire.encodeHello({ nonce: sim.random(16), name: "alice" }), HUB);
  },
  "hellos in the client's own address": (sim, _i, { host }) => {
    const from = { ip: host.ip, port: HUB_PORT };
    sim.network.forge(from, wire.encodeHello({ nonce: sim.random(16), name: "alice" }), HUB);
  },
  "answers to challenges in the client's own address": (sim, _i, { host }) => {
    const auth = wire.encodeAuth({
      ...{ name: "alice", nonce: sim.random(16), cookie: sim.random(16), hub: HUB },
      ...{ stamp: BigInt(sim.clock.wallMs()) * 1000n, ephemeral: sim.random(32) },
      ...{ framing: "any", encrypt: true, proof: sim.random(64), mac: sim.random(16) },
    });
    sim.network.forge({ ip: host.ip, port: HUB_PORT }, auth, HUB);
  },
  "keepalives of no session": (sim, i) => {
    const keepalive = wire.encodeKeepalive({ session: sim.random(8), counter: 1n, bye: true });
    sim.network.forge(parseEndpoint(`198.18.0.1:${1024 + i % 60_000}`), keepalive, HUB);
  },
};
for (const [name, forge] of Object.entries(FORGED)) {
  Deno.test(`5,000 ${name} a second keep no spoke out, and end no session`, async () => {
    await using sim = new HubSim();
    await sim.startHub({ keepaliveMs: 1000 });
    const bob = await sim.connected("bob", 3, {}, sim.site());
    const { file, credential } = sim.keys();
    sim.file("alice", `${file}address 10.90.0.2\n`);
    const alice = sim.spoke("alice", { credential, hub: { host: "192.0.2.9", port: 9 } });
    let sent = 0;
    const flood = () => {
      for (let i = 0; i < 5; i++) forge(sim, sent++, alice);
      sim.network.seen.length = 0;
      sim.clock.timer(1, flood);
    };
    flood();
    await sim.clock.runFor(1500);
    await alice.stop();
    sim.startSpoke("alice", alice, { credential });
    await sim.clock.runUntil("alice to be up", () => alice.linkNames.length > 0, 3000);
    ok(await sim.passes(alice, sim.hub, ipv4("10.90.0.2", HUB_INNER)));
    strictEqual((await sim.client("bob"))!.authentications, 1);
    strictEqual((await bob.report<SpokeReport>()).state, "up");
  });
}

Deno.test("a spoke takes nothing but from its hub", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const alice = await sim.connected("alice", 2);
  const at = { ip: parseIp("192.0.2.66"), port: HUB_PORT };
  for (const { bytes } of sim.network.seen.filter(({ to }) => to.ip === alice.host.ip)) {
    sim.network.forge(at, bytes, { ip: alice.host.ip, port: HUB_PORT });
  }
  await sim.clock.runFor(1000);
  const { refused, state, authentications } = await alice.report<SpokeReport>();
  ok(refused["wrong-address"]! >= 2);
  deepStrictEqual([state, authentications], ["up", 1]);
});
