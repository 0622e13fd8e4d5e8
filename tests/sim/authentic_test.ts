/** Who is on the way between nodes and their coordinator gets nothing into a host. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { peersJson } from "../../lib/coord/api.ts";
import { keyBase64 } from "../../lib/keys.ts";
import { type SimCoordinator, type SimNode, World } from "./world/mod.ts";

type Json = Record<string, unknown>;

/** Answers to calls of that path have another body. */
function changing(path: string, body: () => Json) {
  return async (request: Request, pass: () => Promise<Response>) => {
    const response = await pass();
    if (!request.url.includes(path) || !response.ok) return response;
    return new Response(JSON.stringify(body()), response);
  };
}

async function staysUp(world: World, a: SimNode, b: SimNode): Promise<void> {
  const endMs = world.time.nowMs + 40_000;
  while (world.time.nowMs < endMs) {
    ok(await world.ping(a, b) !== undefined, `no ping after ${world.time.nowMs} ms`);
    await world.run(2_000);
  }
}

const publicKeyOf = (coordinator: SimCoordinator) => keyBase64(coordinator.key);

const FORGED = { node_pubkey: btoa("y".repeat(32)), tunnel_ip: "1.1.1.1" };

const LIES: Record<string, (peers: Json[]) => Json[]> = {
  "an address of the internet": (peers) => peers.map((peer) => ({ ...peer, tunnel_ip: "1.1.1.1" })),
  "another disco key": (peers) =>
    peers.map((peer) => ({ ...peer, disco_pubkey: btoa("x".repeat(32)) })),
  "a peer more": (peers) => [...peers, { ...peers[0], ...FORGED }],
  "no peers": () => [],
};

/** Resolves when it has ended. */
async function stopped(world: World, node: SimNode): Promise<void> {
  void node.stop();
  ok(await world.until(() => node.ended !== undefined, 5_000));
}

for (const [what, lie] of Object.entries(LIES)) {
  Deno.test(`a list of peers that is changed on the way has no effect: ${what}`, async () => {
    await using world = new World();
    const coordinator = await world.coordinator();
    const a = await world.up(world.publicHost("a"), coordinator);
    const b = await world.up(world.publicHost("b"), coordinator);
    ok(await world.connects(a, b, 5_000));
    const etag = "ffff";
    const { peers } = peersJson({ etag, peers: coordinator.server!.nodes.listed() });
    coordinator.proxy = changing("/v1/peers", () => ({ etag, peers: lie(peers as Json[]) }));
    coordinator.host.resetConnections();
    await staysUp(world, a, b);
    deepStrictEqual(a.report().peers.map(({ tunnel_ip }) => tunnel_ip), [b.tunnelIp]);
    const routes = a.host.kernel.routes.map(({ destination }) => destination.ip);
    ok(!routes.some((ip) => ip === "1.1.1.1"));
    ok(a.said(/does not sign with the coordinator's key/).length > 0);
  });
}

Deno.test("an address that is changed on the way is not this node's", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.publicHost("a"), coordinator);
  ok(await world.until(() => a.tunnelIp !== undefined, 5_000));
  await stopped(world, a);
  coordinator.proxy = changing("/v1/register", () => ({
    tunnel_ip: "1.1.1.2/24",
    peers_etag: "1",
    stun: [],
  }));
  await a.start();
  await world.run(20_000);
  strictEqual(a.tunnelIp, undefined, "it knows the key from its first run");
  ok(a.said(/does not sign with the coordinator's key/).length > 0);
  coordinator.proxy = undefined;
  ok(await world.until(() => a.tunnelIp !== undefined, 10_000));
});

Deno.test("a coordinator that has another key is refused until its key is accepted", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.publicHost("a"), coordinator);
  const b = await world.up(world.publicHost("b"), coordinator);
  ok(await world.connects(a, b, 5_000));
  const firstKey = publicKeyOf(coordinator);
  strictEqual(a.report().coordinator_key, firstKey);
  coordinator.stop();
  coordinator.changeKey();
  await coordinator.startAfresh();
  await staysUp(world, a, b);
  const lines = a.said(/has another key.*--coordinator-key/);
  strictEqual(lines.length, 1, "told once");
  strictEqual(a.ended, undefined);
  await stopped(world, a);
  await a.start();
  await world.run(10_000);
  strictEqual(a.tunnelIp, undefined, "it remembers the first key");
  for (const node of [a, b]) {
    await stopped(world, node);
    await node.start({ coordinatorKey: coordinator.key });
  }
  ok(await world.connects(a, b, 10_000));
  await stopped(world, a);
  await a.start();
  ok(await world.connects(a, b, 10_000), "accepted once and for all");
  strictEqual(a.report().coordinator_key, publicKeyOf(coordinator));
});

Deno.test("a key that the operator gave is not replaced by the first contact", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const other = await world.coordinator();
  const a = await world.up(world.publicHost("a"), coordinator, { coordinatorKey: other.key });
  await world.run(10_000);
  strictEqual(a.tunnelIp, undefined);
  ok(a.said(/has another key/).length > 0);
});
