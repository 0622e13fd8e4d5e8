/** Which of the coordinator's words about peers are believed. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type Ip, parseCidr, parseEndpoint } from "../../../lib/addr.ts";
import { type PeerRecord, signStatement, type Statement } from "../../../lib/coord/api.ts";
import { Known, type KnownFile } from "../../../lib/daemon/known.ts";
import { Trust } from "../../../lib/daemon/trust.ts";
import { silentLog } from "../../../lib/edges.ts";
import { keyBase64 } from "../../../lib/keys.ts";
import { parseAccess } from "../../../lib/policy/access.ts";
import { type FakeNode, fakeNode, randomDiscoKey, WatchedClock } from "../../fakes/coordinator.ts";

const OWN = parseCidr("100.64.0.1/24");
const at = (ip: string) => [{ endpoint: parseEndpoint(`${ip}:7777`), source: "stun" as const }];

interface Said extends Partial<Omit<Statement, "sequence">> {
  sequence?: number;
}

/** The record as the coordinator tells it, with the node's own statement. */
async function listed(node: FakeNode, ip: string, said: Said = {}): Promise<PeerRecord> {
  const { nodeKey, discoKey, name, sign } = node;
  const tunnelIp = ip as Ip;
  const statement = { sequence: 1, discoKey, tunnelIp, endpoints: at("192.0.2.1"), ...said };
  return {
    ...{ nodeKey, discoKey, name, tunnelIp, endpoints: statement.endpoints, updatedMs: 0 },
    statement: await signStatement(statement, sign),
  };
}

function unsigned({ statement: _, ...record }: PeerRecord): PeerRecord {
  return record;
}

class MemoryFile implements KnownFile {
  readonly path = "known.json";
  text: string | undefined;
  read = () => this.text;
  write = (text: string) => void (this.text = text);
}

class Host {
  readonly clock = new WatchedClock();
  readonly file = new MemoryFile();
  known!: Known;
  trust!: Trust;
  readonly acceptsChanges: boolean;

  constructor({ acceptsChanges = false } = {}) {
    this.acceptsChanges = acceptsChanges;
    this.start();
  }

  start(): void {
    const { clock, file, acceptsChanges } = this;
    this.known = new Known({ file, url: "http://c", clock, log: silentLog });
    const { known } = this;
    this.trust = new Trust({ known, tunnelIp: () => OWN, acceptsChanges, clock, log: silentLog });
  }

  restart(): void {
    this.known[Symbol.dispose]();
    this.start();
  }

  /** Names of those that are believed, with where they are. */
  async judge(...records: PeerRecord[]): Promise<string[]> {
    const believed = await this.trust.judge(records);
    return believed.map(({ name, endpoints }) => `${name} ${endpoints[0]?.endpoint.ip}`).sort();
  }

  get finding(): string {
    return this.trust.findings.map(({ text }) => text).join();
  }
}

Deno.test("what a peer has signed stands in place of what is said of it", async () => {
  const host = new Host();
  const b = await listed(await fakeNode("b"), "100.64.0.2", { nat: { mapping: "easy" } });
  const lie = { ...b, discoKey: randomDiscoKey(), endpoints: at("203.0.113.66") };
  const [believed] = await host.trust.judge([{ ...lie, nat: { mapping: "hard" } }]);
  deepStrictEqual(
    [believed!.discoKey, believed!.endpoints, believed!.nat],
    [b.discoKey, b.endpoints, { mapping: "easy" }],
  );
});

Deno.test("a peer whose new record is refused has the rights of the new one", async () => {
  const host = new Host();
  const node = await fakeNode("a");
  const record = await listed(node, "100.64.0.2", { sequence: 2 });
  const old = await listed(node, "100.64.0.2", { sequence: 1 });
  await host.trust.judge([record]);
  const inbound = parseAccess("tcp:443");
  const [believed] = await host.trust.judge([{ ...old, inbound, isSilent: true }]);
  deepStrictEqual([believed?.statement, believed?.inbound], [record.statement, inbound]);
  deepStrictEqual(await host.trust.judge([old]), [record]);
});

Deno.test("a statement of another node, or one that was changed, is refused", async () => {
  const host = new Host();
  const [b, mallory] = [await fakeNode("b"), await fakeNode("mallory")];
  const record = await listed(b, "100.64.0.2");
  const others = { ...record, statement: (await listed(mallory, "100.64.0.2")).statement! };
  const { text, signature } = record.statement!;
  const changed = {
    ...record,
    statement: { text: text.replace("192.0.2.1", "192.0.2.9"), signature },
  };
  for (const wrong of [others, changed]) {
    deepStrictEqual(await host.judge(wrong), []);
    match(host.finding, /what is told of b is not signed with its key/);
  }
  deepStrictEqual(await host.judge(record), ["b 192.0.2.1"]);
  strictEqual(host.finding, "");
  deepStrictEqual(await host.judge(changed), ["b 192.0.2.1"], "the last word of its own holds");
});

Deno.test("an old statement is not taken after a newer one, after a restart neither", async () => {
  const host = new Host();
  const b = await fakeNode("b");
  const old = await listed(b, "100.64.0.2", { sequence: 5, endpoints: at("192.0.2.5") });
  const newer = await listed(b, "100.64.0.2", { sequence: 6, endpoints: at("192.0.2.6") });
  deepStrictEqual(await host.judge(old), ["b 192.0.2.5"]);
  deepStrictEqual(await host.judge(newer), ["b 192.0.2.6"]);
  deepStrictEqual(await host.judge(old), ["b 192.0.2.6"]);
  match(host.finding, /older than what it told last/);
  host.restart();
  deepStrictEqual(await host.judge(old), []);
  match(host.finding, /older than what it told last/);
  deepStrictEqual(await host.judge(newer), ["b 192.0.2.6"]);
});

Deno.test("a node of an older version is taken as it is told; one that has signed is no such node", async () => {
  const host = new Host();
  const b = await listed(await fakeNode("b"), "100.64.0.2");
  deepStrictEqual(await host.judge(unsigned(b)), ["b 192.0.2.1"]);
  deepStrictEqual(await host.judge(b), ["b 192.0.2.1"]);
  await host.judge({ ...unsigned(b), endpoints: at("203.0.113.66") });
  match(host.finding, /has signed what it told/);
});

for (const ip of ["1.1.1.1", "100.64.1.2", OWN.ip, "fd00::1"]) {
  Deno.test(`a peer at ${ip} is refused whatever the coordinator says`, async () => {
    const host = new Host();
    deepStrictEqual(await host.judge(await listed(await fakeNode("b"), ip)), []);
    match(host.finding, /b is listed at/);
  });
}

Deno.test("another key under a known name or address waits until the user accepts it", async () => {
  for (const [name, ip] of [["b", "100.64.0.9"], ["new", "100.64.0.2"], ["b", "100.64.0.2"]]) {
    const host = new Host();
    await host.judge(await listed(await fakeNode("b"), "100.64.0.2"));
    host.restart();
    const other = await listed(await fakeNode(name!), ip!);
    deepStrictEqual(await host.judge(other), []);
    match(host.finding, new RegExp(`${name} at ${ip} has key .* before it was b with`));
    strictEqual(await host.trust.accept("unknown"), false);
    strictEqual(await host.trust.accept(other.nodeKey.slice(0, 8)), true);
    deepStrictEqual(await host.judge(other), [`${name} 192.0.2.1`]);
    host.restart();
    deepStrictEqual(await host.judge(other), [`${name} 192.0.2.1`], "it is remembered");
  }
});

Deno.test("a name or address of a key passes on at once where the user said so before", async () => {
  const host = new Host({ acceptsChanges: true });
  await host.judge(await listed(await fakeNode("b"), "100.64.0.2"));
  deepStrictEqual(await host.judge(await listed(await fakeNode("b"), "100.64.0.2")), [
    "b 192.0.2.1",
  ]);
});

Deno.test("two hosts may have one name, if they are there at one time", async () => {
  const host = new Host();
  const first = await listed(await fakeNode("debian"), "100.64.0.2");
  const second = await listed(await fakeNode("debian"), "100.64.0.3");
  strictEqual((await host.judge(first, second)).length, 2);
  deepStrictEqual((await host.judge(second)).length, 1, "also when one goes");
});

Deno.test("one address is one key's: the one's that had it", async () => {
  const host = new Host();
  const b = await listed(await fakeNode("b"), "100.64.0.2");
  const c = await listed(await fakeNode("c"), "100.64.0.2");
  deepStrictEqual(await host.judge(b, c), ["b 192.0.2.1"]);
  deepStrictEqual(await host.judge(c, b), ["b 192.0.2.1"]);
});

Deno.test("an address passes on once its owner has signed that it has another", async () => {
  const host = new Host();
  const b = await fakeNode("b");
  await host.judge(await listed(b, "100.64.0.2"));
  const c = await listed(await fakeNode("c"), "100.64.0.2");
  const moved = { ...await listed(b, "100.64.0.2"), tunnelIp: "100.64.0.3" as Ip };
  deepStrictEqual(
    await host.judge(c, moved),
    ["b 192.0.2.1"],
    "the coordinator's word is not enough",
  );
  const signed = await listed(b, "100.64.0.3", { sequence: 2 });
  deepStrictEqual(await host.judge(c, signed), ["b 192.0.2.1", "c 192.0.2.1"]);
});

Deno.test("who was not listed for 30 days is forgotten", async () => {
  const host = new Host();
  await host.judge(await listed(await fakeNode("b"), "100.64.0.2"));
  host.clock.wallStepMs = 29 * 24 * 3600 * 1000;
  const other = await listed(await fakeNode("b"), "100.64.0.2");
  deepStrictEqual(await host.judge(other), []);
  host.clock.wallStepMs = 31 * 24 * 3600 * 1000;
  deepStrictEqual(await host.judge(other), ["b 192.0.2.1"]);
});

Deno.test("a coordinator that was made anew may give out addresses anew; names stay", async () => {
  const host = new Host();
  const [b, c] = [await fakeNode("b"), await fakeNode("c")];
  host.known.setCoordinatorKey(b.nodeKey);
  await host.judge(await listed(b, "100.64.0.2"), await listed(c, "100.64.0.3"));
  host.known.setCoordinatorKey(c.nodeKey);
  const swapped = [await listed(b, "100.64.0.3"), await listed(c, "100.64.0.2")];
  strictEqual((await host.judge(...swapped)).length, 2);
  deepStrictEqual(await host.judge(await listed(await fakeNode("b"), "100.64.0.9")), []);
});

Deno.test("what is remembered is read as it was written, and nothing else is", () => {
  const host = new Host();
  host.known.sequence = 7;
  host.known.address = "100.64.0.5" as Ip;
  host.restart();
  deepStrictEqual([host.known.sequence, host.known.address], [7, "100.64.0.5"]);
  for (
    const text of [
      "",
      "{}",
      '{"sequence":1}',
      '{"sequence":1,"coordinators":{"x":{}}}',
      '{"sequence":1.5,"coordinators":{}}',
    ]
  ) {
    host.file.text = text;
    let error: unknown;
    try {
      host.start();
    } catch (thrown) {
      error = thrown;
    }
    ok(String(error).includes("cannot use known.json"), text);
  }
});

Deno.test("keys may be named in base64 too", async () => {
  const host = new Host();
  await host.judge(await listed(await fakeNode("b"), "100.64.0.2"));
  const other = await listed(await fakeNode("b"), "100.64.0.2");
  await host.judge(other);
  strictEqual(host.trust.accept(keyBase64(other.nodeKey)), true);
});
