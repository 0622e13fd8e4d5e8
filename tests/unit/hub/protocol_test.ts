/** Our own hub protocol: messages, proofs, cookies, sealed data. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { type Endpoint, parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { publicKeyOf } from "../../../lib/ed25519.ts";
import {
  acceptWelcome,
  type AuthCheck,
  checkAuth,
  COOKIE_LIFE_MS,
  Cookies,
  type Credential,
  makeAuth,
  makeWelcome,
  Pair,
} from "../../../lib/hub/protocol/gretun/auth.ts";
import { Sealer, sessionKeys } from "../../../lib/hub/protocol/gretun/seal.ts";
import * as wire from "../../../lib/hub/protocol/gretun/wire.ts";
import { seal } from "../../seal.ts";

const vectors = JSON.parse(
  Deno.readTextFileSync(new URL("../../vectors/hub.json", import.meta.url)),
) as { protocol: Record<string, { fields: Record<string, unknown>; bytes: string }> };

const bytes = (length: number, first: number) =>
  Uint8Array.from({ length }, (_, i) => first + i & 0xff);
const CLIENT_SEED = bytes(32, 1);
const HUB_SEED = bytes(32, 101);
const CLIENT = parseEndpoint("198.51.100.7:40001");
const HUB = parseEndpoint("203.0.113.1:7788");
const WALL_MS = 1_800_000_000_000;
const SECRET = bytes(32, 77);

function keyPair(secret?: Uint8Array): { client: Credential; hub: Credential } {
  const [clientPublic, hubPublic] = [publicKeyOf(CLIENT_SEED), publicKeyOf(HUB_SEED)];
  const extra = secret ? { secret } : {};
  return {
    client: {
      ...{ kind: "key", ownSeed: CLIENT_SEED, ownPublic: clientPublic, peerPublic: hubPublic },
      ...extra,
    },
    hub: {
      ...{ kind: "key", ownSeed: HUB_SEED, ownPublic: hubPublic, peerPublic: clientPublic },
      ...extra,
    },
  };
}
const token = (first: number): Credential => ({ kind: "token", key: bytes(32, first) });
const SCHEMES: Record<string, { client: Credential; hub: Credential }> = {
  key: keyPair(),
  "key and secret": keyPair(SECRET),
  token: { client: token(9), hub: token(9) },
  address: { client: { kind: "address" }, hub: { kind: "address" } },
};

/** The whole exchange up to the auth message. */
/** As the hub looks at them. */
function check(
  cookies: Cookies,
  auth: wire.Auth,
  from: Endpoint,
  wallMs: number,
): "stale" | "bad-cookie" | undefined {
  if (!cookies.wasMade(auth.stamp, wallMs)) return "stale";
  return cookies.isRight(auth, from) ? undefined : "bad-cookie";
}

async function authenticate(client: Credential, { cookies = new Cookies(bytes(32, 50)) } = {}) {
  const hello = wire.decodeHello(wire.encodeHello({ nonce: bytes(16, 3), name: "alice" }));
  const challenge = wire.decodeChallenge(cookies.challenge(hello, CLIENT, WALL_MS));
  const inFlight = await makeAuth(await Pair.make(client), {
    name: "alice",
    challenge,
    hub: HUB,
    ephemeralSecret: bytes(32, 60),
    framing: "any",
    encrypt: true,
  });
  return { cookies, inFlight, auth: wire.decodeAuth(inFlight.message) };
}

async function hubCheck(
  hub: Credential,
  { inFlight, auth }: Awaited<ReturnType<typeof authenticate>>,
  overrides: Partial<AuthCheck> = {},
) {
  return await checkAuth({
    auth,
    bytes: inFlight.message,
    from: CLIENT,
    pair: await Pair.make(hub),
    publicEndpoints: [],
    lastStamp: 0n,
    ...overrides,
  });
}

/** Without the zeros at its end. */
const WELCOME_LENGTH = 192;
const WELCOME = {
  session: bytes(8, 200),
  status: "ok",
  framing: "sealed",
  encrypt: true,
  keepaliveMs: 25_000,
  reauthMs: 3_600_000,
  clientAddress: { ip: parseIp("10.90.0.2"), prefixLength: 32 },
  hubAddress: { ip: parseIp("10.90.0.1"), prefixLength: 32 },
  hub: HUB,
  ephemeralSecret: bytes(32, 90),
} as const;

for (const [name, { client, hub }] of Object.entries(SCHEMES)) {
  Deno.test(`${name}: both sides are proven and have the same keys`, async () => {
    const exchange = await authenticate(client);
    strictEqual(check(exchange.cookies, exchange.auth, CLIENT, WALL_MS + 50), undefined);
    strictEqual(await hubCheck(hub, exchange), undefined);
    const answer = (await makeWelcome(await Pair.make(hub), exchange.auth, CLIENT, WELCOME))!;
    const welcome = wire.decodeWelcome(answer.message)!;
    deepStrictEqual(welcome.clientAddress, WELCOME.clientAddress);
    const keys = await acceptWelcome(await Pair.make(client), exchange.inFlight, welcome);
    deepStrictEqual(keys, answer.keys);
  });

  Deno.test(`${name}: any changed byte of the auth is refused`, async () => {
    const exchange = await authenticate(client);
    const { message } = exchange.inFlight;
    for (let i = 8; i < message.length; i++) {
      // Without a secret there is nothing but the cookie, which covers name, nonce and stamp.
      if (name === "address" && i >= 8 + 32 + 16 + 8 + 16) break;
      const changed = message.slice();
      changed[i]! ^= 1;
      const auth = wire.decodeAuth(changed);
      const refusal = check(exchange.cookies, auth, CLIENT, WALL_MS) ??
        await hubCheck(hub, {
          ...exchange,
          auth,
          inFlight: { ...exchange.inFlight, message: changed },
        });
      ok(refusal, `byte ${i}`);
    }
  });

  if (name === "address") continue;
  Deno.test(`${name}: a welcome that is not the hub's own is refused`, async () => {
    const exchange = await authenticate(client);
    const { message } = (await makeWelcome(await Pair.make(hub), exchange.auth, CLIENT, WELCOME))!;
    for (let i = 8; i < WELCOME_LENGTH; i++) {
      // Zeros that nobody reads, so that later versions may put something there.
      if (i === 67) continue;
      const changed = message.slice();
      changed[i]! ^= 1;
      const welcome = wire.decodeWelcome(changed);
      if (!welcome) continue;
      const isProofPadding = i >= 128 + 16 && name === "token";
      const keys = await acceptWelcome(await Pair.make(client), exchange.inFlight, welcome);
      strictEqual(keys, isProofPadding ? keys : undefined, `byte ${i}`);
    }
  });
}

const WRONG: [name: string, change: Partial<AuthCheck>, refusal: string][] = [
  ["captured and sent from elsewhere", { from: parseEndpoint("192.0.2.9:1") }, "bad-proof"],
  ["not from the fixed remote", { remote: parseEndpoint("192.0.2.9:0") }, "wrong-address"],
  ["a fixed remote with another port", { remote: { ...CLIENT, port: 1 } }, "wrong-address"],
  ["sent a second time", { lastStamp: BigInt(WALL_MS) * 1000n }, "replayed"],
  ["for another hub's address", {
    publicEndpoints: [parseEndpoint("192.0.2.9:7788")],
  }, "wrong-hub-address"],
  ["another client's key", {
    pair: await Pair.make({ ...SCHEMES.key!.hub, peerPublic: publicKeyOf(HUB_SEED) } as Credential),
  }, "bad-mac"],
  ["another hub's key", {
    pair: await Pair.make(
      { ...SCHEMES.key!.hub, ownSeed: SECRET, ownPublic: publicKeyOf(SECRET) } as Credential,
    ),
  }, "bad-mac"],
  ["a secret that the client has not", { pair: await Pair.make(keyPair(SECRET).hub) }, "bad-mac"],
  ["a token instead of a key", { pair: await Pair.make(token(9)) }, "bad-mac"],
];
for (const [name, change, refusal] of WRONG) {
  Deno.test(`auth is refused: ${name}`, async () => {
    const exchange = await authenticate(SCHEMES.key!.client);
    strictEqual(await hubCheck(SCHEMES.key!.hub, exchange, change), refusal);
  });
}

Deno.test("an auth is taken from the fixed remote, any port, and for a listed hub address", async () => {
  const exchange = await authenticate(SCHEMES.key!.client);
  const remote = { ...CLIENT, port: 0 };
  const change = { remote, publicEndpoints: [HUB] };
  strictEqual(await hubCheck(SCHEMES.key!.hub, exchange, change), undefined);
});

Deno.test("a cookie is good for the endpoint and the time it was made for, at one hub run", async () => {
  const { cookies, auth } = await authenticate(SCHEMES.key!.client);
  const other = { ...CLIENT, port: CLIENT.port + 1 };
  strictEqual(check(cookies, auth, CLIENT, WALL_MS), undefined);
  strictEqual(check(cookies, auth, other, WALL_MS), "bad-cookie");
  strictEqual(check(cookies, { ...auth, name: "bob" }, CLIENT, WALL_MS), "bad-cookie");
  strictEqual(check(cookies, auth, CLIENT, WALL_MS + COOKIE_LIFE_MS), undefined);
  strictEqual(check(cookies, auth, CLIENT, WALL_MS + COOKIE_LIFE_MS + 1), "stale");
  strictEqual(check(cookies, auth, CLIENT, WALL_MS - 3_600_000), undefined, "a clock set back");
  strictEqual(check(cookies, { ...auth, stamp: auth.stamp + 1n }, CLIENT, WALL_MS), "stale");
  const restarted = new Cookies(bytes(32, 51));
  strictEqual(check(restarted, auth, CLIENT, WALL_MS), "stale", "not made by this process");
  restarted.challenge({ nonce: bytes(16, 3), name: "alice" }, CLIENT, WALL_MS);
  strictEqual(check(restarted, auth, CLIENT, WALL_MS), "bad-cookie", "of the same moment");
});

Deno.test("stamps of challenges rise even when the clock stands or goes back", () => {
  const cookies = new Cookies(bytes(32, 50));
  const hello = { nonce: bytes(16, 3), name: "alice" };
  const stamps = [0, 0, -5000, 1].map((ms) =>
    wire.decodeChallenge(cookies.challenge(hello, CLIENT, WALL_MS + ms)).stamp
  );
  for (const [i, stamp] of stamps.entries()) ok(i === 0 || stamp > stamps[i - 1]!);
});

Deno.test("no answer is longer than its question", () => {
  const { hello, challenge, auth, welcome, keepalive, alive, reset } = wire.MESSAGE_LENGTH;
  ok(challenge <= hello && welcome <= auth && alive <= keepalive && reset <= keepalive);
});

Deno.test("messageType() takes whole messages of this version only", () => {
  const message = wire.encodeHello({ nonce: bytes(16, 3), name: "alice" });
  strictEqual(wire.messageType(message), "hello");
  strictEqual(wire.messageType(new Uint8Array([...message, 1, 2, 3])), "hello");
  for (const length of [0, 3, 7, 8, message.length - 1]) {
    strictEqual(wire.messageType(message.subarray(0, length)), undefined, `${length} bytes`);
  }
  for (const [at, value] of [[0, 0x45], [4, 2], [5, 0], [5, 99]] as const) {
    const other = message.slice();
    other[at] = value;
    strictEqual(wire.messageType(other), undefined, `byte ${at} is ${value}`);
  }
});

Deno.test("random bytes behind a good header never throw", async () => {
  const exchange = await authenticate(SCHEMES.token!.client);
  for (let i = 0; i < 2000; i++) {
    const message = crypto.getRandomValues(new Uint8Array(256));
    message.set(wire.MAGIC);
    message.set([1, 1 + i % 7, 0, 0], 4);
    const type = wire.messageType(message)!;
    if (type === "hello") wire.decodeHello(message);
    if (type === "auth") {
      const auth = wire.decodeAuth(message);
      strictEqual(typeof await hubCheck(SCHEMES.key!.hub, { ...exchange, auth }), "string");
    }
    if (type === "challenge") wire.decodeChallenge(message);
    if (type === "welcome") wire.decodeWelcome(message);
    if (type === "keepalive") wire.decodeKeepalive(message);
    if (type === "alive") wire.decodeAlive(message);
    if (type === "reset") wire.decodeReset(message);
  }
});

Deno.test("messages have the bytes of the vectors", async () => {
  const { inFlight, auth } = await authenticate(SCHEMES.key!.client);
  const hub = await Pair.make(SCHEMES.key!.hub);
  const session = bytes(8, 200);
  const made: Record<string, Uint8Array> = {
    hello: wire.encodeHello({ nonce: bytes(16, 3), name: "alice" }),
    challenge: new Cookies(bytes(32, 50))
      .challenge({ nonce: bytes(16, 3), name: "alice" }, CLIENT, WALL_MS),
    auth: inFlight.message,
    welcome: (await makeWelcome(hub, auth, CLIENT, WELCOME))!.message,
    keepalive: wire.encodeKeepalive({ session, counter: 7n, bye: false }),
    alive: wire.encodeAlive({ session, counter: 7n, observed: CLIENT }),
    reset: wire.encodeReset({ session, counter: 7n }),
    "sealed, encrypted": seal(sealers(true).client, bytes(20, 0x45)),
    "sealed, readable": seal(sealers(false).client, bytes(20, 0x45)),
  };
  for (const [name, message] of Object.entries(made)) {
    strictEqual(toHex(message), toHex(fromHex(vectors.protocol[name]!.bytes)), name);
  }
});

// --- sealed data

function sealers(encrypt: boolean) {
  const keys = sessionKeys(SECRET, encrypt);
  const { dataFromClient, dataFromHub } = keys;
  const session = bytes(8, 200);
  return {
    client: new Sealer(session, { send: dataFromClient, receive: dataFromHub }, encrypt),
    hub: new Sealer(session, { send: dataFromHub, receive: dataFromClient }, encrypt),
  };
}

for (const encrypt of [true, false]) {
  const name = encrypt ? "encrypted" : "readable";

  Deno.test(`${name} data: opened once, in any order, never when changed`, () => {
    const { client, hub } = sealers(encrypt);
    const packets = [1, 2, 3].map((first) => seal(client, bytes(100, first)));
    const isReadable = toHex(packets[0]!).includes(toHex(bytes(100, 1)));
    strictEqual(isReadable, !encrypt);
    strictEqual(packets[0]!.length, 100 + 32);
    for (const i of [2, 0, 1]) deepStrictEqual(hub.open(packets[i]!), bytes(100, i + 1));
    for (const packet of packets) strictEqual(hub.open(packet), "replayed");
    const last = seal(client, bytes(100, 4));
    for (let i = 8; i < last.length; i++) {
      const changed = last.slice();
      changed[i]! ^= 0x80;
      const opened = hub.open(changed);
      ok(opened === "bad-tag" || opened === "replayed", `byte ${i}`);
    }
    deepStrictEqual(hub.open(last), bytes(100, 4));
    strictEqual(client.open(last), "bad-tag", "a packet that came back to its sender");
  });
}

Deno.test("a sealed packet of one mode is nothing in the other", () => {
  strictEqual(sealers(true).hub.open(seal(sealers(false).client, bytes(40, 1))), "bad-tag");
  strictEqual(sealers(false).hub.open(seal(sealers(true).client, bytes(40, 1))), "bad-tag");
});
