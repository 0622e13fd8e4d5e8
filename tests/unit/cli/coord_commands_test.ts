/** gretun-coord's commands against a running coordinator, as programs. */
import { deepStrictEqual, match, rejects, strictEqual } from "node:assert/strict";
import { parseTokenText } from "../../../lib/coord/api.ts";
import { CoordClient, CoordError } from "../../../lib/coord/client.ts";
import { systemClock, systemRandom } from "../../../lib/edges.ts";
import { type FakeNode, fakeNode } from "../../fakes/coordinator.ts";
import { CoordinatorProcess, runCoordinator } from "../../fakes/coordinator_process.ts";

const NEVER = new AbortController().signal;

function tempDir(): Disposable & { path: string } {
  const path = Deno.makeTempDirSync({ prefix: "gretun-coord-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** The answer, read as JSON. */
async function ask(state: string, ...words: string[]) {
  const { code, stdout, stderr } = await runCoordinator([...words, "--state", state, "--json"]);
  strictEqual(code, 0, stderr);
  return JSON.parse(stdout);
}

async function join(process: CoordinatorProcess, node: FakeNode, token?: string) {
  using client = new CoordClient({
    url: process.url,
    identity: node,
    clock: systemClock,
    random: systemRandom,
    ...(token === undefined ? {} : { tokenSecret: parseTokenText(token).secret }),
  });
  return await client.register({ discoKey: node.discoKey, nodeName: node.name }, NEVER);
}

Deno.test("a coordinator is closed by a token, and told of nodes, while it runs", async () => {
  using dir = tempDir();
  const state = `${dir.path}/coord.db`;
  await using process = await CoordinatorProcess.start(["--state", state]);
  strictEqual((await ask(state, "status")).open, true);
  const { token, id } = await ask(state, "token", "create", "--reusable", "--tag", "web");
  strictEqual((await ask(state, "status")).open, false);
  const a = await fakeNode("a");
  await rejects(join(process, a), (error) => error instanceof CoordError && error.code === "token");
  await rejects(
    join(process, a, token),
    (error) => error instanceof CoordError && error.code === "approval",
  );
  const table = await runCoordinator(["node", "list", "--state", state]);
  match(table.stdout, /^NAME .*\na +100\.64\.0\.1 +waits for approval .* web /);
  await ask(state, "node", "approve", "a");
  strictEqual((await join(process, a)).tunnelIp.ip, "100.64.0.1");
  await ask(state, "node", "rename", "a", "alice");
  await ask(state, "node", "tag", "alice");
  const [node] = await ask(state, "node", "list");
  deepStrictEqual([node.given_name, node.tags, node.listed], ["alice", [], true]);
  await ask(state, "token", "revoke", id);
  await rejects(
    join(process, await fakeNode("b"), token),
    (error) => error instanceof CoordError && error.code === "token",
  );
  await ask(state, "node", "delete", "alice");
  deepStrictEqual(await ask(state, "node", "list"), []);
});

const WRONG: [args: string[], code: number, line: RegExp][] = [
  [["status", "--state", "/nowhere/coord.db"], 3, /^Error: no coordinator answers at \/nowhere\//],
  [["status", "--state", ":memory:"], 2, /cannot be asked/],
  [["node"], 2, /no action is given\. Choose one of: list, approve/],
  [["node", "burn"], 2, /unknown action "burn"/],
  [["node", "rename", "a"], 2, /NAME is missing\. Give NODE NAME/],
  [["token", "create", "--expires", "0s"], 2, /--expires "0s" is too short/],
];
for (const [args, code, line] of WRONG) {
  Deno.test(`gretun-coord ${args.join(" ")} ends with ${code} and one line`, async () => {
    const answer = await runCoordinator(args);
    deepStrictEqual([answer.code, answer.stdout], [code, ""]);
    match(answer.stderr, line);
    match(answer.stderr, /^Error: [^\n]+\n$/);
  });
}

Deno.test("a policy is checked, tried, reloaded and explained; a bad file changes nothing", async () => {
  using dir = tempDir();
  const [state, file] = [`${dir.path}/coord.db`, `${dir.path}/policy.jsonc`];
  const write = (text: string) => Deno.writeTextFileSync(file, text);
  const good =
    `{ // rules\n "rules": [\n  { "from": "tag:a", "to": "tag:b", "allow": "tcp:443" },\n ],
    "tests": [{ "from": "tag:a", "to": "tag:b", "may": "tcp:443", "mayNot": "tcp:22" }] }`;
  const isTold = async (words: string[], code: number, output: RegExp) => {
    const found = await runCoordinator(words);
    match(found.stdout + found.stderr, output);
    strictEqual(found.code, code);
  };
  write(`{ "rules": [\n { "from": "web" } ] }`);
  const reason = /policy\.jsonc: line 2: rules\[0\]: a rule needs from, to and allow/;
  await isTold(["policy", "check", file], 1, reason);
  await isTold(["--state", state, "--policy", file], 1, reason);
  write(good);
  await isTold(["policy", "check", file], 0, /is good: 1 rules, 0 groups, 1 tests/);
  await isTold(["policy", "test", file], 0, /line 5: holds\n1 of 1 hold\n/);
  await using process = await CoordinatorProcess.start(["--state", state, "--policy", file]);
  const nodes = [await fakeNode("a"), await fakeNode("b")];
  for (const node of nodes) {
    await join(process, node);
    await ask(state, "node", "tag", node.name, node.name);
  }
  const text = ["policy", "explain", "a", "b:443", "--state", state];
  await isTold(text, 0, /^a may open tcp:443 at b\n {2}line 3 allows tcp:443\n$/);
  const { allowed, visible } = await ask(state, "policy", "explain", "b", "a:icmp");
  deepStrictEqual([allowed, visible], [false, true]);
  await isTold(["policy", "explain", "a", "b", "--state", state], 2, /is no node with a port/);
  write(good.replace('tcp:443" },', 'tcp:80" },'));
  await isTold(["policy", "test", file], 1, /line 5: test: tag:a may open tcp:80 .*\n0 of 1 hold/s);
  await isTold(["policy", "reload", "--state", state], 1, /line 5: test: tag:a may open tcp:80/);
  const { policy } = await ask(state, "status");
  match(policy.refused, /line 5/);
  await isTold(text, 0, /may open tcp:443/);
  write(good.replaceAll("tcp:443", "tcp:444"));
  strictEqual((await ask(state, "policy", "reload")).refused, undefined);
  await isTold(text, 0, /may not open tcp:443 at b\n {2}line 3 allows tcp:444\n$/);
  // By the signal, too.
  write(good);
  Deno.kill(process.pid, "SIGHUP");
  const isReadAgain = () => process.said.split("policy in force").length > 3;
  for (let i = 0; i < 2_000 && !isReadAgain(); i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await isTold(text, 0, /may open tcp:443/);
});

Deno.test("the end of its terminal ends a coordinator in order, unless there is a policy to read", async () => {
  using dir = tempDir();
  await using process = await CoordinatorProcess.start(["--state", `${dir.path}/coord.db`]);
  strictEqual(await process.end("SIGHUP"), 0);
  match(process.said, /coordinator shutting down/);
});
