/** The bytes of ipipou and jtunnel: vectors of facts, both directions. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { fromHex, toBase64, toHex } from "../../../lib/bytes.ts";
import { publicKeyOf } from "../../../lib/ed25519.ts";
import {
  checkIpipouAuth,
  encodeIpipouAuth,
  encodeIpipouReply,
  IPIPOU_SIGNALLING,
  ipipouAddresses,
  type IpipouClient,
} from "../../../lib/hub/protocol/ipipou/wire.ts";
import { isSignalling } from "../../../lib/linux/mod.ts";
import { isIpPacket } from "../../../lib/dataplane/mod.ts";
import {
  decodeJtunnel,
  isReflection,
  parseJtunnelId,
} from "../../../lib/hub/protocol/jtunnel/wire.ts";
import { NonceStore } from "../../../lib/hub/protocol/gretun/nonce_store.ts";

const { ipipou, jtunnel } = JSON.parse(
  Deno.readTextFileSync(new URL("../../vectors/hub.json", import.meta.url)),
) as {
  ipipou: {
    keys: Record<string, string>;
    unix_seconds: number;
    salt: string;
    payloads: { name: string; seed: string; secret: string; made?: false; bytes: string }[];
    token_packet: { token: string; bytes: string };
    token_reply: { token: string; bytes: string };
  };
  jtunnel: { id: string; inner: string; bytes: string };
};

const isAuthentication = (payload: Uint8Array) => isSignalling(IPIPOU_SIGNALLING, payload);
const text = (value: string) => new TextEncoder().encode(value);
const seed = (name: string) => fromHex(ipipou.keys[name]!);
const SALT = fromHex(ipipou.salt);
const FROM = parseEndpoint("198.51.100.7:10001");
const WALL_MS = ipipou.unix_seconds * 1000;

function check(client: Partial<IpipouClient>, payload: Uint8Array, at: {
  from?: string;
  wallMs?: number;
  nonces?: NonceStore;
  windowS?: number;
} = {}) {
  const whole = { secret: "topsecret", ...client };
  return checkIpipouAuth(whole, payload, at.from ? parseEndpoint(at.from) : FROM, {
    wallMs: at.wallMs ?? WALL_MS,
    maxTimeDiscrepancyS: at.windowS ?? 60,
    nonces: at.nonces ?? new NonceStore({ keepMs: 120_000, capacity: 100 }),
  });
}

Deno.test("ipipou: keys in base64 are those of the vectors", () => {
  strictEqual(toBase64(seed("seed1")), ipipou.keys.seed1_base64);
  strictEqual(toHex(publicKeyOf(seed("seed1"))), ipipou.keys.public1);
  strictEqual(toBase64(publicKeyOf(seed("seed1"))), ipipou.keys.public1_base64);
});

for (const { name, seed: key, secret, made, bytes } of ipipou.payloads) {
  Deno.test(`ipipou: payload ${name}`, async () => {
    const scheme = { kind: "key", seed: seed(key), secret } as const;
    if (made !== false) {
      strictEqual(toHex(await encodeIpipouAuth(scheme, ipipou.unix_seconds, SALT)), bytes);
    }
    const publicKey = publicKeyOf(seed(key));
    strictEqual(await check({ publicKey, secret }, fromHex(bytes)), undefined);
    strictEqual(await check({ publicKey, secret: "other" }, fromHex(bytes)), "bad-proof");
    strictEqual(isAuthentication(fromHex(bytes)), true);
  });
}

const A = fromHex(ipipou.payloads[0]!.bytes);
const publicKey = publicKeyOf(seed("seed1"));
const CHECKS: [string, Partial<IpipouClient>, Uint8Array, Parameters<typeof check>[2], string?][] =
  [
    ["a window's last second", { publicKey }, A, { wallMs: WALL_MS + 60_999 }],
    ["a second too old", { publicKey }, A, { wallMs: WALL_MS + 61_000 }, "stale"],
    ["from the future", { publicKey }, A, { wallMs: WALL_MS - 61_000 }, "stale"],
    ["any time when the window is off", { publicKey }, A, { wallMs: 0, windowS: 0 }],
    ["72 bytes", { publicKey }, A.subarray(0, 72), {}, "malformed"],
    ["nothing", { publicKey }, new Uint8Array(), {}, "malformed"],
    ["another key", { publicKey: publicKeyOf(seed("seed2")) }, A, {}, "bad-proof"],
    ["the token", { token: text("hello") }, text("hello"), {}],
    ["a token's beginning", { token: text("hello") }, text("hell"), {}, "bad-token"],
    ["a token and more", { token: text("hello") }, text("hello "), {}, "bad-token"],
    [
      "a good signature where a token is wanted",
      { token: text("hello"), publicKey },
      A,
      {},
      "bad-token",
    ],
    ["neither: anything", {}, text("whatever"), {}],
    ["the address", { remoteIp: parseIp("198.51.100.7") }, new Uint8Array(), {}],
    [
      "another address",
      { remoteIp: parseIp("198.51.100.8") },
      new Uint8Array(),
      {},
      "wrong-address",
    ],
    ["another port", { remotePort: 10_002 }, new Uint8Array(), {}, "wrong-address"],
    [
      "the address and the port",
      {
        remoteIp: parseIp("198.51.100.7"),
        remotePort: 10_001,
      },
      new Uint8Array(),
      {},
    ],
  ];
for (const [name, client, payload, at, refusal] of CHECKS) {
  Deno.test(`ipipou: ${name} is ${refusal ?? "taken"}`, async () => {
    strictEqual(await check(client, payload, at), refusal);
  });
}

Deno.test("ipipou: a captured packet is taken once; every changed byte is refused", async () => {
  const nonces = new NonceStore({ keepMs: 120_000, capacity: 100 });
  strictEqual(await check({ publicKey }, A, { nonces }), undefined);
  strictEqual(await check({ publicKey }, A, { nonces, from: "192.0.2.66:1" }), "replayed");
  for (let i = 0; i < A.length; i++) {
    const changed = A.slice();
    changed[i]! ^= 1;
    ok(await check({ publicKey }, changed, { windowS: 0 }), `byte ${i}`);
  }
});

Deno.test("ipipou: a packet is sent as the token, signed, or empty", async () => {
  const { token, bytes } = ipipou.token_packet;
  const payload = await encodeIpipouAuth({ kind: "token", token: text(token) }, 0, SALT);
  strictEqual(toHex(payload), bytes.slice(2 * 28));
  strictEqual((await encodeIpipouAuth({ kind: "none" }, 0, SALT)).length, 0);
});

Deno.test("ipipou: replies are signed, or the request backwards", async () => {
  const client = { secret: "topsecret" };
  const { token, bytes } = ipipou.token_reply;
  const reply = async (c: Partial<IpipouClient>, own = {}, to: Uint8Array = text(token)) => {
    const all = { ...own, client: { ...client, ...c } };
    return toHex(await encodeIpipouReply(to, all, 1_700_000_000, SALT));
  };
  strictEqual(await reply({ token: text(token) }), bytes);
  strictEqual(await reply({ publicKey }), bytes);
  strictEqual(await reply({}), "");
  const signed = ipipou.payloads[4]!.bytes;
  const own = { seed: seed("seed2") };
  strictEqual(await reply({ publicKey }, own, new Uint8Array(73)), signed);
  strictEqual(await reply({ publicKey }, own), bytes, "a signature would be longer than this");
});

Deno.test("ipipou: data is IPv4 that says its own length", () => {
  const inner = fromHex(jtunnel.inner);
  strictEqual(isAuthentication(inner), false);
  strictEqual(isAuthentication(inner.subarray(0, -1)), true);
  strictEqual(isAuthentication(text("Elephant, and more of it")), true, "begins with 0x45");
  strictEqual(isAuthentication(new Uint8Array()), true);
});

Deno.test("ipipou: inner addresses of tunnel N", () => {
  deepStrictEqual(ipipouAddresses(0), { server: "172.28.0.0", client: "172.28.0.1" });
  deepStrictEqual(ipipouAddresses(200), { server: "172.28.1.144", client: "172.28.1.145" });
});

Deno.test("jtunnel: the packet of the specification, both ways", () => {
  const id = fromHex(jtunnel.id);
  const decoded = decodeJtunnel(fromHex(jtunnel.bytes))!;
  deepStrictEqual([decoded.id, toHex(decoded.inner)], [jtunnel.id, jtunnel.inner]);
  strictEqual(decodeJtunnel(id)!.inner.length, 0, "a sign of life");
  strictEqual(decodeJtunnel(id.subarray(0, 7)), undefined);
  strictEqual(isReflection(fromHex(jtunnel.bytes), id), true);
  strictEqual(isReflection(fromHex(jtunnel.bytes), fromHex("0123456789abcdee")), false);
});

for (
  const [given, id] of [
    ["0123456789ABCDEF", "0123456789abcdef"],
    ["0000000000000000", undefined],
    ["0123456789abcde", undefined],
    ["0123456789abcdefa", undefined],
    ["0123456789abcdeg", undefined],
    ["", undefined],
  ] as const
) {
  Deno.test(`jtunnel: identifier ${JSON.stringify(given)}`, () => {
    strictEqual(parseJtunnelId(given), id);
  });
}

Deno.test("what is an IP packet", () => {
  for (const packet of ["", "45", "60".padEnd(78, "0"), "15".padEnd(80, "0")]) {
    strictEqual(isIpPacket(fromHex(packet)), false, packet);
  }
  strictEqual(isIpPacket(fromHex(jtunnel.inner)), true);
  strictEqual(isIpPacket(fromHex("60".padEnd(80, "0"))), true);
});
