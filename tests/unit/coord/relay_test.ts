/** How nodes hear of relays, which one a pair gets, and who may be a relay; under virtual time. */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { fromBase64 } from "../../../lib/bytes.ts";
import { CoordError } from "../../../lib/coord/client.ts";
import { RELAY_LEASE_MS, RelayDirectory } from "../../../lib/coord/relays.ts";
import { RelayRole } from "../../../lib/coord/relay_role.ts";
import { silentLog } from "../../../lib/edges.ts";
import { keyBase64, type NodeKey } from "../../../lib/keys.ts";
import { decodeGrant, nodePair, verifyGrant } from "../../../lib/relay/mod.ts";
import { FakeCoordinator, type FakeNode, fakeNode, unsigned } from "../../fakes/coordinator.ts";
import { textAnswer } from "../../../lib/server_http.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const [OWN, NEAR, FAR] = await Promise.all(["own", "near", "far"].map(fakeNode)) as [
  FakeNode,
  FakeNode,
  FakeNode,
];
const NEAR_AT = { udp: "relay.example:3479", http: "relay.example:443", tls: true };
const FAR_AT = { udp: ":3479", http: ":8443", tls: false };

/** A coordinator with a relay of its own, two members, and leave for two more relays. */
async function bench({ own = true } = {}) {
  const place = { relayKey: OWN.nodeKey, udp: ":3479", ws: "" };
  const directory = new RelayDirectory({
    allowed: [NEAR.nodeKey, FAR.nodeKey],
    ...(own ? { own: place } : {}),
  });
  const coord = new FakeCoordinator({
    relays: {
      directory,
      grantKey: OWN.nodeKey,
      sign: OWN.sign,
      acceptWebSocket: async (_, source) => textAnswer(200, `socket for ${source}`),
    },
  });
  const [a, b, stranger] = await Promise.all([fakeNode("a"), fakeNode("b"), fakeNode("stranger")]);
  await coord.register(a);
  await coord.register(b);
  const registerRelay = (relay: FakeNode, body: object, source = "198.51.100.7") =>
    coord.call(relay, "POST", "/v1/relay/register", { body, source });
  const offer = async (from: FakeNode, to: FakeNode, latencies: [FakeNode, number][] = []) => {
    const response = await coord.call(from, "POST", "/v1/relay", {
      body: { peer: keyBase64(to.nodeKey), latencies: measured(latencies) },
    });
    return await json(response);
  };
  return { coord, a, b, stranger, registerRelay, offer };
}

const measured = (latencies: [FakeNode, number][]) =>
  Object.fromEntries(latencies.map(([{ nodeKey }, ms]) => [keyBase64(nodeKey), ms]));

async function json(response: Response): Promise<Record<string, unknown>> {
  const text = await response.text();
  strictEqual(response.status, 200, text);
  return JSON.parse(text);
}

const idOf = (relay: FakeNode) => keyBase64(relay.nodeKey);

Deno.test("GET /v1/relays lists the coordinator's own and those that registered", async () => {
  const { coord, a, registerRelay } = await bench();
  const own = { relay_id: idOf(OWN), udp: ":3479", ws: "" };
  const grant_pubkey = idOf(OWN);
  const list = async () => await json(await coord.call(a, "GET", "/v1/relays"));
  deepStrictEqual(await list(), { grant_pubkey, relays: [own] });
  for (
    const [relay, place, source] of [[NEAR, NEAR_AT, ""], [FAR, FAR_AT, "2001:db8::7"]] as const
  ) {
    deepStrictEqual(await json(await registerRelay(relay, place, source)), {
      grant_pubkey,
      lease_seconds: RELAY_LEASE_MS / 1000,
    });
  }
  const relays = [
    own,
    { relay_id: idOf(NEAR), udp: "relay.example:3479", ws: "wss://relay.example:443/v1/relay/ws" },
    { relay_id: idOf(FAR), udp: "[2001:db8::7]:3479", ws: "ws://[2001:db8::7]:8443/v1/relay/ws" },
  ];
  deepStrictEqual(await list(), { grant_pubkey, relays });
});

Deno.test("a relay whose lease is over is listed no more, nor chosen", async () => {
  const { coord, a, b, registerRelay, offer } = await bench({ own: false });
  await registerRelay(NEAR, NEAR_AT);
  strictEqual((await offer(a, b)).relay_id, idOf(NEAR));
  await coord.clock.until(coord.clock.sleep(RELAY_LEASE_MS));
  deepStrictEqual((await json(await coord.call(a, "GET", "/v1/relays"))).relays, []);
  const body = { peer: keyBase64(b.nodeKey) };
  const response = await coord.call(a, "POST", "/v1/relay", { body });
  strictEqual(response.status, 503);
  strictEqual(response.headers.get("retry-after"), "30");
});

Deno.test("POST /v1/relay gives both nodes one relay, each with a grant for the pair", async () => {
  const { coord, a, b, offer } = await bench();
  const [forA, forB] = [await offer(a, b), await offer(b, a)];
  for (const answer of [forA, forB]) {
    const { relay_id, udp, ws, grant, expires_at } = answer;
    deepStrictEqual([relay_id, udp, ws], [idOf(OWN), ":3479", ""]);
    const bytes = fromBase64(grant as string);
    ok(await verifyGrant(bytes, OWN.nodeKey));
    const { relay, nodes, endsSeconds } = decodeGrant(bytes);
    deepStrictEqual([relay, nodes], [OWN.nodeKey, nodePair(a.nodeKey, b.nodeKey)]);
    strictEqual(endsSeconds * 1000, Date.parse(expires_at as string));
    ok(endsSeconds * 1000 > coord.clock.wallMs() + 3_600_000);
  }
});

Deno.test("the relay with the lowest sum of both latencies is chosen, and kept", async () => {
  const { coord, a, b, registerRelay, offer } = await bench();
  await registerRelay(NEAR, NEAR_AT);
  await registerRelay(FAR, FAR_AT);
  const report = (node: FakeNode, latencies: [FakeNode, number][]) =>
    coord.call(node, "POST", "/v1/relays", { body: { latencies: measured(latencies) } });
  await report(a, [[OWN, 50], [NEAR, 40], [FAR, 5]]);
  await report(b, [[OWN, 50], [NEAR, 40], [FAR, 90]]);
  strictEqual((await offer(a, b)).relay_id, idOf(NEAR), "80, and not 100 or 95");
  await report(a, [[OWN, 1], [NEAR, 400]]);
  strictEqual((await offer(b, a)).relay_id, idOf(NEAR), "kept: the other node has it already");
});

Deno.test("a pair's relay is left when a node reaches others and not this one any more", async () => {
  const { coord, a, b, registerRelay, offer } = await bench();
  await registerRelay(NEAR, NEAR_AT);
  const report = (node: FakeNode, latencies: [FakeNode, number][]) =>
    coord.call(node, "POST", "/v1/relays", { body: { latencies: measured(latencies) } });
  for (const node of [a, b]) await report(node, [[OWN, 50], [NEAR, 10]]);
  strictEqual((await offer(a, b)).relay_id, idOf(NEAR));
  await report(b, []);
  strictEqual((await offer(a, b)).relay_id, idOf(NEAR), "a node without UDP reaches none so");
  strictEqual((await offer(a, b, [[OWN, 50]])).relay_id, idOf(OWN));
  await report(a, [[OWN, 50], [NEAR, 10]]);
  strictEqual((await offer(b, a)).relay_id, idOf(OWN), "kept: the other node has it already");
});

Deno.test("a relay that was not measured is the last choice", async () => {
  const { a, b, registerRelay, offer } = await bench();
  await registerRelay(NEAR, NEAR_AT);
  await registerRelay(FAR, FAR_AT);
  strictEqual((await offer(a, b, [[FAR, 300]])).relay_id, idOf(FAR));
});

Deno.test("POST /v1/relay refuses what it cannot give", async () => {
  const { coord, a, b, stranger } = await bench();
  const peer = keyBase64(b.nodeKey);
  const cases: [name: string, from: FakeNode, body: unknown, status: number][] = [
    ["a node that is no member", stranger, { peer }, 404],
    ["a peer that is no member", a, { peer: keyBase64(stranger.nodeKey) }, 404],
    ["itself", a, { peer: keyBase64(a.nodeKey) }, 400],
    ["no peer", a, {}, 400],
    ["latencies that are no object", a, { peer, latencies: [1] }, 400],
    ["a latency below zero", a, { peer, latencies: { [peer]: -1 } }, 400],
    ["a latency without end", a, { peer, latencies: { [peer]: 1e9 } }, 400],
    ["a latency of nobody", a, { peer, latencies: { x: 1 } }, 400],
    ["too many latencies", a, {
      peer,
      latencies: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`${i}`, 1])),
    }, 400],
  ];
  for (const [name, from, body, status] of cases) {
    const response = await coord.call(from, "POST", "/v1/relay", { body });
    strictEqual(response.status, status, `${name}: ${await response.text()}`);
  }
  const response = await coord.handle(unsigned("POST", "/v1/relay", { peer }));
  strictEqual(response.status, 401);
});

Deno.test("only relays that the operator named may register", async () => {
  const { coord, a, stranger, registerRelay } = await bench();
  strictEqual((await registerRelay(stranger, NEAR_AT)).status, 403);
  strictEqual((await registerRelay(a, NEAR_AT)).status, 403, "a member is no relay");
  const forged = await coord.call(stranger, "POST", "/v1/relay/register", {
    body: NEAR_AT,
    headers: { "x-gretun-node": idOf(NEAR) },
  });
  strictEqual(forged.status, 401);
  const wrong = [
    {},
    { ...NEAR_AT, udp: "relay.example" },
    { ...NEAR_AT, udp: "relay.example:0" },
    { ...NEAR_AT, http: "x y:1" },
    { ...NEAR_AT, http: `${"x".repeat(300)}:1` },
  ];
  for (const body of wrong) strictEqual((await registerRelay(NEAR, body)).status, 400);
  const { relays } = await json(await coord.call(a, "GET", "/v1/relays"));
  strictEqual((relays as unknown[]).length, 1);
  await coord.call(NEAR, "GET", "/v1/relays").then(({ status }) => strictEqual(status, 404));
});

Deno.test("a coordinator without relays says so; WebSockets go to its relay", async () => {
  const without = new FakeCoordinator();
  const a = await fakeNode("a");
  await without.register(a);
  strictEqual((await without.call(a, "GET", "/v1/relays")).status, 503);
  strictEqual((await without.handle(unsigned("GET", "/v1/relay/ws"))).status, 404);
  const { coord } = await bench();
  const answer = await coord.handle(unsigned("GET", "/v1/relay/ws"), "192.0.2.1");
  strictEqual(await answer.text(), "socket for 192.0.2.1");
});

Deno.test("RelayDirectory forgets what is over, and bounds nothing that still lives", () => {
  const directory = new RelayDirectory({ allowed: [NEAR.nodeKey] });
  const [a, b] = ["a", "b"].map((c) => c.repeat(64)) as [NodeKey, NodeKey];
  directory.register(NEAR.nodeKey, NEAR_AT, "", 0);
  strictEqual(directory.choose(a, b, 0)?.relayKey, NEAR.nodeKey);
  directory.report(a, new Map([[NEAR.nodeKey, 1]]));
  directory.sweep(RELAY_LEASE_MS - 1, () => true);
  strictEqual(directory.list(RELAY_LEASE_MS - 1).length, 1);
  directory.sweep(RELAY_LEASE_MS, () => false);
  strictEqual(directory.choose(a, b, RELAY_LEASE_MS), undefined);
  strictEqual(directory.register(NEAR.nodeKey, NEAR_AT, "", RELAY_LEASE_MS), true, "as a new one");
});

Deno.test("RelayRole registers, keeps the lease, and goes on when the coordinator was away", async () => {
  const clock = new VirtualClock();
  const stop = new AbortController();
  const calls: number[] = [];
  let isAway = false;
  const role = new RelayRole({
    coordinator: {
      registerRelay: async () => {
        calls.push(clock.nowMs());
        if (isAway) throw new CoordError("away", "Wait", {});
        return { grantKey: OWN.nodeKey, leaseSeconds: 90 };
      },
    },
    registration: NEAR_AT,
    relayKey: NEAR.nodeKey,
    clock,
    log: silentLog,
  });
  strictEqual(role.grantKey, undefined);
  const running = role.run(stop.signal);
  await clock.until(clock.sleep(61_000));
  deepStrictEqual(calls, [0, 30_000, 60_000]);
  strictEqual(role.grantKey, OWN.nodeKey);
  isAway = true;
  await clock.until(clock.sleep(33_000));
  deepStrictEqual(calls.slice(3), [90_000, 90_500, 91_500, 93_500]);
  strictEqual(role.grantKey, OWN.nodeKey, "what was granted is good all the same");
  isAway = false;
  await clock.until(clock.sleep(40_000));
  deepStrictEqual(calls.slice(7), [97_500, 127_500]);
  stop.abort();
  await running;
});

Deno.test("an API answer that is wrong is refused by its parser", async () => {
  const { parseRelayOffer, parseRelayRegistered, parseRelays } = await import(
    "../../../lib/coord/api.ts"
  );
  const place = { relay_id: idOf(NEAR), udp: "a:1", ws: "ws://a" };
  const cases: [() => unknown][] = [
    [() => parseRelays({ relays: [{ ...place, udp: "a" }] })],
    [() => parseRelays({ relays: [{ ...place, relay_id: "x" }] })],
    [() => parseRelays({ relays: [{ ...place, ws: "ws://a b" }] })],
    [() => parseRelays({ relays: Array(65).fill(place) })],
    [() => parseRelayOffer({ ...place, expires_at: "" })],
    [() => parseRelayOffer({ ...place, grant: "!", expires_at: "" })],
    [() => parseRelayRegistered({ grant_pubkey: idOf(NEAR), lease_seconds: 0 })],
  ];
  for (const [parse] of cases) await rejects(async () => parse(), { name: "ApiError" });
  deepStrictEqual(parseRelays({ relays: null }), []);
});
