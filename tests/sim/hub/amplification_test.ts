/** Hubs of all protocols: whose address is forged gets no more bytes than were sent in its name. */
import { ok } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { concatBytes, fromHex } from "../../../lib/bytes.ts";
import type { HubOptions, SpokeOptions } from "../../../lib/hub/mod.ts";
import * as wire from "../../../lib/hub/protocol/gretun/wire.ts";
import { HUB_INNER, HUB_IP, HUB_PORT, HubSim, ipv4 } from "./hub_sim.ts";

const HUB = parseEndpoint(`${HUB_IP}:${HUB_PORT}`);
const FLOOD = 200;
const JTUNNEL_ID = "0123456789abcdef";

interface Setting {
  hub: Partial<HubOptions>;
  file: (sim: HubSim) => { name: string; text: string; spoke: Partial<SpokeOptions> };
}

const SETTINGS: Record<string, Setting> = {
  "our own protocol": {
    hub: {},
    file: (sim) => {
      const { file, credential } = sim.keys();
      return { name: "alice", text: file, spoke: { credential } };
    },
  },
  "our own protocol, client with an address alone": {
    hub: {},
    file: () => ({ name: "alice", text: "remote 203.0.113.2\n", spoke: {} }),
  },
  "ipipou with signatures": {
    hub: { protocol: "ipipou", replyOnAuthOk: true },
    file: (sim) => {
      const { file, credential } = sim.keys();
      const { ownSeed: seed } = credential as { ownSeed: Uint8Array };
      const secret = "topsecret";
      return {
        name: "alice",
        text: `${file}secret ${secret}\n`,
        spoke: { protocol: "ipipou", ipipou: { kind: "key", seed, secret } },
      };
    },
  },
  "ipipou with a short token beside a key": {
    hub: { protocol: "ipipou", replyOnAuthOk: true },
    file: (sim) => {
      const token = new TextEncoder().encode("abc");
      return {
        name: "alice",
        text: `${sim.keys().file}token abc\n`,
        spoke: { protocol: "ipipou", ipipou: { kind: "token", token } },
      };
    },
  },
  "ipipou with an address alone": {
    hub: { protocol: "ipipou", replyOnAuthOk: true },
    file: () => ({
      name: "alice",
      text: "remote 203.0.113.2\n",
      spoke: { protocol: "ipipou", ipipou: { kind: "none" } },
    }),
  },
  "jtunnel": {
    hub: { protocol: "jtunnel", serverId: fromHex("fedcba9876543210") },
    file: () => ({
      name: JTUNNEL_ID,
      text: "",
      spoke: { protocol: "jtunnel", clientId: fromHex(JTUNNEL_ID) },
    }),
  },
};

for (const [name, { hub, file }] of Object.entries(SETTINGS)) {
  Deno.test(`${name}: forged packets are answered with no more bytes, one by one and in a flood`, async () => {
    await using sim = new HubSim();
    const client = file(sim);
    const { protocol = "gretun" } = hub;
    const addresses = protocol === "gretun" ? "address 10.90.0.2\n" : "";
    sim.file(client.name, client.text + addresses);
    await sim.startHub({ keepaliveMs: 1_000, ...hub });
    const alice = sim.spoke(client.name, { keepaliveMs: 1_000, dataPlane: "tun", ...client.spoke });
    await sim.clock.runFor(2_000);
    const packets = forgeries(sim, client.name);
    // All that the client has sent, and what it sends from now on, which is fresh: it gets nowhere else.
    const own = () => sim.network.seen.filter(({ from }) => from.ip === alice.host.ip);
    packets.push(...own().map(({ bytes }) => bytes));
    for (const isReread of [false, true]) {
      sim.network.isLost = () => false;
      await sim.clock.runFor(5_000);
      sim.network.isLost = (from) => from.ip === alice.host.ip;
      sim.reread = { idleMs: 170_000 };
      if (isReread) sim.hub.machine.signal("SIGHUP");
      sim.network.seen.length = 0;
      alice.host.tuns.find(({ isClosed }) => !isClosed)?.receive(ipv4("10.90.0.2", HUB_INNER));
      await sim.clock.runFor(3_000);
      const fresh = own().map(({ bytes }) => bytes);
      for (const packet of fresh) await forge(sim, [packet], `a fresh one of ${packet.length}`);
    }
    for (const [i, packet] of packets.entries()) {
      await forge(sim, [packet], `${i}`);
      await forge(sim, Array(FLOOD).fill(packet), `${i}, ${FLOOD} times`);
    }
  });
}

let victims = 0;

/** In the name of somebody who has nothing to do with it. */
async function forge(sim: HubSim, packets: Uint8Array[], what: string): Promise<void> {
  const n = ++victims;
  const victim = `198.18.${n >> 8}.${n & 255}`;
  const sent = packets.reduce((sum, { length }) => sum + length, 0);
  for (const [i, bytes] of packets.entries()) {
    sim.network.forge(parseEndpoint(`${victim}:${1_024 + i}`), bytes, HUB);
  }
  sim.network.seen.length = 0;
  await sim.clock.runFor(500);
  const got = sim.network.seen.filter(({ to }) => to.ip === victim)
    .reduce((sum, { bytes }) => sum + bytes.length, 0);
  ok(got <= sent, `${what}: ${got} bytes for ${sent}`);
}

function forgeries(sim: HubSim, name: string): Uint8Array[] {
  const nonce = sim.random(16);
  const auth = wire.encodeAuth({
    ...{ name, nonce, cookie: sim.random(16), hub: HUB },
    ...{ stamp: BigInt(sim.clock.wallMs()) * 1000n, ephemeral: sim.random(32) },
    ...{ framing: "any", encrypt: true, proof: sim.random(64), mac: sim.random(16) },
  });
  const keepalive = wire.encodeKeepalive({ session: sim.random(8), counter: 1n, bye: false });
  const whole = [wire.encodeHello({ nonce, name }), auth, keepalive];
  return [
    ...whole,
    ...whole.flatMap((bytes) => [bytes.subarray(0, 8), bytes.subarray(0, bytes.length - 1)]),
    ...whole.map((bytes) => concatBytes(bytes, sim.random(50))),
    ...[0, 1, 3, 8, 15, 16, 20, 23, 24, 31, 32, 73, 100, 1_200].map((length) => sim.random(length)),
    new TextEncoder().encode("abc"),
    ipv4("10.90.0.2", HUB_INNER, 20),
    concatBytes(fromHex(JTUNNEL_ID), ipv4("10.90.0.2", HUB_INNER)),
    fromHex(JTUNNEL_ID),
  ];
}
