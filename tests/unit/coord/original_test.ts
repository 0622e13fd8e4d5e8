/**
 * The original's node against our coordinator: it registers unsigned, signs without a nonce in
 * whole seconds, writes disco keys as arrays of 32 numbers, and reads what Go's JSON would.
 */
import { deepStrictEqual, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { LEASE_MS } from "../../../lib/coord/nodes.ts";
import { HOLD_MS } from "../../../lib/coord/hold.ts";
import { FakeCoordinator } from "../../fakes/coordinator.ts";

const text = new TextEncoder();
const base64 = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes));

/** Written from the protocol's description alone: nothing of ours signs or encodes here. */
class OriginalNode {
  readonly disco = [...crypto.getRandomValues(new Uint8Array(32))];
  readonly #coord: FakeCoordinator;
  readonly #key: CryptoKey;
  readonly nodePubkey: string;
  readonly name: string;

  private constructor(coord: FakeCoordinator, name: string, key: CryptoKey, pub: Uint8Array) {
    this.#coord = coord;
    this.#key = key;
    this.nodePubkey = base64(pub);
    this.name = name;
  }

  static async make(coord: FakeCoordinator, name: string): Promise<OriginalNode> {
    const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
    const { publicKey, privateKey } = pair as CryptoKeyPair;
    const pub = new Uint8Array(await crypto.subtle.exportKey("raw", publicKey));
    return new OriginalNode(coord, name, privateKey, pub);
  }

  register(): Promise<Response> {
    const body = JSON.stringify({
      node_pubkey: this.nodePubkey,
      disco_pubkey: this.disco,
      node_name: this.name,
    });
    return this.#coord.handle(
      new Request("http://c/v1/register", { method: "POST", body }),
    );
  }

  async call(method: string, pathAndQuery: string, value?: unknown): Promise<Response> {
    const body = value === undefined ? "" : JSON.stringify(value);
    const timestamp = String(Math.floor(this.#coord.clock.wallMs() / 1000));
    const path = pathAndQuery.split("?")[0];
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", text.encode(body)));
    const head = text.encode(`${timestamp}\n${method}\n${path}\n`);
    const message = new Uint8Array([...head, ...digest]);
    const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", this.#key, message));
    return this.#coord.handle(
      new Request(`http://c${pathAndQuery}`, {
        method,
        headers: {
          "X-Gretun-Timestamp": timestamp,
          "X-Gretun-Node": this.nodePubkey,
          "Authorization": `Gretun ${base64(signature)}`,
          "Content-Type": "application/json",
        },
        ...(body === "" ? {} : { body }),
      }),
    );
  }
}

async function json(response: Response) {
  const body = await response.text();
  strictEqual(response.status, 200, body);
  return JSON.parse(body);
}

async function bench() {
  const coord = new FakeCoordinator();
  const [a, b] = [await OriginalNode.make(coord, "a"), await OriginalNode.make(coord, "b")];
  return { coord, a, b };
}

Deno.test("an original node gets in, tells endpoints, and reads the list", async () => {
  const { coord, a, b } = await bench();
  const answer = await json(await a.register());
  strictEqual(answer.tunnel_ip, "100.64.0.1/24");
  ok(/^[0-9a-f]{16}$/.test(answer.peers_etag));
  await json(await b.register());

  const endpoints = [
    { addr: "192.168.1.7:7777", source: "local" },
    { addr: "198.51.100.1:7777", source: "stun" },
  ];
  deepStrictEqual(await json(await a.call("POST", "/v1/endpoints", { endpoints })), { ok: true });
  deepStrictEqual(await json(await b.call("POST", "/v1/endpoints", { endpoints: null })), {
    ok: true,
  });

  const list = await json(await a.call("GET", "/v1/peers?since="));
  const updated_at = new Date(coord.clock.wallMs()).toISOString();
  deepStrictEqual(list.peers, [
    {
      node_pubkey: a.nodePubkey,
      disco_pubkey: a.disco,
      node_name: "a",
      tunnel_ip: "100.64.0.1",
      endpoints,
      updated_at,
      last_seen: updated_at,
      v1: true,
    },
    {
      node_pubkey: b.nodePubkey,
      disco_pubkey: b.disco,
      node_name: "b",
      tunnel_ip: "100.64.0.2",
      endpoints: [],
      updated_at,
      last_seen: updated_at,
      v1: true,
    },
  ]);
});

Deno.test("an original node's long poll is held for 25 s and answered in full", async () => {
  const { coord, a } = await bench();
  const { peers_etag } = await json(await a.register());
  const { etag } = await json(await a.call("GET", "/v1/peers?since="));
  strictEqual(etag, peers_etag);
  const again = await json(await coord.answer(a.call("GET", `/v1/peers?since=${etag}`)));
  deepStrictEqual([again.etag, again.peers.length, coord.clock.nowMs()], [etag, 1, HOLD_MS]);
});

Deno.test("an original node may look at the list twice in one second", async () => {
  const { a } = await bench();
  await json(await a.register());
  const first = await json(await a.call("GET", "/v1/peers?since="));
  deepStrictEqual(await json(await a.call("GET", "/v1/peers?since=")), first);
});

Deno.test("an original node's poll is answered by a change", async () => {
  const { coord, a, b } = await bench();
  await json(await a.register());
  const { etag } = await json(await a.call("GET", "/v1/peers?since="));
  const held = a.call("GET", `/v1/peers?since=${etag}`);
  ok(await coord.isHeld(held));
  await json(await b.register());
  const list = await json(await held);
  notStrictEqual(list.etag, etag);
  strictEqual(list.peers.length, 2);
});

Deno.test("original nodes signal each other", async () => {
  const { a, b } = await bench();
  await json(await a.register());
  await json(await b.register());
  const sealed = base64(new Uint8Array(100).fill(7));
  deepStrictEqual(await json(await a.call("POST", "/v1/signal", { to: b.disco, sealed })), {
    queued: true,
  });
  const { envelopes } = await json(await b.call("GET", "/v1/signal"));
  deepStrictEqual(
    envelopes.map((e: { sealed: string; from: number[] }) => [e.sealed, e.from.length]),
    [[sealed, 32]],
  );
  ok(!Number.isNaN(Date.parse(envelopes[0].enqueue)));
});

Deno.test("an original node's request cannot be taken a second time by who saw it", async () => {
  const { coord, a } = await bench();
  await json(await a.register());
  const endpoints = [{ addr: "192.168.1.7:7777", source: "local" }];
  await json(await a.call("POST", "/v1/endpoints", { endpoints }));
  const again = await a.call("POST", "/v1/endpoints", { endpoints });
  strictEqual(again.status, 401);
  await again.body?.cancel();
  await coord.clock.until(coord.clock.sleep(1000));
  await json(await a.call("POST", "/v1/endpoints", { endpoints }));
});

Deno.test("an original node that starts again after a while is itself again", async () => {
  const { coord, a, b } = await bench();
  const { tunnel_ip } = await json(await a.register());
  const stop = new AbortController();
  const running = coord.server.run(stop.signal);
  await coord.clock.until(coord.clock.sleep(2 * LEASE_MS));
  await json(await b.register());
  strictEqual((await json(await a.register())).tunnel_ip, tunnel_ip);
  const { peers } = await json(await a.call("GET", "/v1/peers?since="));
  deepStrictEqual(peers.map((p: { node_name: string }) => p.node_name), ["a", "b"]);
  stop.abort();
  await running;
});
