/** Grants, nonces and the messages between node and relay. */
import { deepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { publicKeyOf, signer } from "../../../lib/ed25519.ts";
import { systemRandom } from "../../../lib/edges.ts";
import { type NodeKey, nodeKeyFromBytes } from "../../../lib/keys.ts";
import {
  decodeGrant,
  encodeGrant,
  GRANT_LENGTH,
  GrantFormatError,
  nodePair,
  verifyGrant,
} from "../../../lib/relay/grants.ts";
import {
  decodeRelayMessage,
  encodeError,
  encodeHello,
  encodeRequest,
  encodeSuccess,
  HELLO_LENGTH,
  isRelayMessage,
  NONCE_LENGTH,
  RELAY_ATTRIBUTE,
  RELAY_ERROR,
  RELAY_ERROR_CODE,
  RELAY_REQUEST,
  RELAY_SUCCESS,
  verifyRequest,
} from "../../../lib/relay/messages.ts";
import { NONCE_LIFETIME_MS, Nonces } from "../../../lib/relay/nonces.ts";
import { ATTRIBUTE, decodeStun, encodeStun, StunFormatError } from "../../../lib/stun/mod.ts";

const seed = (fill: number) => new Uint8Array(32).fill(fill);
const [COORD, RELAY, A, B] = await Promise.all([1, 2, 3, 4].map(async (fill) => ({
  key: nodeKeyFromBytes(publicKeyOf(seed(fill))),
  sign: await signer(seed(fill)),
}))) as [Party, Party, Party, Party];

interface Party {
  key: NodeKey;
  sign: Awaited<ReturnType<typeof signer>>;
}

const TX_ID = fromHex("00 01 02 03 04 05 06 07 08 09 0a 0b");
const NODES = nodePair(A.key, B.key);
const grantOf = () =>
  encodeGrant({ relay: RELAY.key, nodes: NODES, endsSeconds: 1_800_000_000 }, COORD.sign);

async function request(more: Partial<Parameters<typeof encodeRequest>[0]> = {}) {
  const nonce = new Uint8Array(NONCE_LENGTH).fill(5);
  const timestampMs = 1_790_000_000_123;
  const grant = await grantOf();
  const message = { txId: TX_ID, nonce, grant, node: A.key, timestampMs, port: 50_000, ...more };
  return await encodeRequest(message, A.sign);
}

Deno.test("encodeGrant() writes the layout", async () => {
  const grant = await grantOf();
  strictEqual(grant.length, GRANT_LENGTH);
  strictEqual(
    toHex(grant.subarray(0, 104)),
    "01000000" + "6b49d200" + RELAY.key + NODES[0] + NODES[1],
  );
  deepStrictEqual(decodeGrant(grant), {
    relay: RELAY.key,
    nodes: NODES,
    endsSeconds: 1_800_000_000,
  });
  ok(await verifyGrant(grant, COORD.key));
  strictEqual(await verifyGrant(grant, RELAY.key), false, "of another coordinator");
});

Deno.test("a grant with any bit changed is not genuine, or none", async () => {
  const grant = await grantOf();
  for (let bit = 0; bit < grant.length * 8; bit += 5) {
    const forged = grant.slice();
    forged[bit >> 3]! ^= 1 << (bit & 7);
    strictEqual(await verifyGrant(forged, COORD.key), false, `bit ${bit}`);
  }
});

Deno.test("decodeGrant() refuses what is no grant", async () => {
  const grant = await grantOf();
  const changed = (offset: number, bytes: Uint8Array) => {
    const copy = grant.slice();
    copy.set(bytes, offset);
    return copy;
  };
  const swapped = changed(40, grant.slice(72, 104));
  const cases: [string, Uint8Array][] = [
    ["empty", new Uint8Array()],
    ["short", grant.subarray(1)],
    ["long", new Uint8Array(GRANT_LENGTH + 1)],
    ["another version", changed(0, Uint8Array.of(2))],
    ["one node twice", swapped],
    ["nodes out of order", changed(72, new Uint8Array(32))],
  ];
  for (const [name, bytes] of cases) throws(() => decodeGrant(bytes), GrantFormatError, name);
  throws(() => nodePair(A.key, A.key), RangeError);
  deepStrictEqual(nodePair(A.key, B.key), nodePair(B.key, A.key));
});

Deno.test("the method's three types are STUN's form of one method (RFC 8489 section 5)", () => {
  strictEqual(RELAY_REQUEST & 0xc110, 0);
  strictEqual(RELAY_SUCCESS, RELAY_REQUEST | 0x0100);
  strictEqual(RELAY_ERROR, RELAY_REQUEST | 0x0110);
});

Deno.test("hello: padded, so that its answer is no longer", () => {
  const hello = encodeHello(TX_ID);
  deepStrictEqual(decodeRelayMessage(hello), {
    kind: "hello",
    txId: TX_ID,
    lengthBytes: HELLO_LENGTH,
  });
  const nonce = new Uint8Array(NONCE_LENGTH).fill(7);
  const answer = encodeError({ txId: TX_ID, code: RELAY_ERROR_CODE.UNAUTHENTICATED, nonce });
  strictEqual(answer.length, hello.length);
  deepStrictEqual(decodeRelayMessage(answer), { kind: "error", txId: TX_ID, code: 401, nonce });
});

Deno.test("request: what is written is read, and the node's signature is over it", async () => {
  const bytes = await request();
  strictEqual(bytes.length, 356);
  const message = decodeRelayMessage(bytes);
  ok(message.kind === "request");
  const { signature: _, signed: __, ...rest } = message;
  deepStrictEqual(rest, {
    kind: "request",
    txId: TX_ID,
    nonce: new Uint8Array(NONCE_LENGTH).fill(5),
    grant: await grantOf(),
    node: A.key,
    timestampMs: 1_790_000_000_123,
    port: 50_000,
  });
  ok(await verifyRequest(message));
  strictEqual(await verifyRequest({ ...message, node: B.key }), false);
});

Deno.test("answers: what is written is read, unknown attributes are passed over", () => {
  const success = encodeSuccess({ txId: TX_ID, port: 65_535, lifetimeSeconds: 120 });
  const read = { kind: "success", txId: TX_ID, port: 65_535, lifetimeSeconds: 120 };
  deepStrictEqual(decodeRelayMessage(success), read);
  const { type, attributes } = decodeStun(success);
  const more = [{ type: 0x7fff, value: Uint8Array.of(1, 2, 3) }, ...attributes];
  deepStrictEqual(decodeRelayMessage(encodeStun({ type, txId: TX_ID, attributes: more })), read);
  for (const code of Object.values(RELAY_ERROR_CODE)) {
    const bytes = encodeError({ txId: TX_ID, code });
    deepStrictEqual(decodeRelayMessage(bytes), { kind: "error", txId: TX_ID, code });
    ok(bytes.length < HELLO_LENGTH);
  }
});

Deno.test("a message cut short anywhere is refused with StunFormatError", async () => {
  const messages = [
    encodeHello(TX_ID),
    await request(),
    encodeSuccess({ txId: TX_ID, port: 1, lifetimeSeconds: 1 }),
    encodeError({ txId: TX_ID, code: 437 }),
  ];
  for (const message of messages) {
    for (let length = 0; length < message.length; length++) {
      throws(() => decodeRelayMessage(message.subarray(0, length)), StunFormatError, `${length}`);
    }
  }
});

Deno.test("a request with any byte changed is refused or not signed by the node", async () => {
  const bytes = await request();
  let decodable = 0;
  for (let i = 0; i < bytes.length; i++) {
    const forged = bytes.slice();
    forged[i]! ^= 0xff;
    let message;
    try {
      message = decodeRelayMessage(forged);
    } catch (error) {
      ok(error instanceof StunFormatError, String(error));
      continue;
    }
    decodable++;
    ok(message.kind !== "request" || !await verifyRequest(message), `byte ${i}`);
  }
  ok(decodable > 300, "most changes leave a message");
});

Deno.test("requests of another layout are refused", async () => {
  const bytes = await request();
  const { attributes } = decodeStun(bytes);
  const encode = (list: typeof attributes) =>
    encodeStun({ type: RELAY_REQUEST, txId: TX_ID, attributes: list });
  const hello = { type: RELAY_ATTRIBUTE.PADDING, value: new Uint8Array(400), offset: 0 };
  const cases: [string, Uint8Array][] = [
    ["nothing", encode([])],
    ["without the grant", encode(attributes.filter(({ type }) => type !== RELAY_ATTRIBUTE.GRANT))],
    ["in another order", encode(attributes.toReversed())],
    ["an attribute twice", encode([attributes[0]!, ...attributes])],
    ["more after the signature", encode([...attributes, hello])],
    ["bytes after the end", new Uint8Array([...bytes, 0, 0, 0, 0])],
    [
      "a short nonce",
      encode(
        attributes.map((a) =>
          a.type === ATTRIBUTE.NONCE ? { ...a, value: a.value.subarray(1) } : a
        ),
      ),
    ],
  ];
  for (const [name, message] of cases) {
    throws(() => decodeRelayMessage(message), StunFormatError, name);
  }
});

Deno.test("isRelayMessage() is true for its three types, and not for binding or data", async () => {
  const txId = TX_ID;
  const own = [encodeHello(txId), await request(), encodeError({ txId, code: 400 })];
  for (const bytes of own) ok(isRelayMessage(bytes));
  const gre = new Uint8Array(100);
  gre[0] = 0x20;
  const others = [gre, new Uint8Array(3), encodeStun({ type: 1, txId, attributes: [] })];
  for (const bytes of others) strictEqual(isRelayMessage(bytes), false);
  throws(() => decodeRelayMessage(others[2]!), StunFormatError);
});

Deno.test("a nonce is good for its source, for its lifetime, in one run", async () => {
  const nonces = new Nonces(systemRandom);
  const nonce = await nonces.make("192.0.2.1:7777", 30_000);
  strictEqual(nonce.length, NONCE_LENGTH);
  const cases: [name: string, source: string, nowMs: number, isValid: boolean][] = [
    ["at once", "192.0.2.1:7777", 30_000, true],
    ["at its end", "192.0.2.1:7777", 30_000 + NONCE_LIFETIME_MS - 1, true],
    ["after it", "192.0.2.1:7777", 30_000 + NONCE_LIFETIME_MS, false],
    ["before it was made", "192.0.2.1:7777", 29_999, false],
    ["from another port", "192.0.2.1:7778", 30_000, false],
    ["from another address", "192.0.2.2:7777", 30_000, false],
  ];
  for (const [name, source, nowMs, isValid] of cases) {
    const madeMs = await nonces.madeMs(nonce, source, nowMs);
    strictEqual(madeMs, isValid ? 30_000 : undefined, name);
  }
  strictEqual(await new Nonces(systemRandom).madeMs(nonce, "192.0.2.1:7777", 30_000), undefined);
  for (let i = 0; i < nonce.length; i++) {
    const forged = nonce.slice();
    forged[i]! ^= 1;
    strictEqual(await nonces.madeMs(forged, "192.0.2.1:7777", 30_000), undefined, `byte ${i}`);
  }
});

Deno.test("encodeRequest() passes on what the signing function throws", async () => {
  const sign = () => Promise.reject(new Error("no key"));
  const message = {
    txId: TX_ID,
    nonce: new Uint8Array(NONCE_LENGTH),
    grant: await grantOf(),
    node: nodeKeyFromBytes(new Uint8Array(32)),
    timestampMs: 0,
    port: 0,
  };
  await rejects(encodeRequest(message, sign), /no key/);
});
