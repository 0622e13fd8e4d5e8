/** jtunnel's protocol, hub and spokes in memory. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import type { SpokeOptions, SpokeReport } from "../../../lib/hub/mod.ts";
import { HUB_IP, HUB_PORT, HubSim, ipv4 } from "./hub_sim.ts";

const ID = "0123456789abcdef";
const SERVER_ID = "fedcba9876543210";
const HUB = parseEndpoint(`${HUB_IP}:${HUB_PORT}`);
const PEER = parseEndpoint("203.0.113.200:4000");
const PACKET = `${ID}4500002400010000400166d60a0000020a0000010800645b77770001494e4a4543544544`;

async function startHub(sim: HubSim): Promise<void> {
  await sim.startHub({
    ...{ protocol: "jtunnel", serverId: fromHex(SERVER_ID), idleMs: 0, program: ["setup"] },
  });
}

function spoke(sim: HubSim, change: Partial<SpokeOptions> = {}) {
  return sim.spoke("alice", {
    ...{ protocol: "jtunnel", clientId: fromHex(ID), keepaliveMs: 25_000, program: ["setup"] },
    ...change,
  }, sim.site());
}

Deno.test("jtunnel: the programs get device and identifier, everything passes", async () => {
  await using sim = new HubSim();
  sim.file(ID.toUpperCase(), "");
  await startHub(sim);
  const alice = spoke(sim, { serverIds: [SERVER_ID] });
  await sim.clock.runFor(200);
  for (const daemon of [sim.hub, alice]) {
    const { env } = daemon.machine.processes.started[0]!;
    deepStrictEqual([env.TUN_CLIENT_ID, env.GRETUN_MTU], [ID, "1464"]);
  }
  ok(await sim.passes(alice, sim.hub, ipv4("10.5.0.2", "10.5.0.1")));
  ok(await sim.passes(sim.hub, alice, ipv4("10.5.0.1", "224.0.0.5")), "also multicast");
  strictEqual((await alice.report<SpokeReport>()).state, "up");
  ok(sim.hub.log.lines.some(({ msg }) => msg.includes("whoever hears an identifier once")));
});

Deno.test("jtunnel: a spoke takes nothing of another server", async () => {
  await using sim = new HubSim();
  sim.file(ID, "");
  await startHub(sim);
  const wary = spoke(sim, { serverIds: ["0000000000000001"] });
  await sim.clock.runFor(200);
  strictEqual(await sim.passes(sim.hub, wary, ipv4("10.5.0.1", "10.5.0.2")), false);
  strictEqual((await wary.report<SpokeReport>()).refused["unknown-client"], 1);
});

Deno.test("jtunnel: the packet of the specification is taken; wrong ones change nothing", async () => {
  await using sim = new HubSim();
  sim.file(ID, "");
  await startHub(sim);
  for (const wrong of ["", "01234567", "ffffffffffffffff", "ffffffffffffffff45000014"]) {
    sim.network.forge(PEER, fromHex(wrong), HUB);
  }
  sim.network.forge(PEER, new Uint8Array(2000), HUB);
  await sim.clock.runFor(100);
  deepStrictEqual(await sim.refused(), { "malformed": 2, "unknown-client": 1, "not-ip": 2 });
  deepStrictEqual(sim.hub.linkNames, []);
  sim.network.forge(PEER, fromHex(PACKET), HUB);
  await sim.clock.runFor(100);
  const [tun] = sim.hub.host.tuns;
  strictEqual(toHex(tun!.written[0]!), PACKET.slice(16));
  tun!.receive(tun!.written[0]!);
  const sent = sim.network.seen.at(-1)!;
  deepStrictEqual([toHex(sent.bytes.subarray(0, 8)), sent.to], [SERVER_ID, PEER]);
});

for (const canWatch of [true, false]) {
  const how = canWatch ? "watched" : "not watched";
  Deno.test(`jtunnel: a client whose file came after its packet is let in by that packet, directory ${how}`, async () => {
    await using sim = new HubSim();
    sim.hub.machine.files.canWatch = canWatch;
    await startHub(sim);
    await sim.clock.runFor(60_000);
    sim.hub.machine.files.canWatch = false;
    sim.file(ID, "");
    sim.network.forge(PEER, fromHex(ID), HUB);
    await sim.clock.runFor(100);
    strictEqual((await sim.client(ID))!.state, "up");
  });
}

Deno.test("jtunnel: strangers make the hub look once a second, and are not remembered without bound", async () => {
  await using sim = new HubSim();
  await startHub(sim);
  let looks = 0;
  const { files } = sim.hub.machine;
  const names = files.names.bind(files);
  files.names = (directory) => {
    looks++;
    return names(directory);
  };
  let sent = 0;
  const flood = () => {
    for (let i = 0; i < 5; i++) {
      const id = (sent++).toString(16).padStart(16, "f");
      sim.network.forge(PEER, fromHex(id), HUB);
    }
    if (sent < 15_000) sim.clock.timer(1, flood);
  };
  flood();
  await sim.clock.runFor(3010);
  ok(looks >= 3 && looks <= 5, `${looks} looks`);
  sim.file(ID, "");
  sim.network.forge(PEER, fromHex(ID), HUB);
  await sim.clock.runFor(1200);
  strictEqual((await sim.client(ID))!.state, "up");
});

Deno.test("jtunnel: a client's packets may come from elsewhere at any time", async () => {
  await using sim = new HubSim();
  sim.file(ID, "");
  await startHub(sim);
  for (const port of [4000, 4001, 4000]) {
    sim.network.forge({ ...PEER, port }, fromHex(PACKET), HUB);
    await sim.clock.runFor(1500);
    strictEqual((await sim.client(ID))!.endpoint, `${PEER.ip}:${port}`);
  }
  strictEqual(sim.hub.linkNames.length, 1);
});
