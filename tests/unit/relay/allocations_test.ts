/** The table of allocations under virtual time. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { NodeKey } from "../../../lib/keys.ts";
import { TokenBucket } from "../../../lib/limits.ts";
import {
  Allocations,
  type AllocationsOptions,
  LIFETIME_MS,
  type PortOpening,
  type Side,
  type Via,
} from "../../../lib/relay/allocations.ts";
import { nodePair } from "../../../lib/relay/grants.ts";
import { byteRate } from "../../../lib/relay/rate.ts";

const key = (text: string) => text.padEnd(64, "0") as NodeKey;
const [A, B, C, D] = ["a", "b", "c", "d"].map(key) as [NodeKey, NodeKey, NodeKey, NodeKey];

/** Ports that remember what was opened; some belong to others. */
class FakePorts {
  readonly open = new Set<number>();
  readonly taken = new Set<number>();
  fails = false;

  options(from: number, to: number) {
    return {
      from,
      to,
      open: (port: number): PortOpening => {
        if (this.fails) return "failed";
        if (this.taken.has(port)) return "taken";
        ok(!this.open.has(port), `${port} opened twice`);
        this.open.add(port);
        return "open";
      },
      close: (port: number) => ok(this.open.delete(port), `${port} closed twice`),
    };
  }
}

function table(options: Partial<AllocationsOptions<Via>> = {}, [from, to] = [100, 109]) {
  const ports = new FakePorts();
  const allocations = new Allocations({
    ports: ports.options(from!, to!),
    bytesPerSecond: 0,
    ...options,
  });
  const allocate = (a: NodeKey, b: NodeKey, nowMs = 0) => {
    const side = allocations.allocate(nodePair(a, b), a, nowMs);
    if (typeof side === "string") throw new Error(side);
    return side;
  };
  return { ports, allocations, allocate };
}

const via = (name: string): Via => ({ key: name });
const where = (to: Side<Via> | string) =>
  typeof to === "string" ? to : `${to.port} to ${to.via?.key}`;

Deno.test("both nodes of a pair get their side of one allocation", () => {
  const { allocations, allocate } = table();
  const [a, b] = [allocate(A, B), allocate(B, A)];
  strictEqual(a.allocation, b.allocation);
  strictEqual(allocations.size, 1);
  deepStrictEqual([a.node, b.node, a.other, b.other], [A, B, b, a]);
  strictEqual(allocate(A, B), a);
});

Deno.test("ports are shared among nodes, and different for each peer of a node", () => {
  const { ports, allocations, allocate } = table();
  const sides = [allocate(A, B), allocate(A, C), allocate(A, D), allocate(B, C), allocate(C, D)];
  const portsOf = (node: NodeKey) =>
    sides.flatMap(({ allocation }) => allocation.sides)
      .filter((side) => side.node === node).map(({ port }) => port).sort();
  deepStrictEqual(portsOf(A), [100, 101, 102]);
  deepStrictEqual(portsOf(C), [100, 101, 102]);
  deepStrictEqual([...ports.open], [100, 101, 102]);
  strictEqual(allocations.openPorts, 3);
});

Deno.test("what comes from one side goes to where the other is bound, out of its port", () => {
  const { allocations, allocate } = table();
  const [a, b] = [allocate(A, B), allocate(B, A)];
  strictEqual(allocations.forward(a, 10, 0), "unbound-peer");
  allocations.bind(a, via("at a"), 0);
  strictEqual(allocations.boundTo(a.port, "at a"), a);
  strictEqual(allocations.forward(a, 10, 0), "unbound-peer");
  allocations.bind(b, via("at b"), 0);
  strictEqual(where(allocations.forward(a, 10, 0)), `${b.port} to at b`);
  strictEqual(where(allocations.forward(b, 10, 0)), `${a.port} to at a`);
});

Deno.test("one port, many sources: each is its own side; a stranger is none", () => {
  const { allocations, allocate } = table();
  const [a, c] = [allocate(A, B), allocate(C, D)];
  strictEqual(a.port, c.port);
  allocations.bind(a, via("at a"), 0);
  allocations.bind(c, via("at c"), 0);
  strictEqual(allocations.boundTo(100, "at a"), a);
  strictEqual(allocations.boundTo(100, "at c"), c);
  strictEqual(allocations.boundTo(100, "elsewhere"), undefined);
  strictEqual(allocations.boundTo(101, "at a"), undefined);
});

Deno.test("a side that moves is bound to the new place alone", () => {
  const { allocations, allocate } = table();
  const [a, b] = [allocate(A, B), allocate(B, A)];
  allocations.bind(b, via("at b"), 0);
  allocations.bind(a, via("home"), 0);
  allocations.bind(a, via("away"), 10);
  strictEqual(allocations.boundTo(a.port, "home"), undefined);
  strictEqual(allocations.boundTo(a.port, "away"), a);
  strictEqual(where(allocations.forward(b, 1, 10)), `${a.port} to away`);
});

Deno.test("a source that a NAT gave to another node is that node's", () => {
  const { allocations, allocate } = table();
  const [a, c] = [allocate(A, B), allocate(C, D)];
  allocations.bind(a, via("nat:1"), 0);
  allocations.bind(c, via("nat:1"), 10);
  strictEqual(allocations.boundTo(100, "nat:1"), c);
  strictEqual(a.via, undefined);
});

Deno.test("unbind() of a way that was left long ago changes nothing", () => {
  const { allocations, allocate } = table();
  const a = allocate(A, B);
  const [first, second] = [via("ws 1"), via("ws 2")];
  allocations.bind(a, first, 0);
  allocations.bind(a, second, 0);
  allocations.unbind(first, a);
  strictEqual(allocations.boundTo(a.port, "ws 2"), a);
  allocations.unbind(second, a);
  strictEqual(allocations.boundTo(a.port, "ws 2"), undefined);
  strictEqual(allocations.size, 1, "it may be bound again until its lifetime is over");
});

Deno.test("bindings and allocations end when they are not refreshed", () => {
  const { ports, allocations, allocate } = table();
  const [a, b] = [allocate(A, B), allocate(B, A)];
  allocations.bind(a, via("at a"), 0);
  allocations.bind(b, via("at b"), 50_000);
  deepStrictEqual(allocations.sweep(LIFETIME_MS - 1), []);
  ok(a.via);
  deepStrictEqual(allocations.sweep(LIFETIME_MS), []);
  strictEqual(a.via, undefined);
  strictEqual(allocations.forward(b, 1, LIFETIME_MS), "unbound-peer");
  deepStrictEqual(allocations.sweep(50_000 + LIFETIME_MS).map(({ nodes }) => nodes), [[A, B]]);
  strictEqual(allocations.size, 0);
  strictEqual(allocations.openPorts, 0);
  deepStrictEqual([...ports.open], []);
  strictEqual(allocations.boundTo(b.port, "at b"), undefined);
});

Deno.test("an allocation that nobody binds ends after a lifetime; a refreshed one lives on", () => {
  const { allocations, allocate } = table();
  const a = allocate(A, B, 0);
  allocate(C, D, 0);
  for (let nowMs = 0; nowMs <= 10 * LIFETIME_MS; nowMs += 15_000) {
    allocations.bind(a, via("at a"), nowMs);
    allocations.sweep(nowMs);
  }
  strictEqual(allocations.size, 1);
});

Deno.test("a shared port stays open until the last side on it is gone", () => {
  const { ports, allocations, allocate } = table();
  allocate(A, B, 0);
  allocate(C, D, 1_000);
  allocations.sweep(LIFETIME_MS);
  deepStrictEqual([...ports.open], [100]);
  allocations.sweep(LIFETIME_MS + 1_000);
  deepStrictEqual([...ports.open], []);
});

Deno.test("ports of other programs are passed over", () => {
  const { ports, allocate } = table();
  ports.taken.add(100).add(102);
  deepStrictEqual([allocate(A, B).port, allocate(A, C).port], [101, 103]);
});

Deno.test("bounds: each refuses the next one, and leaves nothing behind", () => {
  const pair = (a: NodeKey, b: NodeKey) => [nodePair(a, b), a] as const;
  {
    const { allocations, allocate } = table({ maxAllocations: 1 });
    allocate(A, B);
    strictEqual(allocations.allocate(...pair(C, D), 0), "full");
    allocate(A, B);
  }
  {
    const { allocations, allocate } = table({ maxPerNode: 1 });
    allocate(A, B);
    strictEqual(allocations.allocate(...pair(A, C), 0), "quota");
    strictEqual(allocate(C, A).node, C, "what others ask for does not count");
    allocations.sweep(LIFETIME_MS);
    allocate(A, C, LIFETIME_MS);
  }
  {
    const { ports, allocations, allocate } = table({}, [100, 101]);
    allocate(A, B);
    allocate(A, C);
    strictEqual(allocations.allocate(...pair(D, A), 0), "full");
    allocations.sweep(LIFETIME_MS);
    deepStrictEqual([...ports.open], [], "the port that D got was given back");
  }
  {
    const { ports, allocations } = table();
    ports.fails = true;
    strictEqual(allocations.allocate(...pair(A, B), 0), "full");
    strictEqual(allocations.size, 0);
  }
});

Deno.test("forward() holds each direction to the rate", () => {
  const bytesPerSecond = 1_000_000;
  const { allocations, allocate } = table({ bytesPerSecond });
  const [a, b] = [allocate(A, B), allocate(B, A)];
  allocations.bind(a, via("at a"), 0);
  allocations.bind(b, via("at b"), 0);
  let [forwarded, dropped] = [0, 0];
  for (let i = 0; i < 40_000; i++) {
    const to = allocations.forward(i % 2 ? a : b, 1_000, i / 4);
    if (to === "rate") dropped++;
    else forwarded += 1_000;
  }
  ok(dropped > 0);
  // Each way 10 s, and a quarter of a second at once to begin with, of 10 s at twice the rate
  ok(Math.abs(forwarded - 2 * 10.25 * bytesPerSecond) < 10_000, `${forwarded} bytes`);
});

Deno.test("a bucket of a small rate still lets a full-size datagram through", () => {
  const bucket = new TokenBucket(byteRate(1_000));
  ok(bucket.take(0, 60_000));
  ok(!bucket.take(1_000, 60_000));
  ok(bucket.take(60_000, 60_000));
});
