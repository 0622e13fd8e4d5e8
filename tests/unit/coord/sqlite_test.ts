/** What outlives the coordinator: the store alone, then the program killed and started again. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { type Ip, parseEndpoint } from "../../../lib/addr.ts";
import { CoordClient } from "../../../lib/coord/client.ts";
import type { NodeRecord, PeerRecord } from "../../../lib/coord/api.ts";
import { SqliteStore } from "../../../lib/coord/sqlite.ts";
import { systemClock, systemRandom } from "../../../lib/edges.ts";
import { errorLine } from "../../../lib/cli/command.ts";
import { type FakeNode, fakeNode, randomDiscoKey, randomNodeKey } from "../../fakes/coordinator.ts";
import { CoordinatorProcess, runCoordinator } from "../../fakes/coordinator_process.ts";

const NEVER = new AbortController().signal;

function record(more: Partial<NodeRecord> = {}): NodeRecord {
  return {
    nodeKey: randomNodeKey(),
    discoKey: randomDiscoKey(),
    name: 'Robert"); DROP TABLE nodes;--',
    tunnelIp: "100.64.0.1" as Ip,
    endpoints: [
      { endpoint: parseEndpoint("198.51.100.1:7777"), source: "stun" },
      { endpoint: parseEndpoint("[2001:db8::1]:7777"), source: "local" },
    ],
    updatedMs: 1_800_000_000_000,
    leaseEndsMs: 1_800_000_120_000,
    listed: true,
    ...more,
  };
}

function tempDir(): Disposable & { path: string } {
  const path = Deno.makeTempDirSync({ prefix: "gretun-coord-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** The text of the file's nodes, as SQL would change them. */
function edit(path: string, sql: string): void {
  const db = new DatabaseSync(path);
  db.exec(sql);
  db.close();
}

// --- the store

Deno.test("nodes() gives what save() was given, after the file was closed and opened", () => {
  using dir = tempDir();
  const path = `${dir.path}/coord.db`;
  const records = [
    record(),
    record({ tunnelIp: "100.64.0.2" as Ip, endpoints: [], listed: false }),
  ];
  {
    using store = SqliteStore.open(path);
    deepStrictEqual([store.nodes(), store.version()], [[], 0]);
    store.save(records, 2 ** 41);
  }
  using store = SqliteStore.open(path);
  const byIp = (a: NodeRecord, b: NodeRecord) => a.tunnelIp < b.tunnelIp ? -1 : 1;
  deepStrictEqual([store.nodes().sort(byIp), store.version()], [records, 2 ** 41]);
});

/** As the first versions wrote it. */
const FIRST_SCHEMA = `
  CREATE TABLE nodes (
    node_key TEXT PRIMARY KEY, disco_key TEXT NOT NULL, name TEXT NOT NULL,
    tunnel_ip TEXT NOT NULL, endpoints TEXT NOT NULL, updated_ms INTEGER NOT NULL,
    lease_ends_ms INTEGER NOT NULL, listed INTEGER NOT NULL) STRICT;
  CREATE TABLE version (id INTEGER PRIMARY KEY, value INTEGER NOT NULL) STRICT;
  CREATE TABLE seeds (name TEXT PRIMARY KEY, seed BLOB NOT NULL) STRICT;
  INSERT INTO version VALUES (1, 77);
  INSERT INTO seeds VALUES ('relay', x'0102');
  PRAGMA user_version = 2;`;

Deno.test("a file of the first schema is brought to the present one, once, with all that is in it", () => {
  using dir = tempDir();
  const path = `${dir.path}/coord.db`;
  const old = record();
  edit(
    path,
    `${FIRST_SCHEMA}
    INSERT INTO nodes VALUES ('${old.nodeKey}', '${old.discoKey}', 'Robert"); DROP TABLE nodes;--',
      '100.64.0.1', '[["198.51.100.1:7777","stun"],["[2001:db8::1]:7777","local"]]',
      ${old.updatedMs}, ${old.leaseEndsMs}, 1);`,
  );
  for (let i = 0; i < 2; i++) {
    using store = SqliteStore.open(path);
    deepStrictEqual([store.nodes(), store.version()], [[old], 77]);
    deepStrictEqual([...store.seed("relay", new Uint8Array(2))], [1, 2]);
  }
});

Deno.test("a file that cannot be brought to the present schema stays as it is", () => {
  using dir = tempDir();
  const path = `${dir.path}/coord.db`;
  edit(
    path,
    `${FIRST_SCHEMA} INSERT INTO nodes VALUES ('${"a".repeat(64)}', '${
      "a".repeat(64)
    }', 'a', 'x', '[]', 0, 0, 1);`,
  );
  for (let i = 0; i < 2; i++) {
    throws(() => SqliteStore.open(path), (error) => {
      ok(/^Error: cannot open .*tunnel_ip: .*--state/.test(errorLine(error)), errorLine(error));
      return true;
    });
  }
});

Deno.test("save() replaces a node, and who had its address before", () => {
  using store = SqliteStore.open(":memory:");
  const old = record();
  store.save([old], 1);
  store.save([{ ...old, name: "new" }], 2);
  deepStrictEqual(store.nodes().map(({ name }) => name), ["new"]);
  const heir = record({ name: "heir" });
  store.save([heir], 3);
  deepStrictEqual(store.nodes(), [heir]);
});

Deno.test("save() writes all or nothing", () => {
  using store = SqliteStore.open(":memory:");
  const good = record();
  store.save([good], 1);
  const bad = record({
    tunnelIp: "100.64.0.2" as Ip,
    nodeKey: null as unknown as NodeRecord["nodeKey"],
  });
  throws(() => store.save([{ ...good, name: "x" }, bad], 2));
  deepStrictEqual([store.nodes(), store.version()], [[good], 1]);
  store.save([{ ...good, name: "x" }], 3);
});

Deno.test("one process has the file at a time", () => {
  using dir = tempDir();
  using _first = SqliteStore.open(`${dir.path}/coord.db`);
  throws(() => SqliteStore.open(`${dir.path}/coord.db`), (error) => {
    ok(/^Error: cannot open .*: database is locked\. .*--state/.test(errorLine(error)));
    return true;
  });
});

const DAMAGES: [name: string, sql: string, line: RegExp][] = [
  ["another version", "PRAGMA user_version = 99", /another version of gretun-coord\. .*--state/],
  [
    "a wrong address",
    "UPDATE nodes SET record = json_set(record, '$.tunnel_ip', 'x')",
    /damaged: tunnel_ip: Cannot parse IP.*--state/,
  ],
  ["a cut record", "UPDATE nodes SET record = '{'", /damaged: .*--state/],
];
for (const [name, sql, line] of DAMAGES) {
  Deno.test(`a file with ${name} is told on one line`, () => {
    using dir = tempDir();
    const path = `${dir.path}/coord.db`;
    {
      using store = SqliteStore.open(path);
      store.save([record()], 1);
    }
    edit(path, sql);
    throws(() => {
      using store = SqliteStore.open(path);
      store.nodes();
    }, (error) => {
      ok(line.test(errorLine(error)), errorLine(error));
      return true;
    });
  });
}

// --- the program

function clientOf(process: CoordinatorProcess, node: FakeNode): CoordClient {
  return new CoordClient({
    url: process.url,
    identity: node,
    clock: systemClock,
    random: systemRandom,
  });
}

Deno.test("a coordinator killed right after its answers has lost nothing", async () => {
  using dir = tempDir();
  const state = ["--state", `${dir.path}/state/coord.db`];
  const nodes = await Promise.all(Array.from({ length: 20 }, (_, i) => fakeNode(`n${i}`)));
  const addresses: string[] = [];
  const before = await (async () => {
    await using process = await CoordinatorProcess.start(state);
    for (const [i, node] of nodes.entries()) {
      const client = clientOf(process, node);
      const { tunnelIp } = await client.register(
        { discoKey: node.discoKey, nodeName: node.name },
        NEVER,
      );
      addresses.push(tunnelIp.ip);
      const endpoint = parseEndpoint(`198.51.100.${i}:7777`);
      await client.postEndpoints([{ endpoint, source: "stun" }], NEVER);
    }
    const list = await clientOf(process, nodes[0]!).peers(undefined, NEVER);
    const last = await fakeNode("last");
    nodes.push(last);
    const { tunnelIp } = await clientOf(process, last)
      .register({ discoKey: last.discoKey, nodeName: "last" }, NEVER);
    addresses.push(tunnelIp.ip);
    await process.end("SIGKILL");
    return list;
  })();

  await using process = await CoordinatorProcess.start(state);
  const after = await clientOf(process, nodes[0]!).peers(before, NEVER);
  ok(after.etag > before.etag);
  // When a node last called is kept in memory until something of it changes.
  const ofNodes = (peers: PeerRecord[]) => peers.map((peer) => ({ ...peer, seenMs: 0 }));
  deepStrictEqual(ofNodes(after.peers.slice(0, 20)), ofNodes(before.peers));
  deepStrictEqual(after.peers.map(({ nodeKey }) => nodeKey), nodes.map(({ nodeKey }) => nodeKey));
  deepStrictEqual(after.peers.map(({ tunnelIp }) => tunnelIp), addresses);
  for (const [i, node] of nodes.entries()) {
    const { tunnelIp } = await clientOf(process, node)
      .register({ discoKey: node.discoKey, nodeName: node.name }, NEVER);
    strictEqual(tunnelIp.ip, addresses[i]);
  }
});

Deno.test("the state's directory and files are the user's alone", async () => {
  using dir = tempDir();
  const mode = (path: string) => (Deno.statSync(path).mode! & 0o777).toString(8);
  await using _process = await CoordinatorProcess.start(["--state", `${dir.path}/a/b/coord.db`]);
  deepStrictEqual([mode(`${dir.path}/a`), mode(`${dir.path}/a/b`)], ["700", "700"]);
  for (const { name } of Deno.readDirSync(`${dir.path}/a/b`)) {
    strictEqual(mode(`${dir.path}/a/b/${name}`), "600", name);
  }
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`${signal} ends the coordinator with 0, held polls or not`, async () => {
    await using process = await CoordinatorProcess.start(["--state", ":memory:"]);
    const node = await fakeNode("a");
    const client = clientOf(process, node);
    await client.register({ discoKey: node.discoKey, nodeName: "a" }, NEVER);
    const pull = client.takeSignals(NEVER).catch(() => []);
    await client.peers(undefined, NEVER);
    strictEqual(await process.end(signal), 0);
    await pull;
  });
}

Deno.test("a second coordinator on the same state says so and ends with 1", async () => {
  using dir = tempDir();
  const state = ["--state", `${dir.path}/coord.db`];
  await using _process = await CoordinatorProcess.start(state);
  const { code, stderr } = await runCoordinator([
    ...state,
    "--stun-listen",
    "off",
    "--relay-listen",
    "off",
  ]);
  strictEqual(code, 1);
  ok(/^Error: cannot open \S+coord\.db: database is locked\. .*--state.*\n$/.test(stderr), stderr);
});

const UNUSABLE: [name: string, make: (dir: string) => string, line: RegExp][] = [
  ["that is text", (dir) => {
    Deno.writeTextFileSync(`${dir}/coord.db`, "hello ".repeat(1000));
    return `${dir}/coord.db`;
  }, /^Error: cannot open \S+: file is not a database\. .*--state/],
  ["that is a directory", (dir) => {
    Deno.mkdirSync(`${dir}/coord.db`);
    return `${dir}/coord.db`;
  }, /^Error: cannot write \S+: Is a directory.*--state/],
  ["below a file", (dir) => {
    Deno.writeTextFileSync(`${dir}/file`, "");
    return `${dir}/file/coord.db`;
  }, /^Error: cannot write \S+: .*--state/],
  ["where nobody may write", () => "/proc/gretun/coord.db", /^Error: cannot write \S+: .*--state/],
  ["cut short", (dir) => {
    const path = `${dir}/coord.db`;
    {
      using store = SqliteStore.open(path);
      for (let i = 1; i < 250; i++) store.save([record({ tunnelIp: `10.0.0.${i}` as Ip })], i);
    }
    Deno.truncateSync(path, 8192);
    return path;
  }, /^Error: .*malformed.*--state/],
];
for (const [name, make, line] of UNUSABLE) {
  Deno.test(`a state file ${name} is told on one line, with exit code 1`, async () => {
    using dir = tempDir();
    const { code, stderr, stdout } = await runCoordinator([
      ...["--listen", "127.0.0.1:1", "--stun-listen", "off", "--relay-listen", "off"],
      ...["--state", make(dir.path)],
    ]);
    deepStrictEqual([code, stdout], [1, ""]);
    ok(line.test(stderr) && /^[^\n]+\n$/.test(stderr), stderr);
  });
}

Deno.test("a pool that does not hold the stored addresses is told, with exit code 1", async () => {
  using dir = tempDir();
  const path = `${dir.path}/coord.db`;
  {
    using store = SqliteStore.open(path);
    store.save([record()], 1);
  }
  const { code, stderr } = await runCoordinator(["--state", path, "--pool", "10.0.0.0/24"]);
  strictEqual(code, 1);
  ok(/^Error: --pool 10\.0\.0\.0\/24 does not fit the state: .*\n$/.test(stderr), stderr);
});

Deno.test("a port that is taken is told on one line, with exit code 1", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const listen = [
    "--listen",
    `127.0.0.1:${port}`,
    "--stun-listen",
    "off",
    "--relay-listen",
    "off",
    "--state",
    ":memory:",
  ];
  const { code, stderr } = await runCoordinator(listen);
  strictEqual(code, 1);
  ok(/^Error: cannot listen on 127\.0\.0\.1:\d+: .*in use.*--listen\.\n$/.test(stderr), stderr);
});

const BAD_FLAGS: [args: string[], line: RegExp][] = [
  [["--unknown"], /unknown flag --unknown/],
  [["word"], /unknown command "word"/],
  [["--listen", "8443"], /--listen "8443" is not HOST:PORT/],
  [["--listen", ":0"], /--listen ":0" is not HOST:PORT/],
  [["--listen", ":65536"], /--listen ":65536" is not HOST:PORT/],
  [["--listen="], /--listen has no value/],
  [["--pool", "100.64.0.0"], /--pool "100\.64\.0\.0" is no pool/],
  [["--pool", "100.64.0.0/31"], /--pool .* is no pool/],
  [["--pool", "10.0.0.0/7"], /--pool .* is no pool/],
  [["--pool", "fd00::/64"], /--pool .* is no pool/],
  [["--stun-listen", "x"], /--stun-listen "x" is not HOST:PORT/],
  [["--cert", "c.pem"], /--cert is given alone/],
  [["--key", "k.pem"], /--key is given alone/],
];
for (const [args, line] of BAD_FLAGS) {
  Deno.test(`gretun-coord ${args.join(" ")} ends with 2 and one line`, async () => {
    const { code, stdout, stderr } = await runCoordinator([...args, "--state", ":memory:"]);
    deepStrictEqual([code, stdout], [2, ""]);
    ok(line.test(stderr) && /^Error: [^\n]+\n$/.test(stderr), stderr);
  });
}

Deno.test("the default state is in the user's state directory unless root", async () => {
  const { stdout, code } = await runCoordinator(["--help"]);
  strictEqual(code, 0);
  ok(stdout.includes("/var/lib/gretun-coord/coord.db"));
  if (Deno.uid() === 0) return;
  using dir = tempDir();
  await using _process = await CoordinatorProcess.start([], { env: { XDG_STATE_HOME: dir.path } });
  ok(Deno.statSync(`${dir.path}/gretun-coord/coord.db`).isFile);
});
