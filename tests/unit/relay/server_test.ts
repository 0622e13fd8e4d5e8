/** A relay with its real sockets, on loopback: UDP of both families, WebSockets, and what breaks. */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { type Endpoint, formatEndpoint, parseIp } from "../../../lib/addr.ts";
import { type Clock, silentLog, systemClock, systemRandom } from "../../../lib/edges.ts";
import {
  encodeGrant,
  nodePair,
  RelayClient,
  RelayError,
  type RelayPath,
} from "../../../lib/relay/mod.ts";
import { RelayServer, type RelayServerOptions } from "../../../lib/relay/serve.ts";
import { type ServerWebSocket, upgradeWebSocket } from "../../../lib/relay/web_socket.ts";
import { concatBytes, fromHex, toHex } from "../../../lib/bytes.ts";
import { CLOSE, encodeFrame, OPCODE } from "../../../lib/web_socket_frames.ts";
import { HttpServer } from "../../../lib/coord/serve.ts";
import { openWebSocket, systemDialer } from "../../../lib/dial/mod.ts";
import type { NodeKey } from "../../../lib/keys.ts";
import { type StandInEdges, type StandInOptions, StandIns } from "../../../lib/relay/stand_in.ts";
import { isStun, resolveServers, StunClient } from "../../../lib/stun/mod.ts";
import { type FakeNode, fakeNode } from "../../fakes/coordinator.ts";
import type { ServerRequest } from "../../../lib/server_http.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const COORD = await fakeNode("coord");
const never = new AbortController().signal;

/** A relay and its HTTP server, on free ports. */
class Relay implements AsyncDisposable {
  readonly server: RelayServer;
  readonly #port: number;
  readonly #stop = new AbortController();
  readonly #serving: Promise<void>;

  constructor(
    { hostname = "", clock = systemClock, show = (request) => request, ...others }: {
      hostname?: string;
      clock?: Clock;
      wallMs?: () => number;
      kernel?: NonNullable<RelayServerOptions["kernel"]>;
      listenUdp?: NonNullable<RelayServerOptions["listenUdp"]>;
      upgradeWebSocket?: NonNullable<RelayServerOptions["upgradeWebSocket"]>;
      /** What the relay sees of a request. */
      show?: (request: ServerRequest) => ServerRequest;
    } = {},
  ) {
    this.server = new RelayServer({
      hostname,
      port: 0,
      // Out of the way of ports that the system gives.
      ports: { from: 20_000, to: 20_999 },
      bytesPerSecond: 0,
      relayKey: COORD.nodeKey,
      grantKey: () => COORD.nodeKey,
      clock,
      random: systemRandom,
      log: silentLog,
      ...others,
    });
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#port = listener.addr.port;
    const http = new HttpServer({
      listeners: [listener],
      maxConnections: 1000,
      clock: systemClock,
      log: silentLog,
    });
    this.#serving = http.run(
      this.#stop.signal,
      (request, { source }) => this.server.acceptWebSocket(show(request), source),
    );
  }

  get port(): number {
    return this.server.endpoints[0]!.port;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.#port}`;
  }

  async metric(name: string): Promise<number> {
    const line = (await this.server.metrics.text()).split("\n").find((l) =>
      l.startsWith(name + " ")
    );
    return Number(line?.split(" ").at(-1));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server[Symbol.dispose]();
    this.#stop.abort();
    await this.#serving;
    await until(async () => await this.metric("gretun_relay_connections") === 0);
  }
}

/** A node of one address family. */
class Node implements AsyncDisposable {
  readonly received: string[] = [];
  readonly lost: NodeKey[] = [];
  readonly client: RelayClient;
  path!: RelayPath;
  readonly #socket: Deno.DatagramConn;
  readonly #receiving: Promise<void>;

  constructor(
    self: FakeNode,
    relay: Relay,
    options: { host: string; hasUdp?: boolean; edges?: StandInEdges },
  ) {
    const { host, hasUdp = true, edges } = options;
    const standIns = new StandIns(edges);
    this.#socket = Deno.listenDatagram({ transport: "udp", hostname: host, port: 0 });
    const offer = {
      relayKey: COORD.nodeKey,
      udp: `${host.includes(":") ? `[${host}]` : host}:${relay.port}`,
      ws: relay.url,
    };
    this.client = new RelayClient({
      nodeKey: self.nodeKey,
      sign: self.sign,
      coordinator: {
        relays: async () => [offer],
        relay: async (peer) => ({
          ...offer,
          grant: await encodeGrant({
            relay: COORD.nodeKey,
            nodes: nodePair(self.nodeKey, peer),
            endsSeconds: Date.now() / 1000 + 3600,
          }, COORD.sign),
          expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
        }),
      },
      send: (bytes, to) => hasUdp && this.send(bytes, to),
      nodePort: (this.#socket.addr as Deno.NetAddr).port,
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      onLost: ({ peer }) => this.lost.push(peer),
      openStandIn: (options, signal) => standIns.open(options, signal),
    });
    this.#receiving = this.#receive();
  }

  send(bytes: Uint8Array | string, to: Endpoint = this.path.endpoint): void {
    const data = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
    void this.#socket.send(data, { transport: "udp", hostname: to.ip, port: to.port });
  }

  async #receive(): Promise<void> {
    for await (const [bytes, address] of this.#socket) {
      const { hostname, port } = address as Deno.NetAddr;
      const from = { ip: parseIp(hostname), port };
      if (isStun(bytes)) this.client.handle(bytes, from);
      else this.received.push(`${new TextDecoder().decode(bytes)} from ${formatEndpoint(from)}`);
    }
  }

  /** The next datagram. */
  async next(): Promise<string> {
    for (let i = 0; i < 6_000 && this.received.length === 0; i++) await pause(10);
    return this.received.shift() ?? "nothing";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client[Symbol.asyncDispose]();
    this.#socket.close();
    await this.#receiving;
  }
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

async function pair(
  relay: Relay,
  [ofA, ofB]: [ConstructorParameters<typeof Node>[2], ConstructorParameters<typeof Node>[2]],
): Promise<[Node, Node]> {
  const [a, b] = await Promise.all([fakeNode("a"), fakeNode("b")]);
  const nodes: [Node, Node] = [new Node(a, relay, ofA), new Node(b, relay, ofB)];
  // Finds out that there is no UDP, which spares the wait for it.
  if (ofA.hasUdp === false) await Promise.all(nodes.map(({ client }) => client.measure(never)));
  nodes[0].path = await nodes[0].client.allocate(b.nodeKey, never);
  nodes[1].path = await nodes[1].client.allocate(a.nodeKey, never);
  return nodes;
}

const V4 = { host: "127.0.0.1" };
const V6 = { host: "::1" };
const NO_UDP = { ...V4, hasUdp: false };

for (
  const [name, ends, kinds] of [
    ["IPv4", [V4, V4], ["relay-udp", "relay-udp"]],
    ["IPv6", [V6, V6], ["relay-udp", "relay-udp"]],
    ["IPv4 and IPv6", [V4, V6], ["relay-udp", "relay-udp"]],
    ["WebSocket", [NO_UDP, NO_UDP], ["relay-tcp", "relay-tcp"]],
  ] as const
) {
  Deno.test(`two nodes through a relay by ${name}`, async () => {
    await using relay = new Relay();
    const [a, b] = await pair(relay, [...ends]);
    await using _a = a;
    await using _b = b;
    deepStrictEqual([a.path.kind, b.path.kind], kinds);
    a.send("hello b");
    strictEqual(await b.next(), `hello b from ${formatEndpoint(b.path.endpoint)}`);
    b.send("hello a");
    strictEqual(await a.next(), `hello a from ${formatEndpoint(a.path.endpoint)}`);
    // Whatever it is: the relay does not look.
    a.send("x".repeat(8_000));
    strictEqual((await b.next()).length, 8_000 + ` from ${formatEndpoint(b.path.endpoint)}`.length);
    strictEqual(await relay.metric("gretun_relay_allocations"), 1);
  });
}

Deno.test("a relay whose clock is a day ahead goes by the coordinator's", async () => {
  const clock = { ...systemClock, wallMs: () => Date.now() + 86_400_000 };
  await using alone = new Relay({ clock });
  const [nodeA, nodeB] = await Promise.all([fakeNode("a"), fakeNode("b")]);
  await using refused = new Node(nodeA, alone, V4);
  await rejects(refused.client.allocate(nodeB.nodeKey, never), /the relay refused: 403/);
  await using relay = new Relay({ clock, wallMs: () => Date.now() });
  const [a, b] = await pair(relay, [V4, V4]);
  await using _a = a;
  await using _b = b;
  strictEqual(await relay.metric("gretun_relay_allocations"), 1);
});

Deno.test("the main port answers STUN", async () => {
  await using relay = new Relay({ hostname: "127.0.0.1" });
  using socket = {
    conn: Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 }),
    [Symbol.dispose]() {
      this.conn.close();
    },
  };
  const stun = new StunClient({
    send: (bytes, { ip: hostname, port }) =>
      void socket.conn.send(bytes, { transport: "udp", hostname, port }),
    clock: systemClock,
    random: systemRandom,
  });
  const servers = await resolveServers([`127.0.0.1:${relay.port}`]);
  const asked = stun.query(servers, { timeoutMs: 5_000 });
  const [bytes] = await socket.conn.receive(new Uint8Array(200));
  stun.handle(bytes, servers[0]!.endpoint);
  strictEqual((await asked)[0]!.mapped.port, (socket.conn.addr as Deno.NetAddr).port);
});

/** How the relay closes a connection after `first` was sent by it. */
async function closedAfter(relay: Relay, first?: string | Uint8Array): Promise<number> {
  const socket = new WebSocket(relay.url);
  const closed = new Promise<number>((resolve) => socket.onclose = ({ code }) => resolve(code));
  await new Promise((resolve) => socket.onopen = resolve);
  if (first !== undefined) socket.send(first);
  return await closed;
}

Deno.test("a WebSocket that sends what it must not is closed", async () => {
  await using relay = new Relay();
  strictEqual(await closedAfter(relay, "text"), 1003);
  strictEqual(await closedAfter(relay, new Uint8Array(100_000)), 1009);
  const answer = await fetch(relay.url.replace("ws:", "http:"));
  strictEqual(answer.status, 426);
  await answer.body?.cancel();
});

/** A connection after its handshake, without a WebSocket's rules. */
async function upgradedConnection({ url }: Relay): Promise<Deno.TcpConn> {
  const { hostname, port, host } = new URL(url);
  const conn = await Deno.connect({ hostname, port: Number(port) });
  await conn.write(new TextEncoder().encode([
    "GET / HTTP/1.1",
    `Host: ${host}`,
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ...["", ""],
  ].join("\r\n")));
  let head = "";
  while (!head.endsWith("\r\n\r\n")) head += latin1(await some(conn));
  ok(head.includes("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), head);
  return conn;
}

const latin1 = (bytes: Uint8Array) => String.fromCharCode(...bytes);

async function some(conn: Deno.TcpConn): Promise<Uint8Array> {
  const buffer = new Uint8Array(1024);
  return buffer.subarray(0, await conn.read(buffer) ?? 0);
}

async function writeAll(conn: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

Deno.test("WebSocket: messages that do not end are refused, and nothing of them is kept", async () => {
  const MIB = 1024 * 1024;
  await using relay = new Relay();
  const connections = await Promise.all(
    Array.from({ length: 64 }, () => upgradedConnection(relay)),
  );
  const before = Deno.memoryUsage().rss;
  // Of 64 MiB in one frame, and of one in frames of 1 KiB.
  const announced = concatBytes(fromHex("82ff000000000400000000000000"), new Uint8Array(2 * MIB));
  const part = encodeFrame(OPCODE.continuation, new Uint8Array(1024), new Uint8Array(4));
  const parts = concatBytes(...Array.from({ length: 2048 }, () => part));
  parts[0] = OPCODE.binary;
  for (let at = part.length; at < parts.length; at += part.length) parts[at] = OPCODE.continuation;
  await Promise.all(
    connections.map((conn, i) => writeAll(conn, i % 2 === 0 ? announced : parts)),
  );
  ok(Deno.memoryUsage().rss - before < 64 * MIB);
  for (const conn of connections) {
    strictEqual(toHex(await some(conn)), "880203f1");
    conn.close();
  }
});

Deno.test("data before anything was allocated is dropped", async () => {
  await using relay = new Relay();
  const socket = new WebSocket(relay.url);
  await new Promise((resolve) => socket.onopen = resolve);
  socket.send(new Uint8Array(100));
  const drops = 'gretun_relay_drops_total{reason="unknown-source"}';
  for (let i = 0; i < 6_000 && await relay.metric(drops) === 0; i++) await pause(10);
  strictEqual(await relay.metric(drops), 1);
  const closed = new Promise((resolve) => socket.onclose = resolve);
  socket.close();
  await closed;
});

Deno.test("a WebSocket that asks for nothing is closed after 10 s", async () => {
  const clock = new VirtualClock();
  await using relay = new Relay({ clock });
  const closed = closedAfter(relay);
  const isOpen = async () => await relay.metric("gretun_relay_connections") === 1;
  while (!await isOpen()) await pause(5);
  await pause(50);
  await clock.until(clock.sleep(9_000));
  ok(await isOpen());
  await clock.until(clock.sleep(2_000));
  strictEqual(await closed, 1008);
});

Deno.test("one address has no more than 64 connections that are bound to nothing", async () => {
  await using relay = new Relay();
  const sockets = Array.from({ length: 64 }, () => new WebSocket(relay.url));
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.onopen = resolve)));
  const refused = new WebSocket(relay.url);
  const failed = new Promise<void>((resolve) => {
    refused.onerror = (event) => {
      event.preventDefault();
      resolve();
    };
  });
  await failed;
  const closed = sockets.map((socket) => new Promise((resolve) => socket.onclose = resolve));
  for (const socket of sockets) socket.close();
  await Promise.all(closed);
});

Deno.test("a relay ends its connections when it ends", async () => {
  const relay = new Relay();
  const closed = closedAfter(relay);
  while (await relay.metric("gretun_relay_connections") === 0) await pause(5);
  await pause(50);
  await relay[Symbol.asyncDispose]();
  strictEqual(await closed, 1001);
});

const standInOptions = (url: string): StandInOptions => ({
  url,
  dialer: systemDialer(),
  clock: systemClock,
  nodePort: 7777,
  random: systemRandom,
  onMessage: () => {},
  onClosed: () => {},
});

Deno.test("StandIn: what answers with no WebSocket is no relay; aborting ends the wait", async () => {
  await using http = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    () => new Response("hello"),
  );
  const { port } = http.addr;
  await rejects(new StandIns().open(standInOptions(`ws://127.0.0.1:${port}`), never), RelayError);
  await rejects(new StandIns().open(standInOptions("ws://127.0.0.1:1"), never), RelayError);
  const aborted = AbortSignal.abort(new Error("enough"));
  await rejects(new StandIns().open(standInOptions("ws://127.0.0.1:1"), aborted), /enough/);
});

Deno.test("StandIn: other programs of the host are not the node", async () => {
  await using relay = new Relay();
  const [a, b] = await pair(relay, [NO_UDP, NO_UDP]);
  await using _a = a;
  await using _b = b;
  const other = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { ip: hostname, port } = a.path.endpoint;
  await other.send(new TextEncoder().encode("forged"), { transport: "udp", hostname, port });
  other.close();
  a.send("genuine");
  ok((await b.next()).startsWith("genuine"));
});

Deno.test("a kernel whose packets are held back is given up, once, and its figures stay", async () => {
  const clock = new VirtualClock();
  let [isHeldBack, given, looks] = [false, 0, 0];
  const none = { packets: 0, bytes: 0 };
  const kernel = {
    set() {},
    counters: () => ({ forwarded: { packets: 7, bytes: 700 }, dropped: none, left: none }),
    isHeldBack: () => (looks++, isHeldBack),
    [Symbol.dispose]: () => void given++,
  };
  const ofGrants: Clock = {
    nowMs: () => clock.nowMs(),
    wallMs: () => Date.now(),
    sleep: (ms, signal) => clock.sleep(ms, signal),
    timer: (ms, fire) => clock.timer(ms, fire),
  };
  await using relay = new Relay({ hostname: "127.0.0.1", clock: ofGrants, kernel });
  const forwarded = () => relay.metric('gretun_relay_packets_total{transport="kernel"}');
  await using a = new Node(await fakeNode("a"), relay, { host: "127.0.0.1" });
  await clock.until(clock.sleep(3_000));
  strictEqual(looks, 0);
  await a.client.allocate((await fakeNode("b")).nodeKey, never);
  await clock.until(clock.sleep(1_000));
  deepStrictEqual([looks > 0, given], [true, 0]);
  isHeldBack = true;
  await clock.until(clock.sleep(5_000));
  deepStrictEqual([given, await forwarded()], [1, 7]);
});

/** A relay that does not know of protocols. */
const withoutChannels: ConstructorParameters<typeof Relay>[0] = {
  show(request) {
    const get = (name: string) =>
      name === "sec-websocket-protocol" ? null : request.headers.get(name);
    const headers = { get, has: (name: string) => get(name) !== null };
    const { signal, stream } = request;
    const reads = { read: () => request.read(), readBody: () => request.readBody() };
    return { ...request, headers, signal, stream, ...reads };
  },
};
const asksForNone: StandInEdges = {
  openWebSocket: ({ dialer, url, random }, signal) =>
    openWebSocket(dialer, new URL(url), random, signal),
  listenUdp: (hostname, port) => Deno.listenDatagram({ transport: "udp", hostname, port }),
};

/** A node and its peers, all by WebSocket. */
async function star(relay: Relay, peers: number, edges?: StandInEdges) {
  const [self, ...others] = await Promise.all(
    Array.from({ length: peers + 1 }, (_, i) => fakeNode(`node-${i}`)),
  );
  const centre = new Node(self!, relay, { ...NO_UDP, ...(edges ? { edges } : {}) });
  const ends = others.map((other) => new Node(other, relay, NO_UDP));
  await Promise.all([centre, ...ends].map(({ client }) => client.measure(never)));
  const paths = await Promise.all(
    others.map(({ nodeKey }) => centre.client.allocate(nodeKey, never)),
  );
  for (const end of ends) end.path = await end.client.allocate(self!.nodeKey, never);
  return {
    ...{ centre, ends, paths },
    async [Symbol.asyncDispose]() {
      for (const node of [centre, ...ends]) await node[Symbol.asyncDispose]();
    },
  };
}

for (
  const [name, options, edges, connections] of [
    ["one connection of a node carries all its peers", {}, undefined, 1],
    [
      "a relay that knows no channels has a connection for each peer",
      withoutChannels,
      undefined,
      3,
    ],
    ["a node that knows no channels has a connection for each peer", {}, asksForNone, 3],
  ] as const
) {
  Deno.test(`WebSocket: ${name}, in order`, async () => {
    await using relay = new Relay(options);
    await using nodes = await star(relay, 3, edges);
    const { centre, ends, paths } = nodes;
    strictEqual(await relay.metric("gretun_relay_connections"), connections + 3);
    strictEqual(new Set(paths.map(({ endpoint }) => formatEndpoint(endpoint))).size, 3);
    for (let i = 0; i < 20; i++) {
      for (const [to, { endpoint }] of paths.entries()) centre.send(`${i} to ${to}`, endpoint);
    }
    for (const [to, end] of ends.entries()) {
      const from = ` from ${formatEndpoint(end.path.endpoint)}`;
      for (let i = 0; i < 20; i++) strictEqual(await end.next(), `${i} to ${to}${from}`);
      end.send(`back ${to}`);
      strictEqual(await centre.next(), `back ${to} from ${formatEndpoint(paths[to]!.endpoint)}`);
    }
  });
}

Deno.test("WebSocket: a peer that goes while data to it is being sent takes nothing down", async () => {
  const [sending, going] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let aheadMs = 0;
  await using relay = new Relay({
    clock: {
      ...systemClock,
      nowMs: () => systemClock.nowMs() + aheadMs,
      sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 20), signal),
    },
    listenUdp: (hostname, port) => {
      const socket = Deno.listenDatagram({ transport: "udp", hostname, port });
      const send = socket.send.bind(socket);
      socket.send = async (bytes, to) => {
        if (bytes.length > 1) return await send(bytes, to);
        sending.resolve();
        await going.promise;
        return bytes.length;
      };
      return socket;
    },
  });
  const [a, b] = await pair(relay, [NO_UDP, V4]);
  await using _a = a;
  await using _b = b;
  a.send("x");
  await sending.promise;
  aheadMs = 3_600_000;
  await until(async () => await relay.metric("gretun_relay_allocations") === 0);
  going.resolve();
  const forwarded = 'gretun_relay_packets_total{transport="udp"}';
  await until(async () => await relay.metric(forwarded) === 1);
});

Deno.test("WebSocket: a path that ends leaves the others, the last one ends the connection", async () => {
  await using relay = new Relay();
  await using nodes = await star(relay, 2);
  const { centre, ends, paths } = nodes;
  await paths[0]![Symbol.asyncDispose]();
  ends[1]!.send("still there");
  ok((await centre.next()).startsWith("still there"));
  ends[0]!.send("to nobody");
  await until(async () =>
    await relay.metric('gretun_relay_drops_total{reason="unbound-peer"}') === 1
  );
  strictEqual(await relay.metric("gretun_relay_connections"), 3);
  await paths[1]![Symbol.asyncDispose]();
  await until(async () => await relay.metric("gretun_relay_connections") === 2);
  deepStrictEqual(centre.lost, []);
});

Deno.test("WebSocket: when the connection ends, all its paths are lost, and open in a new one", async () => {
  const sockets: ServerWebSocket[] = [];
  await using relay = new Relay({
    upgradeWebSocket: (request, options) => {
      const socket = upgradeWebSocket(request, options);
      sockets.push(socket);
      return socket;
    },
  });
  await using nodes = await star(relay, 2);
  const { centre, paths } = nodes;
  for (const socket of sockets) socket.close(CLOSE.goingAway);
  await until(async () => centre.lost.length === 2);
  const again = await Promise.all(paths.map(({ peer }) => centre.client.allocate(peer, never)));
  deepStrictEqual(again.map(({ kind }) => kind), ["relay-tcp", "relay-tcp"]);
  strictEqual(sockets.length, 4);
});

async function until(holds: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 6_000; i++) {
    if (await holds()) return;
    await pause(10);
  }
  throw new Error("not within a minute");
}
