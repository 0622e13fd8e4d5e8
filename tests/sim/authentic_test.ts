/** Who is on the way between nodes and their coordinator gets nothing into a host. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { type Ip, parseEndpoint } from "../../lib/addr.ts";
import { type NodeRecord, peersJson } from "../../lib/coord/api.ts";
import { keyBase64 } from "../../lib/keys.ts";
import { serverRequest } from "../fakes/server_http.ts";
import { type SimCoordinator, simIdentity, type SimNode, World } from "./world/mod.ts";

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

// --- a coordinator that lies, with its own key

/** What it says of a node from now on. */
function lies(coordinator: SimCoordinator, of: SimNode, change: Partial<NodeRecord>): void {
  const server = coordinator.server!;
  const record = server.nodes.get(of.identity.nodeKey)!;
  server.nodes.edit(record, change);
  server.edited(server.nodes.get(of.identity.nodeKey)!);
}

const SWAPS: Record<string, (other: SimNode) => Partial<NodeRecord>> = {
  "another's disco key": ({ identity: { discoKey } }) => ({ discoKey }),
  "endpoints of another": () => ({
    endpoints: [{ endpoint: parseEndpoint("203.0.113.99:7777"), source: "stun" }],
  }),
  "an address of the internet": () => ({ tunnelIp: "1.1.1.1" as Ip }),
  "an address of another's": (other) => ({ tunnelIp: other.tunnelIp! }),
};

for (const [what, swap] of Object.entries(SWAPS)) {
  Deno.test(`a coordinator that lies does not move a tunnel: ${what}`, async () => {
    await using world = new World();
    const coordinator = await world.coordinator();
    const [a, b, c] = [
      await world.up(world.publicHost("a"), coordinator),
      await world.up(world.publicHost("b"), coordinator),
      await world.up(world.publicHost("c"), coordinator),
    ];
    ok(await world.connects(a, b, 5_000));
    ok(await world.connects(a, c, 5_000));
    const before = a.peer(b)!;
    lies(coordinator, b, swap(c));
    await staysUp(world, a, b);
    const { endpoint, ifname, tunnel_ip } = a.peer(b)!;
    deepStrictEqual([endpoint, ifname, tunnel_ip], [
      before.endpoint,
      before.ifname,
      before.tunnel_ip,
    ]);
    ok(!a.host.kernel.routes.some(({ destination }) => destination.ip === "1.1.1.1"));
    ok(await world.ping(a, c) !== undefined);
  });
}

Deno.test("an old statement that is told again does not move a tunnel", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.publicHost("a"), coordinator);
  const host = world.publicHost("b");
  const b = await world.up(host, coordinator);
  ok(await world.connects(a, b, 5_000));
  const { statement: old, endpoints } = coordinator.server!.nodes.get(b.identity.nodeKey)!;
  world.addPublicAddress(host, world.publicIp());
  await world.run(20_000);
  lies(coordinator, b, { statement: old!, endpoints });
  await staysUp(world, a, b);
  strictEqual(a.said(/older than what it told last/).length, 1);
});

Deno.test("a peer set up anew waits for the user, who takes it by its name", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.publicHost("a"), coordinator);
  const host = world.publicHost("b");
  const b = await world.up(host, coordinator);
  ok(await world.connects(a, b, 5_000));
  await stopped(world, b);
  const again = await world.up(host, coordinator);
  await world.run(20_000);
  strictEqual(a.peer(again), undefined);
  ok(a.report().findings!.some(({ text }) => /^b at .* has key/.test(text)));
  strictEqual(a.said(/b at .* has key .*gretun peers --accept/).length, 1);
  strictEqual(await a.accept("b"), true);
  ok(await world.connects(a, again, 5_000));
  strictEqual(a.report().findings, undefined);
});

Deno.test("who registers a node's disco key before it does not keep it out", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const identity = simIdentity(0);
  const body = {
    node_pubkey: btoa("z".repeat(32)),
    disco_pubkey: keyBase64(identity.discoKey),
    node_name: "squatter",
  };
  const squat = coordinator.server!.handle(
    serverRequest(
      new Request("http://c/v1/register", { method: "POST", body: JSON.stringify(body) }),
    ),
  );
  strictEqual((await squat).status, 200);
  const a = await world.up(world.publicHost("a"), coordinator, { identity });
  const b = await world.up(world.publicHost("b"), coordinator);
  ok(await world.connects(a, b, 5_000));
  strictEqual(coordinator.server!.nodes.all().length, 2);
});
