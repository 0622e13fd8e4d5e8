/** Who is on the way between node and coordinator, and a coordinator that hands requests on. */
import { deepStrictEqual, match, rejects, strictEqual } from "node:assert/strict";
import { x25519 } from "@noble/curves/ed25519.js";
import { parseIp } from "../../../lib/addr.ts";
import { readStatement, signStatement } from "../../../lib/coord/api.ts";
import { readClaim, verifyClaim } from "../../../lib/coord/auth.ts";
import { isProof, proveDiscoKey } from "../../../lib/coord/disco_proof.ts";
import {
  askCoordinatorKey,
  CoordClient,
  CoordError,
  type CoordHttp,
} from "../../../lib/coord/client.ts";
import { systemRandom } from "../../../lib/edges.ts";
import { discoKeyFromBytes, keyBase64, type NodeKey } from "../../../lib/keys.ts";
import {
  FakeCoordinator,
  type FakeNode,
  fakeNode,
  registration,
  signingKey,
  unsigned,
} from "../../fakes/coordinator.ts";

const NEVER = new AbortController().signal;

type Pass = (request: Request) => Promise<Response>;

/** HTTP with somebody between who may do anything to requests and answers. */
function httpThrough(coord: FakeCoordinator, between: (request: Request, pass: Pass) => unknown) {
  const requests: Request[] = [];
  const pass: Pass = (request) => coord.handle(request);
  const http: CoordHttp = {
    async request(url, init) {
      const request = new Request(url, init as RequestInit);
      requests.push(request.clone());
      return await between(request, pass) as Response;
    },
    forgetConnections() {},
    [Symbol.dispose]() {},
  };
  return { http, requests };
}

interface Between {
  node?: FakeNode;
  between?: (request: Request, pass: Pass) => unknown;
  coordinatorKey?: NodeKey;
}

async function connect(coord: FakeCoordinator, options: Between = {}) {
  const { node = await fakeNode("a") } = options;
  const { between = (request, pass) => pass(request), coordinatorKey } = options;
  const { http, requests } = httpThrough(coord, between);
  const met: NodeKey[] = [];
  const client = new CoordClient({
    ...{
      url: "http://coordinator",
      identity: node,
      clock: coord.clock,
      random: systemRandom,
      http,
    },
    ...(coordinatorKey ? { coordinatorKey } : {}),
    onFirstContact: (key) => met.push(key),
  });
  return { node, client, requests, met };
}

const register = (client: CoordClient, node: FakeNode) =>
  client.register({ discoKey: node.discoKey, nodeName: node.name }, NEVER);

const otherKey = () => signingKey(systemRandom(32));

// --- answers

Deno.test("the first contact takes one call more and tells the key; a known key costs nothing", async () => {
  const coord = new FakeCoordinator();
  const first = await connect(coord);
  await register(first.client, first.node);
  await first.client.peers(undefined, NEVER);
  deepStrictEqual(first.met, [coord.key.publicKey]);
  strictEqual(first.client.coordinatorKey, coord.key.publicKey);
  strictEqual(first.requests.length, 3);
  const known = await connect(coord, { coordinatorKey: coord.key.publicKey });
  await register(known.client, known.node);
  deepStrictEqual([known.met, known.requests.length], [[], 1]);
});

Deno.test("a node that has asked for the coordinator's key registers at once, and is told of its peers", async () => {
  const coord = new FakeCoordinator();
  const other = await fakeNode("other");
  await coord.register(other);
  const { http, requests } = httpThrough(coord, (request, pass) => pass(request));
  const node = await fakeNode("a");
  const url = "http://coordinator";
  const world = { clock: coord.clock, random: systemRandom, http };
  const client = new CoordClient({
    ...{ url, identity: node, ...world, met: askCoordinatorKey(url, world) },
  });
  const joining = { discoKey: node.discoKey, nodeName: node.name };
  const { list } = await client.register({ ...joining, wantsList: true }, NEVER);
  deepStrictEqual(list!.peers.map(({ name }) => name), ["other", "a"]);
  strictEqual(list!.etag, coord.nodes.etag);
  deepStrictEqual(requests.map(({ url }) => new URL(url).pathname), ["/v1/stun", "/v1/register"]);
  strictEqual(client.coordinatorKey, coord.key.publicKey);
  strictEqual((await client.register(joining, NEVER)).list, undefined);
});

Deno.test("a newcomer is listed with the endpoints that it signed; later it tells them apart", async () => {
  const coord = new FakeCoordinator();
  const { client, node } = await connect(coord);
  let sequence = 0;
  const registerAt = async (ip: string) => {
    const endpoint = { ip: parseIp(ip), port: 7777 };
    const said = {
      sequence: ++sequence,
      discoKey: node.discoKey,
      endpoints: [{ endpoint, source: "stun" as const }],
    };
    const statement = () => signStatement(said, node.sign);
    await client.register({ discoKey: node.discoKey, nodeName: node.name, statement }, NEVER);
    const { endpoints, statement: listed } = coord.nodes.get(node.nodeKey)!;
    const read = await readStatement(listed!, node.nodeKey);
    deepStrictEqual(read.endpoints, endpoints);
    return endpoints.map(({ endpoint }) => endpoint.ip);
  };
  deepStrictEqual(await registerAt("192.0.2.1"), ["192.0.2.1"]);
  deepStrictEqual(await registerAt("192.0.2.2"), ["192.0.2.1"], "a run before told more by now");
});

Deno.test("a key that was not signed for the question is not the coordinator's", async () => {
  const coord = new FakeCoordinator();
  const changed = httpThrough(coord, async (request, pass) => {
    const response = await pass(request);
    return new Response(await response.text() + " ", response);
  });
  const repeated = httpThrough(coord, () => toAnother(coord));
  const silent = httpThrough(coord, () => Promise.reject(new Error("no connection")));
  for (const { http } of [changed, repeated, silent]) {
    const world = { clock: coord.clock, random: systemRandom, http };
    strictEqual(await askCoordinatorKey("http://coordinator", world), undefined);
  }
});

/** The answer to somebody else. */
async function toAnother(coord: FakeCoordinator): Promise<Response> {
  const headers = { "x-gretun-nonce": "somebodyelsesnonce" };
  return await coord.handle(new Request("http://coordinator/v1/stun", { headers }));
}

/** What somebody on the way makes of an answer. */
const CHANGES: Record<string, (response: Response, text: string) => Response> = {
  body: (response, text) => new Response(text.replace("100.64.0.1", "1.1.1.1"), response),
  status: (response, text) => new Response(text, { status: 500, headers: response.headers }),
  "retry time": (response, text) => withHeader(response, text, "retry-after", "600"),
  refusal: (response, text) => withHeader(response, text, "x-gretun-refusal", "expired"),
  clone: (response, text) => withHeader(response, text, "x-gretun-clone", "192.0.2.1"),
  time: (response, text) => withHeader(response, text, "x-gretun-time", "1"),
  signature: (response, text) => withHeader(response, text, "x-gretun-signature", ""),
  "not base64": (response, text) => withHeader(response, text, "x-gretun-signature", "?"),
  key: (response, text) => withHeader(response, text, "x-gretun-coordinator", "AAAA"),
  "all of it": () => new Response("<html>", { status: 404 }),
  nothing: () => new Response(""),
};

function withHeader(response: Response, text: string, name: string, value: string): Response {
  const headers = new Headers(response.headers);
  headers.set(name, value);
  return new Response(text, { status: response.status, headers });
}

for (const [what, change] of Object.entries(CHANGES)) {
  Deno.test(`an answer that is changed on the way is not the coordinator's: ${what}`, async () => {
    const coord = new FakeCoordinator();
    const { client, node } = await connect(coord, {
      coordinatorKey: coord.key.publicKey,
      between: async (request, pass) => {
        const response = await pass(request);
        return change(response, await response.text());
      },
    });
    await rejects(register(client, node), (error) => {
      strictEqual((error as CoordError).code, "not-signed");
      strictEqual((error as CoordError).status, undefined);
      strictEqual((error as CoordError).retryAfterMs, undefined);
      return true;
    });
    strictEqual(client.wallMs(), coord.clock.wallMs());
  });
}

Deno.test("proxies may change other headers, and the body's cut into pieces", async () => {
  const coord = new FakeCoordinator();
  const { client, node } = await connect(coord, {
    between: async (request, pass) => {
      const response = await pass(request);
      const bytes = new Uint8Array(await response.arrayBuffer());
      const body = new ReadableStream({
        start(controller) {
          for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
          controller.close();
        },
      });
      const headers = new Headers(response.headers);
      headers.set("date", "Thu, 01 Jan 1970 00:00:00 GMT");
      headers.set("via", "1.1 proxy");
      return new Response(body, { status: response.status, headers });
    },
  });
  strictEqual((await register(client, node)).tunnelIp.ip, "100.64.0.1");
  strictEqual(client.wallMs(), coord.clock.wallMs());
});

Deno.test("the coordinator's answer to another request, and of before, fits none of this node's", async () => {
  const coord = new FakeCoordinator();
  const mallory = await fakeNode("mallory");
  await coord.register(mallory);
  let answer: (request: Request, pass: Pass) => Promise<Response>;
  const { client, node } = await connect(coord, {
    between: (request, pass) => answer(request, pass),
  });
  answer = (request, pass) => pass(request);
  await register(client, node);
  const substitutes: ((request: Request) => Promise<Response>)[] = [
    // Another node's, with this one's nonce.
    (request) =>
      coord.call(mallory, "GET", "/v1/peers", { nonce: request.headers.get("x-gretun-nonce") }),
    // To another path, with this one's signature.
    (request) => coord.handle(new Request("http://c/v1/none", { headers: request.headers })),
    // To nobody in particular.
    (request) => {
      const nonce = request.headers.get("x-gretun-nonce")!;
      return coord.handle(
        new Request(request.url, { headers: { "x-gretun-nonce": nonce } }),
      );
    },
  ];
  for (const substitute of substitutes) {
    answer = (request) => substitute(request);
    await rejects(client.peers(undefined, NEVER), { code: "not-signed" });
  }
  let before: Response | undefined;
  answer = async (request, pass) => (before = await pass(request)).clone();
  await client.peers(undefined, NEVER);
  answer = () => Promise.resolve(before!);
  await rejects(client.peers(undefined, NEVER), { code: "not-signed" });
});

Deno.test("a coordinator with another key is named, with how to accept it", async () => {
  const coord = new FakeCoordinator({ key: otherKey() });
  const known = otherKey().publicKey;
  const { client, node } = await connect(coord, { coordinatorKey: known });
  await rejects(register(client, node), (error) => {
    const { code, message, hint } = error as CoordError;
    strictEqual(code, "other-key");
    match(message, new RegExp(`another key: ${RegExp.escape(keyBase64(coord.key.publicKey))}`));
    match(hint, /--coordinator-key/);
    return true;
  });
  strictEqual(coord.nodes.all().length, 0);
});

/** As coordinators of before answer: they sign nothing and know no keys. */
const withoutKey = async (request: Request, coord: FakeCoordinator) => {
  const body = await request.text();
  const headers = new Headers(request.headers);
  headers.delete("x-gretun-nonce");
  headers.delete("authorization");
  const { method, url } = request;
  const before = new Request(url, { method, headers, ...(body ? { body } : {}) });
  return await coord.handle(before);
};

Deno.test("a coordinator without a key is taken as long as none is known", async () => {
  const coord = new FakeCoordinator();
  const free = await connect(coord, { between: (request) => withoutKey(request, coord) });
  strictEqual((await register(free.client, free.node)).tunnelIp.ip, "100.64.0.1");
  strictEqual(free.client.coordinatorKey, undefined);
  const bound = await connect(coord, {
    between: (request) => withoutKey(request, coord),
    coordinatorKey: coord.key.publicKey,
  });
  await rejects(register(bound.client, bound.node), { code: "not-signed" });
});

Deno.test("an original coordinator is signed for as it checks it, which is worth nothing at one with a key", async () => {
  const keyed = new FakeCoordinator();
  const seen: Request[] = [];
  const { client, node } = await connect(keyed, {
    between: async (request) => {
      const body = new Uint8Array(await request.clone().arrayBuffer());
      const { pathname: path } = new URL(request.url);
      if (path === "/v1/register") {
        return Response.json({ tunnel_ip: "100.64.0.1/24", peers_etag: "1" });
      }
      seen.push(request.clone());
      const { method, headers } = request;
      headers.delete("x-gretun-nonce");
      const claim = readClaim(headers, keyed.clock.wallMs());
      const isRight = await verifyClaim(claim, { method, path, headers, body });
      return Response.json({ ok: true }, { status: isRight ? 200 : 401 });
    },
  });
  await register(client, node);
  await client.postEndpoints([], NEVER);
  await keyed.register(node);
  strictEqual((await keyed.handle(seen[0]!)).status, 421);
});

// --- requests

const CALLS: [method: string, path: string, body?: object][] = [
  ["POST", "/v1/endpoints", { endpoints: [] }],
  ["DELETE", "/v1/register"],
  ["GET", "/v1/peers"],
  ["GET", "/v1/signal"],
  ["POST", "/v1/relays", { latencies: {} }],
];

Deno.test("requests to one coordinator are worth nothing at another", async () => {
  const coord = new FakeCoordinator();
  const other = otherKey().publicKey;
  const node = await fakeNode("a");
  const joining = await coord.call(node, "POST", "/v1/register", {
    body: registration(node),
    coordinator: other,
  });
  strictEqual(joining.status, 421);
  strictEqual(coord.nodes.all().length, 0);
  await coord.register(node);
  for (const [method, path, body] of CALLS) {
    for (const coordinator of [other, null]) {
      // Those that name none are signed so by nodes that could.
      const nonce = "gretun2/AAAAAAAAAAAAAAAA";
      const response = await coord.call(node, method, path, { body, coordinator, nonce });
      deepStrictEqual([path, response.status], [path, 421]);
    }
  }
  strictEqual(coord.nodes.listed().length, 1);
});

Deno.test("a request that was signed for another coordinator cannot be renamed to this one", async () => {
  const coord = new FakeCoordinator();
  const node = await fakeNode("a");
  await coord.register(node);
  const headers = { "x-gretun-coordinator": keyBase64(coord.key.publicKey) };
  const coordinator = otherKey().publicKey;
  const response = await coord.call(node, "DELETE", "/v1/register", { coordinator, headers });
  deepStrictEqual([response.status, await response.text()], [401, "bad signature\n"]);
  const bare = await coord.request(node, "DELETE", "/v1/register", { coordinator });
  bare.headers.delete("x-gretun-coordinator");
  strictEqual((await coord.handle(bare)).status, 421, "its nonce tells that it was there");
});

Deno.test("the query is signed", async () => {
  const coord = new FakeCoordinator();
  const node = await fakeNode("a");
  await coord.register(node);
  const request = await coord.request(node, "GET", "/v1/peers?since=1");
  const changed = new Request(request.url.replace("since=1", "since=2"), request);
  strictEqual((await coord.handle(changed)).status, 401);
});

// --- nodes of before

Deno.test("nodes of before come in where anybody may, or the operator says so", async () => {
  for (
    const [isClosed, allowsV1, status] of [[false, false, 200], [true, false, 403], [
      true,
      true,
      200,
    ]] as const
  ) {
    const coord = new FakeCoordinator({ allowsV1 });
    const [older, original] = [await fakeNode("older"), await fakeNode("original")];
    const asBefore = { coordinator: null } as const;
    const body = registration(older);
    await coord.call(older, "POST", "/v1/register", { body, ...asBefore });
    await coord.handle(unsigned("POST", "/v1/register", registration(original)));
    if (isClosed) {
      coord.server.saveToken(coord.server.tokens.make("hash", { tags: [] }, 0));
    }
    const calls = [
      await coord.call(older, "POST", "/v1/register", { body, ...asBefore }),
      await coord.call(older, "POST", "/v1/endpoints", { body: { endpoints: [] }, ...asBefore }),
      await coord.handle(unsigned("POST", "/v1/register", registration(original))),
      await coord.call(original, "GET", "/v1/peers", { nonce: null }),
    ];
    deepStrictEqual(calls.map((call) => call.status), calls.map(() => status));
    if (status === 403) strictEqual(calls[0]!.headers.get("x-gretun-refusal"), "v1");
  }
});

// --- disco keys

/** A node with a disco key whose private half is known. */
async function discoNode(name: string) {
  const discoPrivate = systemRandom(32);
  const discoKey = discoKeyFromBytes(x25519.getPublicKey(discoPrivate));
  return { ...await fakeNode(name), discoPrivate, discoKey };
}

Deno.test("who has another's disco key first does not keep its owner out", async () => {
  const coord = new FakeCoordinator();
  const owner = await discoNode("owner");
  const squatter = { ...await fakeNode("squatter"), discoKey: owner.discoKey };
  strictEqual((await coord.register(squatter)).status, 200);
  const { client } = await connect(coord, { node: owner });
  const { discoKey, discoPrivate } = owner;
  await client.register({ discoKey, discoPrivate, nodeName: "owner" }, NEVER);
  deepStrictEqual(coord.nodes.listed().map(({ name }) => name), ["owner"]);
  deepStrictEqual(coord.store.nodes().map(({ name }) => name), ["owner"]);
  strictEqual((await coord.register(squatter)).status, 409);
  await client.register({ discoKey, discoPrivate, nodeName: "renamed" }, NEVER);
  strictEqual((await coord.register(squatter)).status, 409, "it is proven for good");
});

Deno.test("a proof is of one node, one disco key and one coordinator", async () => {
  const { publicKey, agree } = otherKey();
  const [a, b] = [await discoNode("a"), await discoNode("b")];
  const proof = await proveDiscoKey(a.discoPrivate, a, publicKey);
  strictEqual(await isProof(proof, a, agree), true);
  strictEqual(await isProof(proof, { ...a, nodeKey: b.nodeKey }, agree), false);
  strictEqual(await isProof(proof, { ...a, discoKey: b.discoKey }, agree), false);
  strictEqual(await isProof(proof, a, otherKey().agree), false);
  const smallOrder = discoKeyFromBytes(Uint8Array.of(1, ...new Uint8Array(31)));
  const everybodys = { ...a, discoKey: smallOrder };
  const forged = await crypto.subtle.sign(
    "HMAC",
    await crypto.subtle.importKey(
      "raw",
      new Uint8Array(32),
      { name: "HMAC", hash: "SHA-256" },
      false,
      ["sign"],
    ),
    new TextEncoder().encode(
      ["gretun disco key", keyBase64(a.nodeKey), keyBase64(smallOrder)].join("\n"),
    ),
  );
  strictEqual(await isProof(new Uint8Array(forged), everybodys, agree), false);
});
