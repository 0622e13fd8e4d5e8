/** The v1 API from Request to Response, under virtual time. */
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseCidr } from "../../../lib/addr.ts";
import { toBase64 } from "../../../lib/bytes.ts";
import {
  MAX_BODY_LENGTH,
  MAX_ENDPOINTS,
  MAX_SEALED_LENGTH,
  toPeer,
} from "../../../lib/coord/api.ts";
import { BODY_TIMEOUT_MS, SLOW_MS } from "../../../lib/coord/body.ts";
import { HOLD_MS, MAX_HELD_PER_NODE } from "../../../lib/coord/hold.ts";
import { MAX_QUEUE } from "../../../lib/coord/mailbox.ts";
import { LEASE_MS } from "../../../lib/coord/nodes.ts";
import { SWEEP_MS } from "../../../lib/coord/server.ts";
import { keyBase64, keyBytes } from "../../../lib/keys.ts";
import {
  type CallOptions,
  FakeCoordinator,
  type FakeNode,
  fakeNode,
  randomDiscoKey,
  randomNodeKey,
  registration,
  unsigned,
} from "../../fakes/coordinator.ts";
import { MemoryLog } from "../../fakes/world.ts";

const NO_KEY = Array(32).fill(0);
const STARTED = "2027-01-15T08:00:00.000Z";
const ENDPOINTS = [
  { addr: "198.51.100.1:7777", source: "stun" },
  { addr: "[2001:db8::1]:7777", source: "local" },
];

/** A coordinator with two members and a node that is none. */
async function bench(options: ConstructorParameters<typeof FakeCoordinator>[0] = {}) {
  const coord = new FakeCoordinator(options);
  const [a, b, stranger] = await Promise.all([fakeNode("a"), fakeNode("b"), fakeNode("stranger")]);
  await coord.register(a);
  await coord.register(b);
  return { coord, a, b, stranger };
}

async function json(response: Response): Promise<Record<string, unknown>> {
  const text = await response.text();
  strictEqual(response.status, 200, text);
  strictEqual(response.headers.get("content-type"), "application/json");
  return JSON.parse(text);
}

const etagOf = async (coord: FakeCoordinator, node: FakeNode) =>
  String((await json(await coord.call(node, "GET", "/v1/peers"))).etag);

// --- what each call answers

Deno.test("POST /v1/register answers address, etag, STUN servers and lease", async () => {
  const coord = new FakeCoordinator({ pool: parseCidr("100.64.0.0/20") });
  const node = await fakeNode("a");
  deepStrictEqual(await json(await coord.register(node)), {
    tunnel_ip: "100.64.0.1/20",
    peers_etag: coord.nodes.etag,
    stun: [":3478"],
    lease_seconds: LEASE_MS / 1000,
  });
});

Deno.test("GET /v1/peers answers the list in the original's form", async () => {
  const { coord, a, b } = await bench();
  await coord.call(a, "POST", "/v1/endpoints", { body: { endpoints: ENDPOINTS } });
  const peer = (node: FakeNode, tunnel_ip: string, endpoints: unknown[]) => ({
    node_pubkey: keyBase64(node.nodeKey),
    disco_pubkey: [...keyBytes(node.discoKey)],
    node_name: node.name,
    tunnel_ip,
    endpoints,
    updated_at: STARTED,
    last_seen: STARTED,
  });
  deepStrictEqual(await json(await coord.call(b, "GET", "/v1/peers")), {
    etag: coord.nodes.etag,
    peers: [peer(a, "100.64.0.1", ENDPOINTS), peer(b, "100.64.0.2", [])],
    absent: [], // which an original node does not know, and passes over
  });
});

Deno.test("POST /v1/endpoints answers ok; the same again does not change the etag", async () => {
  const { coord, a } = await bench();
  const before = coord.nodes.etag;
  const post = () => coord.call(a, "POST", "/v1/endpoints", { body: { endpoints: ENDPOINTS } });
  deepStrictEqual(await json(await post()), { ok: true });
  const after = coord.nodes.etag;
  notStrictEqual(after, before);
  deepStrictEqual(await json(await post()), { ok: true });
  strictEqual(coord.nodes.etag, after);
});

Deno.test("POST /v1/endpoints takes null for an empty list, as the original writes it", async () => {
  const { coord, a } = await bench();
  const answer = coord.call(a, "POST", "/v1/endpoints", { body: { endpoints: null } });
  deepStrictEqual(await json(await answer), { ok: true });
});

const DISCO_KEY_FORMS: [name: string, form: (key: Uint8Array) => unknown][] = [
  ["base64", toBase64],
  ["an array of 32 numbers", (key) => [...key]],
];
for (const [name, form] of DISCO_KEY_FORMS) {
  Deno.test(`a disco key is taken as ${name} and written as an array`, async () => {
    const coord = new FakeCoordinator();
    const [a, b] = [await fakeNode("a"), await fakeNode("b")];
    for (const node of [a, b]) {
      await coord.register(node, { disco_pubkey: form(keyBytes(node.discoKey)) });
    }
    const body = { to: form(keyBytes(b.discoKey)), sealed: "AAEC" };
    deepStrictEqual(await json(await coord.call(a, "POST", "/v1/signal", { body })), {
      queued: true,
    });
    const { envelopes } = await json(await coord.call(b, "GET", "/v1/signal"));
    deepStrictEqual(envelopes, [
      { from: [...keyBytes(a.discoKey)], sealed: "AAEC", enqueue: STARTED },
    ]);
    const { peers } = await json(await coord.call(b, "GET", "/v1/peers"));
    deepStrictEqual(
      (peers as { disco_pubkey: unknown }[]).map(({ disco_pubkey }) => disco_pubkey),
      [a, b].map(({ discoKey }) => [...keyBytes(discoKey)]),
    );
  });
}

Deno.test("POST /v1/signal to nobody answers queued, as the original does", async () => {
  const { coord, a } = await bench();
  const body = { to: [...keyBytes(randomDiscoKey())], sealed: "AAEC" };
  deepStrictEqual(await json(await coord.call(a, "POST", "/v1/signal", { body })), {
    queued: true,
  });
});

Deno.test("DELETE /v1/register takes the node from the list; it keeps its address", async () => {
  const { coord, a, b } = await bench();
  deepStrictEqual(await json(await coord.call(a, "DELETE", "/v1/register")), { ok: true });
  const { peers } = await json(await coord.call(b, "GET", "/v1/peers"));
  deepStrictEqual((peers as { node_name: string }[]).map(({ node_name }) => node_name), ["b"]);
  strictEqual((await json(await coord.register(a))).tunnel_ip, "100.64.0.1/24");
});

Deno.test("GET /v1/stun tells the STUN servers to everybody", async () => {
  const coord = new FakeCoordinator({ stun: [":3478", "stun.example:3478"] });
  const response = await coord.handle(unsigned("GET", "/v1/stun"));
  deepStrictEqual(await json(response), { stun: [":3478", "stun.example:3478"] });
});

Deno.test("GET /healthz answers ok to everybody", async () => {
  const response = await new FakeCoordinator().handle(unsigned("GET", "/healthz"));
  deepStrictEqual([response.status, await response.text()], [200, "ok\n"]);
});

Deno.test("GET /debug/peers is there only with --debug", async () => {
  for (const debug of [false, true]) {
    const { coord } = await bench({ debug });
    const response = await coord.handle(unsigned("GET", "/debug/peers"));
    strictEqual(response.status, debug ? 200 : 404);
    if (debug) strictEqual((await json(response)).etag, coord.nodes.etag);
    else await response.body?.cancel();
  }
});

// --- long polls

Deno.test("GET /v1/peers with another etag, or none, is answered at once", async () => {
  const { coord, a } = await bench();
  for (const query of ["", "?since=", "?since=0000000000000000", "?since=x&since=y"]) {
    strictEqual(
      (await json(await coord.call(a, "GET", `/v1/peers${query}`))).etag,
      coord.nodes.etag,
    );
  }
});

Deno.test("GET /v1/peers with the list's etag is held for 25 s, then answered in full", async () => {
  const { coord, a } = await bench();
  const since = await etagOf(coord, a);
  const startMs = coord.clock.nowMs();
  const answer = await coord.answer(coord.call(a, "GET", `/v1/peers?since=${since}`));
  strictEqual(coord.clock.nowMs() - startMs, HOLD_MS);
  const { etag, peers } = await json(answer);
  deepStrictEqual([etag, (peers as unknown[]).length], [since, 2]);
});

Deno.test("GET /v1/peers?changes: what has changed, or all where that is not known", async () => {
  const { coord, a, b, stranger } = await bench();
  const ask = async (since: string) => {
    const answer = coord.call(a, "GET", `/v1/peers?since=${since}&changes=1`);
    const { etag, since: of, gone, peers } = await json(await coord.answer(answer));
    strictEqual(etag, coord.nodes.etag);
    const names = (peers as { node_name: string }[]).map(({ node_name }) => node_name);
    return { since: of, gone, names };
  };
  const first = await etagOf(coord, a);
  deepStrictEqual(await ask(first), { since: first, gone: [], names: [] });
  strictEqual(coord.clock.nowMs(), HOLD_MS, "nothing has changed");
  await coord.register(stranger);
  deepStrictEqual(await ask(first), { since: first, gone: [], names: [stranger.name] });
  const second = await etagOf(coord, a);
  await coord.call(b, "DELETE", "/v1/register");
  deepStrictEqual(await ask(second), { since: second, gone: [keyBase64(b.nodeKey)], names: [] });
  deepStrictEqual((await ask(first)).names, [stranger.name]);
  const all = { since: undefined, gone: undefined, names: [a.name, stranger.name] };
  for (const since of ["", "0000000000000000", "ffffffffffffffff", "x", "-1", second.slice(1)]) {
    deepStrictEqual(await ask(since), all, since);
  }
});

Deno.test("a change answers held GET /v1/peers at once", async () => {
  const { coord, a, b, stranger } = await bench();
  const changes: (() => Promise<unknown>)[] = [
    () => coord.register(stranger),
    () => coord.call(b, "POST", "/v1/endpoints", { body: { endpoints: ENDPOINTS } }),
    () => coord.call(b, "DELETE", "/v1/register"),
    () => coord.call(b, "GET", "/v1/peers"),
  ];
  for (const change of changes) {
    const since = await etagOf(coord, a);
    const answer = coord.call(a, "GET", `/v1/peers?since=${since}`);
    ok(await coord.isHeld(answer));
    await change();
    notStrictEqual((await json(await answer)).etag, since);
    strictEqual(coord.clock.nowMs(), 0);
  }
});

Deno.test("the end of a lease answers held GET /v1/peers", async () => {
  const { coord, a } = await bench();
  const stop = new AbortController();
  const running = coord.server.run(stop.signal);
  let since = await etagOf(coord, a);
  let names: unknown[] = [];
  while (coord.clock.nowMs() < LEASE_MS + 10_000) {
    const answer = await coord.answer(coord.call(a, "GET", `/v1/peers?since=${since}`));
    const { etag, peers } = await json(answer);
    names = (peers as { node_name: string }[]).map(({ node_name }) => node_name);
    if (etag !== since) break;
    since = etag;
  }
  deepStrictEqual(names, ["a"]);
  ok(coord.clock.nowMs() >= LEASE_MS && coord.clock.nowMs() <= LEASE_MS + 5_000);
  stop.abort();
  await running;
});

Deno.test("GET /v1/signal is held until a message comes, which is taken once", async () => {
  const { coord, a, b } = await bench();
  const answer = coord.call(b, "GET", "/v1/signal");
  ok(await coord.isHeld(answer));
  const body = { to: [...keyBytes(b.discoKey)], sealed: "AAEC" };
  await coord.call(a, "POST", "/v1/signal", { body });
  strictEqual(((await json(await answer)).envelopes as unknown[]).length, 1);
  const empty = await coord.answer(coord.call(b, "GET", "/v1/signal"));
  deepStrictEqual(await json(empty), { envelopes: [] });
  strictEqual(coord.clock.nowMs(), HOLD_MS);
});

Deno.test("a message is not given to a caller who hung up", async () => {
  const { coord, a, b } = await bench();
  const hungUp = new AbortController();
  const gone = coord.call(b, "GET", "/v1/signal", { signal: hungUp.signal });
  ok(await coord.isHeld(gone));
  hungUp.abort();
  await gone;
  const body = { to: [...keyBytes(b.discoKey)], sealed: "AAEC" };
  await coord.call(a, "POST", "/v1/signal", { body });
  const { envelopes } = await json(await coord.call(b, "GET", "/v1/signal"));
  strictEqual((envelopes as unknown[]).length, 1);
});

Deno.test("a node holds a bounded number of polls: one more ends its oldest", async () => {
  const { coord, a } = await bench();
  const since = await etagOf(coord, a);
  const polls: Promise<Response>[] = [];
  for (let i = 0; i <= MAX_HELD_PER_NODE; i++) {
    polls.push(coord.call(a, "GET", `/v1/peers?since=${since}`));
    ok(await coord.isHeld(polls.at(-1)!));
  }
  await polls[0];
  strictEqual(coord.clock.waiting(HOLD_MS), MAX_HELD_PER_NODE);
  await coord.clock.until(Promise.all(polls));
});

// --- what is refused

type Bad = [
  name: string,
  status: number,
  line: RegExp,
  request: (c: { coord: FakeCoordinator; a: FakeNode; b: FakeNode; stranger: FakeNode }) =>
    | Request
    | Promise<Request>,
];

const signed =
  (method: string, path: string, options: CallOptions = {}): Bad[3] => ({ coord, a }) =>
    coord.request(a, method, path, options);
const register = (more: object): Bad[3] => ({ coord, stranger }) =>
  coord.request(stranger, "POST", "/v1/register", { body: registration(stranger, more) });
const endpoints = (list: unknown): Bad[3] =>
  signed("POST", "/v1/endpoints", { body: { endpoints: list } });
const signal = (more: object): Bad[3] =>
  signed("POST", "/v1/signal", {
    body: { to: [...keyBytes(randomDiscoKey())], sealed: "AAEC", ...more },
  });
const headers = (more: Record<string, string>): Bad[3] =>
  signed("GET", "/v1/peers", { headers: more });

/** Sent in parts, so that no length is told before. */
function endless(request: Request, partBytes: number): Request {
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: (controller) => controller.enqueue(new Uint8Array(partBytes).fill(0x20)),
  });
  return new Request(request.url, { method: "POST", headers: request.headers, body });
}

async function changed(request: Request, more: { url?: string; body?: string; method?: string }) {
  return new Request(more.url ?? request.url, {
    method: more.method ?? request.method,
    headers: request.headers,
    body: more.body ?? await request.text(),
  });
}

const post = signed("POST", "/v1/endpoints", { body: { endpoints: ENDPOINTS } });
const LONG = "x".repeat(MAX_BODY_LENGTH + 1);

const BAD: Bad[] = [
  ["an unknown path", 404, /^not found$/, () => unsigned("GET", "/v2/peers")],
  ["the root", 404, /^not found$/, () => unsigned("GET", "/")],
  ["a name that objects have", 404, /^not found$/, () => unsigned("GET", "/constructor")],
  ["a path with a slash too many", 404, /^not found$/, signed("GET", "/v1/peers/")],
  ["/debug/peers without --debug", 404, /^not found$/, () => unsigned("GET", "/debug/peers")],
  ["GET of register", 405, /^method not allowed$/, () => unsigned("GET", "/v1/register")],
  ["PUT of endpoints", 405, /^method not allowed$/, signed("PUT", "/v1/endpoints", { body: "{}" })],
  ["POST of peers", 405, /^method not allowed$/, signed("POST", "/v1/peers", { body: "{}" })],
  ["DELETE of signal", 405, /^method not allowed$/, signed("DELETE", "/v1/signal")],

  ["a body that says it is too long", 413, /longer than 16384 bytes/, async ({ coord, a }) => {
    const request = await coord.request(a, "POST", "/v1/endpoints", { body: LONG });
    return new Request(request, { headers: [...request.headers, ["content-length", "16385"]] });
  }],
  ["a body that is too long", 413, /longer than/, signed("POST", "/v1/endpoints", { body: LONG })],
  ["an endless body", 413, /longer than/, async (c) => endless(await post(c), 1000)],
  [
    "an endless body of a new node",
    413,
    /longer than/,
    () => endless(unsigned("POST", "/v1/register", {}), 1000),
  ],

  ["an empty body", 400, /^body is not JSON$/, signed("POST", "/v1/endpoints")],
  ["broken JSON", 400, /^body is not JSON$/, signed("POST", "/v1/endpoints", { body: "{" })],
  ["JSON and more", 400, /^body is not JSON$/, signed("POST", "/v1/endpoints", { body: "{}{}" })],
  ["a list as body", 400, /^body is not an object$/, signed("POST", "/v1/signal", { body: [] })],
  ["null as body", 400, /^body is not an object$/, signed("POST", "/v1/signal", { body: "null" })],
  [
    "text that is not UTF-8",
    400,
    /^body is not JSON$/,
    () =>
      new Request("http://c/v1/register", {
        method: "POST",
        body: Uint8Array.of(0x22, 0xff, 0x22),
      }),
  ],
  [
    "deep nesting",
    400,
    /^body is not an object$/,
    () => unsigned("POST", "/v1/register", "[".repeat(8000) + "]".repeat(8000)),
  ],

  ["no node key", 400, /^node_pubkey is not a string$/, () => unsigned("POST", "/v1/register", {})],
  ["a number as node key", 400, /^node_pubkey is not a string$/, register({ node_pubkey: 1 })],
  ["a node key that is not base64", 400, /^node_pubkey: .*base64/, register({ node_pubkey: "*" })],
  ["a short node key", 400, /^node_pubkey: .*3 bytes: want 32/, register({ node_pubkey: "AAEC" })],
  ["no disco key", 400, /^disco_pubkey: .*0 bytes/, register({ disco_pubkey: null })],
  ["an object as disco key", 400, /^disco_pubkey is not a list$/, register({ disco_pubkey: {} })],
  ["a disco key of zeros", 400, /^disco_pubkey: .*all zero/, register({ disco_pubkey: NO_KEY })],
  ["a disco key of 31 numbers", 400, /31 bytes/, register({ disco_pubkey: NO_KEY.slice(1) })],
  ["a disco key of 33 numbers", 400, /more than 32/, register({ disco_pubkey: [...NO_KEY, 1] })],
  [
    "a disco key of large numbers",
    400,
    /not bytes/,
    register({ disco_pubkey: NO_KEY.map(() => 256) }),
  ],
  ["a disco key of fractions", 400, /not bytes/, register({ disco_pubkey: NO_KEY.map(() => 0.5) })],
  ["a disco key of text", 400, /not bytes/, register({ disco_pubkey: NO_KEY.map(() => "1") })],
  ["a disco key that is not base64", 400, /base64/, register({ disco_pubkey: "*".repeat(44) })],
  ["a number as name", 400, /^node_name is not a string$/, register({ node_name: 1 })],
  ["a long name", 400, /longer than 64 characters$/, register({ node_name: "ä".repeat(65) })],
  ["a name of two lines", 400, /control characters$/, register({ node_name: "a\nb" })],
  ["a name of two of Unicode's", 400, /control characters$/, register({ node_name: "a\u2028b" })],
  [
    "a requested address that is none",
    400,
    /^requested_tunnel_ip: /,
    register({
      requested_tunnel_ip: "100.64.0.256",
    }),
  ],
  [
    "another node's disco key",
    409,
    /another node has this disco key/,
    ({ coord, a, stranger }) =>
      coord.request(stranger, "POST", "/v1/register", {
        body: registration({ ...stranger, discoKey: a.discoKey }),
      }),
  ],

  ["endpoints that are no list", 400, /^endpoints is not a list$/, endpoints({})],
  [
    "too many endpoints",
    400,
    /^endpoints has more than 32 entries$/,
    endpoints(
      Array(MAX_ENDPOINTS + 1).fill(ENDPOINTS[0]),
    ),
  ],
  ["an endpoint that is text", 400, /^endpoint is not an object$/, endpoints(["198.51.100.1:1"])],
  ["an endpoint without address", 400, /^addr is not a string$/, endpoints([{ source: "stun" }])],
  ["an endpoint without port", 400, /^addr: Cannot parse/, endpoints([{ addr: "198.51.100.1" }])],
  ["an endpoint with a large port", 400, /^addr: /, endpoints([{ addr: "198.51.100.1:65536" }])],
  ["an endpoint with a name", 400, /^addr: /, endpoints([{ addr: "example.com:1" }])],
  [
    "an endpoint with a long text",
    400,
    /^addr: .{190,196}$/,
    endpoints([{ addr: LONG.slice(99) }]),
  ],

  ["a signal to nothing", 400, /^to: .*0 bytes/, signal({ to: undefined })],
  ["a signal without message", 400, /^sealed is not a string$/, signal({ sealed: undefined })],
  ["a signal that is not base64", 400, /^sealed: .*base64/, signal({ sealed: "AAE" })],
  [
    "a long signal",
    400,
    /^sealed is too long$/,
    signal({
      sealed: toBase64(new Uint8Array(MAX_SEALED_LENGTH + 8)),
    }),
  ],

  ["an unsigned call", 401, /^missing authentication headers/, () => unsigned("GET", "/v1/peers")],
  ["no timestamp", 401, /^missing authentication headers/, async (c) => {
    const request = await post(c);
    request.headers.delete("x-gretun-timestamp");
    return request;
  }],
  ["another scheme", 401, /^authorization is not/, headers({ authorization: "Bearer AAEC" })],
  ["a signature that is not base64", 401, /not base64/, headers({ authorization: "Gretun *" })],
  ["a short signature", 401, /3 bytes: want 64/, headers({ authorization: "Gretun AAEC" })],
  [
    "a wrong signature",
    401,
    /^bad signature$/,
    headers({
      authorization: `Gretun ${toBase64(new Uint8Array(64).fill(1))}`,
    }),
  ],
  [
    "a key header that is not base64",
    401,
    /^node key is not base64/,
    headers({ "x-gretun-node": "*" }),
  ],
  ["a key header that is short", 401, /want 32$/, headers({ "x-gretun-node": "AAEC" })],
  ["a timestamp of text", 401, /^timestamp is not/, headers({ "x-gretun-timestamp": "now" })],
  [
    "a timestamp of milliseconds",
    401,
    /^timestamp is not/,
    headers({
      "x-gretun-timestamp": "1800000000000",
    }),
  ],
  ["an old timestamp", 401, /more than 60 s off: set this host's clock$/, async (c) => {
    const request = await post(c);
    await c.coord.clock.until(c.coord.clock.sleep(61_000));
    return request;
  }],
  ["a timestamp of tomorrow", 401, /more than 60 s off/, signed("GET", "/v1/peers", { ahead: 61 })],
  [
    "a timestamp other than the signed",
    401,
    /^bad signature$/,
    headers({
      "x-gretun-timestamp": "1800000001",
    }),
  ],
  [
    "a nonce other than the signed",
    401,
    /^bad signature$/,
    headers({
      "x-gretun-nonce": "AAAAAAAAAAAAAAAA",
    }),
  ],
  [
    "a nonce that was not signed",
    401,
    /^bad signature$/,
    signed("GET", "/v1/peers", {
      nonce: null,
      headers: { "x-gretun-nonce": "AAAAAAAAAAAAAAAA" },
    }),
  ],
  ["a short nonce", 401, /^nonce is not/, signed("GET", "/v1/peers", { nonce: "A" })],
  ["a long nonce", 401, /^nonce is not/, signed("GET", "/v1/peers", { nonce: "A".repeat(65) })],
  [
    "another body than the signed",
    401,
    /^bad signature$/,
    async (c) => changed(await post(c), { body: '{"endpoints":[]}' }),
  ],
  [
    "another path than the signed",
    401,
    /^bad signature$/,
    async (c) => changed(await post(c), { url: "http://coordinator/v1/signal" }),
  ],
  [
    "another node's name on a signature",
    401,
    /^bad signature$/,
    async ({ coord, a, b }) =>
      coord.request(a, "GET", "/v1/peers", { headers: { "x-gretun-node": keyBase64(b.nodeKey) } }),
  ],
  ["a key that is no point of the curve", 401, /^bad signature$/, ({ coord, stranger }) => {
    const node = { ...stranger, nodeKey: randomNodeKey() };
    return coord.request(node, "POST", "/v1/register", { body: registration(node) });
  }],

  [
    "a signer who is no member",
    404,
    /^not registered/,
    ({ coord, stranger }) => coord.request(stranger, "GET", "/v1/peers"),
  ],
  [
    "endpoints of no member",
    404,
    /^not registered/,
    ({ coord, stranger }) =>
      coord.request(stranger, "POST", "/v1/endpoints", { body: { endpoints: ENDPOINTS } }),
  ],
  [
    "leaving of no member",
    404,
    /^not registered/,
    ({ coord, stranger }) => coord.request(stranger, "DELETE", "/v1/register"),
  ],
  [
    "a register that another node signed",
    401,
    /^signed by another node$/,
    ({ coord, a, stranger }) =>
      coord.request(a, "POST", "/v1/register", { body: registration(stranger) }),
  ],
  [
    "a register of a member that a stranger signed",
    401,
    /^signed by another/,
    (c) => c.coord.request(c.stranger, "POST", "/v1/register", { body: registration(c.a) }),
  ],
  [
    "an unsigned register with a new name",
    401,
    /sign the request to change it$/,
    ({ a }) => unsigned("POST", "/v1/register", registration(a, { node_name: "evil" })),
  ],
  [
    "an unsigned register with a new disco key",
    401,
    /sign the request to change it$/,
    ({ a }) => unsigned("POST", "/v1/register", registration({ ...a, discoKey: randomDiscoKey() })),
  ],
  [
    "a wrongly signed register",
    401,
    /^bad signature$/,
    ({ coord, a }) =>
      coord.request(a, "POST", "/v1/register", {
        body: registration({ ...a, name: "evil" }),
        headers: { "x-gretun-nonce": "AAAAAAAAAAAAAAAA" },
      }),
  ],
];

for (const [name, status, line, make] of BAD) {
  Deno.test(`${name} is refused with ${status} and changes nothing`, async () => {
    const all = await bench();
    const { coord, a, b, stranger } = all;
    const request = await make(all);
    const before = coord.dump([a, b, stranger]);
    const response = await coord.handle(request);
    const text = await response.text();
    strictEqual(response.status, status, text);
    ok(/^[^\n]{1,200}\n$/.test(text), "one line");
    ok(line.test(text.trimEnd()), text);
    strictEqual(coord.dump([a, b, stranger]), before);
  });
}

Deno.test("405 names the methods that are allowed", async () => {
  const response = await new FakeCoordinator().handle(unsigned("PUT", "/v1/register"));
  strictEqual(response.headers.get("allow"), "POST, DELETE");
  await response.body?.cancel();
});

Deno.test("a body that stops coming is refused with 408 after 10 s", async () => {
  const { coord } = await bench();
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start: (controller) => controller.enqueue(Uint8Array.of(0x7b)),
  });
  const request = new Request("http://coordinator/v1/register", { method: "POST", body });
  const answer = coord.handle(request);
  while (coord.clock.waiting(SLOW_MS) === 0) await new Promise((r) => setTimeout(r, 1));
  const response = await coord.clock.until(answer);
  deepStrictEqual([response.status, coord.clock.nowMs()], [408, BODY_TIMEOUT_MS]);
  await response.body?.cancel();
});

// --- time and replays

const AHEAD: [seconds: number, status: number][] = [[-61, 401], [-60, 425], [0, 200], [60, 200], [
  61,
  401,
]];
for (const [ahead, status] of AHEAD) {
  Deno.test(`just after the start, a node whose clock is ${ahead} s off gets ${status}`, async () => {
    const { coord, a } = await bench();
    const response = await coord.call(a, "GET", "/v1/peers", { ahead });
    strictEqual(response.status, status);
    await response.body?.cancel();
  });
}

Deno.test("a node whose clock is 60 s behind is served a minute after the start", async () => {
  const { coord, a } = await bench();
  await coord.clock.until(coord.clock.sleep(60_500));
  await json(await coord.call(a, "GET", "/v1/peers", { ahead: -60 }));
});

const ONCE: [name: string, method: string, path: string, body?: unknown][] = [
  ["register", "POST", "/v1/register"],
  ["endpoints", "POST", "/v1/endpoints", { endpoints: [] }],
  ["peers", "GET", "/v1/peers"],
  ["a signal", "POST", "/v1/signal", { to: [...keyBytes(randomDiscoKey())], sealed: "AAEC" }],
  ["leaving", "DELETE", "/v1/register"],
];
for (const nonce of [undefined, null]) {
  for (const [name, method, path, body] of ONCE) {
    const withOrWithout = nonce === null ? "without" : "with";
    const mayRepeat = nonce === null && name === "peers";
    Deno.test(`${name} signed ${withOrWithout} a nonce is good ${mayRepeat ? "again" : "once"}`, async () => {
      const { coord, a, b } = await bench();
      const options = {
        body: path === "/v1/register" && method === "POST" ? registration(a) : body,
      };
      const request = () =>
        coord.request(a, method, path, nonce === null ? { ...options, nonce } : options);
      const first = await request();
      const again = first.clone();
      await json(await coord.handle(first));
      const before = coord.dump([a, b]);
      const response = await coord.handle(again);
      strictEqual(response.status, mayRepeat ? 200 : 401);
      const text = await response.text();
      if (!mayRepeat) ok(text.startsWith("this request was sent before"), text);
      strictEqual(coord.dump([a, b]), before);
      // Anew, with a nonce of its own, it is another request.
      await json(await coord.call(a, method, path, options));
    });
  }
}

Deno.test("of equal requests that come together one is taken", async () => {
  const { coord, a } = await bench();
  const body = { to: [...keyBytes(a.discoKey)], sealed: "AAEC" };
  const request = await coord.request(a, "POST", "/v1/signal", { body });
  const copies = Array.from({ length: 10 }, () => request.clone());
  const answers = await Promise.all(copies.map((copy) => coord.handle(copy)));
  deepStrictEqual(answers.map(({ status }) => status).sort(), [200, ...Array(9).fill(401)]);
});

Deno.test("a request that is not authenticated renews no lease", async () => {
  const { coord, a } = await bench();
  const endsMs = () => coord.nodes.get(a.nodeKey)!.leaseEndsMs;
  const before = endsMs();
  await coord.clock.until(coord.clock.sleep(1000));
  const authorization = `Gretun ${toBase64(new Uint8Array(64))}`;
  await coord.call(a, "GET", "/v1/peers", { headers: { authorization } });
  await coord.handle(unsigned("POST", "/v1/register", registration(a)));
  strictEqual(endsMs(), before);
  await coord.call(a, "GET", "/v1/peers");
  strictEqual(endsMs(), before + 1000);
});

Deno.test("setting the host's clock ends no lease and asks nodes for the new time", async () => {
  for (const stepMs of [3_600_000, -3_600_000]) {
    const { coord, a } = await bench();
    const stop = new AbortController();
    const running = coord.server.run(stop.signal);
    coord.clock.wallStepMs = stepMs;
    await coord.clock.until(coord.clock.sleep(LEASE_MS / 2 + SWEEP_MS));
    strictEqual(coord.nodes.listed().length, 2);
    strictEqual((await coord.call(a, "GET", "/v1/peers", { ahead: -stepMs / 1000 })).status, 401);
    await json(await coord.call(a, "GET", "/v1/peers"));
    await coord.clock.until(coord.clock.sleep(LEASE_MS / 2));
    deepStrictEqual(coord.nodes.listed().map(({ name }) => name), ["a"]);
    stop.abort();
    await running;
  }
});

Deno.test("a signature written in another base64 form is the same signature", async () => {
  const { coord, a } = await bench();
  const request = await coord.request(a, "DELETE", "/v1/register");
  const again = request.clone();
  const text = request.headers.get("authorization")!;
  const last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const twin = last[last.indexOf(text.at(-3)!) + 1]!;
  again.headers.set("authorization", `${text.slice(0, -3)}${twin}==`);
  await json(await coord.handle(request));
  const response = await coord.handle(again);
  deepStrictEqual([response.status, await response.text()], [
    401,
    "this request was sent before: sign each request anew\n",
  ]);
});

Deno.test("a request from before a restart is not taken after it", async () => {
  const { coord, a } = await bench();
  const request = await coord.request(a, "DELETE", "/v1/register");
  await json(await coord.handle(request.clone()));
  await json(await coord.register(a));
  await coord.clock.until(coord.clock.sleep(1000));
  const after = new FakeCoordinator({ store: coord.store, clock: coord.clock });
  const response = await after.handle(request);
  deepStrictEqual([response.status, await response.text()], [
    425,
    "signed before the coordinator started: sign again\n",
  ]);
  strictEqual(after.nodes.listed().length, 2);
  await json(await after.call(a, "DELETE", "/v1/register"));
});

Deno.test("a restart loses nobody, and its etag answers those who hold the old one", async () => {
  const { coord, a, b } = await bench();
  await coord.call(a, "POST", "/v1/endpoints", { body: { endpoints: ENDPOINTS } });
  const since = await etagOf(coord, a);
  const list = coord.nodes.listed().map(toPeer);
  await coord.clock.until(coord.clock.sleep(10 * LEASE_MS));
  const after = new FakeCoordinator({ store: coord.store, clock: coord.clock });
  deepStrictEqual(after.nodes.listed().map(toPeer), list);
  const { etag } = await json(await after.call(b, "GET", `/v1/peers?since=${since}`));
  ok(String(etag) > since);
});

Deno.test("what the disk refused is answered with 503 and written by the next try", async () => {
  const { coord, stranger } = await bench();
  const { save } = coord.store;
  coord.store.save = () => {
    throw new Error("disk is full");
  };
  for (let i = 0; i < 2; i++) {
    const response = await coord.register(stranger);
    deepStrictEqual([response.status, await response.text()], [
      503,
      "the state cannot be saved: see the coordinator's log\n",
    ]);
  }
  coord.store.save = save;
  await json(await coord.register(stranger));
  strictEqual(coord.store.nodes().length, 3);
});

Deno.test("every answer tells the coordinator's time, and a refusal by it says by how much", async () => {
  const { coord, a } = await bench();
  coord.clock.wallStepMs = 91_000;
  const response = await coord.call(a, "GET", "/v1/peers", { ahead: -91 });
  strictEqual(Date.parse(response.headers.get("date")!), coord.clock.wallMs());
  strictEqual(response.headers.get("x-gretun-refusal"), "clock");
  match(await response.text(), /^timestamp is 91 s behind the coordinator's clock, more than 60 s/);
});

// --- clones

const run = (instance: string) => ({ "x-gretun-instance": instance });

Deno.test("of two hosts with one key the first is served and told, the second waits", async () => {
  const { coord, a } = await bench();
  const poll = async (source: string, instance: string) => {
    const since = coord.nodes.etag;
    return coord.call(a, "GET", `/v1/peers?since=${since}`, { source, headers: run(instance) });
  };
  const clone = { ...a, discoKey: randomDiscoKey() };
  const register = () =>
    coord.call(clone, "POST", "/v1/register", {
      body: registration(clone),
      source: "192.0.2.2",
      headers: run("bbbbbbbb"),
    });
  const held = poll("192.0.2.1", "aaaaaaaa");
  ok(await coord.isHeld(held));
  const second = register();
  // The first one is asked whether it lives, and calls again.
  await held;
  const again = poll("192.0.2.1", "aaaaaaaa");
  const refused = await second;
  deepStrictEqual([refused.status, refused.headers.get("x-gretun-refusal")], [409, "clone"]);
  match(await refused.text(), /another host with the same node key is there, at 192\.0\.2\.1/);
  strictEqual(coord.nodes.get(a.nodeKey)!.discoKey, a.discoKey);
  const told = await coord.clock.until(again);
  strictEqual(told.headers.get("x-gretun-clone"), "192.0.2.2");
  await told.body?.cancel();
});

Deno.test("a run that is over is followed by the next: at once from there, else after a moment", async () => {
  const { coord, a } = await bench();
  const call = (method: string, path: string, instance: string, source = "192.0.2.1") =>
    coord.call(a, method, path, {
      ...(method === "POST" ? { body: registration(a) } : {}),
      source,
      headers: run(instance),
    });
  await json(await call("POST", "/v1/register", "aaaaaaaa"));
  await json(await call("DELETE", "/v1/register", "aaaaaaaa"));
  await json(await call("POST", "/v1/register", "bbbbbbbb"));
  const startMs = coord.clock.nowMs();
  await json(await call("POST", "/v1/register", "dddddddd"));
  strictEqual(coord.clock.nowMs(), startMs);
  await json(await coord.clock.until(call("POST", "/v1/register", "cccccccc", "192.0.2.2")));
  strictEqual(coord.clock.nowMs() - startMs, 1500);
  await json(await call("GET", "/v1/peers", "cccccccc", "192.0.2.2"));
});

// --- hostile

Deno.test("one source brings a bounded number of new nodes; members are served on", async () => {
  for (const isSigned of [false, true]) {
    const { coord, a } = await bench();
    const statuses = new Map<number, number>();
    for (let i = 0; i < 200; i++) {
      const node = isSigned
        ? await fakeNode("x")
        : { ...a, nodeKey: randomNodeKey(), discoKey: randomDiscoKey() };
      const request = isSigned
        ? await coord.request(node, "POST", "/v1/register", { body: registration(node) })
        : unsigned("POST", "/v1/register", registration(node));
      const { status, headers } = await coord.handle(request, "192.0.2.1");
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      if (status === 429) strictEqual(headers.get("retry-after"), "2");
    }
    deepStrictEqual([...statuses], [[200, 63], [429, 137]]);
    strictEqual(coord.store.nodes().length, 65);
    await json(await coord.register(a));
    await json(await coord.call(a, "GET", "/v1/peers"));
    const other = unsigned("POST", "/v1/register", registration(await fakeNode("y")));
    await json(await coord.handle(other, "192.0.2.2"));
  }
});

Deno.test("one source that floods leaves half of the pool free", async () => {
  const coord = new FakeCoordinator();
  const stop = new AbortController();
  const running = coord.server.run(stop.signal);
  let most = 0;
  for (let second = 0; second < 600; second++) {
    const node = { nodeKey: randomNodeKey(), discoKey: randomDiscoKey(), name: "x" };
    const request = unsigned("POST", "/v1/register", registration(node));
    await (await coord.handle(request, "192.0.2.1")).body?.cancel();
    most = Math.max(most, coord.nodes.listed().length);
    await coord.clock.until(coord.clock.sleep(1000));
  }
  ok(most <= 130, `${most}`);
  const response = await coord.handle(
    unsigned("POST", "/v1/register", registration(await fakeNode("real"))),
    "192.0.2.2",
  );
  await json(response);
  stop.abort();
  await running;
});

Deno.test("1,000 members behind one NAT are served at once after a restart", async () => {
  const pool = parseCidr("100.64.0.0/20");
  const coord = new FakeCoordinator({ pool });
  const nodes = await Promise.all(Array.from({ length: 1000 }, (_, i) => fakeNode(`n${i}`)));
  for (const node of nodes) {
    const wanted = { nodeKey: node.nodeKey, discoKey: node.discoKey, name: node.name };
    const { record } = coord.nodes.register(wanted, {
      signed: true,
      nowMs: coord.clock.wallMs(),
    });
    coord.store.save([record], coord.nodes.version);
  }
  await coord.clock.until(coord.clock.sleep(1000));
  const after = new FakeCoordinator({ pool, store: coord.store, clock: coord.clock });
  const statuses = await Promise.all(nodes.map(async (node) => {
    const request = await after.request(node, "POST", "/v1/register", { body: registration(node) });
    return (await after.handle(request, "192.0.2.1")).status;
  }));
  deepStrictEqual([...new Set(statuses)], [200]);
});

Deno.test("a mailbox keeps its bound however many messages come", async () => {
  const { coord, b } = await bench();
  const body = { to: [...keyBytes(b.discoKey)], sealed: "AAEC" };
  const senders = await Promise.all(["c", "d", "e", "f", "g"].map(fakeNode));
  for (const sender of senders) {
    await coord.register(sender);
    for (let i = 0; i < 2 * MAX_QUEUE / senders.length; i++) {
      await json(await coord.call(sender, "POST", "/v1/signal", { body }));
    }
  }
  const { envelopes } = await json(await coord.call(b, "GET", "/v1/signal"));
  strictEqual((envelopes as unknown[]).length, MAX_QUEUE);
});

Deno.test("who joins, comes back and leaves is logged with name, key and source", async () => {
  const log = new MemoryLog();
  const coord = new FakeCoordinator({ log });
  const node = await fakeNode("nas");
  const register = (source: string) =>
    coord.call(node, "POST", "/v1/register", { body: registration(node), source });
  await register("198.51.100.7");
  await register("198.51.100.7");
  await coord.call(node, "DELETE", "/v1/register");
  await register("198.51.100.8");
  const common = { level: "info", node: "nas", key: node.nodeKey.slice(0, 8) };
  const joined = { tunnel_ip: "100.64.0.1", token: undefined, state: undefined };
  deepStrictEqual(log.lines, [
    { ...common, ...joined, msg: "node joined", source: "198.51.100.7" },
    { ...common, msg: "node left" },
    { ...common, ...joined, msg: "node is back", source: "198.51.100.8" },
  ]);
});

Deno.test("one member does not send another more than it can mean", async () => {
  const { coord, a, b } = await bench();
  const body = { to: [...keyBytes(b.discoKey)], sealed: "AAEC" };
  const statuses: number[] = [];
  for (let i = 0; i < MAX_QUEUE; i++) {
    statuses.push((await coord.call(a, "POST", "/v1/signal", { body })).status);
  }
  deepStrictEqual([...new Set(statuses)], [200, 429]);
  const refused = await coord.call(a, "POST", "/v1/signal", { body });
  strictEqual(refused.headers.get("retry-after"), "1");
  deepStrictEqual((await coord.call(b, "POST", "/v1/signal", { body })).status, 200);
});
