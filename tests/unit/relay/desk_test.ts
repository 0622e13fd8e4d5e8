/** What a relay answers to whom, under virtual time: who may allocate and bind, and who may not. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { systemRandom } from "../../../lib/edges.ts";
import type { NodeKey } from "../../../lib/keys.ts";
import { Allocations, LIFETIME_MS, type Via } from "../../../lib/relay/allocations.ts";
import { ANSWERS_PER_SECOND, Desk, type DeskResult } from "../../../lib/relay/desk.ts";
import { encodeGrant, nodePair } from "../../../lib/relay/grants.ts";
import {
  decodeRelayMessage,
  encodeHello,
  encodeRequest,
  HELLO_LENGTH,
} from "../../../lib/relay/messages.ts";
import { NONCE_LIFETIME_MS } from "../../../lib/relay/nonces.ts";
import { type FakeNode, fakeNode } from "../../fakes/coordinator.ts";

const [COORD, A, B, C] = await Promise.all(["coord", "a", "b", "c"].map(fakeNode)) as [
  FakeNode,
  FakeNode,
  FakeNode,
  FakeNode,
];
const RELAY = COORD.nodeKey;
const WALL_MS = 1_800_000_000_000;
const PORT = 50_000;

interface From {
  source: string;
  port: number;
}
const MAIN: From = { source: "192.0.2.1:7777", port: 0 };
const RELAYED: From = { source: "192.0.2.1:7777", port: PORT };

class Bench {
  nowMs = 0;
  readonly results: DeskResult[] = [];
  readonly allocations: Allocations<Via>;
  readonly desk: Desk<Via>;

  constructor(options: { maxPerNode?: number; grantKey?: () => NodeKey | undefined } = {}) {
    const { grantKey = () => COORD.nodeKey, maxPerNode } = options;
    this.allocations = new Allocations({
      ports: { from: PORT, to: PORT + 9, open: () => "open", close: () => {} },
      bytesPerSecond: 0,
      ...(maxPerNode === undefined ? {} : { maxPerNode }),
    });
    this.desk = new Desk({
      allocations: this.allocations,
      relayKey: RELAY,
      grantKey,
      random: systemRandom,
      onResult: (result) => this.results.push(result),
    });
  }

  /** The answer, and what the desk made of it. */
  async send(bytes: Uint8Array, { source, port }: From) {
    const via = port === 0 ? {} : { via: { key: source } };
    const { ip } = parseEndpoint(source);
    const time = { nowMs: this.nowMs, wallMs: WALL_MS + this.nowMs };
    const { answer } = await this.desk.answer(bytes, { source, ip, port, ...via }, time);
    ok((answer?.length ?? 0) <= bytes.length, "an answer is no longer than what it answers");
    return { result: this.results.at(-1), answer: answer && decodeRelayMessage(answer) };
  }

  async nonce(from: From): Promise<Uint8Array> {
    const { answer } = await this.send(encodeHello(systemRandom(12)), from);
    ok(answer?.kind === "error" && answer.nonce);
    strictEqual(answer.code, 401);
    return answer.nonce;
  }

  /** A good request of A for itself and B, but for `more`. */
  async request(from: From, more: Partial<Parameters<typeof encodeRequest>[0]> & {
    signer?: FakeNode;
  } = {}): Promise<Uint8Array<ArrayBuffer>> {
    const { signer = A, ...rest } = more;
    return await encodeRequest({
      txId: systemRandom(12),
      nonce: rest.nonce ?? await this.nonce(from),
      grant: rest.grant ?? await grant(),
      node: A.nodeKey,
      timestampMs: WALL_MS + this.nowMs,
      port: from.port,
      ...rest,
    }, signer.sign);
  }

  /** Passes time and sends a good request. */
  async ask(from: From, more: Parameters<Bench["request"]>[1] = {}) {
    this.nowMs += 1_000;
    return await this.send(await this.request(from, more), from);
  }

  /** What a refused message must leave as it was. */
  state(): string {
    const side = this.allocations.find(nodePair(A.nodeKey, B.nodeKey), A.nodeKey);
    const { via, boundUntilMs, lastTimestampMs, port } = side ?? {};
    return JSON.stringify([this.allocations.size, via, boundUntilMs, lastTimestampMs, port]);
  }
}

function grant(
  more: { relay?: NodeKey; of?: [FakeNode, FakeNode]; by?: FakeNode; endsMs?: number } = {},
) {
  const { relay = RELAY, of: [a, b] = [A, B], by = COORD, endsMs = WALL_MS + 3_600_000 } = more;
  const nodes = nodePair(a.nodeKey, b.nodeKey);
  return encodeGrant({ relay, nodes, endsSeconds: endsMs / 1000 }, by.sign);
}

Deno.test("hello, allocate, bind: both nodes of the pair, with what answers tell", async () => {
  const bench = new Bench();
  for (const [node, source] of [[A, "192.0.2.1:7777"], [B, "198.51.100.1:4444"]] as const) {
    const more = { node: node.nodeKey, signer: node };
    const allocated = await bench.ask({ source, port: 0 }, more);
    strictEqual(allocated.result, "allocated");
    ok(allocated.answer?.kind === "success");
    strictEqual(allocated.answer.port, PORT);
    strictEqual(allocated.answer.lifetimeSeconds, LIFETIME_MS / 1000);
    strictEqual(bench.allocations.boundTo(PORT, source), undefined);
    const bound = await bench.ask({ source, port: PORT }, more);
    strictEqual(bound.result, "bound");
    strictEqual(bench.allocations.boundTo(PORT, source)?.node, node.nodeKey);
  }
  strictEqual(bench.allocations.size, 1);
});

Deno.test("the main port's nonce is good at the relayed port, unless the NAT maps differently", async () => {
  const bench = new Bench();
  const nonce = await bench.nonce(MAIN);
  strictEqual((await bench.ask(MAIN, { nonce })).result, "allocated");
  strictEqual((await bench.ask(RELAYED, { nonce })).result, "bound");
  const { result, answer } = await bench.ask({ source: "192.0.2.1:9999", port: PORT }, { nonce });
  strictEqual(result, "stale-nonce");
  ok(answer?.kind === "error" && answer.code === 401 && answer.nonce);
});

Deno.test("what is refused changes nothing", async () => {
  const other: From = { source: "203.0.113.66:7777", port: PORT };
  const cases: [
    name: string,
    result: DeskResult,
    send: (bench: Bench) => Promise<{ result?: DeskResult | undefined; answer?: unknown }>,
    code?: number,
  ][] = [
    ["a hello that is too short for its answer", "malformed", (bench) => {
      const hello = encodeHello(systemRandom(12)).slice(0, HELLO_LENGTH - 4);
      new DataView(hello.buffer).setUint16(2, hello.length - 20);
      new DataView(hello.buffer).setUint16(22, hello.length - 24);
      return bench.send(hello, MAIN);
    }],
    ["what is no message", "malformed", (bench) => bench.send(new Uint8Array(100), MAIN)],
    [
      "an invented nonce",
      "stale-nonce",
      (bench) => bench.ask(RELAYED, { nonce: systemRandom(36) }),
      401,
    ],
    [
      "a nonce of another address",
      "stale-nonce",
      async (bench) => bench.ask(other, { nonce: await bench.nonce(RELAYED) }),
      401,
    ],
    ["an old nonce", "stale-nonce", async (bench) => {
      const nonce = await bench.nonce(RELAYED);
      bench.nowMs += NONCE_LIFETIME_MS;
      return bench.ask(RELAYED, { nonce });
    }, 401],
    ["a request captured and sent again", "replayed", async (bench) => {
      const request = await bench.request(RELAYED, { timestampMs: WALL_MS + bench.nowMs + 1 });
      strictEqual((await bench.send(request, RELAYED)).result, "bound");
      return await bench.send(request, RELAYED);
    }, 401],
    [
      "a request captured and sent from another address",
      "stale-nonce",
      async (bench) => bench.send(await bench.request(RELAYED), other),
      401,
    ],
    [
      "a request for the main port at a relayed one",
      "wrong-port",
      async (bench) => bench.send(await bench.request(MAIN), RELAYED),
    ],
    [
      "a request for another relayed port",
      "wrong-port",
      async (bench) => bench.send(await bench.request({ ...RELAYED, port: PORT + 1 }), RELAYED),
    ],
    [
      "a grant of another coordinator",
      "bad-grant",
      async (bench) => bench.ask(RELAYED, { grant: await grant({ by: C }) }),
      403,
    ],
    [
      "a grant for another relay",
      "bad-grant",
      async (bench) => bench.ask(RELAYED, { grant: await grant({ relay: C.nodeKey }) }),
      403,
    ],
    [
      "a grant that has ended",
      "bad-grant",
      async (bench) => bench.ask(RELAYED, { grant: await grant({ endsMs: WALL_MS }) }),
      403,
    ],
    ["a grant with its end changed", "bad-grant", async (bench) => {
      const changed = await grant();
      changed[4]! ^= 0x40;
      return bench.ask(RELAYED, { grant: changed });
    }, 403],
    [
      "a node that is not of the pair",
      "bad-grant",
      (bench) => bench.ask(RELAYED, { node: C.nodeKey, signer: C }),
      403,
    ],
    [
      "a signature of another node",
      "bad-signature",
      (bench) => bench.ask(RELAYED, { signer: C }),
      403,
    ],
    [
      "the peer in this node's name",
      "bad-signature",
      (bench) => bench.ask(RELAYED, { signer: B }),
      403,
    ],
    [
      "a port that is the allocation's no more",
      "no-allocation",
      (bench) => bench.ask({ ...RELAYED, port: PORT + 5 }),
      437,
    ],
    [
      "a pair without allocation",
      "no-allocation",
      async (bench) => bench.ask(RELAYED, { grant: await grant({ of: [A, C] }) }),
      437,
    ],
  ];
  for (const [name, wanted, send, code] of cases) {
    const bench = new Bench();
    await bench.ask(MAIN);
    strictEqual((await bench.ask(RELAYED)).result, "bound");
    let before = bench.state();
    if (wanted === "replayed") before = ""; // a good one comes first
    const { result, answer } = await send(bench);
    strictEqual(result, wanted, name);
    if (before) strictEqual(bench.state(), before, name);
    const { code: answered } = (answer ?? {}) as { code?: number };
    strictEqual(answered, code, name);
  }
});

Deno.test("a replayed request leaves the binding where it is", async () => {
  const bench = new Bench();
  await bench.ask(MAIN);
  bench.nowMs += 1_000;
  const captured = await bench.request(RELAYED);
  strictEqual((await bench.send(captured, RELAYED)).result, "bound");
  // The node moves; what was captured comes again, its source forged.
  const away: From = { source: "198.51.100.9:1", port: PORT };
  strictEqual((await bench.ask(away)).result, "bound");
  const before = bench.state();
  strictEqual((await bench.send(captured, RELAYED)).result, "replayed");
  strictEqual(bench.state(), before);
});

Deno.test("the same request twice at once is booked once", async () => {
  const bench = new Bench();
  const request = await bench.request(MAIN);
  const [first, second] = await Promise.all([bench.send(request, MAIN), bench.send(request, MAIN)]);
  deepStrictEqual(bench.results.slice(1).toSorted(), ["allocated", "replayed"]);
  ok(first.answer?.kind === "success" || second.answer?.kind === "success");
});

Deno.test("a node whose clock was set back is taken by its new nonce, and no captured request is", async () => {
  const bench = new Bench();
  await bench.ask(MAIN);
  bench.nowMs += 1_000;
  const captured = await bench.request(RELAYED);
  strictEqual((await bench.send(captured, RELAYED)).result, "bound");
  strictEqual((await bench.ask(RELAYED, { timestampMs: WALL_MS - 3_600_000 })).result, "bound");
  const { result, answer } = await bench.send(captured, RELAYED);
  strictEqual(result, "replayed");
  // If it was genuine and overtaken, it is sent again with that.
  ok(answer?.kind === "error" && answer.nonce);
});

Deno.test("quota: no more than that for what one node asks for", async () => {
  const bench = new Bench({ maxPerNode: 1 });
  await bench.ask(MAIN);
  const { result, answer } = await bench.ask(MAIN, { grant: await grant({ of: [A, C] }) });
  strictEqual(result, "quota");
  ok(answer?.kind === "error" && answer.code === 486);
});

Deno.test("as long as the coordinator's key is not known, no grant is genuine", async () => {
  const known: NodeKey[] = [];
  const bench = new Bench({ grantKey: () => known[0] });
  strictEqual((await bench.ask(MAIN)).result, "bad-grant");
  known.push(COORD.nodeKey);
  strictEqual((await bench.ask(MAIN)).result, "allocated");
});

Deno.test("one address gets so many answers a second; others do not notice", async () => {
  const bench = new Bench();
  const results: (string | undefined)[] = [];
  for (let i = 0; i < ANSWERS_PER_SECOND + 20; i++) {
    const from = { source: `192.0.2.1:${1000 + i}`, port: 0 };
    results.push((await bench.send(encodeHello(systemRandom(12)), from)).result);
  }
  strictEqual(results.filter((result) => result === "hello").length, ANSWERS_PER_SECOND);
  strictEqual(results.at(-1), "limited");
  const elsewhere = { source: "192.0.2.2:1", port: 0 };
  strictEqual((await bench.send(encodeHello(systemRandom(12)), elsewhere)).result, "hello");
  bench.nowMs += 1_000;
  strictEqual((await bench.send(encodeHello(systemRandom(12)), MAIN)).result, "hello");
  results.length = 0;
  for (let i = 0; i < ANSWERS_PER_SECOND + 20; i++) {
    const from = { source: `[2001:db8::${i.toString(16)}]:1`, port: 0 };
    results.push((await bench.send(encodeHello(systemRandom(12)), from)).result);
  }
  strictEqual(
    results.filter((result) => result === "hello").length,
    ANSWERS_PER_SECOND,
    "of one /64",
  );
});

Deno.test("a hint: to data that is no shorter, so many a second, with a nonce for its source", async () => {
  const bench = new Bench();
  await bench.ask(MAIN);
  const { source } = RELAYED;
  const hint = (lengthBytes = 100) =>
    bench.desk.hint({ source, ip: parseIp("192.0.2.1") }, lengthBytes, bench.nowMs);
  strictEqual(await hint(HELLO_LENGTH - 1), undefined);
  const bytes = await hint(HELLO_LENGTH);
  ok(bytes && bytes.length <= HELLO_LENGTH);
  const message = decodeRelayMessage(bytes);
  ok(message.kind === "error" && message.code === 437 && message.nonce);
  deepStrictEqual(message.txId, new Uint8Array(12));
  strictEqual((await bench.ask(RELAYED, { nonce: message.nonce.slice() })).result, "bound");
  const hints = await Promise.all(Array.from({ length: 50 }, () => hint()));
  strictEqual(hints.filter((each) => each).length, 10);
});

Deno.test("requests that were tampered with anywhere change nothing", async () => {
  const bench = new Bench();
  await bench.ask(MAIN);
  await bench.ask(RELAYED);
  let seed = 1;
  const next = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor(seed / 2 ** 31 * below);
  };
  for (let i = 0; i < 300; i++) {
    bench.nowMs += 50;
    const forged = await bench.request(RELAYED);
    const before = bench.state();
    for (let changes = next(3); changes >= 0; changes--) {
      forged[next(forged.length)]! ^= 1 + next(255);
    }
    const bytes = next(4) === 0 ? forged.subarray(0, next(forged.length)) : forged;
    const { result } = await bench.send(bytes, RELAYED);
    ok(result !== "bound" && result !== "allocated", `${i}: ${result}`);
    strictEqual(bench.state(), before, `${i}: ${result}`);
  }
});
