/** Requests that are almost those of a node: other headers, paths, attributes and names. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { FakeCoordinator, type FakeNode, fakeNode } from "../../fakes/coordinator.ts";

const ENDPOINTS = { endpoints: [{ addr: "198.51.100.1:7777", source: "stun" }] };

/** The same request at another path, with other headers or another method. */
async function almost(
  request: Request,
  change: { path?: string; method?: string; headers?: (headers: Headers) => void },
): Promise<Request> {
  const headers = new Headers(request.headers);
  change.headers?.(headers);
  const method = change.method ?? request.method;
  const body = await request.text();
  const url = new URL(change.path ?? request.url, request.url).href;
  return new Request(url, { method, headers, ...(body && method !== "HEAD" ? { body } : {}) });
}

const REFUSED: Record<string, Parameters<typeof almost>[1]> = {
  "an encoded path": { path: "/v1/%65ndpoints" },
  "an encoded slash": { path: "/v1%2fendpoints" },
  "a slash more": { path: "//coordinator//v1/endpoints" },
  "a slash at the end": { path: "/v1/endpoints/" },
  "another case": { path: "/V1/endpoints" },
  "a query that was not signed": { path: "/v1/endpoints?since=1" },
  "another call's path": { path: "/v1/signal" },
  "another method": { method: "PUT" },
  "two nodes": { headers: (headers) => headers.append("x-gretun-node", "AAAA") },
  "two signatures": {
    headers: (headers) => headers.append("authorization", headers.get("authorization")!),
  },
  "two timestamps": { headers: (headers) => headers.append("x-gretun-timestamp", "1") },
  "two nonces": { headers: (headers) => headers.append("x-gretun-nonce", "A".repeat(24)) },
  "two coordinators": {
    headers: (headers) =>
      headers.append("x-gretun-coordinator", headers.get("x-gretun-coordinator")!),
  },
  "no coordinator": { headers: (headers) => headers.delete("x-gretun-coordinator") },
  "another scheme's case": {
    headers: (headers) =>
      headers.set("authorization", headers.get("authorization")!.replace("Gretun", "gretun")),
  },
};

for (const [name, change] of Object.entries(REFUSED)) {
  Deno.test(`a signed request with ${name} changes nothing`, async () => {
    const coord = new FakeCoordinator();
    const node = await fakeNode("a");
    await coord.register(node);
    const before = coord.dump([node]);
    const request = await coord.request(node, "POST", "/v1/endpoints", { body: ENDPOINTS });
    const response = await coord.handle(await almost(request, change));
    ok(response.status >= 400 && response.status < 500, `${response.status}`);
    strictEqual(coord.dump([node]), before);
  });
}

Deno.test("a signature that is written in another way is the same one", async () => {
  const coord = new FakeCoordinator();
  const node = await fakeNode("a");
  await coord.register(node);
  const request = await coord.request(node, "POST", "/v1/endpoints", { body: ENDPOINTS });
  const again = await almost(request.clone(), {
    // The last character of 64 bytes has four bits that mean nothing.
    headers: (headers) =>
      headers.set(
        "authorization",
        headers.get("authorization")!.replace(/(.)==$/, (_, last) => {
          const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
          return `${digits[digits.indexOf(last) + 1]}==`;
        }),
      ),
  });
  strictEqual((await coord.handle(request)).status, 200);
  ok((await coord.handle(again)).status >= 400);
});

Deno.test("a node gives itself no tags, name, membership or age", async () => {
  const coord = new FakeCoordinator();
  const node = await fakeNode("a");
  const wishes = {
    ...{ tags: ["admin"], given_name: "nas", listed: true, is_settled: true, settled: true },
    ...{ expires_ms: 9e15, waiting: false, is_v1: false, proven: true, is_proven: true },
    ...{ joined_ms: 0, lease_ends_ms: 9e15, source: "192.0.2.1", token_id: "x", sees: "*" },
  };
  await coord.register(node, wishes);
  await coord.call(node, "POST", "/v1/endpoints", { body: { ...ENDPOINTS, ...wishes } });
  const plain = await fakeNode("a");
  await coord.register(plain);
  await coord.call(plain, "POST", "/v1/endpoints", { body: ENDPOINTS });
  const fields = ({ nodeKey }: FakeNode) => {
    const { nodeKey: _, discoKey: __, tunnelIp: ___, ...rest } = coord.nodes.get(nodeKey)!;
    return rest;
  };
  deepStrictEqual(fields(node), fields(plain));
});

const NAMES = {
  "a line end": "nas\nnode=b",
  "an escape": "nas\x1b[31m",
  "another direction": "nas\u202egnp",
  "no width": "n\u200bas",
  "half a character": "nas\ud800",
  "a byte order mark": "\ufeffnas",
  "NUL": "nas\0",
  "a thousand letters": "n".repeat(1_000),
};
for (const [name, nodeName] of Object.entries(NAMES)) {
  Deno.test(`a name with ${name} is refused`, async () => {
    const coord = new FakeCoordinator();
    const node = await fakeNode("a");
    const response = await coord.register(node, { node_name: nodeName });
    strictEqual(response.status, 400, await response.text());
    strictEqual(coord.nodes.get(node.nodeKey), undefined);
  });
}

Deno.test("an address that another has, or that is no node's, is not given for the asking", async () => {
  const coord = new FakeCoordinator();
  const [first, second] = [await fakeNode("a"), await fakeNode("b")];
  await coord.register(first);
  const taken = coord.nodes.get(first.nodeKey)!.tunnelIp;
  const wishes = [taken, "100.64.0.0", "100.64.0.255", "100.65.0.9", "1.1.1.1", "127.0.0.1"];
  for (const wish of wishes) {
    await coord.register(second, { requested_tunnel_ip: wish });
    const { tunnelIp } = coord.nodes.get(second.nodeKey)!;
    ok(tunnelIp !== wish && tunnelIp.startsWith("100.64.0."), wish);
    strictEqual(coord.nodes.get(first.nodeKey)!.tunnelIp, taken);
  }
  // Not after its owner has gone, either.
  await coord.call(first, "DELETE", "/v1/register");
  const third = await fakeNode("c");
  await coord.register(third, { requested_tunnel_ip: taken });
  ok(coord.nodes.get(third.nodeKey)!.tunnelIp !== taken);
});
