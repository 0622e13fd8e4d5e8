/** A policy of the coordinator and whole daemons: who sees whom, and what hosts let in. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { keyBase64 } from "../../lib/keys.ts";
import { readPolicy } from "../../lib/policy/mod.ts";
import { type SimCoordinator, type SimNode, World } from "./world/mod.ts";

type Rule = [from: SimNode | "*", to: SimNode | "*", ...allow: string[]];

function put(coordinator: SimCoordinator, ...rules: Rule[]): void {
  const word = (node: SimNode | "*") =>
    node === "*" ? node : `key:${keyBase64(node.identity.nodeKey)}`;
  const text = JSON.stringify({
    rules: rules.map(([from, to, ...allow]) => ({ from: word(from), to: word(to), allow })),
  });
  coordinator.server!.setPolicy(readPolicy(text).policy);
}

const PLANES = ["fou", "tun"] as const;

async function trio(world: World, dataPlane: typeof PLANES[number]) {
  const coordinator = await world.coordinator();
  put(coordinator, ["*", "*", "any"]);
  const nodes = [];
  for (const name of ["a", "b", "c"]) {
    nodes.push(await world.up(world.publicHost(name), coordinator, { dataPlane }));
  }
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  for (const [x, y] of [[a, b], [a, c], [b, c]] as const) ok(await world.connects(x, y, 5_000));
  return { coordinator, a, b, c };
}

const names = (node: SimNode) => node.report().peers.map(({ name }) => name).sort();
const inbound = (node: SimNode, peer: SimNode) =>
  node.report().peers.find(({ name }) => name === peer.host.name)?.inbound?.join(" ");

const isBy = ({ identity }: SimNode, request: Request) =>
  request.headers.get("x-gretun-node") === keyBase64(identity.nodeKey);

/** Of the way to a peer, as far as was told. */
const changes = (node: SimNode, peer: SimNode) =>
  node.said(/peer state change|tunnel up|path lost/)
    .filter(({ fields }) => fields?.peer === peer.host.name).length;

for (const plane of PLANES) {
  Deno.test(`${plane}: a policy that changes hides and closes at once, and cuts no other path`, async () => {
    await using world = new World();
    const { coordinator, a, b, c } = await trio(world, plane);
    const table = "inet gretun-up-7777-access";
    deepStrictEqual(b.host.nft.elements(table, "closed"), []);
    const before = changes(a, b);
    put(coordinator, [a, b, "tcp:443", "icmp"]);
    for (let i = 0; i < 20; i++) ok(await world.ping(a, b) !== undefined);
    ok(await world.until(() => names(c).length === 0, 1_000));
    deepStrictEqual([names(a), names(b)], [["b"], ["a"]]);
    deepStrictEqual([inbound(a, b), inbound(b, a)], ["", "tcp:443 icmp"]);
    strictEqual(changes(a, b), before);
    // What the kernel is told: the link is closed, but for one port.
    strictEqual(b.host.nft.elements(table, "closed").length, 1);
    const [port] = b.host.nft.elements(table, "ports_16");
    match(port!, /^.{8}0600000001bb0000$/);
    strictEqual(a.host.nft.elements(table, "ports_16").length, 0);
    put(coordinator, ["*", "*", "any"]);
    for (const [x, y] of [[a, c], [b, c]] as const) ok(await world.connects(x, y, 5_000));
    deepStrictEqual(b.host.nft.elements(table, "closed"), []);
    void a.stop();
    ok(await world.until(() => a.ended !== undefined, 5_000));
    strictEqual(a.host.nft.tables.size, 0);
  });
}

Deno.test("who is hidden and goes on as if not is not answered, and gets no relay", async () => {
  await using world = new World();
  const { coordinator, a, b, c } = await trio(world, "tun");
  // C does not hear that it is alone: it knows keys and endpoints of all.
  coordinator.proxy = async (request, pass) => {
    const isList = new URL(request.url).pathname === "/v1/peers";
    return isList && isBy(c, request) ? new Promise<Response>(() => {}) : await pass();
  };
  coordinator.host.resetConnections();
  await world.run(2_000);
  put(coordinator, [a, b, "icmp"]);
  ok(await world.until(() => names(a).length === 1 && names(b).length === 1, 1_000));
  await world.run(60_000);
  deepStrictEqual([names(a), names(b), names(c)], [["b"], ["a"], ["a", "b"]]);
  strictEqual(await world.ping(c, a), undefined);
  for (const peer of c.report().peers) ok(!["direct", "relay"].includes(peer.state), peer.state);
  ok(await world.ping(a, b) !== undefined);
});

Deno.test("a peer that is away is no peer that is hidden: its tunnel works on", async () => {
  await using world = new World();
  const { coordinator, a, b, c } = await trio(world, "tun");
  coordinator.proxy = async (request, pass) => {
    return isBy(b, request) ? new Response("busy", { status: 503 }) : await pass();
  };
  await world.run(180_000);
  ok(!coordinator.server!.nodes.listed().some(({ nodeKey }) => nodeKey === b.identity.nodeKey));
  put(coordinator, ["*", "*", "any"], [a, c, "icmp"]);
  await world.run(60_000);
  ok(await world.ping(a, b) !== undefined);
  put(coordinator, [a, c, "icmp"]);
  ok(await world.until(() => names(a).join() === "c", 1_000));
});

Deno.test("a host that cannot filter lets in nobody whom the policy does not let everywhere", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  put(coordinator, ["*", "*", "any"]);
  const [a, b] = [
    await world.up(world.publicHost("a"), coordinator, { dataPlane: "tun" }),
    await world.up(world.publicHost("b"), coordinator, { dataPlane: "tun" }),
  ];
  b.host.nft.isThere = false;
  ok(await world.connects(a, b, 5_000));
  put(coordinator, [a, b, "tcp:443"]);
  ok(await world.until(() => b.report().peers[0]?.findings !== undefined, 10_000));
  match(b.report().peers[0]!.findings![0]!.text, /^no tunnel: the policy cannot be kept here: /);
  strictEqual(await world.ping(a, b), undefined);
  put(coordinator, ["*", "*", "any"]);
  ok(await world.connects(a, b, 60_000));
  strictEqual(b.report().peers[0]!.findings, undefined);
});
