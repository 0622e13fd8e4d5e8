/** What a policy keeps from nodes at the coordinator, and how it changes under their calls. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { parsePeers } from "../../../lib/coord/api.ts";
import { HOLD_MS } from "../../../lib/coord/hold.ts";
import { PolicyDesk } from "../../../lib/coord/policy_desk.ts";
import { RelayDirectory } from "../../../lib/coord/relays.ts";
import { GretunError } from "../../../lib/errors.ts";
import { silentLog } from "../../../lib/edges.ts";
import { keyBase64, keyBytes } from "../../../lib/keys.ts";
import { formatAccess, type Policy, readPolicy } from "../../../lib/policy/mod.ts";
import {
  FakeCoordinator,
  type FakeNode,
  fakeNode,
  registration,
  unsigned,
} from "../../fakes/coordinator.ts";
import { Admin } from "../../../lib/coord/admin.ts";
import { systemRandom } from "../../../lib/edges.ts";

const OWN = await fakeNode("relay");
const rules = (...list: [from: string, to: string, ...allow: string[]][]) =>
  readPolicy(JSON.stringify({ rules: list.map(([from, to, ...allow]) => ({ from, to, allow })) }))
    .policy;

/** Laptops reach the web server, which reaches the database; all are there, and tagged. */
const WEB = [
  ["tag:laptop", "tag:web", "tcp:443"],
  ["tag:web", "tag:db", "tcp:5432", "icmp"],
] as [string, string, ...string[]][];

async function bench(policy: Policy | null = rules(...WEB)) {
  const coord = new FakeCoordinator({
    ...(policy ? { policy } : {}),
    relays: {
      directory: new RelayDirectory({
        allowed: [],
        own: { relayKey: OWN.nodeKey, udp: ":3479", ws: "" },
      }),
      grantKey: OWN.nodeKey,
      sign: OWN.sign,
    },
  });
  const nodes = {
    laptop: await fakeNode("laptop"),
    web: await fakeNode("web"),
    db: await fakeNode("db"),
  };
  for (const [tag, node] of Object.entries(nodes)) {
    await (await coord.register(node)).body?.cancel();
    setTags(coord, node, tag);
  }
  const peers = async (node: FakeNode, query = "") => {
    const response = await coord.answer(coord.call(node, "GET", `/v1/peers${query}`));
    strictEqual(response.status, 200);
    return parsePeers(await response.json());
  };
  const names = async (node: FakeNode) => (await peers(node)).peers.map(({ name }) => name);
  const signal = async (from: FakeNode, to: FakeNode) => {
    const body = { to: [...keyBytes(to.discoKey)], sealed: "AAAA" };
    deepStrictEqual(await (await coord.call(from, "POST", "/v1/signal", { body })).json(), {
      queued: true,
    });
  };
  const taken = async (node: FakeNode) => {
    const response = await coord.answer(coord.call(node, "GET", "/v1/signal"));
    return ((await response.json()).envelopes as unknown[]).length;
  };
  const grant = async (from: FakeNode, to: FakeNode) => {
    const body = { peer: keyBase64(to.nodeKey), latencies: {} };
    const response = await coord.call(from, "POST", "/v1/relay", { body });
    return `${response.status} ${response.ok ? "" : (await response.text()).trim()}`.trim();
  };
  return { coord, ...nodes, peers, names, signal, taken, grant };
}

function setTags(coord: FakeCoordinator, { nodeKey }: FakeNode, ...tags: string[]): void {
  const record = coord.nodes.get(nodeKey)!;
  coord.nodes.edit(record, { tags });
  coord.server.edited(record);
}

Deno.test("without a policy all see all, and nothing is told of what they may open", async () => {
  const { laptop, peers } = await bench(null);
  const { peers: told } = await peers(laptop);
  deepStrictEqual(told.map(({ name, inbound, isSilent }) => [name, inbound, isSilent]), [
    ["laptop", undefined, undefined],
    ["web", undefined, undefined],
    ["db", undefined, undefined],
  ]);
});

Deno.test("a node is told of those that it reaches or that reach it, and of what they may open", async () => {
  const { laptop, web, db, names, peers } = await bench();
  deepStrictEqual(await names(laptop), ["laptop", "web"]);
  deepStrictEqual(await names(web), ["laptop", "web", "db"]);
  deepStrictEqual(await names(db), ["web", "db"]);
  const told = async (node: FakeNode) =>
    Object.fromEntries((await peers(node)).peers.map(({ name, inbound, isSilent }) => [
      name,
      `${inbound && formatAccess(inbound).join(" ")}${isSilent ? " silent" : ""}`,
    ]));
  deepStrictEqual(await told(web), {
    laptop: "tcp:443 silent",
    web: "undefined",
    db: "",
  });
  deepStrictEqual(await told(db), { web: "tcp:5432 icmp silent", db: "undefined" });
  deepStrictEqual(await told(laptop), { laptop: "undefined", web: " silent" });
});

Deno.test("who is hidden gets no message, no relay, and cannot be told from nobody", async () => {
  const { laptop, web, db, signal, taken, grant } = await bench();
  const stranger = await fakeNode("stranger");
  await signal(laptop, db);
  await signal(laptop, stranger);
  await signal(db, laptop);
  await signal(web, db);
  strictEqual(await taken(db), 1);
  strictEqual(await taken(laptop), 0);
  strictEqual(await grant(laptop, db), "404 no such peer");
  strictEqual(await grant(db, laptop), "404 no such peer");
  strictEqual(await grant(laptop, stranger), "404 no such peer");
  strictEqual(await grant(laptop, web), "200");
});

Deno.test("a message that waits is not given to who sees its sender no more", async () => {
  const { coord, web, db, signal, taken } = await bench();
  await signal(web, db);
  coord.server.setPolicy(rules(["tag:laptop", "tag:web", "any"]));
  strictEqual(await taken(db), 0);
});

Deno.test("a held call is not answered for what its node does not see", async () => {
  const { coord, laptop, web, db, peers } = await bench();
  const { etag } = await peers(laptop);
  const poll = coord.call(laptop, "GET", `/v1/peers?since=${etag}&changes=1`);
  ok(await coord.isHeld(poll));
  let isAnswered = false;
  void poll.then(() => isAnswered = true);
  const endpoints = [{ addr: "192.0.2.1:7777", source: "local" }];
  await coord.call(db, "POST", "/v1/endpoints", { body: { endpoints } });
  await coord.call(db, "DELETE", "/v1/register");
  ok(!isAnswered);
  await coord.call(web, "POST", "/v1/endpoints", { body: { endpoints } });
  const list = parsePeers(await (await poll).json());
  deepStrictEqual([list.changes?.gone, list.peers.map(({ name }) => name)], [[], ["web"]]);
});

Deno.test("a held call that is woken in vain ends after as long as any", async () => {
  const { coord, laptop, db, peers } = await bench();
  const { etag } = await peers(laptop);
  const startMs = coord.clock.nowMs();
  const poll = coord.call(laptop, "GET", `/v1/peers?since=${etag}&changes=1`);
  ok(await coord.isHeld(poll));
  await coord.clock.until(coord.clock.sleep(HOLD_MS / 2));
  await coord.call(db, "DELETE", "/v1/register");
  const list = parsePeers(await (await coord.clock.until(poll)).json());
  strictEqual(coord.clock.nowMs() - startMs, HOLD_MS);
  deepStrictEqual([list.changes?.gone, list.peers], [[], []]);
});

for (
  const [what, change] of [
    [
      "another policy",
      ({ coord }: Bench) => coord.server.setPolicy(rules(["tag:laptop", "tag:db", "tcp:5432"])),
    ],
    ["another tag of a peer", ({ coord, web, db }: Bench) => {
      setTags(coord, web);
      setTags(coord, db, "web");
    }],
  ] as const
) {
  Deno.test(`${what} is told at once: who is hidden now is gone`, async () => {
    const all = await bench();
    const { coord, laptop, peers } = all;
    const { etag } = await peers(laptop);
    const poll = coord.call(laptop, "GET", `/v1/peers?since=${etag}&changes=1`);
    ok(await coord.isHeld(poll));
    change(all);
    const list = parsePeers(await (await poll).json());
    strictEqual(list.changes, undefined);
    deepStrictEqual(list.peers.map(({ name }) => name), ["laptop", "db"]);
  });
}
type Bench = Awaited<ReturnType<typeof bench>>;

Deno.test("a name counts where the operator gave it, a key where its owner has signed", async () => {
  const { coord, laptop, web, db, names } = await bench();
  const fake = await fakeNode("db");
  await coord.register(fake);
  const v1 = await fakeNode("original");
  await coord.handle(unsigned("POST", "/v1/register", registration(v1)));
  coord.server.setPolicy(rules(
    ["name:db", "tag:web", "any"],
    [`key:${keyBase64(v1.nodeKey)}`, "tag:web", "any"],
    [`key:${keyBase64(laptop.nodeKey)}`, "tag:web", "any"],
  ));
  deepStrictEqual(await names(web), ["laptop", "web"]);
  const record = coord.nodes.get(db.nodeKey)!;
  coord.nodes.edit(record, { givenName: "db" });
  coord.server.edited(record);
  deepStrictEqual(await names(web), ["laptop", "web", "db"]);
  deepStrictEqual(await names(fake), ["db"]);
});

Deno.test("a file that is refused leaves the policy before in force, and is told", async () => {
  const { coord, laptop, names } = await bench(null);
  let text = `{ "rules": [{ "from": "*", "to": "*", "allow": "icmp" }] }`;
  const policy = new PolicyDesk({
    path: "/etc/policy",
    readFile: () => text,
    nowMs: () => coord.clock.wallMs(),
  });
  coord.server.setPolicy(policy.policy);
  const admin = new Admin({
    ...{ server: coord.server, coordinatorKey: OWN.nodeKey, random: systemRandom, policy },
    ...{ nowMs: () => coord.clock.wallMs(), more: () => ({}), log: silentLog },
  });
  const ask = async (pathname: string, body?: unknown) => {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const response = await admin.handle(new Request(`http://gretun${pathname}`, init));
    return response.ok ? await response.json() : (await response.text()).trim();
  };
  text = `{ "rules": [\n{ "from": "web" }] }`;
  const reason = `policy /etc/policy: line 2: rules[0]: a rule needs from, to and allow`;
  strictEqual(await ask("/v1/policy/reload", {}), reason);
  strictEqual((await ask("/v1/status")).policy.refused, reason);
  strictEqual((await names(laptop)).length, 3);
  text = `{ "rules": [\n{ "from": "tag:db", "to": "tag:web", "allow": ["tcp:1-9", "icmp"] }] }`;
  strictEqual((await ask("/v1/policy/reload", {})).refused, undefined);
  deepStrictEqual(await names(laptop), ["laptop"]);
  const explain = async (from: string, to: string, access: string) => {
    const { allowed, visible, rules } = await ask("/v1/policy/explain", { from, to, access });
    return [allowed, visible, rules];
  };
  const found = [{ line: 2, allow: ["tcp:1-9", "icmp"] }];
  deepStrictEqual(await explain("db", "web", "tcp:9"), [true, true, found]);
  deepStrictEqual(await explain("db", "web", "tcp:10"), [false, true, found]);
  deepStrictEqual(await explain("web", "db", "tcp:9"), [false, true, []]);
  deepStrictEqual(await explain("laptop", "db", "icmp"), [false, false, []]);
  throws(
    () =>
      new PolicyDesk({
        path: "/none",
        readFile: () => {
          throw new Deno.errors.NotFound("no such file");
        },
        nowMs: () => 0,
      }),
    GretunError,
  );
});
