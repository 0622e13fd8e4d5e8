/** What the operator asks and tells, and what that means to nodes. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { Admin } from "../../../lib/coord/admin.ts";
import { parseTokenText, toPeer } from "../../../lib/coord/api.ts";
import { toBase64 } from "../../../lib/bytes.ts";
import { silentLog, systemRandom } from "../../../lib/edges.ts";
import { LEASE_MS } from "../../../lib/coord/nodes.ts";
import { keyBase64 } from "../../../lib/keys.ts";
import {
  FakeCoordinator,
  type FakeNode,
  fakeNode,
  randomNodeKey,
} from "../../fakes/coordinator.ts";

type Answer = Record<string, unknown>;

class Bench {
  readonly key = randomNodeKey();
  readonly coord: FakeCoordinator;
  readonly admin: Admin;

  constructor(coord = new FakeCoordinator()) {
    this.coord = coord;
    this.admin = new Admin({
      server: coord.server,
      coordinatorKey: this.key,
      random: systemRandom,
      nowMs: () => coord.clock.wallMs(),
      more: () => ({ version: "x" }),
      log: silentLog,
    });
  }

  async ask(pathname: string, body?: unknown): Promise<Answer> {
    const response = await this.admin.handle(
      new Request(`http://gretun${pathname}`, {
        method: body === undefined ? "GET" : "POST",
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }),
    );
    const text = await response.text();
    return response.ok ? JSON.parse(text) : { status: response.status, text: text.trimEnd() };
  }

  async token(more: Answer = {}): Promise<string> {
    const { token } = await this.ask("/v1/tokens/create", { tags: [], approve: true, ...more });
    return toBase64(parseTokenText(String(token)).secret);
  }

  /** The status, and what kind of refusal it is. */
  async join(node: FakeNode, token?: string): Promise<string> {
    const response = await this.coord.register(node, token === undefined ? {} : { token });
    await response.body?.cancel();
    return `${response.status} ${response.headers.get("x-gretun-refusal") ?? ""}`.trim();
  }

  names(): string[] {
    return this.coord.nodes.listed().map(toPeer).map(({ name }) => name);
  }
}

Deno.test("without a token anybody may join; the first one closes the coordinator, members stay", async () => {
  const bench = new Bench();
  const [a, b] = [await fakeNode("a"), await fakeNode("b")];
  strictEqual((await bench.ask("/v1/status")).open, true);
  strictEqual(await bench.join(a), "200");
  const token = await bench.token();
  strictEqual((await bench.ask("/v1/status")).open, false);
  strictEqual(await bench.join(b), "403 token");
  strictEqual(await bench.join(b, toBase64(systemRandom(24))), "403 token");
  strictEqual(await bench.join(a), "200");
  strictEqual(await bench.join(b, token), "200");
  deepStrictEqual(bench.names(), ["a", "b"]);
});

Deno.test("a token is good once unless it is reusable, until it expires or is revoked", async () => {
  const bench = new Bench();
  const once = await bench.token();
  strictEqual(await bench.join(await fakeNode("a"), once), "200");
  strictEqual(await bench.join(await fakeNode("b"), once), "403 token");
  const often = await bench.token({ reusable: true, life_ms: 60_000 });
  strictEqual(await bench.join(await fakeNode("c"), often), "200");
  strictEqual(await bench.join(await fakeNode("d"), often), "200");
  await bench.coord.clock.until(bench.coord.clock.sleep(60_000));
  strictEqual(await bench.join(await fakeNode("e"), often), "403 token");
  const revoked = await bench.token({ reusable: true });
  const { tokens } = await bench.ask("/v1/tokens") as { tokens: Answer[] };
  deepStrictEqual(tokens.map(({ uses }) => uses), [1, 2, 0]);
  ok(tokens.every((token) => token.hash === undefined && token.token === undefined));
  await bench.ask("/v1/tokens/revoke", { id: tokens[2]!.id });
  strictEqual(await bench.join(await fakeNode("f"), revoked), "403 token");
});

Deno.test("of two that join by one token at the same time, one is taken", async () => {
  const bench = new Bench();
  const token = await bench.token();
  const joins = [await fakeNode("a"), await fakeNode("b")].map((node) => bench.join(node, token));
  deepStrictEqual((await Promise.all(joins)).sort(), ["200", "403 token"]);
});

Deno.test("where the disk is full nobody joins by a token, and one use of it is left", async () => {
  const bench = new Bench();
  const { store, nodes } = bench.coord;
  const token = await bench.token();
  const [a, b] = [await fakeNode("a"), await fakeNode("b")];
  const { save, saveToken } = store;
  store.save = store.saveToken = () => {
    throw new Error("database or disk is full");
  };
  for (const node of [a, b]) strictEqual(await bench.join(node, token), "503");
  deepStrictEqual(nodes.all(), []);
  Object.assign(store, { save, saveToken });
  strictEqual(await bench.join(b, token), "200");
  strictEqual(await bench.join(a, token), "403 token");
});

Deno.test("a token that did not let its node in is as good as before", async () => {
  const bench = new Bench();
  const token = await bench.token();
  const a = await fakeNode("a");
  strictEqual(await bench.join(a, token), "200");
  const other = await bench.token();
  const thief = { ...await fakeNode("b"), discoKey: a.discoKey };
  strictEqual(await bench.join(thief, other), "409");
  strictEqual(await bench.join(await fakeNode("c"), other), "200");
});

Deno.test("tokens and members outlive a restart; the secret is stored nowhere", async () => {
  const bench = new Bench();
  const token = await bench.token({ reusable: true, tags: ["web"] });
  const a = await fakeNode("a");
  strictEqual(await bench.join(a, token), "200");
  ok(!JSON.stringify(bench.coord.store.tokens()).includes(token));
  await bench.coord.clock.until(bench.coord.clock.sleep(1000));
  const { store, clock } = bench.coord;
  const after = new Bench(new FakeCoordinator({ store, clock }));
  strictEqual((await after.ask("/v1/status")).open, false);
  strictEqual(await after.join(a), "200");
  strictEqual(await after.join(await fakeNode("b"), token), "200");
  deepStrictEqual(after.coord.nodes.get(a.nodeKey)!.tags, ["web"]);
});

Deno.test("a node without approval waits, is not listed, and is a member once it is approved", async () => {
  const bench = new Bench();
  const token = await bench.token({ approve: false });
  const a = await fakeNode("a");
  strictEqual(await bench.join(a, token), "403 approval");
  strictEqual(await bench.join(a), "403 approval");
  strictEqual((await bench.coord.call(a, "GET", "/v1/peers")).status, 403);
  deepStrictEqual(bench.names(), []);
  await bench.ask("/v1/nodes/approve", { node: keyBase64(a.nodeKey) });
  strictEqual(await bench.join(a), "200");
  deepStrictEqual(bench.names(), ["a"]);
});

Deno.test("a node that is expired is out until it joins by another token", async () => {
  const bench = new Bench();
  const token = await bench.token({ reusable: true });
  const [a, b] = [await fakeNode("a"), await fakeNode("b")];
  for (const node of [a, b]) await bench.join(node, token);
  await bench.ask("/v1/nodes/expire", { node: "a" });
  const refused = await bench.coord.call(a, "GET", "/v1/peers");
  deepStrictEqual([refused.status, refused.headers.get("x-gretun-refusal")], [403, "expired"]);
  strictEqual(await bench.join(a), "403 token");
  strictEqual(await bench.join(a, token), "200");
  deepStrictEqual(bench.names(), ["a", "b"]);
});

Deno.test("status and node list show what collides at nodes, until they say that it does not", async () => {
  const bench = new Bench();
  const a = await fakeNode("a");
  await bench.join(a);
  const tell = async (collisions: string[]) => {
    const answer = await bench.coord.call(a, "POST", "/v1/collisions", { body: { collisions } });
    await answer.body?.cancel();
    return answer.status;
  };
  const text = "100.64.0.3 collides with 100.64.0.0/24 of lan0";
  strictEqual(await tell([text]), 200);
  deepStrictEqual((await bench.ask("/v1/status")).collisions, [{ node: "a", text }]);
  const [node] = (await bench.ask("/v1/nodes")).nodes as Answer[];
  deepStrictEqual(node!.collisions, [text]);
  match(String(node!.disco_pubkey), /^[A-Za-z0-9+/]{43}=$/);
  strictEqual(await tell([]), 200);
  deepStrictEqual((await bench.ask("/v1/status")).collisions, []);
  strictEqual(await tell(["x".repeat(201)]), 400);
});

Deno.test("an ephemeral node is forgotten when its lease is over, on the disk too", async () => {
  const bench = new Bench();
  const token = await bench.token({ ephemeral: true });
  await bench.join(await fakeNode("a"), token);
  const stop = new AbortController();
  const running = bench.coord.server.run(stop.signal);
  await bench.coord.clock.until(bench.coord.clock.sleep(2 * LEASE_MS));
  deepStrictEqual([bench.coord.nodes.all(), bench.coord.store.nodes()], [[], []]);
  stop.abort();
  await running;
});

Deno.test("rename, tag and delete change what others see, and are kept", async () => {
  const bench = new Bench();
  const [a, b] = [await fakeNode("a"), await fakeNode("b")];
  for (const node of [a, b]) await bench.join(node);
  const since = bench.coord.nodes.etag;
  await bench.ask("/v1/nodes/rename", { node: "100.64.0.1", name: "alice" });
  await bench.ask("/v1/nodes/tag", { node: "alice", tags: ["web", "eu"] });
  deepStrictEqual(bench.coord.nodes.changes(since)!.map(toPeer).map(({ name }) => name), ["alice"]);
  strictEqual(await bench.join(a), "200");
  deepStrictEqual(bench.names(), ["alice", "b"]);
  deepStrictEqual(bench.coord.store.nodes().find(({ name }) => name === "a")!.tags, ["web", "eu"]);
  await bench.ask("/v1/nodes/delete", { node: "alice" });
  deepStrictEqual(bench.names(), ["b"]);
  strictEqual(bench.coord.store.nodes().length, 1);
  const c = await fakeNode("c");
  await bench.join(c);
  strictEqual(bench.coord.nodes.get(c.nodeKey)!.tunnelIp, "100.64.0.1");
});

const WRONG: [name: string, pathname: string, body: unknown, status: number, line: RegExp][] = [
  ["a path that is none", "/v1/x", undefined, 404, /^not found$/],
  ["a node that is none", "/v1/nodes/delete", { node: "x" }, 400, /^no node is called "x"$/],
  ["no node", "/v1/nodes/delete", {}, 400, /^node is not a string$/],
  ["a token that is none", "/v1/tokens/revoke", { id: "x" }, 400, /^there is no token "x"$/],
  ["tags that are none", "/v1/tokens/create", { tags: [1] }, 400, /^tag is not a string$/],
];
for (const [name, pathname, body, status, line] of WRONG) {
  Deno.test(`the operator is told of ${name}`, async () => {
    const answer = await new Bench().ask(pathname, body);
    strictEqual(answer.status, status);
    match(String(answer.text), line);
  });
}
