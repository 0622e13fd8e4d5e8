/** The client against a relay in memory, under virtual time. */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { type Endpoint, equalEndpoints, formatEndpoint, parseEndpoint } from "../../../lib/addr.ts";
import { silentLog } from "../../../lib/edges.ts";
import type { NodeKey } from "../../../lib/keys.ts";
import {
  GRANT_LENGTH,
  RelayClient,
  type RelayOffer,
  type RelayPath,
} from "../../../lib/relay/mod.ts";
import {
  decodeRelayMessage,
  encodeError,
  encodeSuccess,
  isRelayMessage,
  NONCE_LENGTH,
} from "../../../lib/relay/messages.ts";
import type { StandInOptions } from "../../../lib/relay/stand_in.ts";
import { answerBinding } from "../../../lib/stun/mod.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const NODE = "a".repeat(64) as NodeKey;
const PEER = "b".repeat(64) as NodeKey;
const RELAY = "c".repeat(64) as NodeKey;
const OTHER_RELAY = "d".repeat(64) as NodeKey;
const MAIN = parseEndpoint("203.0.113.1:3479");
const DEAD = parseEndpoint("203.0.113.9:3479");
const RELAYED_PORT = 50_000;
const STAND_IN = parseEndpoint("127.70.0.1:40000");
const RTT_MS = 20;
const GRANT_MS = 3_600_000;
const never = new AbortController().signal;

/** A coordinator, a relay and the network between, with everything that can go wrong. */
class World {
  readonly clock = new VirtualClock();
  readonly lost: string[] = [];
  /** What the relay took, as "port timestamp". */
  readonly taken: { port: number; timestampMs: number; grant: number }[] = [];
  sent = 0;
  offers = 0;
  relayKey = RELAY;
  dropUdp = (_sent: number) => false;
  /** Answers to requests with this code instead of success. */
  refuseWith: number | undefined;
  isSymmetric = false;
  coordinatorIsAway = false;
  hasWebSocket = true;
  /** Addresses of the relay's name. */
  mains: Endpoint[] = [MAIN];
  standIn: StandInOptions | undefined;
  standInsClosed = 0;
  #nonce = 1;
  readonly reports: [NodeKey, number][][] = [];
  readonly client: RelayClient;

  constructor() {
    let bytes = 0;
    this.client = new RelayClient({
      nodeKey: NODE,
      sign: () => Promise.resolve(new Uint8Array(64)),
      coordinator: {
        relays: async (latencies) => {
          this.reports.push([...latencies]);
          return [
            { relayKey: RELAY, udp: "relay:3479", ws: "ws://relay" },
            { relayKey: OTHER_RELAY, udp: "gone:3479", ws: "ws://gone" },
          ];
        },
        relay: async () => this.#offer(),
      },
      send: (bytes, to) => this.#arrive(bytes, to),
      nodePort: 7777,
      clock: this.clock,
      random: (length) => new Uint8Array(length).fill(0).map(() => bytes++),
      log: silentLog,
      onLost: (path: RelayPath, reason) => this.lost.push(`${path.kind} ${reason}`),
      resolve: async (name) => {
        if (name === "relay:3479") return this.mains;
        throw new Error("no such host");
      },
      openStandIn: async (options) => {
        if (!this.hasWebSocket) throw new Error("no way");
        this.standIn = options;
        return {
          key: "stand-in",
          endpoint: STAND_IN,
          send: (bytes) => this.#answer(bytes.slice(), "stand-in", 0, options.onMessage),
          [Symbol.dispose]: () => void this.standInsClosed++,
        };
      },
    });
  }

  #offer(): RelayOffer {
    this.offers++;
    if (this.coordinatorIsAway) throw new Error("the coordinator is away");
    return {
      relayKey: this.relayKey,
      udp: "relay:3479",
      ws: "ws://relay",
      grant: new Uint8Array(GRANT_LENGTH).fill(this.offers),
      expiresAt: new Date(this.clock.wallMs() + GRANT_MS).toISOString(),
    };
  }

  #arrive(bytes: Uint8Array, to: Endpoint): void {
    this.sent++;
    if (this.dropUdp(this.sent) || equalEndpoints(to, DEAD)) return;
    const back = (answer: Uint8Array) => this.client.handle(answer, to);
    if (isRelayMessage(bytes)) {
      const port = equalEndpoints(to, MAIN) ? 0 : to.port;
      return this.#answer(bytes.slice(), formatEndpoint(to), port, back);
    }
    const answer = answerBinding(bytes, parseEndpoint("198.51.100.1:7777"));
    if (answer) this.clock.after(RTT_MS, () => back(answer));
  }

  #answer(bytes: Uint8Array, line: string, port: number, back: (bytes: Uint8Array) => unknown) {
    const message = decodeRelayMessage(bytes);
    const nonce = new Uint8Array(NONCE_LENGTH).fill(
      this.#nonce + (this.isSymmetric ? port % 7 : 0),
    );
    const answer = () => {
      if (message.kind !== "request" || message.nonce[0] !== nonce[0]) {
        return encodeError({ txId: message.txId, code: 401, nonce });
      }
      strictEqual(message.port, port, line);
      const [grant] = message.grant;
      this.taken.push({ port, timestampMs: message.timestampMs, grant: grant! });
      const { txId } = message;
      if (this.refuseWith !== undefined) return encodeError({ txId, code: this.refuseWith });
      return encodeSuccess({ txId, port: RELAYED_PORT, lifetimeSeconds: 120 });
    };
    this.clock.after(RTT_MS, () => back(answer()));
  }

  /** The relay was started again: it knows none of its nonces. */
  newNonces(): void {
    this.#nonce += 10;
  }

  allocate(): Promise<RelayPath> {
    return this.clock.until(this.client.allocate(PEER, never));
  }

  pass(ms: number): Promise<void> {
    return this.clock.until(this.clock.sleep(ms));
  }

  async close(): Promise<void> {
    await this.client[Symbol.asyncDispose]();
  }
}

const timestampsRise = ({ taken }: World) =>
  taken.every(({ timestampMs }, i) => i === 0 || timestampMs > taken[i - 1]!.timestampMs);

Deno.test("allocate(): main port, relayed port, in three round trips", async () => {
  const world = new World();
  const path = await world.allocate();
  strictEqual(path.kind, "relay-udp");
  strictEqual(formatEndpoint(path.endpoint), `203.0.113.1:${RELAYED_PORT}`);
  deepStrictEqual([path.peer, path.relayKey], [PEER, RELAY]);
  deepStrictEqual(world.taken.map(({ port }) => port), [0, RELAYED_PORT]);
  strictEqual(world.clock.nowMs(), 3 * RTT_MS);
  ok(timestampsRise(world));
  await world.close();
});

Deno.test("allocate() behind a symmetric NAT: the relayed port has a nonce of its own", async () => {
  const world = new World();
  world.isSymmetric = true;
  strictEqual((await world.allocate()).kind, "relay-udp");
  strictEqual(world.clock.nowMs(), 4 * RTT_MS);
  await world.close();
});

Deno.test("allocate(): a name with a dead first address costs a quarter of a second", async () => {
  const world = new World();
  world.mains = [DEAD, MAIN];
  const path = await world.allocate();
  strictEqual(formatEndpoint(path.endpoint), `203.0.113.1:${RELAYED_PORT}`);
  strictEqual(world.clock.nowMs(), 250 + 3 * RTT_MS);
  await world.close();
});

Deno.test("allocate() twice is one path; after it is closed, a new one", async () => {
  const world = new World();
  const first = world.client.allocate(PEER, never);
  strictEqual(await world.clock.until(first), await world.allocate());
  strictEqual(world.offers, 1);
  await (await first)[Symbol.asyncDispose]();
  await world.allocate();
  strictEqual(world.offers, 2);
  deepStrictEqual(world.lost, [], "closed on purpose");
  await world.close();
});

Deno.test("many allocations: a burst, then one after the other; closing ends those that wait", async () => {
  const world = new World();
  const peers = Array.from({ length: 100 }, (_, i) => `${i}`.padStart(64, "0") as NodeKey);
  const begun = peers.map((peer) => world.client.allocate(peer, never));
  for (const promise of begun) promise.catch(() => {});
  await world.clock.until(world.clock.sleep(1));
  strictEqual(world.offers, 16);
  await world.clock.until(world.clock.sleep(1_000));
  strictEqual(world.offers, 16 + 20);
  await world.clock.until(Promise.all(begun.slice(0, 36)));
  const before = world.offers;
  const closing = world.client[Symbol.asyncDispose]();
  await rejects(world.clock.until(begun[99]!), /closed/);
  await world.clock.until(closing);
  await world.clock.until(world.clock.sleep(5_000));
  strictEqual(world.offers, before, "those that waited were not begun");
});

Deno.test("lost messages are sent again, with later timestamps", async () => {
  const world = new World();
  world.dropUdp = (sent) => sent % 3 !== 0;
  strictEqual((await world.allocate()).kind, "relay-udp");
  ok(world.clock.nowMs() < 3_000);
  ok(timestampsRise(world));
  await world.close();
});

Deno.test("without UDP: by WebSocket, after 1 s, with the stand-in as endpoint", async () => {
  const world = new World();
  world.dropUdp = () => true;
  const path = await world.allocate();
  strictEqual(path.kind, "relay-tcp");
  strictEqual(path.endpoint, STAND_IN);
  strictEqual(world.clock.nowMs(), 1_000 + 2 * RTT_MS);
  deepStrictEqual([world.standIn?.url, world.standIn?.nodePort], ["ws://relay", 7777]);
  await world.pass(61_000);
  strictEqual(world.taken.length, 5, "kept by the same connection");
  ok(timestampsRise(world));
  world.standIn?.onClosed("gone");
  deepStrictEqual(world.lost, ["relay-tcp gone"]);
  strictEqual(world.standInsClosed, 1);
  await world.close();
});

Deno.test("UDP that loses much is waited for once it has answered", async () => {
  const world = new World();
  world.dropUdp = (sent) => sent > 1 && world.clock.nowMs() < 1_500;
  strictEqual((await world.allocate()).kind, "relay-udp");
  strictEqual(world.standIn, undefined);
  await world.close();
});

Deno.test("neither UDP nor WebSocket: the error of the last; the next try is a new one", async () => {
  const world = new World();
  world.dropUdp = () => true;
  world.hasWebSocket = false;
  await rejects(world.allocate(), /no way/);
  world.hasWebSocket = true;
  strictEqual((await world.allocate()).kind, "relay-tcp");
  await world.close();
});

Deno.test("a relay that refuses is not asked again by WebSocket", async () => {
  const world = new World();
  world.refuseWith = 486;
  await rejects(world.allocate(), { name: "RelayError", code: 486 });
  strictEqual(world.standIn, undefined);
  await world.close();
});

Deno.test("the path is refreshed each 15 s, also across new nonces", async () => {
  const world = new World();
  await world.allocate();
  world.taken.length = 0;
  await world.pass(31_000);
  deepStrictEqual(world.taken.map(({ port }) => port), [RELAYED_PORT, RELAYED_PORT]);
  world.newNonces();
  await world.pass(30_000);
  strictEqual(world.taken.length, 4);
  deepStrictEqual(world.lost, []);
  await world.close();
});

Deno.test("a relay that forgot the allocation, or does not answer: lost, once", async () => {
  for (
    const break_ of [
      (world: World) => void (world.refuseWith = 437),
      (world: World) => void (world.dropUdp = () => true),
    ]
  ) {
    const world = new World();
    await world.allocate();
    break_(world);
    await world.pass(60_000);
    strictEqual(world.lost.length, 1);
    const sent = world.sent;
    await world.pass(60_000);
    strictEqual(world.sent, sent, "nothing is sent for it any more");
    world.dropUdp = () => false;
    world.refuseWith = undefined;
    strictEqual((await world.allocate()).kind, "relay-udp");
    await world.close();
  }
});

Deno.test("check() and hints refresh at once, but not more than once a second", async () => {
  const world = new World();
  const path = await world.allocate();
  world.taken.length = 0;
  const hint = encodeError({
    txId: new Uint8Array(12),
    code: 437,
    nonce: new Uint8Array(NONCE_LENGTH).fill(11),
  });
  const elsewhere = parseEndpoint("192.0.2.66:50000");
  ok(world.client.handle(hint, elsewhere), "a hint, if for no path");
  await world.pass(5_000);
  strictEqual(world.taken.length, 0);
  path.check();
  await world.pass(500);
  strictEqual(world.taken.length, 1);
  world.newNonces();
  for (let i = 0; i < 10; i++) world.client.handle(hint, path.endpoint);
  world.client.check();
  await world.pass(400);
  strictEqual(world.taken.length, 1);
  await world.pass(600);
  strictEqual(world.taken.length, 2, "with the nonce of the hint");
  await world.pass(10_000);
  strictEqual(world.taken.length, 2);
  await world.pass(6_000);
  strictEqual(world.taken.length, 3, "15 s after the last");
  deepStrictEqual(world.lost, []);
  await world.close();
});

Deno.test("a relay that does not answer a check is lost after 3 s, and is not near any more", async () => {
  const world = new World();
  const path = await world.allocate();
  await world.clock.until(world.client.measure(never));
  deepStrictEqual(world.reports.at(-1), [[RELAY, RTT_MS]]);
  world.dropUdp = () => true;
  path.check();
  await world.pass(2_900);
  strictEqual(world.lost.length, 0);
  await world.pass(200);
  strictEqual(world.lost.length, 1);
  await world.clock.until(world.client.measure(never));
  deepStrictEqual(world.reports.at(-1), []);
  await world.close();
});

Deno.test("the grant is renewed at half of its time; a coordinator that is away can wait", async () => {
  const world = new World();
  await world.allocate();
  await world.pass(GRANT_MS / 2 - 30_000);
  strictEqual(world.offers, 1);
  world.coordinatorIsAway = true;
  await world.pass(60_000);
  ok(world.offers > 2);
  strictEqual(world.taken.at(-1)?.grant, 1);
  world.coordinatorIsAway = false;
  await world.pass(15_000);
  strictEqual(world.taken.at(-1)?.grant, world.offers);
  deepStrictEqual(world.lost, []);
  world.relayKey = OTHER_RELAY;
  await world.pass(GRANT_MS / 2 + 15_000);
  deepStrictEqual(world.lost, ["relay-udp the coordinator names another relay"]);
  await world.close();
});

Deno.test("answers that are not to be believed are not", async () => {
  const world = new World();
  world.dropUdp = () => true;
  const allocating = world.client.allocate(PEER, never);
  const txIds: Uint8Array[] = [];
  world.dropUdp = (sent) => {
    txIds.push(new Uint8Array(12).fill(sent));
    return true;
  };
  for (const from of [MAIN, parseEndpoint("203.0.113.1:50000"), parseEndpoint("192.0.2.9:3479")]) {
    for (let i = 0; i < 256; i++) {
      const txId = new Uint8Array(12).fill(i);
      strictEqual(world.client.handle(encodeError({ txId, code: 403 }), from), false);
    }
  }
  strictEqual(world.client.handle(new Uint8Array(40), MAIN), false);
  strictEqual((await world.clock.until(allocating)).kind, "relay-tcp");
  await world.close();
});

Deno.test("measure() tells the coordinator; without any answer UDP is not tried first", async () => {
  const world = new World();
  strictEqual(world.client.udpWorks, undefined);
  deepStrictEqual([...await world.clock.until(world.client.measure(never))], [[RELAY, RTT_MS]]);
  deepStrictEqual(world.reports, [[], [[RELAY, RTT_MS]]]);
  strictEqual(world.client.udpWorks, true);
  world.dropUdp = () => true;
  deepStrictEqual([...await world.clock.until(world.client.measure(never))], []);
  strictEqual(world.client.udpWorks, false);
  const startMs = world.clock.nowMs();
  strictEqual((await world.allocate()).kind, "relay-tcp");
  strictEqual(world.clock.nowMs() - startMs, 2 * RTT_MS);
  await world.close();
});

Deno.test("closing the client ends what is under way and all paths", async () => {
  const world = new World();
  await world.allocate();
  const other = "e".repeat(64) as NodeKey;
  world.dropUdp = () => true;
  const underWay = world.client.allocate(other, never);
  const refused = rejects(underWay, /was closed/);
  await world.close();
  await refused;
  deepStrictEqual(world.lost, []);
  await rejects(world.client.allocate(other, never), /was closed/);
});
