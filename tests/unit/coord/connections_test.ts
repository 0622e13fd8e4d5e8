/** Which connections are kept: with time as an argument. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import {
  Connection,
  Connections,
  HEADER_MS,
  IDLE_MS,
  KEPT_PER_NODE,
  MAX_IDLE_STRANGERS,
  MAX_PER_NODE,
  MAX_STRANGERS,
  PROVEN_MS,
  STRANGERS_GRACE_MS,
} from "../../../lib/coord/connections.ts";
import { randomNodeKey } from "../../fakes/coordinator.ts";

class Bench {
  readonly connections: Connections;
  readonly closed: string[] = [];
  nowMs = 0;
  #count = 0;

  constructor(max = 1000) {
    this.connections = new Connections(max);
  }

  /** Named by numbers from 1; what is refused is told instead. */
  connect(source = "192.0.2.1"): Connection {
    const name = `${++this.#count}`;
    const close = () => void this.closed.push(name);
    const connection = new Connection({ source, close, nowMs: this.nowMs });
    const refusal = this.connections.admit(connection);
    if (refusal) this.closed.push(refusal);
    return connection;
  }

  ask(connection: Connection): void {
    this.connections.began(connection, this.nowMs);
  }

  answer(connection: Connection, isUpgrade = false): void {
    this.connections.answered(connection, { isUpgrade, nowMs: this.nowMs });
  }

  pass(ms: number): void {
    this.nowMs += ms;
    this.connections.sweep(this.nowMs);
  }
}

Deno.test("one that asks nothing is closed after 10 s, one that asked after 2 minutes", () => {
  const bench = new Bench();
  bench.connect();
  const asked = bench.connect();
  bench.ask(asked);
  bench.answer(asked);
  bench.pass(HEADER_MS - 1);
  deepStrictEqual(bench.closed, []);
  bench.pass(1);
  deepStrictEqual(bench.closed, ["1"]);
  bench.pass(IDLE_MS - HEADER_MS);
  deepStrictEqual(bench.closed, ["1", "2"]);
  strictEqual(bench.connections.size, 0);
});

Deno.test("one that waits for its answer, or is a WebSocket, is left alone", () => {
  const bench = new Bench();
  bench.ask(bench.connect());
  const upgraded = bench.connect();
  bench.ask(upgraded);
  bench.answer(upgraded, true);
  bench.pass(10 * IDLE_MS);
  deepStrictEqual(bench.closed, []);
  bench.connections.closeAll();
  deepStrictEqual(bench.closed, ["1", "2"]);
});

Deno.test("a node's connections are bounded: the one it used longest ago goes, busy or not", () => {
  const bench = new Bench();
  const node = randomNodeKey();
  for (let i = 1; i <= MAX_PER_NODE + 2; i++) {
    bench.nowMs++;
    const connection = bench.connect();
    bench.ask(connection);
    bench.connections.claimed(connection, node);
  }
  deepStrictEqual(bench.closed, ["1", "2"]);
});

Deno.test("idle connections that a node left behind go before it has many", () => {
  const bench = new Bench();
  const node = randomNodeKey();
  const held = bench.connect();
  bench.ask(held);
  bench.connections.claimed(held, node);
  for (let i = 1; i <= KEPT_PER_NODE + 2; i++) {
    bench.nowMs++;
    const connection = bench.connect();
    bench.ask(connection);
    bench.connections.claimed(connection, node);
    bench.answer(connection);
  }
  // The first one still waits for its answer.
  deepStrictEqual(bench.closed, ["2", "3", "4"]);
});

Deno.test("a proxy's connections, on which several nodes call, are nobody's", () => {
  const bench = new Bench();
  const nodes = [randomNodeKey(), randomNodeKey()];
  for (let i = 0; i < 3 * MAX_PER_NODE; i++) {
    const connection = bench.connect();
    for (const node of [...nodes, nodes[0]!]) {
      bench.ask(connection);
      bench.connections.claimed(connection, node);
      bench.answer(connection);
    }
  }
  deepStrictEqual(bench.closed, []);
});

Deno.test("of one source only so many are strangers: idle ones make room, busy ones do not", () => {
  const bench = new Bench();
  const idle = bench.connect();
  for (let i = 1; i < MAX_STRANGERS; i++) bench.ask(bench.connect());
  bench.connect("198.51.100.1");
  deepStrictEqual(bench.closed, []);
  bench.ask(bench.connect());
  deepStrictEqual(bench.closed, ["1"]);
  bench.connect();
  deepStrictEqual(bench.closed, ["1", "source"]);
  strictEqual(idle.isIdle, true);
});

Deno.test("members of one source are not counted as strangers", () => {
  const bench = new Bench();
  for (let i = 0; i < 2 * MAX_STRANGERS; i++) {
    const connection = bench.connect();
    bench.ask(connection);
    bench.connections.claimed(connection, randomNodeKey());
  }
  deepStrictEqual(bench.closed, []);
});

Deno.test("when there is room for no more, the oldest idle one goes; if all wait, nobody comes in", () => {
  const bench = new Bench(3);
  const [first, second] = [bench.connect("a"), bench.connect("b"), bench.connect("c")];
  bench.ask(first!);
  bench.nowMs++;
  bench.ask(bench.connect("d"));
  deepStrictEqual(bench.closed, ["2"]);
  strictEqual(second!.isIdle, true);
  bench.ask(bench.connect("e"));
  bench.connect("f");
  deepStrictEqual(bench.closed, ["2", "3", "full"]);
  strictEqual(bench.connections.size, 3);
});

Deno.test("who had a connection a while ago is where it says", () => {
  const bench = new Bench();
  const isProven = (source: string) => bench.connections.isProven(source, bench.nowMs);
  const connection = bench.connect("192.0.2.1");
  deepStrictEqual([isProven("192.0.2.1"), isProven("192.0.2.2")], [true, false]);
  bench.ask(connection);
  bench.pass(2 * PROVEN_MS);
  strictEqual(isProven("192.0.2.1"), true, "it still stands");
  bench.connections.close(connection);
  bench.pass(PROVEN_MS);
  strictEqual(isProven("192.0.2.1"), true);
  bench.pass(1);
  strictEqual(isProven("192.0.2.1"), false);
});

Deno.test("of strangers that wait for nothing the oldest go: heads that do not end take memory", () => {
  const bench = new Bench(10 * MAX_IDLE_STRANGERS);
  const asked = bench.connect();
  bench.ask(asked);
  const own = bench.connect();
  bench.ask(own);
  bench.connections.claimed(own, randomNodeKey());
  bench.answer(own);
  // Named 3 and so on.
  for (let n = 0; n < MAX_IDLE_STRANGERS + 5; n++) bench.connect(`198.51.100.${n % 250}`);
  bench.pass(STRANGERS_GRACE_MS - 1);
  deepStrictEqual(bench.closed, []);
  bench.pass(1);
  deepStrictEqual(bench.closed, ["3", "4", "5", "6", "7"]);
  bench.answer(asked);
  bench.connect();
  deepStrictEqual(bench.closed.slice(5), ["8"]);
});
