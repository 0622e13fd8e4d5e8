/** What `gretun status` says of real daemons in the situations that people look at it in. */
import { ok, strictEqual } from "node:assert/strict";
import { isHealthy, overlayStatus } from "../../lib/cli/gretun/overlay_status.ts";
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
              refused, for N min
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
b  100.64.0.2  offline, seen N s ago  -  N B / N B
`,
  );
});
