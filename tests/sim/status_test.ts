/** What `gretun status` says of real daemons in the situations that people look at it in. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { isHealthy, overlayStatus } from "../../lib/cli/gretun/overlay_status.ts";
import { keyBase64 } from "../../lib/keys.ts";
import { readPolicy } from "../../lib/policy/mod.ts";
import { fits, schemaOf } from "../schema.ts";
import { type SimNode, World } from "./world/mod.ts";

const SYMMETRIC = { mapping: "address-and-port-dependent", ports: "random" } as const;
const SCHEMA = schemaOf("docs/status.schema.json");

/** Figures that a change of timing changes are N, and columns are no wider for them. */
function steady(text: string): string {
  return text
    .replace(/\d+(?:\.\d+)? (ms|s|min|h|B|kB)\b/g, "N $1")
    .replace(/:(?!7777|8443)\d{4,5}\b/g, ":N")
    .replace(/\b[0-9a-f]{16}\b/g, "KEY")
    .replace(/(?<=\S) {2,}/g, "  ");
}

function check(node: SimNode, isWell: boolean, golden: string): void {
  const report = node.report();
  const text = overlayStatus(report);
  ok(text.split("\n").every((line) => line.length <= 80), text);
  strictEqual(steady(text), golden);
  strictEqual(isHealthy(report), isWell);
  fits(SCHEMA, JSON.parse(JSON.stringify({ version: 1, ...report })));
}

Deno.test("status: a direct pair, then its coordinator is killed", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  ok(await world.until(() => a.state(b) === "direct", 10_000));
  await world.run(30_000);
  check(
    a,
    true,
    `Node:  a, 100.64.0.1/24
Key:  KEY
Coordinator:  http://203.0.113.1:8443/
              connected for N s
Data plane:  kernel (fou), UDP port 7777
Endpoints:  192.168.0.2:7777, 203.0.113.2:7777
NAT:  endpoint-independent mapping, or none

PEER  ADDRESS  PATH  RTT  RECEIVED / SENT
b  100.64.0.2  direct 203.0.113.3:7777  N ms  N B / N B
`,
  );
  coordinator.stop();
  await world.run(300_000);
  check(
    a,
    false,
    `Node:  a, 100.64.0.1/24
Key:  KEY
Coordinator:  http://203.0.113.1:8443/
              coordinator http://203.0.113.1:8443 does not answer: connection
              refused, for N min. Check that it runs.
Data plane:  kernel (fou), UDP port 7777
Endpoints:  192.168.0.2:7777, 203.0.113.2:7777
NAT:  endpoint-independent mapping, or none

PEER  ADDRESS  PATH  RTT  RECEIVED / SENT
b  100.64.0.2  direct 203.0.113.3:7777  N ms  N B / N B
`,
  );
});

Deno.test("status: UDP does not get out", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a", { udp: false }), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  ok(await world.until(() => a.peer(b)?.path === "relay-tcp", 60_000));
  await world.run(30_000);
  check(
    a,
    true,
    `Node:  a, 100.64.0.1/24
Key:  KEY
Coordinator:  http://203.0.113.1:8443/
              connected for N s
Data plane:  kernel (fou), UDP port 7777
Endpoints:  192.168.0.2:7777
NAT:  not known yet

PEER  ADDRESS  PATH  RTT  RECEIVED / SENT
b  100.64.0.2  relay by WebSocket  N ms  N B / N B
  not direct: UDP does not get out of this network or the peer's
`,
  );
});

Deno.test("status: a relayed pair", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a", SYMMETRIC), coordinator);
  const b = await world.up(world.hostBehind("b", SYMMETRIC), coordinator);
  ok(await world.until(() => a.state(b) === "relay", 20_000));
  await world.run(30_000);
  check(
    a,
    true,
    `Node:  a, 100.64.0.1/24
Key:  KEY
Coordinator:  http://203.0.113.1:8443/
              connected for N s
Data plane:  kernel (fou), UDP port 7777
Endpoints:  192.168.0.2:7777, 203.0.113.2:N
NAT:  address- or port-dependent mapping, ports chosen at random

PEER  ADDRESS  PATH  RTT  RECEIVED / SENT
b  100.64.0.2  relay 203.0.113.1:N  N ms  N B / N B
  not direct: both NATs give each remote another port
`,
  );
});

Deno.test("status: a peer that has been away for a while", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const b = await world.up(world.hostBehind("b"), coordinator);
  ok(await world.until(() => a.state(b) === "direct", 10_000));
  b.kill();
  ok(await world.until(() => a.peer(b)?.offline === true, 200_000));
  check(
    a,
    true,
    `Node:  a, 100.64.0.1/24
Key:  KEY
Coordinator:  http://203.0.113.1:8443/
              connected for N s
Data plane:  kernel (fou), UDP port 7777
Endpoints:  192.168.0.2:7777, 203.0.113.2:7777
NAT:  endpoint-independent mapping, or none

PEER  ADDRESS  PATH  RTT  RECEIVED / SENT
b  100.64.0.2  offline, last seen N s ago  -  N B / N B
`,
  );
});

Deno.test("status: a member that left stays offline in it until it is a member no more", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a"), coordinator);
  const others = await world.upAll(["b", "c", "d"], coordinator);
  const [b, c, d] = others as [SimNode, SimNode, SimNode];
  ok(await world.until(() => others.every((each) => a.state(each) === "direct"), 20_000));
  const { server } = coordinator;
  const edit = (node: SimNode, change: { isEphemeral?: true; expiresMs?: number }) => {
    const record = server!.nodes.get(node.identity.nodeKey)!;
    server!.nodes.edit(record, change);
    server!.edited(record);
  };
  edit(d, { isEphemeral: true });
  const peers = () =>
    a.report().peers.map(({ name, offline, last_seen_s = 0 }) =>
      `${name} ${offline ? `away for ${Math.round(last_seen_s / 60)} min` : "there"}`
    );
  void b.stop();
  d.kill();
  await world.run(600_000);
  deepStrictEqual(peers(), ["c there", "b away for 10 min"]);
  check(
    a,
    true,
    `Node:  a, 100.64.0.1/24
Key:  KEY
Coordinator:  http://203.0.113.1:8443/
              connected for N min
Data plane:  kernel (fou), UDP port 7777
Endpoints:  192.168.0.2:7777, 203.0.113.2:7777
NAT:  endpoint-independent mapping, or none

PEER  ADDRESS  PATH  RTT, HEARD  RECEIVED / SENT
c  100.64.0.3  direct 203.0.113.4:7777  N ms, N s  N B / N B
b  100.64.0.2  offline, last seen N min ago  -  - / -
`,
  );
  const ping = a.ping(b, { count: 3, untilDirect: true });
  ok(await world.until(() => ping.hasEnded, 1_000));
  deepStrictEqual(ping.answers.map(({ peer }) => peer.offline), [true]);
  void a.stop();
  ok(await world.until(() => a.ended !== undefined, 5_000));
  await a.start();
  ok(await world.until(() => a.state(c) === "direct", 20_000));
  deepStrictEqual(peers(), ["c there", "b away for 10 min"]);
  await b.start();
  ok(await world.until(() => a.state(b) === "direct", 20_000));
  deepStrictEqual(peers(), ["c there", "b there"]);
  void b.stop();
  await world.run(300_000);
  deepStrictEqual(peers(), ["c there", "b away for 5 min"]);
  edit(b, { expiresMs: world.time.nowMs });
  await world.run(10_000);
  deepStrictEqual(peers(), ["c there"]);
});

Deno.test("status: an overlay of 50, of which ten have left", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const up = (name: string) => world.up(world.hostBehind(name), coordinator);
  const a = await up("a");
  // To the others it is an overlay of two each.
  const own = `key:${keyBase64(a.identity.nodeKey)}`;
  const rules = [{ from: own, to: "*", allow: ["any"] }];
  coordinator.server!.setPolicy(readPolicy(JSON.stringify({ rules })).policy);
  const others: SimNode[] = [];
  for (let n = 1; n < 50; n++) others.push(await up(`host-${n}`));
  await world.run(10_000);
  deepStrictEqual(a.report().peers.filter(({ state }) => state !== "direct"), []);
  for (const each of others.slice(0, 10)) void each.stop();
  await world.run(100_000);
  const report = a.report();
  const lines = overlayStatus(report).trimEnd().split("\n");
  ok(lines.every((line) => line.length <= 80), lines.join("\n"));
  const rows = lines.slice(lines.findIndex((line) => line.startsWith("PEER")) + 1).map(steady).map((
    row,
  ) => row.replace(/seen N \w+/, "seen N N"));
  const direct =
    /^host-\d+ {2}100\.64\.0\.\d+ {2}direct 203\.0\.\d+\.\d+:7777 {2}N ms, N s {2}N B \/ N B$/;
  ok(rows.slice(0, 39).every((row) => direct.test(row)), rows.join("\n"));
  deepStrictEqual(
    rows.slice(39).toSorted(),
    others.slice(0, 10).map((_, i) =>
      `host-${i + 1}  100.64.0.${i + 2}  offline, last seen N N ago  -  - / -`
    ).toSorted(),
  );
  strictEqual(isHealthy(report), true);
  fits(SCHEMA, JSON.parse(JSON.stringify({ version: 1, ...report })));
});
