/** Many at once: spokes that only speak the protocol, and one that only sends rubbish. */
import type { Endpoint } from "../lib/addr.ts";
import { acceptWelcome, makeAuth, Pair } from "../lib/hub/auth.ts";
import { publicKeyOf } from "../lib/hub/curves.ts";
import * as wire from "../lib/hub/wire.ts";
import type { Host } from "../lib/lab/mod.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
const RETRY_MS = 1_000;

/** Each has a UDP port of its own, no interface, and is connected when its welcome was proven. */
export class SimulatedSpokes implements AsyncDisposable {
  readonly #host: Host;
  readonly #hub: Endpoint;
  readonly #hubKey: Uint8Array;
  readonly #sockets: Deno.DatagramConn[] = [];

  constructor(host: Host, hub: Endpoint, hubKey: Uint8Array) {
    this.#host = host;
    this.#hub = hub;
    this.#hubKey = hubKey;
  }

  async connect({ name, seed }: { name: string; seed: Uint8Array }): Promise<void> {
    const { socket } = this.#host.within(() => ({
      socket: Deno.listenDatagram({ transport: "udp", hostname: this.#host.ip, port: 0 }),
    }));
    this.#sockets.push(socket);
    const to = { transport: "udp", hostname: this.#hub.ip, port: this.#hub.port } as const;
    const pair = new Pair({
      kind: "key",
      ownSeed: seed,
      ownPublic: publicKeyOf(seed),
      peerPublic: this.#hubKey,
    });
    const hello = () => socket.send(wire.encodeHello({ nonce: random(16), name }), to);
    const timer = setInterval(() => void hello(), RETRY_MS);
    await hello();
    let inFlight;
    try {
      while (true) {
        const [bytes] = await socket.receive();
        const type = wire.messageType(bytes);
        if (type === "challenge") {
          const challenge = wire.decodeChallenge(bytes.slice());
          const request = { name, challenge, hub: this.#hub, ephemeralSecret: random(32) };
          inFlight = makeAuth(pair, { ...request, framing: "any", encrypt: true });
          await socket.send(inFlight.message, to);
        } else if (type === "welcome" && inFlight) {
          if (acceptWelcome(pair, inFlight, wire.decodeWelcome(bytes)!)) return;
        }
      }
    } finally {
      clearInterval(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.close();
  }
}

/** A thread that sends bad authentication packets as fast as it is told. */
export class Flood {
  readonly #worker: Worker;
  readonly #startedMs = performance.now();

  constructor(host: Host, hub: Endpoint, perSecond = 50_000) {
    this.#worker = new Worker(new URL("./hub_flood_worker.ts", import.meta.url), {
      type: "module",
    });
    this.#worker.postMessage({ netns: host.netnsName, hub, perSecond });
  }

  /** How many packets a second it has sent. */
  async stop(): Promise<number> {
    const sent = new Promise<number>((resolve) => {
      this.#worker.onmessage = ({ data }) => resolve(data);
    });
    this.#worker.postMessage("stop");
    const count = await sent;
    this.#worker.terminate();
    return count / ((performance.now() - this.#startedMs) / 1000);
  }
}
