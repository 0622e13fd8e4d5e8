/** Answers from elsewhere (RFC 5780), and what they tell about a NAT. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  type Endpoint,
  formatEndpoint,
  type Ip,
  parseEndpoint as endpoint,
  parseIp,
} from "../../../lib/addr.ts";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { systemRandom } from "../../../lib/edges.ts";
import {
  ATTRIBUTE,
  changeRequest,
  encodeWithFingerprint,
  fingerprintFits,
  readOtherAddress,
  software,
} from "../../../lib/stun/attributes.ts";
import {
  answerBinding,
  decodeBindingAnswer,
  decodeBindingRequest,
  encodeBindingAnswer,
  encodeBindingRequest,
  encodeChangeRefusal,
} from "../../../lib/stun/binding.ts";
import { type StunAnswer, StunClient } from "../../../lib/stun/exchange.ts";
import { testFiltering } from "../../../lib/stun/filtering.ts";
import {
  BINDING_ERROR,
  BINDING_REQUEST,
  BINDING_SUCCESS,
  decodeStun,
  encodeStun,
} from "../../../lib/stun/message.ts";
import {
  type FilteringBehaviour,
  filteringBehaviour,
  type FilteringSighting,
} from "../../../lib/stun/nat.ts";
import { changedPlace, StunService } from "../../../lib/stun/server.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const TX_ID = fromHex("5e2aabfd590ba2ebcf76dea8");
const CLIENT = endpoint("203.0.113.7:41641");
const CLIENT_6 = endpoint("[2001:db8::7]:41641");
const TOLD = { origin: endpoint("192.0.2.1:3478"), other: endpoint("192.0.2.2:3479") };
const TOLD_6 = { origin: endpoint("[2001:db8::1]:3478"), other: endpoint("[2001:db8::2]:3479") };
const BOTH = { ip: true, port: true };
const PORT = { ip: false, port: true };
const IP = { ip: true, port: false };

// --- bytes

Deno.test("CHANGE-REQUEST and OTHER-ADDRESS have the bytes of RFC 5780", () => {
  const cases = [[BOTH, "00000006"], [PORT, "00000002"], [IP, "00000004"]] as const;
  for (const [change, hex] of cases) {
    deepStrictEqual(changeRequest(change), { type: 0x0003, value: fromHex(hex) });
    deepStrictEqual(decodeBindingRequest(encodeBindingRequest(TX_ID, { change }))!.change, change);
  }
  const request = decodeBindingRequest(encodeBindingRequest(TX_ID))!;
  const answer = encodeBindingAnswer(request, CLIENT, () => TOLD);
  const [mapped, ...told] = decodeStun(answer).attributes;
  strictEqual(mapped!.type, ATTRIBUTE.XOR_MAPPED_ADDRESS);
  deepStrictEqual(told.map(({ type, value }) => [type, toHex(value)]).slice(0, 2), [
    [0x802c, "00010d97" + "c0000202"],
    [0x802b, "00010d96" + "c0000201"],
  ]);
});

Deno.test("decodeBindingRequest() takes what changes nothing for plain, and no broken one", () => {
  const request = (hex: string) =>
    encodeStun({
      type: BINDING_REQUEST,
      txId: TX_ID,
      attributes: [{ type: ATTRIBUTE.CHANGE_REQUEST, value: fromHex(hex) }],
    });
  strictEqual(decodeBindingRequest(request("00000000"))!.change, undefined);
  deepStrictEqual(decodeBindingRequest(request("fffffff9"))!.change, undefined);
  deepStrictEqual(decodeBindingRequest(request("ffffffff"))!.change, BOTH);
  for (const hex of ["", "06", "0000000600"]) {
    strictEqual(decodeBindingRequest(request(hex)), undefined, hex);
  }
});

Deno.test("readOtherAddress() ignores what is broken", () => {
  for (const hex of ["", "0001", "000300000000", "0002123401020304"]) {
    const attributes = [{ type: ATTRIBUTE.OTHER_ADDRESS, value: fromHex(hex) }];
    const bytes = encodeStun({ type: BINDING_SUCCESS, txId: TX_ID, attributes });
    strictEqual(readOtherAddress(decodeStun(bytes)), undefined, hex);
  }
});

const typesIn = (bytes: Uint8Array) => decodeStun(bytes).attributes.map(({ type }) => type);

Deno.test("an answer to our request tells all places and is no longer than it", () => {
  for (const [family, from, told] of [[4, CLIENT, TOLD], [6, CLIENT_6, TOLD_6]] as const) {
    for (const change of [undefined, PORT, BOTH]) {
      const bytes = encodeBindingRequest(TX_ID, { family, ...(change ? { change } : {}) });
      const request = decodeBindingRequest(bytes)!;
      const answer = encodeBindingAnswer(request, from, () => told);
      ok(answer.length <= bytes.length, `${answer.length} to ${bytes.length}`);
      deepStrictEqual(typesIn(answer), [0x0020, 0x802c, 0x802b, 0x8028]);
      strictEqual(fingerprintFits(answer, decodeStun(answer)), true);
      deepStrictEqual(decodeBindingAnswer(answer), {
        txId: TX_ID,
        mapped: from,
        other: told.other,
      });
      ok(encodeChangeRefusal(request).length <= bytes.length);
    }
  }
});

Deno.test("a request gets as much as it has room for: the other place before the origin", () => {
  const room = (length: number, hasFingerprint: boolean) => {
    const attributes = [{ type: ATTRIBUTE.PADDING, value: new Uint8Array(length) }];
    const message = { type: BINDING_REQUEST, txId: TX_ID, attributes };
    const bytes = hasFingerprint ? encodeWithFingerprint(message) : encodeStun(message);
    const answer = encodeBindingAnswer(decodeBindingRequest(bytes)!, CLIENT, () => TOLD);
    ok(answer.length <= bytes.length);
    return typesIn(answer);
  };
  deepStrictEqual(room(16, false), [0x0020]);
  deepStrictEqual(room(20, false), [0x0020, 0x802c]);
  deepStrictEqual(room(32, false), [0x0020, 0x802c, 0x802b]);
  deepStrictEqual(room(1500, false), [0x0020, 0x802c, 0x802b]);
  deepStrictEqual(room(8, true), [0x0020, 0x8028]);
  deepStrictEqual(room(20, true), [0x0020, 0x802c, 0x8028]);
});

Deno.test("a request without room gets the shortest answer, without a look at the places", () => {
  for (const attributes of [[], [changeRequest(PORT)]]) {
    const bytes = encodeStun({ type: BINDING_REQUEST, txId: TX_ID, attributes });
    const answer = encodeBindingAnswer(decodeBindingRequest(bytes)!, CLIENT, () => {
      throw new Error("not to be asked");
    });
    strictEqual(answer.length, 32);
  }
});

Deno.test("a request of nodes of version 0.1 gets the other place, in as many bytes", () => {
  const cases = [["gretun node", CLIENT, TOLD], [
    "gretun node".padEnd(36),
    CLIENT_6,
    TOLD_6,
  ]] as const;
  for (const [text, from, told] of cases) {
    const attributes = [software(text)];
    const request = encodeWithFingerprint({ type: BINDING_REQUEST, txId: TX_ID, attributes });
    const answer = encodeBindingAnswer(decodeBindingRequest(request)!, from, () => told);
    strictEqual(answer.length, request.length);
    deepStrictEqual(decodeBindingAnswer(answer), { txId: TX_ID, mapped: from, other: told.other });
  }
});

Deno.test("a server with one place refuses a CHANGE-REQUEST with 420", () => {
  const answer = decodeStun(answerBinding(encodeBindingRequest(TX_ID, { change: PORT }), CLIENT)!);
  strictEqual(answer.type, BINDING_ERROR);
  const [code, unknown] = answer.attributes;
  deepStrictEqual([toHex(code!.value), toHex(unknown!.value)], ["00000414", "0003"]);
});

// --- places of a server

const PLACES: [name: string, places: string[], change: typeof BOTH, expected?: string][] = [
  ["another port", ["192.0.2.1:1", "192.0.2.1:2"], PORT, "192.0.2.1:2"],
  ["another port of all addresses", ["[::]:1", "0.0.0.0:2", "[::]:2"], PORT, "[::]:2"],
  ["another address", ["192.0.2.1:1", "192.0.2.2:2", "192.0.2.2:1"], IP, "192.0.2.2:1"],
  ["both", ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "192.0.2.2:2"], BOTH, "192.0.2.2:2"],
  ["no second port", ["192.0.2.1:1", "192.0.2.2:2"], PORT],
  ["no second address", ["192.0.2.1:1", "192.0.2.1:2"], IP],
  ["no second address of the family", ["192.0.2.1:1", "[2001:db8::1]:1"], IP],
  ["all addresses are not another", ["192.0.2.1:1", "0.0.0.0:2"], BOTH],
];
for (const [name, texts, change, expected] of PLACES) {
  Deno.test(`changedPlace(): ${name}`, () => {
    const places = texts.map(endpoint);
    const found = changedPlace(places, places[0]!, change);
    strictEqual(found && formatEndpoint(found), expected);
  });
}

/** What comes back to a fresh socket, from where. */
async function exchange(to: Endpoint, bytes: Uint8Array, waitMs = 2000) {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const timer = setTimeout(() => socket.close(), waitMs);
  try {
    await socket.send(bytes, { transport: "udp", hostname: to.ip, port: to.port });
    const [answer, address] = await socket.receive();
    const { hostname, port } = address as Deno.NetAddr;
    socket.close();
    return { answer, from: `${hostname}:${port}` };
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

Deno.test("StunService answers from the place that is asked for, within one limit for all", async () => {
  const stop = new AbortController();
  const service = new StunService({ signal: stop.signal, answersPerSecond: 6 });
  const a = service.listen({ hostname: "127.0.0.1", port: 0 });
  const alone = await exchange(a, encodeBindingRequest(TX_ID, { change: PORT }));
  strictEqual(decodeStun(alone!.answer).type, BINDING_ERROR);
  const b = service.listen({ hostname: "127.0.0.1", port: 0 });
  const c = service.listen({ hostname: "127.0.0.2", port: a.port });
  const seen = async (change?: typeof BOTH) => {
    const got = await exchange(a, encodeBindingRequest(TX_ID, change ? { change } : {}));
    return [got!.from, decodeStun(got!.answer).type];
  };
  deepStrictEqual(await seen(), [formatEndpoint(a), BINDING_SUCCESS]);
  deepStrictEqual(await seen(PORT), [formatEndpoint(b), BINDING_SUCCESS]);
  deepStrictEqual(await seen(IP), [formatEndpoint(c), BINDING_SUCCESS]);
  deepStrictEqual(await seen(BOTH), [formatEndpoint(a), BINDING_ERROR]);
  const plain = await exchange(b, encodeBindingRequest(TX_ID));
  deepStrictEqual(decodeBindingAnswer(plain!.answer).other, c);
  strictEqual(await exchange(c, encodeBindingRequest(TX_ID), 50), undefined, "over the limit");
  stop.abort();
  await new Promise((resolve) => setTimeout(resolve));
});

Deno.test("StunService tells where its answer comes from, as the routes have it", async () => {
  const stop = new AbortController();
  const localAddress = (to: Ip) => to === parseIp("127.0.0.1") ? parseIp("127.0.0.1") : undefined;
  const service = new StunService({ signal: stop.signal, localAddress });
  const { port } = service.listen({ hostname: "0.0.0.0", port: 0 });
  const other = service.listen({ hostname: "0.0.0.0", port: 0 });
  const to = { ...endpoint("127.0.0.1:1"), port };
  const got = await exchange(to, encodeBindingRequest(TX_ID));
  const value = (type: number) =>
    toHex(decodeStun(got!.answer).attributes.find((each) => each.type === type)!.value);
  const local = (port: number) => `0001${port.toString(16).padStart(4, "0")}7f000001`;
  strictEqual(value(ATTRIBUTE.RESPONSE_ORIGIN), local(port));
  strictEqual(value(ATTRIBUTE.OTHER_ADDRESS), local(other.port));
  stop.abort();
  await new Promise((resolve) => setTimeout(resolve));
});

Deno.test("StunService on all addresses tells the other port with no address", async () => {
  const stop = new AbortController();
  const service = new StunService({ signal: stop.signal });
  const { port } = service.listen({ hostname: "0.0.0.0", port: 0 });
  const other = service.listen({ hostname: "0.0.0.0", port: 0 });
  const to = { ...endpoint("127.0.0.1:1"), port };
  const got = await exchange(to, encodeBindingRequest(TX_ID));
  const told = decodeBindingAnswer(got!.answer).other!;
  strictEqual(formatEndpoint(told), `0.0.0.0:${other.port}`);
  stop.abort();
  await new Promise((resolve) => setTimeout(resolve));
});

// --- the client

const SERVER = { name: "stun", endpoint: endpoint("192.0.2.1:3478") };

interface World {
  /** Places of the server that answer. */
  places: string[];
  /** Whether what comes from there passes, where nothing had been sent to. */
  passes?: (from: string) => boolean;
  /** The server's way with a CHANGE-REQUEST. */
  server?: "obeys" | "ignores" | "refuses";
  other?: string;
}

/** A client whose network is a server behind a filter. */
function clientIn(world: World, clock: VirtualClock): StunClient {
  const { places, passes = () => true, server = "obeys" } = world;
  const sentTo = new Set<string>();
  const deliver = (bytes: Uint8Array, from: string) => {
    const arrives = places.includes(from) && (sentTo.has(from) || passes(from));
    if (arrives) clock.after(20, () => client.handle(bytes, endpoint(from)));
  };
  const send = (bytes: Uint8Array, to: Endpoint) => {
    const asked = formatEndpoint(to);
    sentTo.add(asked);
    const request = decodeBindingRequest(bytes)!;
    const other = world.other === undefined ? undefined : endpoint(world.other);
    const answer = encodeBindingAnswer(request, CLIENT, () => (other ? { other } : {}));
    const { change } = request;
    if (!change || server === "ignores") return deliver(answer, asked);
    if (server === "refuses") return deliver(encodeChangeRefusal(request), asked);
    const from = places.map(endpoint).find((place) =>
      (place.ip !== to.ip) === change.ip && (place.port !== to.port) === change.port
    );
    if (server === "obeys" && from) deliver(answer, formatEndpoint(from));
  };
  const client = new StunClient({ send, clock, random: systemRandom });
  return client;
}

const FOUR = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479"];
const nobody = () => false;
const sameIp = (from: string) => from.startsWith("192.0.2.1:");

const TESTS: [name: string, world: World, other: string, expected: FilteringSighting][] = [
  ["everybody passes", { places: FOUR }, FOUR[3]!, { fromOtherIp: true, fromOtherPort: true }],
  [
    "the address passes",
    { places: FOUR, passes: sameIp },
    FOUR[3]!,
    { fromOtherIp: false, fromOtherPort: true },
  ],
  [
    "nobody passes",
    { places: FOUR, passes: nobody },
    FOUR[3]!,
    { fromOtherIp: false, fromOtherPort: false },
  ],
  ["two ports", { places: FOUR, passes: nobody }, FOUR[1]!, { fromOtherPort: false }],
  ["two addresses", { places: FOUR, passes: nobody }, FOUR[2]!, { fromOtherIp: false }],
  ["the server ignores it", { places: FOUR, server: "ignores" }, FOUR[3]!, {}],
  ["the server refuses it", { places: [FOUR[0]!], server: "refuses" }, FOUR[3]!, {}],
  ["the other places are dead", { places: [FOUR[0]!] }, FOUR[3]!, {}],
];
for (const [name, world, other, expected] of TESTS) {
  Deno.test(`testFiltering(): ${name}`, async () => {
    const clock = new VirtualClock();
    const [fresh, asking] = [clientIn(world, clock), clientIn(world, clock)];
    const options = { fresh, asking, server: SERVER, other: endpoint(other), timeoutMs: 1000 };
    const test = testFiltering(options);
    const { sighting, answers } = await clock.until(test);
    deepStrictEqual(sighting, expected);
    ok(clock.nowMs() <= 2000);
    for (const { mapped } of answers) deepStrictEqual(mapped, CLIENT);
  });
}

Deno.test("StunAnswer.other is a place besides the one that was asked", async () => {
  const cases: [told: string, expected: string | undefined][] = [
    ["192.0.2.2:3479", "192.0.2.2:3479"],
    ["0.0.0.0:3479", "192.0.2.1:3479"],
    ["192.0.2.1:3478", undefined],
    ["0.0.0.0:3478", undefined],
    ["192.0.2.2:0", undefined],
    ["192.168.0.1:3479", undefined],
    ["127.0.0.1:3479", undefined],
    ["169.254.169.254:80", undefined],
    ["224.0.0.1:3479", undefined],
    ["[2001:db8::1]:3479", undefined],
  ];
  for (const [other, expected] of cases) {
    const clock = new VirtualClock();
    const client = clientIn({ places: FOUR, other }, clock);
    const [answer] = await clock.until(client.query([SERVER], { timeoutMs: 1000 }));
    strictEqual(answer!.other && formatEndpoint(answer!.other), expected, other);
    strictEqual(answer!.from, undefined);
  }
});

Deno.test("StunClient takes an answer from elsewhere only where it asked for one", async () => {
  const clock = new VirtualClock();
  const query = async (change?: typeof PORT): Promise<StunAnswer[]> => {
    const client: StunClient = new StunClient({
      send: (bytes) => {
        const answer = encodeBindingAnswer(decodeBindingRequest(bytes)!, CLIENT);
        clock.after(1, () => client.handle(answer, endpoint(FOUR[1]!)));
      },
      clock,
      random: systemRandom,
    });
    const options = { timeoutMs: 50, ...(change ? { change } : {}) };
    return await clock.until(client.query([SERVER], options));
  };
  deepStrictEqual(await query(), []);
  deepStrictEqual((await query(PORT)).map(({ from }) => from), [endpoint(FOUR[1]!)]);
});

// --- verdicts

const seen = (fromOtherIp?: boolean, fromOtherPort?: boolean): FilteringSighting => ({
  ...(fromOtherIp === undefined ? {} : { fromOtherIp }),
  ...(fromOtherPort === undefined ? {} : { fromOtherPort }),
});
const VERDICTS: [sightings: FilteringSighting[], expected: FilteringBehaviour][] = [
  [[], "unknown"],
  [[seen()], "unknown"],
  [[seen(true, true)], "endpoint-independent"],
  [[seen(true)], "endpoint-independent"],
  [[seen(false, true)], "address-dependent"],
  [[seen(false, false)], "address-and-port-dependent"],
  [[seen(undefined, false)], "address-and-port-dependent"],
  [[seen(undefined, true)], "endpoint-independent or address-dependent"],
  [[seen(false)], "address-dependent or address-and-port-dependent"],
  [[seen(false), seen(undefined, true)], "address-dependent"],
  [[seen(false, false), seen(true, true)], "endpoint-independent"],
  [[seen(undefined, false), seen(undefined, true)], "endpoint-independent or address-dependent"],
];
for (const [sightings, expected] of VERDICTS) {
  Deno.test(`filteringBehaviour(): ${JSON.stringify(sightings)}`, () => {
    strictEqual(filteringBehaviour(sightings), expected);
    strictEqual(filteringBehaviour(sightings.toReversed()), expected);
  });
}
