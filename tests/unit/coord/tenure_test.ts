/** Who makes up identities does not use up the pool. */
import { ok, strictEqual, throws } from "node:assert/strict";
import { parseCidr, parseEndpoint, parseIp } from "../../../lib/addr.ts";
import type { RegisterRequest } from "../../../lib/coord/api.ts";
import { LEASE_MS, Nodes } from "../../../lib/coord/nodes.ts";
import { ADDRESS_KEPT_MS, NEWCOMER_KEPT_MS } from "../../../lib/coord/tenure.ts";
import { discoKeyFromBytes, nodeKeyFromBytes } from "../../../lib/keys.ts";

const START_MS = 1_800_000_000_000;
const endpoints = [{ endpoint: parseEndpoint("198.51.100.1:7777"), source: "stun" as const }];

function request(n: number, more: Partial<RegisterRequest> = {}): RegisterRequest {
  const bytes = new Uint8Array(32).fill(7);
  new DataView(bytes.buffer).setUint32(0, n);
  return {
    ...{ nodeKey: nodeKeyFromBytes(bytes), discoKey: discoKeyFromBytes(bytes), name: `n${n}` },
    ...more,
  };
}

class Bench {
  nowMs = START_MS;
  readonly nodes: Nodes;

  constructor(pool = "100.64.0.0/24") {
    this.nodes = new Nodes(parseCidr(pool), [], START_MS, START_MS);
  }

  /** Registers and tells an endpoint. */
  join(n: number, source = "192.0.2.1", token?: string, more: Partial<RegisterRequest> = {}) {
    const joining = token === undefined ? {} : { joining: { tokenId: token, tags: [] } };
    const origin = { source, ...(token === undefined ? {} : { token: { id: token } }) };
    const wanted = request(n, more);
    const { record } = this.nodes.register(wanted, {
      ...{ signed: true, nowMs: this.nowMs, origin },
      ...joining,
    });
    this.nodes.setReach(record.nodeKey, { endpoints }, this.nowMs);
    return record;
  }

  joined(count: number, from: number, source?: string, token?: string): number {
    for (let i = 0; i < count; i++) {
      try {
        this.join(from + i, source, token);
      } catch {
        return i;
      }
    }
    return count;
  }

  run(ms: number): void {
    this.nowMs += ms;
    this.nodes.expire(this.nowMs);
  }
}

Deno.test("an identity that never came back keeps its address for an hour", () => {
  const bench = new Bench("10.0.0.0/30"); // of two addresses
  strictEqual(bench.joined(2, 1), 2);
  bench.run(LEASE_MS + NEWCOMER_KEPT_MS - 1);
  throws(() => bench.join(3), { status: 500 });
  bench.run(1);
  strictEqual(bench.join(3).tunnelIp, "10.0.0.1");
});

Deno.test("one that was there an hour after it had joined keeps it for thirty days", () => {
  const bench = new Bench("10.0.0.0/30");
  strictEqual(bench.joined(2, 1), 2);
  const keys = bench.nodes.all().map(({ nodeKey }) => nodeKey);
  bench.run(NEWCOMER_KEPT_MS);
  for (const key of keys) bench.nodes.renew(key, bench.nowMs);
  strictEqual(bench.nodes.takeSettled().join(), keys.join());
  strictEqual(bench.nodes.takeSettled().length, 0);
  bench.run(LEASE_MS + ADDRESS_KEPT_MS - 1);
  throws(() => bench.join(3), { status: 500 });
  bench.run(1);
  bench.join(3);
});

Deno.test("newcomers of one source get half of a pool, and others the rest", () => {
  const bench = new Bench();
  const first = bench.joined(254, 0, "192.0.2.1");
  ok(first >= 120 && first <= 127, `${first}`);
  throws(() => bench.join(900, "192.0.2.1"), { status: 429 });
  bench.join(901, "192.0.2.2");
  // Who has gone for an hour holds nothing any more.
  bench.run(LEASE_MS);
  throws(() => bench.join(900, "192.0.2.1"), { status: 429 });
  bench.run(NEWCOMER_KEPT_MS);
  bench.join(900, "192.0.2.1");
});

Deno.test("a token brings three quarters of a pool in an hour, wherever from", () => {
  const bench = new Bench();
  let joined = 0;
  for (let i = 0; i < 254; i++) joined += bench.joined(1, i, `192.0.2.${i}`, "leaked");
  ok(joined >= 180 && joined <= 190, `${joined}`);
  bench.join(900, "192.0.2.1", "another");
});

Deno.test("settled nodes do not count, however many one source has", () => {
  const bench = new Bench();
  for (let round = 0; round < 2; round++) {
    strictEqual(bench.joined(100, 1_000 * round), 100);
    for (const { nodeKey } of bench.nodes.all()) bench.nodes.renew(nodeKey, bench.nowMs + 1);
    bench.run(NEWCOMER_KEPT_MS);
    for (const { nodeKey } of bench.nodes.all()) bench.nodes.renew(nodeKey, bench.nowMs);
  }
});

Deno.test("an address that is asked for is given to whom the policy lets in, to nobody else", () => {
  const wanted = { requestedTunnelIp: parseIp("100.64.0.77") };
  const nodes = () => new Nodes(parseCidr("100.64.0.0/24"), [], START_MS, START_MS);
  const given = (options: Parameters<Nodes["register"]>[1]) =>
    nodes().register(request(1, wanted), options).record.tunnelIp;
  const nowMs = START_MS;
  strictEqual(given({ signed: true, nowMs }), "100.64.0.77");
  strictEqual(given({ signed: false, nowMs }), "100.64.0.1", "nobody has signed that");
  const joining = { tokenId: "t", tags: [], isWaiting: true } as const;
  strictEqual(given({ signed: true, nowMs, joining: { ...joining, tags: [] } }), "100.64.0.1");
});
