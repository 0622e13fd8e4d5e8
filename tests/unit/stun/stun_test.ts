import { deepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import {
  type Endpoint,
  equalEndpoints,
  formatEndpoint,
  type Ip,
  parseEndpoint,
  parseIp,
} from "../../../lib/addr.ts";
import { fromHex, toHex, Writer } from "../../../lib/bytes.ts";
import { type Random, systemRandom } from "../../../lib/edges.ts";
import { GretunError } from "../../../lib/errors.ts";
import {
  ATTRIBUTE,
  encodeWithFingerprint,
  fingerprintFits,
  readMappedAddress,
  software,
  xorMappedAddress,
} from "../../../lib/stun/attributes.ts";
import {
  answerBinding,
  decodeBindingAnswer,
  encodeBindingRequest,
} from "../../../lib/stun/binding.ts";
import {
  type StunAnswer,
  StunClient,
  type StunServer,
  Transactions,
} from "../../../lib/stun/exchange.ts";
import {
  BINDING_ERROR,
  BINDING_REQUEST,
  BINDING_SUCCESS,
  decodeStun,
  encodeStun,
  isStun,
  MAGIC_COOKIE,
  StunFormatError,
} from "../../../lib/stun/message.ts";
import { type MappingBehaviour, mappingBehaviour } from "../../../lib/stun/nat.ts";
import { parseServerName, resolveServers } from "../../../lib/stun/resolve.ts";
import { AnswerLimit } from "../../../lib/stun/answer_limit.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";
import vectors from "../../vectors/stun-rfc5769.json" with { type: "json" };

// deno-lint-ignore no-explicit-any
type Json = any;
const TX_ID = fromHex("5e2aabfd590ba2ebcf76dea8");
const endpoint = parseEndpoint;

/** xorshift32: the same "random" bytes in every run. */
function seededRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

// --- codec

Deno.test("constants are those of the RFC and of IANA's registry", () => {
  const { constants } = vectors;
  strictEqual(MAGIC_COOKIE, parseInt(constants.magic_cookie, 16));
  const registry: Record<string, string> = constants.attr;
  for (const [name, type] of Object.entries(ATTRIBUTE)) {
    const registered = registry[name.replaceAll("_", "-")];
    if (registered) strictEqual(type, Number(registered), name);
  }
});

for (const v of vectors.rfc5769 as Json[]) {
  Deno.test(`decodeStun() reads the sample of RFC 5769 section ${v.section}`, () => {
    const bytes = fromHex(v.hex);
    const message = decodeStun(bytes);
    strictEqual(message.type, Number(v.message_type));
    strictEqual(toHex(message.txId), v.transaction_id);
    const attributes = message.attributes.map((a) => ({ ...a, value: toHex(a.value) }));
    deepStrictEqual(attributes, v.attributes);
    strictEqual(fingerprintFits(bytes, message), v.fingerprint_valid ?? undefined);
    const text = (type: number) =>
      new TextDecoder().decode(message.attributes.find((a) => a.type === type)?.value);
    if (v.software) strictEqual(text(ATTRIBUTE.SOFTWARE), v.software);
    if (v.username) strictEqual(text(ATTRIBUTE.USERNAME), v.username);
    if (v.realm) strictEqual(text(ATTRIBUTE.REALM), v.realm);
    if (v.nonce) strictEqual(text(ATTRIBUTE.NONCE), v.nonce);
    if (v.xor_mapped_address) {
      deepStrictEqual(readMappedAddress(message), endpoint(v.xor_mapped_address));
      deepStrictEqual(decodeBindingAnswer(bytes).mapped, endpoint(v.xor_mapped_address));
    }
    strictEqual(integrityFits(bytes, v), v.message_integrity_valid);
  });
}

/** MESSAGE-INTEGRITY stands where decodeStun says, and the header's length counts up to it. */
function integrityFits(bytes: Uint8Array, v: Json): boolean {
  const attribute = decodeStun(bytes).attributes
    .find(({ type }) => type === ATTRIBUTE.MESSAGE_INTEGRITY)!;
  const covered = bytes.slice(0, attribute.offset);
  new DataView(covered.buffer).setUint16(2, attribute.offset - 20 + 24);
  const username = new TextDecoder().decode(fromHex(v.username_utf8_hex ?? ""));
  const longTerm = `${username}:${v.realm}:${v.password_after_saslprep}`;
  const key = v.password ?? createHash("md5").update(longTerm).digest();
  if (!v.password) strictEqual(key.toString("hex"), v.long_term_key_md5);
  return createHmac("sha1", key).update(covered).digest("hex") === toHex(attribute.value);
}

for (const v of vectors.responses) {
  Deno.test(`decodeBindingAnswer() reads: ${v.name}`, () => {
    const { txId, mapped } = decodeBindingAnswer(fromHex(v.hex));
    strictEqual(toHex(txId), v.transaction_id);
    strictEqual(formatEndpoint(mapped), v.mapped);
  });
}

for (const { name, hex, reason } of vectors.invalid_responses) {
  // Well formed, or of a server of RFC 3489: the client's business, see below.
  if (name === "wrong_transaction" || name === "bad_cookie") continue;
  Deno.test(`decodeBindingAnswer() refuses: ${name}`, () => {
    throws(() => decodeBindingAnswer(fromHex(hex)), StunFormatError, reason);
  });
}

Deno.test("decodeBindingAnswer() refuses what only hostile servers say", () => {
  const mapped = (hex: string) => ({ type: ATTRIBUTE.MAPPED_ADDRESS, value: fromHex(hex) });
  const bodies = {
    "port 0": [mapped("0001 0000 c0000201")],
    "unspecified": [mapped("0001 1234 00000000")],
    "unspecified, IPv6": [mapped("0002 1234" + "00".repeat(16))],
    "empty address": [mapped("")],
  };
  for (const [name, attributes] of Object.entries(bodies)) {
    const bytes = encodeStun({ type: BINDING_SUCCESS, txId: TX_ID, attributes });
    throws(() => decodeBindingAnswer(bytes), StunFormatError, name);
  }
  const good = fromHex(vectors.responses.find(({ name }) => name === "with_fingerprint")!.hex);
  for (let i = 8; i < good.length; i++) {
    if (i === 32 || i === 33) continue; // FINGERPRINT's own type: then it is an unknown attribute
    const broken = good.with(i, good[i]! ^ 1);
    throws(() => decodeBindingAnswer(broken), StunFormatError, `byte ${i}`);
  }
});

/** A success response with these bytes after its header. */
function response(body: string, cookie = "2112a442"): Uint8Array {
  const length = fromHex(body).length.toString(16).padStart(4, "0");
  return fromHex(`0101 ${length} ${cookie} ${toHex(TX_ID)} ${body}`);
}

const PLAIN = "0001 0008 0001 1234 c0000201";
const SOFTWARE_5 = "8022 0005 4f64642031";
const ODD_ANSWERS: [string, Uint8Array][] = [
  ["no padding at the end", response(PLAIN + SOFTWARE_5)],
  ["no padding anywhere", response(SOFTWARE_5 + PLAIN)],
  ["padding counted as value", response("8022 0008 4f64642031000000" + PLAIN)],
  ["no cookie", response(PLAIN, "00000000")],
  ["an XOR form of the wrong family", response("0020 0008 0002 1234 c0000201" + PLAIN)],
  ["a short XOR form", response("0020 0004 0001 1234" + PLAIN)],
];
for (const [name, bytes] of ODD_ANSWERS) {
  Deno.test(`decodeBindingAnswer() understands an answer with ${name}`, () => {
    strictEqual(formatEndpoint(decodeBindingAnswer(bytes).mapped), "192.0.2.1:4660");
  });
}

Deno.test("requests are encoded as in the vectors", () => {
  const expected = new Map(vectors.requests.map(({ name, hex }) => [name, hex]));
  const request = (attributes: ReturnType<typeof software>[]) => ({
    type: BINDING_REQUEST,
    txId: TX_ID,
    attributes,
  });
  strictEqual(toHex(encodeStun(request([]))), expected.get("bare"));
  strictEqual(toHex(encodeWithFingerprint(request([]))), expected.get("with_fingerprint"));
  strictEqual(
    toHex(encodeWithFingerprint(request([software("exampler")]))),
    expected.get("software_8_bytes_and_fingerprint"),
  );
  throws(() => encodeStun({ ...request([]), txId: TX_ID.subarray(1) }), RangeError);
});

Deno.test("encodeBindingRequest() is intact, and no shorter than the longest bare answer", () => {
  const request = encodeBindingRequest(TX_ID);
  strictEqual(fingerprintFits(request, decodeStun(request)), true);
  for (const from of ["192.0.2.1:5", "[2001:db8::1]:5"]) {
    ok(answerBinding(request, endpoint(from))!.length <= request.length);
  }
});

Deno.test("isStun() tells STUN from disco, GRE and short input", () => {
  ok(isStun(encodeBindingRequest(TX_ID)));
  ok(!isStun(encodeBindingRequest(TX_ID).subarray(0, 19)));
  ok(!isStun(fromHex("5453f09f92ac" + "00".repeat(30))));
  ok(!isStun(fromHex("20000800" + "00".repeat(30))));
  ok(!isStun(fromHex("400100002112a442" + "00".repeat(12))));
});

Deno.test("xorMappedAddress() and readMappedAddress() are each other's inverse", () => {
  for (
    const text of ["192.0.2.1:32853", "255.255.255.254:65535", "[2001:db8::1]:1", "[::1]:3478"]
  ) {
    const attributes = [xorMappedAddress(endpoint(text), TX_ID)];
    const bytes = encodeStun({ type: BINDING_SUCCESS, txId: TX_ID, attributes });
    strictEqual(formatEndpoint(readMappedAddress(decodeStun(bytes))), text);
  }
});

Deno.test("decoding throws nothing but StunFormatError, and answering nothing at all", () => {
  const below = seededRandom(7);
  const from = endpoint("192.0.2.1:5");
  let decoded = 0;
  for (let i = 0; i < 100_000; i++) {
    const bytes = fuzzed(below);
    try {
      decodeBindingAnswer(bytes);
      decoded++;
    } catch (error) {
      ok(error instanceof StunFormatError, String(error));
    }
    const answer = answerBinding(bytes, from);
    if (answer) ok(answer.length <= 1.6 * bytes.length, toHex(bytes));
  }
  ok(decoded > 100, `only ${decoded} inputs were well formed`);
});

/** A header that is mostly right, and attributes that are mostly not. */
function fuzzed(below: (n: number) => number): Uint8Array {
  const writer = new Writer("network");
  const body = new Writer("network");
  for (let n = below(5); n > 0; n--) {
    const known = Object.values(ATTRIBUTE);
    const length = below(8) === 0 ? below(0x10000) : [0, 4, 8, 20][below(4)]!;
    body.u16(below(3) ? known[below(known.length)]! : below(0x10000)).u16(length);
    for (let k = below(6) === 0 ? below(40) : Math.min(length, 40); k > 0; k--) {
      body.u8(below(4) ? below(3) : below(256));
    }
    body.align(4);
  }
  const types = [BINDING_REQUEST, BINDING_SUCCESS, BINDING_ERROR, below(0x10000)];
  const length = below(10) === 0 ? below(0x10000) : body.length;
  writer.u16(types[below(4)]!).u16(length).u32(below(20) === 0 ? below(2 ** 31) : MAGIC_COOKIE)
    .bytes(TX_ID).bytes(body.finish());
  return below(10) === 0 ? writer.finish().subarray(0, below(60)) : writer.finish();
}

// --- server

const CLIENT = endpoint("203.0.113.7:41641");

Deno.test("answerBinding() answers each kind of good request with the bare address", () => {
  const success = vectors.responses.find(({ name }) => name === "xor_v4_only")!.hex;
  for (const { name, hex } of vectors.requests) {
    const request = fromHex(hex);
    const answer = answerBinding(request, CLIENT)!;
    const message = decodeStun(answer);
    const isMarked = fingerprintFits(request, decodeStun(request));
    strictEqual(fingerprintFits(answer, message), isMarked, name);
    if (!isMarked) strictEqual(toHex(answer), success, name);
    deepStrictEqual(readMappedAddress(message), CLIENT);
    strictEqual(message.attributes.length, isMarked ? 2 : 1, name);
  }
  const success6 = vectors.responses.find(({ name }) => name === "xor_v6_only")!.hex;
  const request = fromHex(vectors.requests[0]!.hex);
  strictEqual(toHex(answerBinding(request, endpoint("[2001:db8::7]:41641"))!), success6);
});

Deno.test("answerBinding() is silent to what is no intact request", () => {
  const request = encodeBindingRequest(TX_ID);
  const cases: Record<string, Uint8Array> = {
    "empty": new Uint8Array(0),
    "a success response": fromHex(vectors.responses[0]!.hex),
    "an error response": encodeStun({ type: BINDING_ERROR, txId: TX_ID, attributes: [] }),
    "an indication": encodeStun({ type: 0x0011, txId: TX_ID, attributes: [] }),
    "another method": encodeStun({ type: 0x0003, txId: TX_ID, attributes: [] }),
    "a wrong fingerprint": request.with(10, request[10]! ^ 1),
    "a cut request": request.subarray(0, 30),
  };
  for (const [name, bytes] of Object.entries(cases)) {
    strictEqual(answerBinding(bytes, CLIENT), undefined, name);
  }
});

Deno.test("answerBinding() refuses unknown comprehension-required attributes with 420", () => {
  const attribute = (type: number) => ({ type, value: new Uint8Array(0) });
  const cases: [number[], string][] = [
    [[0x0002], "0002"],
    [[0x0002, 0x0002, 0x7fff], "00027fff"],
    [[0x8029, 0x0024, 0x0006, 0x0025, 0x0027], "002400250027"],
  ];
  for (const [types, unknown] of cases) {
    const attributes = [...types.map(attribute), software("a client with room")];
    const request = encodeStun({ type: BINDING_REQUEST, txId: TX_ID, attributes });
    const answer = decodeStun(answerBinding(request, CLIENT)!);
    strictEqual(answer.type, BINDING_ERROR);
    deepStrictEqual(answer.txId, TX_ID);
    deepStrictEqual(answer.attributes.map(({ type }) => type), [0x0009, 0x000a]);
    deepStrictEqual(answer.attributes.map(({ value }) => toHex(value)), ["00000414", unknown]);
  }
  const ice = decodeStun(answerBinding(fromHex(vectors.rfc5769[0]!.hex), CLIENT)!);
  strictEqual(toHex(ice.attributes[1]!.value), "0024");
});

Deno.test("answerBinding() refuses with no more bytes than were asked with, from 28 on", () => {
  for (let n = 1; n <= 300; n++) {
    const attributes = Array.from({ length: n }, (_, i) => ({
      type: 0x4000 + i,
      value: new Uint8Array(0),
    }));
    const request = encodeStun({ type: BINDING_REQUEST, txId: TX_ID, attributes });
    const answer = answerBinding(request, CLIENT)!;
    ok(answer.length <= Math.max(28, request.length), `${n} attributes`);
    strictEqual(decodeStun(answer).attributes[0]!.type, ATTRIBUTE.ERROR_CODE);
  }
});

Deno.test("AnswerLimit: answers longer than their request go to sources that are there alone, few of them", () => {
  const [a, b, stranger] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(parseIp) as [Ip, Ip, Ip];
  const limit = new AnswerLimit(50, (source) => source !== stranger);
  const [short, long] = [new Uint8Array(20), new Uint8Array(32)];
  const count = (request: Uint8Array, answer: Uint8Array, source: Ip, nowMs: number) =>
    Array.from({ length: 50 }, () => limit.allowAnswer(source, request, answer, nowMs))
      .filter((isAllowed) => isAllowed).length;
  strictEqual(count(short, long, a, 0), 10);
  strictEqual(count(long, long, a, 0), 50);
  strictEqual(count(short, long, b, 0), 10);
  strictEqual(count(short, long, a, 1000), 10);
  strictEqual(count(short, long, stranger, 0), 0);
  strictEqual(count(long, long, stranger, 0), 50);
});

// --- client

interface Sent {
  atMs: number;
  to: string;
  bytes: Uint8Array;
}

type Hop = (
  sent: Sent,
  deliver: (delayMs: number, bytes: Uint8Array, from?: Endpoint) => void,
) => void;

/** A network whose every server is the function `hop`; the client is seen as CLIENT. */
function network(hop: Hop, random: Random = systemRandom) {
  const clock = new VirtualClock();
  const sent: Sent[] = [];
  const handled: boolean[] = [];
  const send = (bytes: Uint8Array, to: Endpoint) => {
    const one = { atMs: clock.nowMs(), to: formatEndpoint(to), bytes };
    sent.push(one);
    hop(one, (delayMs, answer, from = to) => {
      const arrive = () => handled.push(client.handle(answer, from));
      if (delayMs === 0) arrive();
      else clock.after(delayMs, arrive);
    });
  };
  const client = new StunClient({ send, clock, random });
  return { clock, client, sent, handled };
}

const server = (text: string): StunServer => ({ name: text, endpoint: endpoint(text) });
const A = server("192.0.2.1:3478");
const B = server("198.51.100.1:3478");
const C = server("[2001:db8::1]:3478");
const answerOf = ({ bytes }: Sent) => answerBinding(bytes, CLIENT)!;
const honest: Hop = (sent, deliver) => deliver(20, answerOf(sent));
const silent: Hop = () => {};

Deno.test("StunClient.query() asks all servers at once and ends with the last answer", async () => {
  const delays: Record<string, number> = { [A.name]: 30, [B.name]: 20, [C.name]: 40 };
  const { clock, client, sent, handled } = network((s, deliver) =>
    deliver(delays[s.to]!, answerOf(s))
  );
  const answers = await clock.until(client.query([A, B, C], { timeoutMs: 5000 }));
  deepStrictEqual(answers, [
    { server: B, mapped: CLIENT, rttMs: 20 },
    { server: A, mapped: CLIENT, rttMs: 30 },
    { server: C, mapped: CLIENT, rttMs: 40 },
  ]);
  strictEqual(clock.nowMs(), 40);
  deepStrictEqual(sent.map(({ atMs, to }) => [atMs, to]), [A, B, C].map(({ name }) => [0, name]));
  deepStrictEqual(handled, [true, true, true]);
});

Deno.test("StunClient.query() repeats with growing pauses, only to servers that are silent", async () => {
  const { clock, client, sent } = network((s, deliver) => {
    if (s.to === A.name) deliver(20, answerOf(s));
  });
  const answers = await clock.until(client.query([A, B], { timeoutMs: 7000 }));
  strictEqual(answers.length, 1);
  strictEqual(clock.nowMs(), 7000);
  const times = (to: string) => sent.filter((s) => s.to === to).map(({ atMs }) => atMs);
  deepStrictEqual(times(A.name), [0]);
  deepStrictEqual(times(B.name), [0, 100, 300, 700, 1500, 3100, 4700, 6300]);
  strictEqual(new Set(sent.map(({ bytes }) => toHex(bytes.subarray(8, 20)))).size, sent.length);
});

Deno.test("StunClient.query() asks further addresses of a name when the first one is slow", async () => {
  const MANY = { ...A, others: [B.endpoint, C.endpoint] };
  const { clock, client, sent } = network((s, deliver) => {
    if (s.to === B.name) deliver(20, answerOf(s));
  });
  const answers = await clock.until(client.query([MANY], { timeoutMs: 5000 }));
  const [{ server, mapped, rttMs }] = answers as [StunAnswer];
  deepStrictEqual(server, { name: A.name, endpoint: B.endpoint });
  deepStrictEqual([mapped, rttMs, answers.length], [CLIENT, 20, 1]);
  deepStrictEqual(sent.map(({ atMs, to }) => `${atMs} ${to}`), [
    `0 ${A.name}`,
    ...[A, B, C].map(({ name }) => `100 ${name}`),
  ]);
});

Deno.test("StunClient.query() survives loss; rttMs is that of the request answered", async () => {
  const { clock, client } = network((s, deliver) => {
    if (s.atMs >= 300) deliver(25, answerOf(s));
  });
  const answers = await clock.until(client.query([A], { timeoutMs: 5000 }));
  deepStrictEqual(answers, [{ server: A, mapped: CLIENT, rttMs: 25 }]);
  strictEqual(clock.nowMs(), 325);
});

Deno.test("StunClient.query() takes the late answer to an earlier request", async () => {
  const { clock, client, handled } = network((s, deliver) => deliver(150, answerOf(s)));
  const answers = await clock.until(client.query([A], { timeoutMs: 5000 }));
  deepStrictEqual(answers.map(({ rttMs }) => rttMs), [150]);
  await clock.until(clock.sleep(1000));
  deepStrictEqual(handled, [true, false], "the answer to the second request came after the end");
});

const wrongTransaction = fromHex(
  vectors.invalid_responses.find(({ name }) => name === "wrong_transaction")!.hex,
);

const HOSTILE: Record<string, Hop> = {
  "from another address": (s, deliver) => deliver(1, answerOf(s), endpoint("192.0.2.9:3478")),
  "from another port": (s, deliver) => deliver(1, answerOf(s), endpoint("192.0.2.1:3479")),
  "with an unknown id": (_, deliver) => deliver(1, wrongTransaction),
  "error response": (s, deliver) => {
    const txId = s.bytes.subarray(8, 20);
    deliver(1, encodeStun({ type: BINDING_ERROR, txId, attributes: [] }));
  },
  "our own request": (s, deliver) => deliver(1, s.bytes),
  "no address": (s, deliver) => {
    const txId = s.bytes.subarray(8, 20);
    deliver(1, encodeStun({ type: BINDING_SUCCESS, txId, attributes: [] }));
  },
  "cut": (s, deliver) => deliver(1, answerOf(s).subarray(0, 31)),
  "no STUN": (_, deliver) => deliver(1, new Uint8Array(64)),
};

for (const [name, hop] of Object.entries(HOSTILE)) {
  Deno.test(`StunClient.handle() ignores an answer: ${name}`, async () => {
    const { clock, client, handled } = network(hop);
    const answers = await clock.until(client.query([A], { timeoutMs: 250 }));
    deepStrictEqual(answers, []);
    deepStrictEqual(handled, [false, false]);
    strictEqual(clock.nowMs(), 250);
  });
  Deno.test(`StunClient.query() gets the honest answer besides one: ${name}`, async () => {
    const { clock, client } = network((s, deliver) => {
      hop(s, deliver);
      honest(s, deliver);
    });
    const answers = await clock.until(client.query([A], { timeoutMs: 250 }));
    deepStrictEqual(answers, [{ server: A, mapped: CLIENT, rttMs: 20 }]);
  });
}

Deno.test("StunClient.handle() takes a repeated answer once", async () => {
  const { clock, client, handled } = network((s, deliver) => {
    for (const delayMs of [10, 11, 12]) deliver(delayMs, answerOf(s));
    if (s.to === B.name) deliver(30, answerOf(s));
  });
  const answers = await clock.until(client.query([A, B], { timeoutMs: 250 }));
  strictEqual(answers.length, 2);
  deepStrictEqual(handled.filter((took) => took).length, 2);
});

Deno.test("StunClient.handle() works within send, as on a transport in memory", async () => {
  const { clock, client } = network((s, deliver) => deliver(0, answerOf(s)));
  const answers = await clock.until(client.query([A, B], { timeoutMs: 250 }));
  deepStrictEqual(answers.map(({ rttMs }) => rttMs), [0, 0]);
  strictEqual(clock.nowMs(), 0);
});

Deno.test("StunClient.query() ends with the first answer, or soon after it, when asked to", async () => {
  const slowB: Hop = (s, deliver) => deliver(s.to === A.name ? 20 : 400, answerOf(s));
  const cases: [{ firstOnly?: boolean; graceMs?: number }, number, number][] = [
    [{ firstOnly: true }, 1, 20],
    [{ graceMs: 100 }, 1, 120],
    [{ graceMs: 1000 }, 2, 400],
    [{}, 2, 400],
  ];
  for (const [options, count, endMs] of cases) {
    const { clock, client } = network(slowB);
    const answers = await clock.until(client.query([A, B], { timeoutMs: 5000, ...options }));
    deepStrictEqual([answers.length, clock.nowMs()], [count, endMs], JSON.stringify(options));
  }
});

Deno.test("StunClient.query() without servers is done at once", async () => {
  const { clock, client } = network(silent);
  deepStrictEqual(await clock.until(client.query([], { timeoutMs: 5000 })), []);
  strictEqual(clock.nowMs(), 0);
});

Deno.test("StunClient.query() rejects with the signal's reason and forgets its requests", async () => {
  const controller = new AbortController();
  const { clock, client, sent } = network(silent);
  clock.after(130, () => controller.abort(new Error("stop")));
  const { signal } = controller;
  await rejects(clock.until(client.query([A], { timeoutMs: 5000, signal })), /stop/);
  strictEqual(clock.nowMs(), 130);
  strictEqual(client.handle(answerOf(sent[0]!), A.endpoint), false);
  await rejects(client.query([A], { timeoutMs: 5000, signal }), /stop/);
});

Deno.test("StunClient.query() twice at once: each gets its own answers", async () => {
  const { clock, client } = network(honest);
  const both = Promise.all([
    client.query([A, B], { timeoutMs: 5000 }),
    client.query([A], { timeoutMs: 5000, firstOnly: true }),
  ]);
  const [first, second] = await clock.until(both);
  deepStrictEqual(first.map(({ server }) => server), [A, B]);
  deepStrictEqual(second.map(({ server }) => server), [A]);
});

Deno.test("Transactions.forget() forgets by owner and by server", () => {
  const transactions = new Transactions<string>();
  const id = (n: number) => new Uint8Array(12).fill(n);
  const add = (n: number, owner: string, server: StunServer) =>
    transactions.add(id(n), { owner, server, to: server.endpoint, sentMs: 0 });
  add(1, "x", A);
  add(2, "x", B);
  add(3, "y", A);
  transactions.forget("x", A);
  strictEqual(transactions.take(id(1), A.endpoint), undefined);
  transactions.forget("x");
  strictEqual(transactions.size, 1);
  strictEqual(transactions.take(id(3), A.endpoint)?.owner, "y");
});

// --- NAT behaviour

const seen = (server: string, mapped: string): StunAnswer => ({
  server: { name: server, endpoint: endpoint(server) },
  mapped: endpoint(mapped),
  rttMs: 1,
});
const M1 = "203.0.113.7:1001";
const M2 = "203.0.113.7:1002";

const MAPPINGS: [string, StunAnswer[], MappingBehaviour][] = [
  ["no answer", [], "unknown"],
  ["one answer", [seen("192.0.2.1:1", M1)], "unknown"],
  ["the same server twice", [seen("192.0.2.1:1", M1), seen("192.0.2.1:1", M1)], "unknown"],
  [
    "two servers agree",
    [seen("192.0.2.1:1", M1), seen("192.0.2.2:1", M1)],
    "endpoint-independent",
  ],
  [
    "two ports of one server agree",
    [seen("192.0.2.1:1", M1), seen("192.0.2.1:2", M1)],
    "endpoint-independent or address-dependent",
  ],
  [
    "two servers differ",
    [seen("192.0.2.1:1", M1), seen("192.0.2.2:1", M2)],
    "address-dependent or address-and-port-dependent",
  ],
  [
    "two servers differ, two ports of one agree",
    [seen("192.0.2.1:1", M1), seen("192.0.2.1:2", M1), seen("192.0.2.2:1", M2)],
    "address-dependent",
  ],
  [
    "two ports of one server differ",
    [seen("192.0.2.1:1", M1), seen("192.0.2.1:2", M2), seen("192.0.2.2:1", "203.0.113.7:1003")],
    "address-and-port-dependent",
  ],
  [
    "two of three agree",
    [seen("192.0.2.1:1", M1), seen("192.0.2.2:1", M1), seen("192.0.2.3:1", M2)],
    "address-dependent or address-and-port-dependent",
  ],
  [
    "IPv6 agrees, IPv4 is alone",
    [seen("[::1]:1", "[::9]:1"), seen("[::2]:1", "[::9]:1"), seen("192.0.2.1:1", M1)],
    "unknown",
  ],
  [
    "IPv6 only",
    [seen("[::1]:1", "[::9]:1"), seen("[::2]:1", "[::9]:1")],
    "endpoint-independent",
  ],
];

for (const [name, answers, expected] of MAPPINGS) {
  Deno.test(`mappingBehaviour(): ${name}`, () => {
    strictEqual(mappingBehaviour(answers), expected);
    strictEqual(mappingBehaviour(answers.toReversed()), expected, "in the other order");
  });
}

// --- names

Deno.test("parseServerName() reads names and addresses with and without a port", () => {
  const cases: [string, string, number][] = [
    ["stun.example.net", "stun.example.net", 3478],
    ["stun.example.net:19302", "stun.example.net", 19302],
    ["192.0.2.1", "192.0.2.1", 3478],
    ["192.0.2.1:1", "192.0.2.1", 1],
    ["[2001:db8::1]:65535", "2001:db8::1", 65535],
    ["[2001:db8::1]", "2001:db8::1", 3478],
    ["2001:db8::1", "2001:db8::1", 3478],
  ];
  for (const [name, hostname, port] of cases) {
    deepStrictEqual(parseServerName(name), { hostname, port }, name);
  }
});

Deno.test("parseServerName() refuses what is neither", () => {
  const bad = ["", ":3478", "host:", "host:0", "host:65536", "host:x", "a b:1", "[::1", "[::1]:0"];
  for (const name of [...bad, "[]:1", "[:::]:1", "1:2:3", "stun:host:3478", "http://host"]) {
    throws(() => parseServerName(name), GretunError, name);
  }
});

const HOSTS: Record<string, string[]> = {
  both: ["2001:db8::1", "192.0.2.1", "192.0.2.2"],
  six: ["2001:db8::6"],
};
const lookup = (name: string): Promise<Ip[]> =>
  HOSTS[name]
    ? Promise.resolve(HOSTS[name].map(parseIp))
    : Promise.reject(new Error(`no host ${name}`));

Deno.test("resolveServers() prefers IPv4, keeps the given name, leaves out what fails", async () => {
  const servers = await resolveServers(["both:1", "gone", "six"], { lookup });
  deepStrictEqual(servers, [
    { name: "both:1", endpoint: endpoint("192.0.2.1:1"), others: [endpoint("192.0.2.2:1")] },
    { name: "six", endpoint: endpoint("[2001:db8::6]:3478") },
  ]);
  const six = await resolveServers(["both", "six"], { lookup, family: 6 });
  deepStrictEqual(six.map(({ endpoint }) => endpoint.ip), ["2001:db8::1", "2001:db8::6"]);
  deepStrictEqual(await resolveServers([], { lookup }), []);
});

Deno.test("resolveServers() has all addresses of a name and family, eight at most", async () => {
  const many = Array.from({ length: 12 }, (_, i) => parseIp(`192.0.2.${i + 1}`));
  const lookup = () => Promise.resolve([parseIp("2001:db8::1"), ...many]);
  const [server] = await resolveServers(["many:1"], { lookup });
  strictEqual(formatEndpoint(server!.endpoint), "192.0.2.1:1");
  deepStrictEqual(server!.others!.map(formatEndpoint), many.slice(1, 8).map((ip) => `${ip}:1`));
});

Deno.test("resolveServers() says why when nothing resolves", async () => {
  await rejects(resolveServers(["gone", "lost:1"], { lookup }), (error: GretunError) => {
    ok(error instanceof GretunError);
    return /gone/.test(error.message) && /lost/.test(error.message);
  });
  await rejects(resolveServers(["six"], { lookup, family: 4 }), /six has no IPv4 address/);
});

Deno.test("resolveServers() takes addresses and this host's names without DNS", async () => {
  const [four, six, local] = await resolveServers(["127.0.0.1:1", "[::1]:2", "localhost:3"]);
  ok(equalEndpoints(four!.endpoint, endpoint("127.0.0.1:1")));
  ok(equalEndpoints(six!.endpoint, endpoint("[::1]:2")));
  ok(local!.endpoint.port === 3);
});
