/**
 * How often ports of NATs are guessed at the first attempt. The guesser of `gretun up` over plain
 * sockets, with pings that are not sealed, through real NATs. See README.md. Needs root.
 */
import type { Endpoint } from "../lib/addr.ts";
import { concatBytes, toHex } from "../lib/bytes.ts";
import { parseFlags } from "../lib/cli/flags.ts";
import type { NodeNat } from "../lib/coord/api.ts";
import { GUESS_AFTER_MS, OPEN_PORTS, PROBES } from "../lib/peer/hard_nat.ts";
import { equalPaths, type PathAddress } from "../lib/peer/path_address.ts";
import { type GuessPeer, type GuessPort, PortGuesser } from "../lib/daemon/port_guesser.ts";
import type { PortGuess } from "../lib/disco/mod.ts";
import { type Datagram, silentLog, systemClock, systemRandom } from "../lib/edges.ts";
import type { NodeKey } from "../lib/keys.ts";
import { type Host, Lab, type NatBehaviour, SYMMETRIC } from "../tests/lab/mod.ts";
import { endpointOf, Poller, sockAddrOf, UdpSocket } from "../lib/linux/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { StunClient, StunService } from "../lib/stun/mod.ts";

const FLAGS = {
  tries: { type: "integer", min: 1, max: 10_000, default: 100, help: "attempts of each kind" },
  "signal-ms": {
    type: "integer",
    min: 0,
    max: 1_000,
    default: 20,
    help: "one way through the coordinator",
  },
  only: {
    type: "choice",
    choices: ["all", "random", "sequential"],
    default: "all",
    help: "kind of NAT",
  },
} as const;
const STUN_PORT = 3478;
const FIRST_ANSWER_MS = 10_000;
const LIMIT_MS = 5_000;
/** Ports that a NAT takes at random: 1024 to 65535. */
const PORT_RANGE = 64_512;
/** Unlike the first byte of STUN. */
const PING = 0xa1;
const PONG = 0xa2;
const OPENER_TTL = 4;
const TOKEN_LENGTH = 100; // about as long as a sealed ping

interface Kind {
  behaviour: NatBehaviour;
  nat: NodeNat;
}

const EASY: Kind = { behaviour: {}, nat: { mapping: "easy" } };
const RANDOM: Kind = { behaviour: SYMMETRIC, nat: { mapping: "hard" } };
const SEQUENTIAL: Kind = {
  behaviour: { ...SYMMETRIC, ports: "sequential" },
  nat: { mapping: "hard", portDelta: 1 },
};

const flags = parseFlags(Deno.args, FLAGS);
RtNetlink.open()[Symbol.dispose](); // opens libc outside of the namespaces

class Node implements Disposable {
  other!: Node;
  path: PathAddress | undefined;
  pings = 0;
  readonly #host: Host;
  readonly #kind: Kind;
  readonly #poller: Poller;
  readonly #server: Endpoint;
  readonly #main: UdpSocket;
  readonly #mainStun: StunClient;
  readonly #sockets = new Map<number, UdpSocket>();
  readonly #pending = new Map<string, PathAddress>();
  readonly #sinceMs = systemClock.nowMs() - GUESS_AFTER_MS;
  readonly guesser: PortGuesser;
  readonly peer: GuessPeer;
  #mapped: Endpoint | undefined;
  #heardMs = -Infinity;

  constructor(host: Host, kind: Kind, server: Endpoint, poller: Poller, controlling: boolean) {
    this.#host = host;
    this.#kind = kind;
    this.#poller = poller;
    this.#server = server;
    this.#main = this.#socket((datagram) => this.#received(datagram, undefined));
    this.#mainStun = this.#stun(this.#main);
    this.guesser = new PortGuesser({
      aggressive: true,
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      ownNat: () => kind.nat,
      ownMapped: () => this.#mapped,
      openPort: () => this.#openPort(),
    });
    this.peer = this.#asPeer(controlling);
  }

  [Symbol.dispose](): void {
    this.guesser[Symbol.dispose]();
    this.#main[Symbol.dispose]();
  }

  /** What a daemon knows long before; a link that has just come up may lose the first packets. */
  async measure(): Promise<void> {
    this.#mapped = await this.#ask(this.#mainStun, FIRST_ANSWER_MS);
    if (!this.#mapped) throw new Error("the STUN server does not answer");
  }

  /** Daemons have pinged each other's public address before they guess ports. */
  greet(): void {
    this.#send(PING, systemRandom(TOKEN_LENGTH), this.other.#mapped!);
  }

  #asPeer(controlling: boolean): GuessPeer {
    const path = () => this.path;
    const [kind, sinceMs, heardMs] = [
      () => this.other.#kind.nat,
      this.#sinceMs,
      () => this.#heardMs,
    ];
    return {
      name: "peer",
      nodeKey: "peer".padEnd(64, "0") as NodeKey,
      controlling,
      get nat() {
        return kind();
      },
      get searchingSinceMs() {
        return path() ? undefined : sinceMs;
      },
      get heardMs() {
        return heardMs();
      },
      ping: (to) => this.#ping(to),
      open: (to) => this.#ping(to, OPENER_TTL),
      tell: (message: PortGuess) => {
        const { guesser, peer } = this.other;
        setTimeout(() => guesser.received(peer, message), flags["signal-ms"]);
      },
    };
  }

  #socket(onDatagram: (datagram: Datagram) => void): UdpSocket {
    return this.#host.within(() =>
      UdpSocket.open({ port: 0 }, this.#poller, (bytes, source) => {
        onDatagram({ bytes: bytes.slice(), from: endpointOf(source) });
      })
    );
  }

  #stun(socket: UdpSocket): StunClient {
    const send = (bytes: Uint8Array, to: Endpoint) => socket.send(bytes, sockAddrOf(to));
    return new StunClient({ send, clock: systemClock, random: systemRandom });
  }

  async #ask(stun: StunClient, timeoutMs = 1_000): Promise<Endpoint | undefined> {
    const server = { name: "stun", endpoint: this.#server };
    const [answer] = await stun.query([server], { timeoutMs });
    return answer?.mapped;
  }

  #openPort(): GuessPort {
    const socket = this.#socket((datagram) => {
      if (!stun.handle(datagram.bytes, datagram.from)) this.#received(datagram, socket.port);
    });
    const stun = this.#stun(socket);
    this.#sockets.set(socket.port, socket);
    return {
      port: socket.port,
      send: () => {},
      measure: () => this.#ask(stun),
      [Symbol.dispose]: () => {
        this.#sockets.delete(socket.port);
        socket[Symbol.dispose]();
      },
    };
  }

  #ping(to: PathAddress, ttl?: number): void {
    const token = systemRandom(TOKEN_LENGTH);
    this.#pending.set(toHex(token), to);
    if (ttl === undefined) this.pings++;
    this.#send(PING, token, to, ttl);
  }

  #send(kind: number, token: Uint8Array, to: PathAddress, ttl?: number): void {
    const socket = to.localPort === undefined ? this.#main : this.#sockets.get(to.localPort);
    socket?.send(concatBytes(Uint8Array.of(kind), token), sockAddrOf(to), ttl);
  }

  #received({ bytes, from: endpoint }: Datagram, localPort: number | undefined): void {
    if (localPort === undefined && this.#mainStun.handle(bytes, endpoint)) return;
    const from = { ...endpoint, ...(localPort === undefined ? {} : { localPort }) };
    const token = bytes.subarray(1);
    if (bytes[0] === PING) {
      this.#heardMs = systemClock.nowMs();
      this.#send(PONG, token, from);
      if (!this.path) this.#ping(from);
    } else if (bytes[0] === PONG) {
      const to = this.#pending.get(toHex(token));
      if (!to || !equalPaths(to, from) || this.path) return;
      this.path = from;
      this.guesser.linkUses(this.peer.nodeKey, localPort);
    }
  }
}

interface Outcome {
  /** From asking to a path for both, or Infinity. */
  ms: number;
  /** Of the side that guesses; of both, where both do. */
  pings: number;
}

/** New NATs for each try: none has mappings left of an earlier one. */
async function attempt(kinds: readonly [Kind, Kind]): Promise<Outcome> {
  await using lab = Lab.create({ prefix: `gretun-bench-${Deno.pid}-` });
  await using poller = new Poller();
  const coord = lab.publicHost("coord");
  const stop = new AbortController();
  const stun = new StunService({ signal: stop.signal });
  const server = coord.within(() => stun.listen({ hostname: coord.ip, port: STUN_PORT }));
  const [a, b] = kinds.map((kind, i) => {
    const nat = lab.nat(`nat-${"ab"[i]}`, kind.behaviour);
    return new Node(lab.host("ab"[i]!, { behind: nat }), kind, server, poller, i === 0);
  }) as [Node, Node];
  [a.other, b.other] = [b, a];
  try {
    await Promise.all([a.measure(), b.measure()]);
    for (const node of [a, b]) node.greet();
    const before = a.pings + b.pings;
    const startMs = systemClock.nowMs();
    // One of them asks.
    for (const node of [a, b]) node.guesser.look([node.peer]);
    while (!(a.path && b.path) && systemClock.nowMs() - startMs < LIMIT_MS) {
      await systemClock.sleep(2);
    }
    const ms = a.path && b.path ? systemClock.nowMs() - startMs : Infinity;
    return { ms, pings: a.pings + b.pings - before };
  } finally {
    for (const node of [a, b]) node[Symbol.dispose]();
    stop.abort();
  }
}

async function run(name: string, kinds: readonly [Kind, Kind], expected: string): Promise<void> {
  const outcomes: Outcome[] = [];
  for (let i = 0; i < flags.tries; i++) outcomes.push(await attempt(kinds));
  const met = outcomes.filter(({ ms }) => ms <= LIMIT_MS);
  const times = met.map(({ ms }) => ms).sort((x, y) => x - y);
  const pings = met.map((outcome) => outcome.pings);
  const mean = pings.reduce((x, y) => x + y, 0) / pings.length;
  const percent = 100 * met.length / outcomes.length;
  console.log(
    `${name}: ${met.length} of ${outcomes.length} (${
      percent.toFixed(1)
    } %) at the first attempt; ` +
      expected,
  );
  console.log(
    `  median ${times[times.length >> 1]?.toFixed(0)} ms, worst ${times.at(-1)?.toFixed(0)} ms; ` +
      `pings of both sides: mean ${mean.toFixed(0)}, most ${Math.max(...pings)}`,
  );
}

const missed = (1 - OPEN_PORTS.random / PORT_RANGE) ** PROBES;
if (flags.only !== "sequential") {
  await run(
    "random ports and one port",
    [EASY, RANDOM],
    `by the formula ${(100 * (1 - missed)).toFixed(1)} %, target 98 %`,
  );
}
if (flags.only !== "random") {
  await run("sequential ports and one port", [EASY, SEQUENTIAL], "target 95 %");
  await run("sequential ports on both sides", [SEQUENTIAL, SEQUENTIAL], "target 95 %");
}
