/** The JSON that a node reads: strict about what it is, lenient about one bad record. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { parseIp } from "../../../lib/addr.ts";
import {
  ApiError,
  envelopesJson,
  type NodeNat,
  parseEnvelopes,
  parsePeers,
  parseReach,
  parseRegisterResponse,
  peersJson,
  reachJson,
} from "../../../lib/coord/api.ts";
import { keyBase64, keyBytes, type NodeKey } from "../../../lib/keys.ts";
import { randomDiscoKey, randomNodeKey } from "../../fakes/coordinator.ts";

const DISCO_KEY = randomDiscoKey();
const SEALED = Uint8Array.of(0, 1, 2);
const ETAG = "00000000000000ab";

function peer(more: object = {}) {
  return {
    node_pubkey: keyBase64(randomNodeKey()),
    disco_pubkey: [...keyBytes(randomDiscoKey())],
    node_name: "a",
    tunnel_ip: "100.64.0.1",
    endpoints: null,
    updated_at: "2027-01-15T08:00:00.123456789Z",
    ...more,
  };
}

Deno.test("parsePeers() reads what peersJson() writes", () => {
  const record = {
    nodeKey: randomNodeKey(),
    discoKey: DISCO_KEY,
    name: "a",
    tunnelIp: parseIp("100.64.0.1"),
    endpoints: [],
    updatedMs: 1_800_000_000_000,
  };
  const gone = ["a".repeat(64), "b".repeat(64)] as NodeKey[];
  for (
    const more of [{}, { changes: { since: "0".repeat(16), gone } }, {
      changes: { since: ETAG, gone: [] },
    }]
  ) {
    const written = { etag: ETAG, peers: [record], ...more };
    deepStrictEqual(parsePeers(JSON.parse(JSON.stringify(peersJson(written)))), written);
  }
});

const NATS: [name: string, json: unknown, nat: NodeNat | undefined][] = [
  ["none", undefined, undefined],
  ["null", null, undefined],
  ["an easy one", { mapping: "easy" }, { mapping: "easy" }],
  ["an easy one with what it cannot have", { mapping: "easy", port_delta: 1 }, { mapping: "easy" }],
  ["a hard one", { mapping: "hard" }, { mapping: "hard" }],
  ["ports in order", { mapping: "hard", port_delta: -2 }, { mapping: "hard", portDelta: -2 }],
  ["a delta of nothing", { mapping: "hard", port_delta: 0 }, { mapping: "hard" }],
  ["too large a delta", { mapping: "hard", port_delta: 65_536 }, { mapping: "hard" }],
  ["a word of later", { mapping: "purple" }, undefined],
];
for (const [name, json, nat] of NATS) {
  Deno.test(`a node's NAT, ${name}, is read of a request and of the list`, () => {
    deepStrictEqual(parseReach({ endpoints: [], nat: json }).nat, nat);
    deepStrictEqual(parsePeers({ etag: ETAG, peers: [peer({ nat: json })] }).peers[0]!.nat, nat);
    if (nat) deepStrictEqual(parseReach(reachJson({ endpoints: [], nat })).nat, nat);
  });
}

Deno.test("parsePeers() reads the original's list, with null for no endpoints", () => {
  deepStrictEqual(parsePeers({ etag: ETAG, peers: [peer()] }).peers[0]!.endpoints, []);
  deepStrictEqual(parsePeers({ etag: ETAG, peers: null }).peers, []);
});

const BAD_PEERS: [name: string, bad: unknown][] = [
  ["null", null],
  ["text", "x"],
  ["no node key", peer({ node_pubkey: undefined })],
  ["a short disco key", peer({ disco_pubkey: [1] })],
  ["no address", peer({ tunnel_ip: "100.64.0.1/24" })],
  ["too many endpoints", peer({ endpoints: Array(33).fill({ addr: "192.0.2.1:1" }) })],
  ["a name of two lines", peer({ node_name: "a\nb" })],
];
for (const [name, bad] of BAD_PEERS) {
  Deno.test(`parsePeers() leaves out a peer with ${name}, and only that`, () => {
    const peers = [peer({ node_name: "first" }), bad, peer({ node_name: "last" })];
    deepStrictEqual(parsePeers({ etag: ETAG, peers }).peers.map((p) => p.name), ["first", "last"]);
  });
}

const SENDERS: [name: string, from: unknown, read: string | undefined][] = [
  ["an array", [...keyBytes(DISCO_KEY)], DISCO_KEY],
  ["base64", keyBase64(DISCO_KEY), DISCO_KEY],
  ["the original's zeros", Array(32).fill(0), undefined],
  ["null", null, undefined],
  ["nothing", undefined, undefined],
];
for (const [name, from, read] of SENDERS) {
  Deno.test(`parseEnvelopes() reads a sender that is ${name}`, () => {
    const [envelope] = parseEnvelopes({ envelopes: [{ from, sealed: "AAEC", enqueue: "x" }] });
    deepStrictEqual(envelope!.sealed, SEALED);
    strictEqual(envelope!.from, read);
  });
}

Deno.test("parseEnvelopes() reads none, leaves out bad ones, and reads ours", () => {
  deepStrictEqual(parseEnvelopes({ envelopes: null }), []);
  deepStrictEqual(parseEnvelopes({ envelopes: [{ from: [1], sealed: "AAEC" }] }), []);
  const ours = { from: DISCO_KEY, sealed: SEALED };
  const text = JSON.stringify(envelopesJson([{ ...ours, enqueued: "2027-01-15T08:00:00.000Z" }]));
  deepStrictEqual(parseEnvelopes(JSON.parse(text)), [ours]);
});

Deno.test("parseRegisterResponse() reads the original's answer, which has no STUN and no lease", () => {
  deepStrictEqual(parseRegisterResponse({ tunnel_ip: "100.64.0.1/24", peers_etag: ETAG }), {
    tunnelIp: { ip: parseIp("100.64.0.1"), prefixLength: 24 },
    peersEtag: ETAG,
    stun: [],
  });
});

const BAD_ANSWERS: unknown[] = [null, [], "x", {}, { tunnel_ip: "x", peers_etag: ETAG }, {
  tunnel_ip: "100.64.0.1/24",
}];
for (const answer of BAD_ANSWERS) {
  Deno.test(`parseRegisterResponse() refuses ${JSON.stringify(answer)}`, () => {
    throws(() => parseRegisterResponse(answer), ApiError);
  });
}
