/** The node's client against the coordinator over loopback, and against what is none. */
import {
  deepStrictEqual,
  match,
  notStrictEqual,
  ok,
  rejects,
  strictEqual,
  throws,
} from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { type AdvertisedEndpoint, type PeerRecord, toPeer } from "../../../lib/coord/api.ts";
import {
  askStunServers,
  CoordClient,
  CoordError,
  parseCoordinatorUrl,
} from "../../../lib/coord/client.ts";
import { HOLD_MS } from "../../../lib/coord/hold.ts";
import { systemClock, systemRandom } from "../../../lib/edges.ts";
import { errorLine } from "../../../lib/cli/command.ts";
import {
  FakeCoordinator,
  type FakeNode,
  fakeNode,
  randomDiscoKey,
} from "../../fakes/coordinator.ts";

const byName = (peers: PeerRecord[]) => peers.toSorted((a, b) => a.name < b.name ? -1 : 1);
const ENDPOINTS: AdvertisedEndpoint[] = [
  { endpoint: parseEndpoint("198.51.100.1:7777"), source: "stun" },
  { endpoint: parseEndpoint("[2001:db8::1]:7777"), source: "local" },
];
const NEVER = new AbortController().signal;

type Handler = (request: Request, info: Deno.ServeHandlerInfo<Deno.NetAddr>) =>
  | Response
  | Promise<Response>;

/** Serves on a free port of loopback. */
function serve(handler: Handler): AsyncDisposable & { url: string } {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, handler);
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

function serveCoordinator(coord: FakeCoordinator) {
  return serve((request, { remoteAddr }) => coord.handle(request, remoteAddr.hostname));
}

function clientOf(url: string, node: FakeNode, clock = systemClock): CoordClient {
  return new CoordClient({ url, identity: node, clock, random: systemRandom });
}

function register(client: CoordClient, node: FakeNode) {
  return client.register({ discoKey: node.discoKey, nodeName: node.name }, NEVER);
}

/** A coordinator on loopback with two members. */
async function bench() {
  const coord = new FakeCoordinator();
  const server = serveCoordinator(coord);
  const [a, b] = [await fakeNode("a"), await fakeNode("b")];
  const [clientA, clientB] = [a, b].map((node) => clientOf(server.url, node, coord.clock));
  await register(clientA!, a);
  await register(clientB!, b);
  return { coord, server, a, b, clientA: clientA!, clientB: clientB! };
}

/** Until a poll is held by the coordinator. */
async function held(coord: FakeCoordinator): Promise<void> {
  while (coord.clock.waiting(HOLD_MS) === 0) await new Promise((r) => setTimeout(r, 1));
}

Deno.test("register() gives address, lease and STUN servers by name", async () => {
  const coord = new FakeCoordinator({ stun: [":3478", "stun.example:3478"] });
  await using server = serveCoordinator(coord);
  const node = await fakeNode("a");
  deepStrictEqual(await register(clientOf(server.url, node, coord.clock), node), {
    tunnelIp: { ip: "100.64.0.1", prefixLength: 24 },
    peersEtag: coord.nodes.etag,
    stun: ["127.0.0.1:3478", "stun.example:3478"],
    leaseSeconds: 120,
  });
});

Deno.test("askStunServers() asks without being a member", async () => {
  const coord = new FakeCoordinator({ stun: [":3478", "stun.example:3478"] });
  await using server = serveCoordinator(coord);
  const stun = await askStunServers(new URL(server.url), NEVER);
  deepStrictEqual(stun, ["127.0.0.1:3478", "stun.example:3478"]);
});

Deno.test("askStunServers() tells a coordinator of another kind from what is none", async () => {
  const cases: [body: string, status: number, expected: RegExp | undefined][] = [
    ["not found", 404, undefined],
    ["no", 503, /refused: 503 no/],
    ["<html>", 200, /not JSON/],
    ['{"stun":":3478"}', 200, /answer is wrong/],
  ];
  for (const [body, status, expected] of cases) {
    await using server = serve(() => new Response(body, { status }));
    const asked = askStunServers(new URL(server.url), NEVER);
    if (expected) await rejects(asked, expected);
    else strictEqual(await asked, undefined);
  }
  await rejects(askStunServers(new URL("http://127.0.0.1:9"), NEVER), CoordError);
});

Deno.test("peers() gives what postEndpoints() told", async () => {
  const { server, a, clientA, clientB, coord } = await bench();
  await using _server = server;
  const nat = { mapping: "hard", portDelta: 1 } as const;
  await clientA.postEndpoints(ENDPOINTS, NEVER, { nat });
  const { etag, peers } = await clientB.peers(undefined, NEVER);
  strictEqual(etag, coord.nodes.etag);
  deepStrictEqual(peers.map(({ name }) => name), ["a", "b"]);
  deepStrictEqual(peers[0], toPeer(coord.nodes.listed()[0]!));
  strictEqual(peers[0]!.nodeKey, a.nodeKey);
  deepStrictEqual(peers[0]!.endpoints, ENDPOINTS);
  deepStrictEqual(peers[0]!.nat, nat);
});

Deno.test("peers() wakes up as soon as the list changes", async () => {
  const { coord, server, clientA, clientB } = await bench();
  await using _server = server;
  const known = await clientA.peers(undefined, NEVER);
  const poll = clientA.peers(known, NEVER);
  await held(coord);
  await clientB.postEndpoints(ENDPOINTS, NEVER);
  deepStrictEqual((await poll).peers[1]!.endpoints, ENDPOINTS);
});

Deno.test("peers() that nothing wakes gives the same etag after 25 s", async () => {
  const { coord, server, clientA } = await bench();
  await using _server = server;
  const known = await clientA.peers(undefined, NEVER);
  const poll = clientA.peers(known, NEVER);
  await held(coord);
  await coord.clock.until(coord.clock.sleep(HOLD_MS));
  deepStrictEqual(await poll, known);
});

Deno.test("peers() is all peers, also where only changes are told", async () => {
  const { coord, server, clientA, clientB } = await bench();
  await using _server = server;
  let known = await clientA.peers(undefined, NEVER);
  const changes: (() => Promise<unknown>)[] = [
    () => clientB.postEndpoints(ENDPOINTS, NEVER),
    async () => await coord.register(await fakeNode("c")),
    () => clientB.leave(NEVER),
  ];
  for (const change of changes) {
    await change();
    const next = await clientA.peers(known, NEVER);
    notStrictEqual(next.etag, known.etag);
    deepStrictEqual(byName(next.peers), byName(coord.nodes.listed().map(toPeer)));
    known = next;
  }
  deepStrictEqual(known.peers.map(({ name }) => name).sort(), ["a", "c"]);
});

Deno.test("peers() takes the whole list of a coordinator that tells no changes, and no others'", async () => {
  const answers: object[] = [];
  await using server = serve(() => Response.json(answers.shift()));
  const client = clientOf(server.url, await fakeNode("a"));
  const known = { etag: "1", peers: [] };
  answers.push({ etag: "2", peers: [] });
  deepStrictEqual(await client.peers(known, NEVER), { etag: "2", peers: [] });
  answers.push({ etag: "3", since: "2", gone: [], peers: [] });
  await rejects(client.peers(known, NEVER), /changes of another list/);
  answers.push({ etag: "3", since: "2", gone: [], peers: [] });
  await rejects(client.peers(undefined, NEVER), /changes of another list/);
});

Deno.test("takeSignals() wakes up as soon as a message comes", async () => {
  const { coord, server, a, b, clientA, clientB } = await bench();
  await using _server = server;
  const pull = clientB.takeSignals(NEVER);
  await held(coord);
  const sealed = new Uint8Array(600).fill(7);
  await clientA.sendSignal(b.discoKey, sealed, NEVER);
  deepStrictEqual(await pull, [{ from: a.discoKey, sealed }]);
});

Deno.test("two equal requests in one second are two", async () => {
  const { server, b, clientA, clientB } = await bench();
  await using _server = server;
  for (let i = 0; i < 2; i++) await clientA.sendSignal(b.discoKey, Uint8Array.of(1), NEVER);
  strictEqual((await clientB.takeSignals(NEVER)).length, 2);
});

Deno.test("leave() takes the node from the list", async () => {
  const { server, clientA, clientB } = await bench();
  await using _server = server;
  await clientA.leave(NEVER);
  deepStrictEqual((await clientB.peers(undefined, NEVER)).peers.map(({ name }) => name), ["b"]);
});

Deno.test("an aborted poll ends with the signal's reason, and the coordinator lets go", async () => {
  const { coord, server, clientA } = await bench();
  await using _server = server;
  const known = await clientA.peers(undefined, NEVER);
  const stop = new AbortController();
  const poll = clientA.peers(known, stop.signal);
  await held(coord);
  stop.abort(new Error("stopped"));
  await rejects(poll, { message: "stopped" });
  while (coord.clock.waiting(HOLD_MS) > 0) await new Promise((r) => setTimeout(r, 1));
});

Deno.test("a call with an aborted signal is not made", async () => {
  let calls = 0;
  await using server = serve(() => {
    calls++;
    return Response.json({});
  });
  const client = clientOf(server.url, await fakeNode("a"));
  await rejects(client.leave(AbortSignal.abort(new Error("stopped"))), { message: "stopped" });
  strictEqual(calls, 0);
});

for (const path of ["/", "//", "/gretun", "/gretun/"]) {
  Deno.test(`a coordinator's URL may end in ${path}`, async () => {
    const coord = new FakeCoordinator();
    // As a proxy does that serves the coordinator under a path of its own.
    await using server = serve((request) => {
      const url = new URL(request.url);
      url.pathname = url.pathname.replace(/^\/gretun/, "");
      return coord.handle(new Request(url, request));
    });
    const node = await fakeNode("a");
    const client = clientOf(parseCoordinatorUrl(server.url + path).href, node, coord.clock);
    await register(client, node);
    strictEqual((await client.peers(undefined, NEVER)).peers.length, 1);
  });
}

const BAD_URLS: [text: string, why: RegExp][] = [
  ["coordinator:8443", /does not begin with http/],
  ["ftp://coordinator", /does not begin with http/],
  ["https://", /is not a URL/],
  ["http://a b", /is not a URL/],
  ["http://user:secret@host", /"http:\/\/\.\.\.@host" has more than host, port and path/],
  ["http://host/?x=1", /has more than host, port and path/],
  ["http://host/#x", /has more than host, port and path/],
];
for (const [text, why] of BAD_URLS) {
  Deno.test(`parseCoordinatorUrl() refuses ${text}`, () => {
    throws(() => parseCoordinatorUrl(text), (error) => {
      ok(why.test(errorLine(error)), errorLine(error));
      return true;
    });
  });
}

// --- what the user reads when it fails

/** Whether the same call may succeed later. */
const isRetryable = ({ status }: CoordError) =>
  status === undefined || status >= 500 || [408, 425, 429].includes(status);

/** The one line, with the port taken out. */
async function lineOf(
  url: string,
  status: number | undefined,
  retryable: boolean,
): Promise<string> {
  const node = await fakeNode("a");
  const signal = AbortSignal.timeout(60_000);
  const call = clientOf(url, node).register({ discoKey: node.discoKey, nodeName: "a" }, signal);
  const error = await call.then(() => undefined, (error) => error);
  ok(error instanceof CoordError, String(error));
  deepStrictEqual([error.status, isRetryable(error)], [status, retryable]);
  return errorLine(error).replaceAll(/127\.0\.0\.1:\d+/g, "HOST");
}

const plain = (status: number, text: string) => () => new Response(text, { status });
const NOT_FOUND = "<html>\n<h1>404 Not Found</h1>\n</html>";
const ANSWERS: [
  name: string,
  handler: Handler,
  status: number,
  retryable: boolean,
  line: string,
][] = [
  [
    "another server's 404",
    plain(404, NOT_FOUND),
    404,
    false,
    "Error: coordinator http://HOST refused: 404 <html> <h1>404 Not Found</h1> </html>. " +
    "Check that the URL is a coordinator's.",
  ],
  [
    "a coordinator that was restored from an old copy",
    plain(404, "not registered: this node must register first\n"),
    404,
    false,
    "Error: coordinator http://HOST refused: 404 not registered: this node must register first. " +
    "It does not know this node any more, which joins again by itself.",
  ],
  [
    "a page instead of JSON",
    plain(200, "<html>"),
    400,
    false,
    "Error: http://HOST is no coordinator: its answer is not JSON. Check the URL.",
  ],
  [
    "JSON of something else",
    () => Response.json({ hello: "world" }),
    400,
    false,
    "Error: the coordinator's answer is wrong: tunnel_ip is not a string. Check the URL.",
  ],
  [
    "a wrong clock",
    plain(401, "timestamp more than 60 s off: set this host's clock\n"),
    401,
    false,
    "Error: coordinator http://HOST refused: 401 timestamp more than 60 s off: set this host's " +
    "clock. Check this host's clock and that keys.json belongs to this coordinator's node.",
  ],
  [
    "a full pool",
    plain(500, "pool exhausted: start the coordinator with a larger --pool\n"),
    500,
    true,
    "Error: coordinator http://HOST refused: 500 pool exhausted: start the coordinator with a " +
    "larger --pool. Look into the coordinator's log.",
  ],
  [
    "a limit",
    plain(429, "too many new nodes from this address: try later\n"),
    429,
    true,
    "Error: coordinator http://HOST refused: 429 too many new nodes from this address: try " +
    "later. Wait: the coordinator takes few calls at a time from one address.",
  ],
  [
    "a proxy that wants a password",
    plain(407, "who are you?\n"),
    407,
    false,
    "Error: coordinator http://HOST refused: 407 who are you?. A proxy on the way wants a name and " +
    "a password: give them in HTTP_PROXY or HTTPS_PROXY.",
  ],
  [
    "a long and hostile text",
    plain(502, "\x1b[31m" + "x".repeat(5000)),
    502,
    true,
    `Error: coordinator http://HOST refused: 502 [31m${"x".repeat(196)}. ` +
    "Look into the coordinator's log.",
  ],
];
for (const [name, handler, status, retryable, line] of ANSWERS) {
  Deno.test(`${name} is told on one line`, async () => {
    await using server = serve(handler);
    strictEqual(await lineOf(server.url, status, retryable), line);
  });
}

Deno.test("a redirect is not followed", async () => {
  let followed = false;
  await using elsewhere = serve(() => {
    followed = true;
    return Response.json({});
  });
  await using server = serve(() => Response.redirect(elsewhere.url, 307));
  ok((await lineOf(server.url, undefined, true)).includes("does not answer: "));
  strictEqual(followed, false);
});

Deno.test("a refused connection is told on one line", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  strictEqual(
    await lineOf(`http://127.0.0.1:${port}`, undefined, true),
    "Error: coordinator http://HOST does not answer: no connection to HOST: connection refused. " +
      "Check that gretun-coord runs and that its port can be reached.",
  );
});

Deno.test("https:// where plain HTTP is served is told on one line", async () => {
  await using server = serve(plain(200, "{}"));
  const line = await lineOf(server.url.replace("http:", "https:"), undefined, true);
  ok(line.endsWith("Give the URL with http://: no HTTPS is served there."), line);
});

Deno.test("a coordinator that went away is found again when it is back", async () => {
  const { coord, server, a, clientA } = await bench();
  const { port } = new URL(server.url);
  await clientA.postEndpoints(ENDPOINTS, NEVER);
  await server[Symbol.asyncDispose]();
  const error = await clientA.peers(undefined, NEVER).catch((error) => error);
  ok(error instanceof CoordError && isRetryable(error));
  await coord.clock.until(coord.clock.sleep(1000));
  const after = new FakeCoordinator({ store: coord.store, clock: coord.clock });
  const again = Deno.serve(
    { hostname: "127.0.0.1", port: Number(port), onListen: () => {} },
    (request) => after.handle(request),
  );
  const { peers } = await clientA.peers(undefined, NEVER);
  deepStrictEqual(peers.map(({ name }) => name), ["a", "b"]);
  strictEqual(peers[0]!.discoKey, a.discoKey);
  await again.shutdown();
});

Deno.test("a message for nobody is no error", async () => {
  const { server, clientA } = await bench();
  await using _server = server;
  await clientA.sendSignal(randomDiscoKey(), Uint8Array.of(1), NEVER);
});

const RETRY_AFTER: [
  what: string,
  status: number,
  header: string,
  expectedMs: number | undefined,
][] = [
  ["seconds", 429, "2", 2_000],
  ["seconds of a coordinator under repair", 503, "120", 120_000],
  ["0", 429, "0", 0],
  ["a date", 503, "Thu, 01 Jan 1970 00:00:30 GMT", 20_000],
  ["a date in the past", 503, "Thu, 01 Jan 1970 00:00:01 GMT", undefined],
  ["a year, cut", 429, "31536000", 600_000],
  ["no number", 429, "soon", undefined],
  ["a negative number", 429, "-5", undefined],
  ["another status", 500, "2", undefined],
];
for (const [what, status, header, expectedMs] of RETRY_AFTER) {
  Deno.test(`CoordError.retryAfterMs: ${what}`, async () => {
    await using server = serve(() =>
      new Response("no", { status, headers: { "retry-after": header } })
    );
    const node = await fakeNode("a");
    const clock = { ...systemClock, wallMs: () => 10_000 };
    const error = await clientOf(server.url, node, clock).takeSignals(NEVER).catch((e) => e);
    ok(error instanceof CoordError);
    strictEqual(error.retryAfterMs, expectedMs);
  });
}

Deno.test("what a proxy sends twice is signed anew, a few times", async () => {
  const coord = new FakeCoordinator();
  /** Of the next requests. */
  let twice = 0;
  await using server = serve(async (request) => {
    if (twice-- > 0) await coord.handle(request.clone());
    return await coord.handle(request);
  });
  const node = await fakeNode("a");
  using client = clientOf(server.url, node, coord.clock);
  await register(client, node);
  for (const times of [1, 3]) {
    twice = times;
    await client.postEndpoints(ENDPOINTS, NEVER);
  }
  twice = Infinity;
  const error = await client.postEndpoints(ENDPOINTS, NEVER).catch((error) => error);
  ok(error instanceof CoordError);
  deepStrictEqual([error.status, error.code], [401, "replay"]);
});

Deno.test("a node whose clock is off is served all the same, and knows by how much", async () => {
  for (const stepMs of [91_000, 86_400_000]) {
    const coord = new FakeCoordinator();
    await using server = serve((request) => coord.handle(request));
    const node = await fakeNode("a");
    const clock = {
      ...systemClock,
      wallMs: () => coord.clock.wallMs() - coord.clock.wallStepMs + stepMs,
    };
    using client = clientOf(server.url, node, clock);
    await register(client, node);
    ok(Math.abs(client.wallMs() - coord.clock.wallMs()) < 1000);
    await client.postEndpoints(ENDPOINTS, NEVER);
    coord.clock.wallStepMs = stepMs;
    await client.postEndpoints([], NEVER);
    ok(Math.abs(client.wallMs() - coord.clock.wallMs()) < 1000);
  }
});

Deno.test("a host that was cloned waits, with a hint; the coordinator knows of both", async () => {
  const { coord, server, clientA, a } = await bench();
  await using _server = server;
  using clone = clientOf(server.url, a, coord.clock);
  const polled = clientA.takeSignals(NEVER);
  await held(coord);
  const call = clone.takeSignals(NEVER).catch((error) => error);
  await polled;
  await coord.clock.until(coord.clock.sleep(1));
  await clientA.postEndpoints([], NEVER);
  const error = await call;
  ok(error instanceof CoordError);
  deepStrictEqual([error.status, error.code, error.retryAfterMs], [409, "clone", 30_000]);
  match(errorLine(error), /same node key .*delete its keys\.json/);
  await clientA.postEndpoints(ENDPOINTS, NEVER);
  deepStrictEqual(coord.server.clones().map(({ sources }) => sources), [[
    "127.0.0.1",
    "127.0.0.1",
  ]]);
});

/** The answer that never arrives. */
async function untilGivenUp(request: Request): Promise<Response> {
  await request.text();
  await new Promise((resolve) => request.signal.addEventListener("abort", resolve));
  return new Response();
}

const AGAIN: Record<string, (client: CoordClient) => Promise<unknown>> = {
  "the first list": (client) => client.peers(undefined, NEVER),
  "a message": (client) => client.sendSignal(randomDiscoKey(), Uint8Array.of(1), NEVER),
};
for (const [name, call] of Object.entries(AGAIN)) {
  Deno.test(`${name} is sent again after 4 s: its connection may be dead, and nobody say so`, async () => {
    const coord = new FakeCoordinator();
    let calls = 0;
    await using server = serve(async (request, { remoteAddr }) => {
      if (!request.url.endsWith("/register") && ++calls === 1) return await untilGivenUp(request);
      return await coord.handle(request, remoteAddr.hostname);
    });
    const node = await fakeNode("a");
    using client = clientOf(server.url, node, coord.clock);
    await register(client, node);
    const called = call(client);
    while (calls === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    await coord.clock.until(coord.clock.sleep(4_000));
    await called;
    strictEqual(calls, 2);
  });
}

Deno.test("a call that finds nobody listening ends those that are held on older connections", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { clock } = new FakeCoordinator();
  using client = clientOf(`http://127.0.0.1:${listener.addr.port}`, await fakeNode("a"), clock);
  const held = client.takeSignals(NEVER).catch((error) => error);
  using _connection = await listener.accept();
  listener.close();
  const errors = [await client.postEndpoints([], NEVER).catch((error) => error), await held];
  for (const error of errors) match(errorLine(error), /connection refused/);
});

Deno.test("reconnect() begins calls under way anew, on new connections", async () => {
  const coord = new FakeCoordinator();
  const sources: number[] = [];
  const firstArrived = Promise.withResolvers<void>();
  await using server = serve(async (request, { remoteAddr }) => {
    sources.push(remoteAddr.port);
    if (sources.length > 1) return await coord.handle(request, remoteAddr.hostname);
    firstArrived.resolve();
    return await untilGivenUp(request);
  });
  const node = await fakeNode("a");
  using client = clientOf(server.url, node, coord.clock);
  const registering = register(client, node);
  await firstArrived.promise;
  client.reconnect();
  strictEqual((await registering).tunnelIp.ip, "100.64.0.1");
  await client.postEndpoints(ENDPOINTS, NEVER);
  client.reconnect();
  await client.postEndpoints([], NEVER);
  strictEqual(sources.length, 5, "the first contact takes one call more");
  strictEqual(new Set(sources).size, 3, "the second to fourth call share a connection");
});

Deno.test("reconnect() does not revive a call that its caller gave up", async () => {
  await using server = serve(untilGivenUp);
  using client = clientOf(server.url, await fakeNode("a"));
  const controller = new AbortController();
  const taking = client.takeSignals(controller.signal);
  client.reconnect();
  controller.abort(new Error("enough"));
  await rejects(taking, /enough/);
});
