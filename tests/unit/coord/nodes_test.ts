/** Addresses, leases and the etag: what the coordinator knows of nodes, with time as an argument. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { type Cidr, type Ip, parseCidr, parseEndpoint } from "../../../lib/addr.ts";
import {
  type AdvertisedEndpoint,
  type NodeRecord,
  type PeerRecord,
  type RegisterRequest,
  toPeer,
} from "../../../lib/coord/api.ts";
import { LEASE_MS, Nodes } from "../../../lib/coord/nodes.ts";
import { ADDRESS_KEPT_MS } from "../../../lib/coord/tenure.ts";
import { Refusal } from "../../../lib/coord/refusal.ts";
import {
  type DiscoKey,
  discoKeyFromBytes,
  type NodeKey,
  nodeKeyFromBytes,
} from "../../../lib/keys.ts";

const START_MS = 1_800_000_000_000;
const POOL = parseCidr("100.64.0.0/24");
const SMALL_POOL = parseCidr("10.0.0.0/30");
const ENDPOINTS: AdvertisedEndpoint[] = [
  { endpoint: parseEndpoint("198.51.100.1:7777"), source: "stun" },
];

function bytes(n: number): Uint8Array {
  const key = new Uint8Array(32).fill(7);
  new DataView(key.buffer).setUint32(0, n);
  return key;
}

const nodeKey = (n: number): NodeKey => nodeKeyFromBytes(bytes(n));
const discoKey = (n: number): DiscoKey => discoKeyFromBytes(bytes(n));

function request(n: number, more: Partial<RegisterRequest> = {}): RegisterRequest {
  return { nodeKey: nodeKey(n), discoKey: discoKey(n), name: `node-${n}`, ...more };
}

/** Nodes with a clock and a memory of what it said to store. */
class Bench {
  nowMs = START_MS;
  nodes: Nodes;
  readonly pool: Cidr;
  readonly stored = new Map<NodeKey, NodeRecord>();

  constructor(pool: Cidr = POOL) {
    this.pool = pool;
    this.nodes = new Nodes(pool, [], START_MS, START_MS);
  }

  register(n: number, more: Partial<RegisterRequest> = {}, signed = true) {
    const answer = this.nodes.register(request(n, more), { signed, nowMs: this.nowMs });
    if (answer.changed) this.stored.set(answer.record.nodeKey, { ...answer.record });
    return answer;
  }

  ip(n: number, more: Partial<RegisterRequest> = {}): Ip {
    return this.register(n, more).record.tunnelIp;
  }

  names(): string[] {
    return this.nodes.listed().map(({ name }) => name);
  }

  restart(): void {
    const version = this.nodes.version + 1;
    this.nodes = new Nodes(this.pool, [...this.stored.values()], version, this.nowMs);
  }
}

/** That `act` is refused with this status, and leaves list and etag alone. */
function refuses(bench: Bench, status: number, message: RegExp, act: () => unknown): void {
  const before = JSON.stringify([bench.nodes.etag, bench.nodes.listed()]);
  throws(act, (error) => {
    ok(error instanceof Refusal);
    strictEqual(error.status, status);
    ok(message.test(error.message), error.message);
    return true;
  });
  strictEqual(JSON.stringify([bench.nodes.etag, bench.nodes.listed()]), before);
}

// --- addresses

Deno.test("register() gives the lowest free address", () => {
  const bench = new Bench();
  deepStrictEqual([1, 2, 3].map((n) => bench.ip(n)), ["100.64.0.1", "100.64.0.2", "100.64.0.3"]);
});

const CAPACITIES: [pool: string, first: string, capacity: number][] = [
  ["10.0.0.0/30", "10.0.0.1", 2],
  ["10.0.0.0/29", "10.0.0.1", 6],
  ["10.0.0.4/29", "10.0.0.5", 2],
  ["100.64.0.0/24", "100.64.0.1", 254],
  ["100.64.0.0/20", "100.64.0.1", 4094],
  ["10.0.0.0/8", "10.0.0.1", 65_536],
];
for (const [pool, first, capacity] of CAPACITIES) {
  Deno.test(`a pool of ${pool} has ${capacity} addresses, the first ${first}`, () => {
    const bench = new Bench(parseCidr(pool));
    strictEqual(bench.nodes.capacity, capacity);
    strictEqual(bench.ip(1), first);
  });
}

Deno.test("register() refuses a node for which no address is left", () => {
  const bench = new Bench(SMALL_POOL);
  bench.register(1);
  bench.register(2);
  refuses(bench, 500, /pool exhausted: start the coordinator with a larger --pool/, () => {
    bench.register(3);
  });
  strictEqual(bench.ip(1), "10.0.0.1");
});

Deno.test("a full pool of 65,536 nodes answers in time and stays at its size", () => {
  const bench = new Bench(parseCidr("10.0.0.0/8"));
  for (let n = 1; n <= 65_536; n++) {
    bench.nodes.register(request(n), { signed: false, nowMs: 0 });
  }
  strictEqual(bench.nodes.get(nodeKey(65_536))?.tunnelIp, "10.1.0.0");
  refuses(bench, 500, /pool exhausted/, () => bench.register(65_537));
});

Deno.test("a node keeps its address while it is silent, and after a restart", () => {
  const bench = new Bench();
  bench.register(1);
  const ip = bench.ip(2);
  bench.nowMs += LEASE_MS;
  strictEqual(bench.nodes.expire(bench.nowMs).length, 2);
  bench.register(3);
  strictEqual(bench.ip(2), ip);
  bench.restart();
  strictEqual(bench.ip(2), ip);
  strictEqual(bench.ip(4), "100.64.0.4");
});

const WANTED: [name: string, wanted: string, given: string][] = [
  ["a free one is given", "100.64.0.9", "100.64.0.9"],
  ["another node's is not", "100.64.0.1", "100.64.0.2"],
  ["the network's own is not", "100.64.0.0", "100.64.0.2"],
  ["the broadcast address is not", "100.64.0.255", "100.64.0.2"],
  ["one outside of the pool is not", "192.0.2.1", "100.64.0.2"],
  ["an IPv6 address is not", "2001:db8::1", "100.64.0.2"],
];
for (const [name, wanted, given] of WANTED) {
  Deno.test(`of requested addresses, ${name}`, () => {
    const bench = new Bench();
    bench.register(1);
    strictEqual(bench.ip(2, { requestedTunnelIp: wanted as Ip }), given);
  });
}

Deno.test("a requested address does not move a node that has one", () => {
  const bench = new Bench();
  bench.register(1);
  strictEqual(bench.ip(1, { requestedTunnelIp: "100.64.0.9" as Ip }), "100.64.0.1");
});

Deno.test("of a full pool only an address that was silent for 30 days is handed on", () => {
  const bench = new Bench(SMALL_POOL);
  for (const n of [1, 2]) {
    bench.register(n);
    bench.nodes.setReach(nodeKey(n), { endpoints: ENDPOINTS }, bench.nowMs);
    bench.nowMs += 1000;
  }
  bench.nowMs += LEASE_MS;
  bench.nodes.expire(bench.nowMs);
  refuses(bench, 500, /pool exhausted/, () => bench.register(3));
  bench.nowMs += ADDRESS_KEPT_MS;
  strictEqual(bench.ip(3), "10.0.0.1");
  strictEqual(bench.nodes.get(nodeKey(1)), undefined);
});

Deno.test("of a full pool the address of who only registered is handed on after a lease", () => {
  const bench = new Bench(SMALL_POOL);
  bench.register(1);
  bench.nodes.setReach(nodeKey(1), { endpoints: ENDPOINTS }, bench.nowMs);
  bench.register(2);
  refuses(bench, 500, /pool exhausted/, () => bench.register(3));
  bench.nowMs += LEASE_MS;
  bench.nodes.expire(bench.nowMs);
  strictEqual(bench.ip(3), "10.0.0.2");
});

Deno.test("a state from another pool is refused", () => {
  const bench = new Bench();
  const { record } = bench.register(1);
  throws(
    () => new Nodes(parseCidr("10.0.0.0/24"), [record], 1, START_MS),
    /stored address 100\.64\.0\.1 is outside of the pool/,
  );
});

// --- registering

Deno.test("an unsigned register adds a node and never changes one", () => {
  const bench = new Bench();
  bench.register(1, {}, false);
  deepStrictEqual(bench.names(), ["node-1"]);
  refuses(bench, 401, /sign the request/, () => bench.register(1, { name: "evil" }, false));
  refuses(bench, 401, /sign the request/, () => {
    bench.register(1, { discoKey: discoKey(9) }, false);
  });
});

Deno.test("an unsigned register of a known node answers and renews nothing", () => {
  const bench = new Bench();
  bench.register(1);
  const before = { ...bench.nodes.get(nodeKey(1))! };
  bench.nowMs += 1000;
  strictEqual(bench.register(1, {}, false).changed, false);
  deepStrictEqual(bench.nodes.get(nodeKey(1)), before);
  bench.nowMs += LEASE_MS;
  bench.nodes.expire(bench.nowMs);
  strictEqual(bench.register(1, {}, false).record.tunnelIp, "100.64.0.1");
  deepStrictEqual(bench.names(), []);
});

Deno.test("a signed register changes name and disco key, and keeps address and endpoints", () => {
  const bench = new Bench();
  bench.register(1);
  bench.nodes.setReach(nodeKey(1), { endpoints: ENDPOINTS }, bench.nowMs);
  bench.register(1, { name: "new", discoKey: discoKey(9) });
  const [peer] = bench.nodes.listed();
  deepStrictEqual([peer!.name, peer!.discoKey, peer!.tunnelIp, peer!.endpoints], [
    "new",
    discoKey(9),
    "100.64.0.1",
    ENDPOINTS,
  ]);
});

Deno.test("who registers unsigned is marked as an original node, until it signs that", () => {
  const bench = new Bench();
  bench.register(1, {}, false);
  strictEqual(bench.nodes.listed()[0]!.isV1, true);
  bench.restart();
  strictEqual(bench.nodes.listed()[0]!.isV1, true);
  bench.register(1);
  strictEqual(bench.nodes.listed()[0]!.isV1, undefined);
});

Deno.test("the list tells when a node last called", () => {
  const bench = new Bench();
  bench.register(1);
  bench.nowMs += 1000;
  bench.nodes.renew(nodeKey(1), bench.nowMs);
  strictEqual(bench.nodes.listed()[0]!.seenMs, bench.nowMs);
});

Deno.test("nobody may take another node's disco key", () => {
  const bench = new Bench();
  bench.register(1);
  bench.register(2);
  for (const n of [2, 3]) {
    refuses(bench, 409, /another node has this disco key/, () => {
      bench.register(n, { discoKey: discoKey(1) });
    });
  }
});

// --- lease

Deno.test("a node is listed from its register until its lease ends", () => {
  const bench = new Bench();
  bench.register(1);
  bench.nowMs += LEASE_MS - 1;
  deepStrictEqual(bench.nodes.expire(bench.nowMs), []);
  deepStrictEqual(bench.names(), ["node-1"]);
  bench.nowMs += 1;
  deepStrictEqual(bench.nodes.expire(bench.nowMs).map(({ name }) => name), ["node-1"]);
  deepStrictEqual(bench.names(), []);
});

Deno.test("each call renews the lease; the first after its end lists the node anew", () => {
  const bench = new Bench();
  bench.register(1);
  bench.nowMs += LEASE_MS - 1;
  strictEqual(bench.nodes.renew(nodeKey(1), bench.nowMs), false);
  bench.nowMs += LEASE_MS - 1;
  deepStrictEqual(bench.nodes.expire(bench.nowMs), []);
  bench.nowMs += 1;
  bench.nodes.expire(bench.nowMs);
  strictEqual(bench.nodes.renew(nodeKey(1), bench.nowMs), true);
  deepStrictEqual(bench.names(), ["node-1"]);
});

Deno.test("a node that left is not listed, keeps its address, and comes back by a call", () => {
  const bench = new Bench();
  bench.register(1);
  strictEqual(bench.nodes.leave(nodeKey(1), bench.nowMs), true);
  strictEqual(bench.nodes.leave(nodeKey(1), bench.nowMs), false);
  deepStrictEqual(bench.names(), []);
  strictEqual(bench.ip(2), "100.64.0.2");
  strictEqual(bench.ip(1), "100.64.0.1");
  deepStrictEqual(bench.names(), ["node-1", "node-2"]);
});

Deno.test("who was listed before a restart is listed after it, for the time of a lease", () => {
  const bench = new Bench();
  bench.register(1);
  bench.register(2);
  bench.nodes.leave(nodeKey(2), bench.nowMs);
  bench.stored.set(nodeKey(2), { ...bench.nodes.get(nodeKey(2))! });
  bench.nowMs += 10 * LEASE_MS;
  bench.restart();
  deepStrictEqual(bench.nodes.expire(bench.nowMs), []);
  deepStrictEqual(bench.names(), ["node-1"]);
  bench.nowMs += LEASE_MS;
  strictEqual(bench.nodes.expire(bench.nowMs).length, 1);
});

// --- etag

const CHANGES: [name: string, act: (bench: Bench) => unknown, changes: boolean][] = [
  ["a new node", (b) => b.register(2), true],
  ["the same register again", (b) => b.register(1), false],
  ["a new name", (b) => b.register(1, { name: "x" }), true],
  ["a new disco key", (b) => b.register(1, { discoKey: discoKey(8) }), true],
  ["other endpoints", (b) => b.nodes.setReach(nodeKey(1), { endpoints: [] }, b.nowMs), true],
  [
    "the same endpoints",
    (b) => b.nodes.setReach(nodeKey(1), { endpoints: [...ENDPOINTS] }, b.nowMs),
    false,
  ],
  [
    "another kind of NAT",
    (b) =>
      b.nodes.setReach(nodeKey(1), { endpoints: ENDPOINTS, nat: { mapping: "hard" } }, b.nowMs),
    true,
  ],
  ["a call", (b) => b.nodes.renew(nodeKey(1), b.nowMs), false],
  ["a leave", (b) => b.nodes.leave(nodeKey(1), b.nowMs), true],
  ["the end of a lease", (b) => b.nodes.expire(b.nowMs + LEASE_MS), true],
  ["no lease's end", (b) => b.nodes.expire(b.nowMs), false],
  ["a restart", (b) => b.restart(), true],
];
for (const [name, act, changes] of CHANGES) {
  Deno.test(`the etag ${changes ? "changes" : "stays"} with ${name}`, () => {
    const bench = new Bench();
    bench.register(1);
    bench.nodes.setReach(nodeKey(1), { endpoints: ENDPOINTS }, bench.nowMs);
    const before = bench.nodes.etag;
    ok(/^[0-9a-f]{16}$/.test(before));
    act(bench);
    strictEqual(bench.nodes.etag !== before, changes);
  });
}

Deno.test("changes() make every earlier list the present one, whatever happens", () => {
  let seed = 1;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor(seed / 65_536) % below;
  };
  // Fewer addresses than nodes: some are taken from others.
  const bench = new Bench(parseCidr("10.0.0.0/28"));
  const acts: ((n: number) => unknown)[] = [
    (n) => bench.register(n),
    (n) => bench.register(n, { name: `renamed-${random(9)}` }),
    (n) => bench.nodes.setReach(nodeKey(n), { endpoints: random(2) ? ENDPOINTS : [] }, bench.nowMs),
    (n) => bench.nodes.renew(nodeKey(n), bench.nowMs),
    (n) => bench.nodes.leave(nodeKey(n), bench.nowMs),
    () => bench.nodes.expire(bench.nowMs += LEASE_MS / 4),
    () => bench.nowMs += random(5) === 0 ? ADDRESS_KEPT_MS : 1,
  ];
  const mirrors = Array.from(
    { length: 5 },
    () => ({ etag: "", peers: new Map<NodeKey, PeerRecord>() }),
  );
  let told = 0;
  for (let i = 0; i < 20_000; i++) {
    try {
      acts[random(acts.length)]!(random(20));
    } catch (error) {
      ok(error instanceof Refusal);
    }
    if (random(5_000) === 0) bench.restart();
    const mirror = mirrors[random(mirrors.length)]!;
    const changes = bench.nodes.changes(mirror.etag);
    if (!changes) mirror.peers.clear();
    else told++;
    for (const record of changes ?? bench.nodes.listed()) {
      if (record.listed) mirror.peers.set(record.nodeKey, toPeer(record));
      else mirror.peers.delete(record.nodeKey);
    }
    mirror.etag = bench.nodes.etag;
    // When a node was last seen is no change of the list.
    const byKey = (peers: Iterable<PeerRecord>) =>
      [...peers].map((peer) => ({ ...peer, seenMs: 0 }))
        .sort((a, b) => a.nodeKey < b.nodeKey ? -1 : 1);
    deepStrictEqual(byKey(mirror.peers.values()), byKey(bench.nodes.listed().map(toPeer)));
  }
  ok(told > 15_000, `${told} of 20000 were changes`);
});

Deno.test("the list is in the order of addresses, not of text", () => {
  const bench = new Bench();
  for (const ip of ["100.64.0.100", "100.64.0.9", "100.64.0.20"] as Ip[]) {
    bench.register(Number(ip.split(".")[3]), { requestedTunnelIp: ip });
  }
  deepStrictEqual(bench.names(), ["node-9", "node-20", "node-100"]);
});
