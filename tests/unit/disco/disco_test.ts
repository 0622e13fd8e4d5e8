import { deepStrictEqual, notStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { hsalsa, salsa20, xsalsa20poly1305 } from "@noble/ciphers/salsa.js";
import { poly1305 } from "@noble/ciphers/_poly1305.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { parseEndpoint } from "../../../lib/addr.ts";
import { concatBytes, fromHex, toHex } from "../../../lib/bytes.ts";
import type { Random } from "../../../lib/edges.ts";
import { type DiscoKey, discoKeyFromBytes } from "../../../lib/keys.ts";
import { MAGIC } from "../../../lib/disco/envelope.ts";
import { TX_ID_LENGTH } from "../../../lib/disco/messages.ts";
import {
  boxKey,
  decodeMessage,
  DiscoFormatError,
  type DiscoMessage,
  encodeMessage,
  isDisco,
  open,
  readEnvelope,
  seal,
} from "../../../lib/disco/mod.ts";
import { isStun } from "../../../lib/stun/mod.ts";
import vectors from "../../vectors/disco.json" with { type: "json" };

// deno-lint-ignore no-explicit-any
type Json = any;
const key = (hex: string) => hex as DiscoKey;
const fixedRandom = (hex: string): Random => () => fromHex(hex);
const { envelope_overhead: OVERHEAD } = vectors.packet_sizes;

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

// --- primitives, one layer at a time

Deno.test("X25519 gives the public keys and the shared secret of RFC 7748", () => {
  for (const vector of vectors.primitives.x25519 as Json[]) {
    const secret = fromHex(vector.private);
    if (vector.public) strictEqual(toHex(x25519.getPublicKey(secret)), vector.public);
    if (vector.shared) {
      const shared = x25519.getSharedSecret(secret, fromHex(vector.peer_public));
      strictEqual(toHex(shared), vector.shared);
    }
  }
});

Deno.test("boxKey() gives the published first key of NaCl", () => {
  const { private: own, peer_public: peer } = vectors.primitives.x25519[2] as Json;
  strictEqual(toHex(boxKey(fromHex(own), key(peer))), vectors.primitives.hsalsa20[0]!.out);
});

Deno.test("HSalsa20 gives the published keys", () => {
  for (const vector of vectors.primitives.hsalsa20) {
    strictEqual(hsalsa20(vector.key, vector.input16), vector.out);
  }
});

function hsalsa20(keyHex: string, inputHex: string): string {
  const words = (bytes: Uint8Array) => new Uint32Array(bytes.slice().buffer);
  const sigma = words(new TextEncoder().encode("expand 32-byte k"));
  const out = new Uint32Array(8);
  hsalsa(sigma, words(fromHex(keyHex)), words(fromHex(inputHex)), out);
  return toHex(new Uint8Array(out.buffer));
}

Deno.test("Salsa20 gives the published stream", () => {
  for (const vector of vectors.primitives.salsa20_stream) {
    const expected = vector.stream_first_160;
    const zeros = new Uint8Array(expected.length / 2);
    strictEqual(toHex(salsa20(fromHex(vector.key), fromHex(vector.nonce8), zeros)), expected);
  }
});

Deno.test("Poly1305 gives the published tag", () => {
  for (const { message, key, tag } of vectors.primitives.poly1305) {
    strictEqual(toHex(poly1305(fromHex(message), fromHex(key))), tag);
  }
});

Deno.test("boxKey() and seal() give the published box of NaCl, and open() reverses it", () => {
  for (const v of vectors.primitives.box) {
    const shared = boxKey(fromHex(v.sender_private), key(v.receiver_public));
    const sender = discoKeyFromBytes(x25519.getPublicKey(fromHex(v.sender_private)));
    const packet = seal(fromHex(v.message), sender, shared, fixedRandom(v.nonce));
    strictEqual(toHex(readEnvelope(packet)!.box), v.box);
    strictEqual(toHex(open(readEnvelope(packet)!, shared)!), v.message);
  }
});

// --- keys

Deno.test("the public keys of the vectors belong to their private keys", () => {
  for (const { private: own, public: expected } of Object.values(vectors.keys)) {
    strictEqual(toHex(x25519.getPublicKey(fromHex(own))), expected);
  }
});

Deno.test("boxKey() refuses low-order points and private keys of a wrong length", () => {
  const lowOrder = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  ];
  const own = fromHex(vectors.keys.bob.private);
  for (const peer of lowOrder) throws(() => boxKey(own, key(peer)), Error, peer);
  throws(() => boxKey(own.subarray(1), key(vectors.keys.alice.public)));
});

// --- messages

type FieldsToMessage = (type: string, fields: Json) => Json;

/** By the vectors' names, those that we know: our name, and our message from the vectors' fields. */
const MESSAGES: Record<string, [string, FieldsToMessage]> = {
  ping: ["ping", (type, f) => ({
    type,
    txId: fromHex(f.tx_id),
    ...(f.node_key ? { nodeKey: fromHex(f.node_key) } : {}),
    padding: f.padding,
  })],
  pong: ["pong", (type, f) => ({ type, txId: fromHex(f.tx_id), source: parseEndpoint(f.src) })],
  call_me_maybe: ["call-me-maybe", (type, f) => ({
    type,
    endpoints: f.endpoints.map(parseEndpoint),
  })],
};

for (const vector of vectors.plaintext as Json[]) {
  Deno.test(`decodeMessage() and encodeMessage(): ${vector.name}`, () => {
    const bytes = fromHex(vector.hex);
    strictEqual(bytes.length, vector.length);
    strictEqual(bytes[1], vector.version);
    if (!MESSAGES[vector.type]) return throws(() => decodeMessage(bytes), /unknown_type/);
    const message = decodeMessage(bytes);
    const [type, fromFields] = MESSAGES[vector.type]!;
    const expected = vector.fields.ignored ? { type } : fromFields(type, vector.fields);
    deepStrictEqual(message, expected);
    strictEqual(toHex(encodeMessage(message)) === vector.hex, vector.canonical);
  });
}

for (const { name, hex, error } of vectors.plaintext_invalid) {
  Deno.test(`decodeMessage() refuses: ${name}`, () => {
    const isKnown = !/^(bind|challenge|answer|via|allocate)_/.test(name);
    const reason = isKnown ? error : "unknown_type";
    throws(
      () => decodeMessage(fromHex(hex)),
      (e) => e instanceof DiscoFormatError && e.reason === reason,
    );
  });
}

Deno.test("decodeMessage() throws nothing but DiscoFormatError on random inputs", () => {
  const below = seededRandom(1);
  const outcomes = new Map<string, number>();
  for (let i = 0; i < 20_000; i++) {
    const outcome = decodeOutcome(randomMessage(below, i % 50 === 0 ? below(2049) : below(200)));
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  const types = Object.values(MESSAGES).map(([type]) => type);
  for (const seen of [...types, "short", "unknown_type"]) ok(outcomes.has(seen), seen);
});

/** Random bytes that often begin like a message. */
function randomMessage(below: (n: number) => number, length: number): Uint8Array {
  const bytes = Uint8Array.from({ length }, () => below(256));
  if (length > 1) bytes.set([below(12), below(2)]);
  return bytes;
}

function decodeOutcome(bytes: Uint8Array): string {
  try {
    return decodeMessage(bytes).type;
  } catch (error) {
    ok(error instanceof DiscoFormatError, String(error));
    return error.reason;
  }
}

// --- envelopes

for (const v of vectors.sealed as Json[]) {
  Deno.test(`seal() and open(): ${v.name}`, () => {
    const senders = boxKey(fromHex(v.sender_private), v.receiver_public);
    const receivers = boxKey(fromHex(v.receiver_private), v.sender_public);
    deepStrictEqual(senders, receivers);
    const packet = seal(fromHex(v.plaintext), v.sender_public, senders, fixedRandom(v.nonce));
    strictEqual(toHex(packet), v.packet);
    strictEqual(packet.length, v.packet_length);
    strictEqual(packet.length, OVERHEAD + v.plaintext.length / 2);
    const envelope = readEnvelope(packet)!;
    strictEqual(envelope.sender, v.sender_public);
    strictEqual(toHex(open(envelope, receivers)!), v.plaintext);
    if (v.intermediate) checkIntermediates(v, receivers);
  });
}

function checkIntermediates(v: Json, key: Uint8Array): void {
  const { intermediate } = v;
  const nonce = fromHex(v.nonce);
  const shared = x25519.getSharedSecret(fromHex(v.sender_private), fromHex(v.receiver_public));
  strictEqual(toHex(shared), intermediate.x25519_shared);
  strictEqual(toHex(key), intermediate.box_key);
  strictEqual(hsalsa20(toHex(key), v.nonce.slice(0, 32)), intermediate.xsalsa20_subkey);
  const subkey = fromHex(intermediate.xsalsa20_subkey);
  const oneTimeKey = salsa20(subkey, nonce.subarray(16), new Uint8Array(32));
  strictEqual(toHex(oneTimeKey), intermediate.poly1305_key);
  const ciphertext = fromHex(intermediate.ciphertext);
  strictEqual(toHex(poly1305(ciphertext, oneTimeKey)), intermediate.poly1305_tag);
  const box = xsalsa20poly1305(key, nonce).encrypt(fromHex(v.plaintext));
  strictEqual(toHex(box), intermediate.poly1305_tag + intermediate.ciphertext);
}

for (const { name, packet, receiver_private, expect } of vectors.sealed_invalid) {
  Deno.test(`readEnvelope() and open() refuse: ${name}`, () => {
    const bytes = fromHex(packet);
    const own = fromHex(receiver_private);
    const envelope = readEnvelope(bytes);
    strictEqual(isDisco(bytes), expect !== "not_disco");
    if (expect === "not_disco") strictEqual(envelope, undefined);
    else if (expect === "reject_key") throws(() => boxKey(own, envelope!.sender));
    else strictEqual(open(envelope!, boxKey(own, envelope!.sender)), undefined);
  });
}

/** As a node does it: the box key is looked up by the sender, strangers are dropped. */
function receiver(v: Json): (packet: Uint8Array) => Uint8Array | undefined {
  const known = new Map([[v.sender_public, boxKey(fromHex(v.receiver_private), v.sender_public)]]);
  return (packet) => {
    const envelope = readEnvelope(packet);
    const shared = envelope && known.get(envelope.sender);
    return shared && open(envelope, shared);
  };
}

Deno.test("a sealed packet with any single bit changed does not open", () => {
  for (const v of vectors.sealed.slice(0, 3)) {
    const packet = fromHex(v.packet);
    const receive = receiver(v);
    ok(receive(packet));
    for (let bit = 0; bit < packet.length * 8; bit++) {
      packet[bit >> 3]! ^= 1 << (bit & 7);
      strictEqual(receive(packet), undefined, `bit ${bit}`);
      packet[bit >> 3]! ^= 1 << (bit & 7);
    }
  }
});

Deno.test("any single bit of the sender's key but its unused top one is bound to the box", () => {
  const v = vectors.sealed[0]!;
  const packet = fromHex(v.packet);
  const own = fromHex(v.receiver_private);
  const topBit = 37 * 8 + 7;
  for (let bit = 6 * 8; bit < 38 * 8; bit++) {
    packet[bit >> 3]! ^= 1 << (bit & 7);
    const envelope = readEnvelope(packet)!;
    const opened = open(envelope, boxKey(own, envelope.sender));
    strictEqual(opened !== undefined, bit === topBit, `bit ${bit}`);
    packet[bit >> 3]! ^= 1 << (bit & 7);
  }
});

Deno.test("a sealed packet cut or lengthened anywhere does not open", () => {
  const v = vectors.sealed[0]!;
  const packet = fromHex(v.packet);
  const receive = receiver(v);
  for (let length = 0; length < packet.length; length++) {
    strictEqual(receive(packet.subarray(0, length)), undefined, `length ${length}`);
  }
  strictEqual(receive(concatBytes(packet, Uint8Array.of(0))), undefined);
});

Deno.test("seal() takes a fresh nonce for every packet", () => {
  const v = vectors.sealed[0]!;
  const shared = boxKey(fromHex(v.sender_private), key(v.receiver_public));
  let count = 0;
  const random: Random = (length) => new Uint8Array(length).fill(++count);
  const nonce = () => {
    const packet = seal(new Uint8Array(2), key(v.sender_public), shared, random);
    return toHex(readEnvelope(packet)!.nonce);
  };
  strictEqual(nonce(), "01".repeat(vectors.constants.nonce_len));
  notStrictEqual(nonce(), nonce());
});

// --- what arrived

for (const { name, hex, class: kind, geneve } of vectors.classify) {
  Deno.test(`STUN, disco or neither: ${name}`, () => {
    const bytes = fromHex(hex);
    deepStrictEqual([isStun(bytes), isDisco(bytes)], [
      kind === "stun",
      kind === "disco" && !geneve,
    ]);
  });
}

Deno.test("GRE of any kind and relayed data are neither STUN nor disco", () => {
  const relayed = "00007a1200053900 4500";
  const gre = ["00000800", "200086dd 00000001", "a0000800 00000000 00000001"];
  for (const hex of [relayed, ...gre]) {
    const bytes = concatBytes(fromHex(hex), new Uint8Array(40));
    deepStrictEqual([isStun(bytes), isDisco(bytes)], [false, false], hex);
  }
});

// --- sizes

Deno.test("a padded ping has the size that an MTU probe wants", () => {
  const nodeKey = fromHex(vectors.node_keys.alice.public);
  const ipAndUdp: Record<string, number> = { v4: 28, v6: 48 };
  for (const { wire_mtu, family, udp_payload, ping_padding } of vectors.mtu_probe_sizes) {
    const txId = new Uint8Array(TX_ID_LENGTH);
    const ping: DiscoMessage = { type: "ping", txId, nodeKey, padding: ping_padding };
    strictEqual(encodeMessage(ping).length + OVERHEAD, udp_payload);
    strictEqual(udp_payload + ipAndUdp[family]!, wire_mtu);
    const probe = encodeMessage({ ...ping, padding: 0, padTo: udp_payload });
    deepStrictEqual(probe, encodeMessage(ping));
  }
});

Deno.test("a ping is never shorter than what it has to say", () => {
  const txId = new Uint8Array(TX_ID_LENGTH);
  const ping = { type: "ping", txId, nodeKey: new Uint8Array(32), padding: 4 } as const;
  deepStrictEqual(encodeMessage({ ...ping, padTo: 100 }), encodeMessage(ping));
});

Deno.test("a port-guess, which is this project's own, is read as it was written", () => {
  const attempt = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  for (const ports of ["one", "sequential", "random"] as const) {
    for (const isAnswer of [true, false]) {
      const endpoint = parseEndpoint("192.0.2.1:40000");
      const about = { attempt, isAnswer, round: 3, ports, delta: -2, endpoint };
      const message: DiscoMessage = { type: "port-guess", ...about };
      const bytes = encodeMessage(message);
      strictEqual(toHex(bytes.subarray(0, 12)), `70000102030405060708${isAnswer ? "01" : "00"}03`);
      deepStrictEqual(decodeMessage(bytes), message);
      deepStrictEqual(decodeMessage(concatBytes(bytes, attempt)), message, "longer of later");
      for (let length = 2; length < bytes.length; length++) {
        throws(() => decodeMessage(bytes.subarray(0, length)), DiscoFormatError);
      }
    }
  }
  const unknown = encodeMessage({
    ...{ type: "port-guess", attempt, isAnswer: false, round: 0, ports: "one", delta: 0 },
    endpoint: parseEndpoint("192.0.2.1:1"),
  });
  unknown[12] = 9;
  throws(() => decodeMessage(unknown), DiscoFormatError);
});

Deno.test("messages have the sizes of the format", () => {
  const { packet_sizes, constants } = vectors;
  const txId = new Uint8Array(TX_ID_LENGTH);
  const source = parseEndpoint("192.0.2.1:1");
  const size = (message: DiscoMessage) => encodeMessage(message).length + OVERHEAD;
  strictEqual(size({ type: "ping", txId, padding: 0 }), packet_sizes.ping_no_key);
  strictEqual(
    size({ type: "ping", txId, nodeKey: new Uint8Array(32), padding: 0 }),
    packet_sizes.ping,
  );
  strictEqual(size({ type: "pong", txId, source }), packet_sizes.pong);
  strictEqual(size({ type: "call-me-maybe", endpoints: [source, source] }), 80 + 2 * 18);
  strictEqual(toHex(MAGIC), constants.magic);
  strictEqual(OVERHEAD, constants.min_packet + constants.tag_len);
});
