/** Many at once: spokes that only speak the protocol, and one that only sends rubbish. */
import type { Endpoint } from "../lib/addr.ts";
import { equalBytes } from "../lib/bytes.ts";
import {
  acceptWelcome,
  type AuthInFlight,
  makeAuth,
  Pair,
} from "../lib/hub/protocol/gretun/auth.ts";
import {
  newSpoke,
  nextSpokeTickMs,
  type SpokeEvent,
  stepSpoke,
} from "../lib/hub/spoke/spoke_policy.ts";
import * as wire from "../lib/hub/protocol/gretun/wire.ts";
import type { Host } from "./lab/mod.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

interface SimulatedSpoke {
  name: string;
  seed: Uint8Array;
  publicKey: Uint8Array;
}

interface ReadySpoke {
  name: string;
  pair: Pair;
  socket: Deno.DatagramConn;
}

/**
 * Each has a UDP port of its own, no interface, and is connected when its welcome was proven. When
 * they ask again is the real spokes' policy.
 */
export class SimulatedSpokes implements AsyncDisposable {
  readonly #host: Host;
  readonly #hub: Endpoint;
  readonly #hubKey: Uint8Array;
  readonly #ready: ReadySpoke[] = [];

  constructor(host: Host, hub: Endpoint, hubKey: Uint8Array) {
    this.#host = host;
    this.#hub = hub;
    this.#hubKey = hubKey;
  }

  /** Up to where it would say hello. */
  async add({ name, seed, publicKey }: SimulatedSpoke): Promise<void> {
    const { socket } = this.#host.within(() => ({
      socket: Deno.listenDatagram({ transport: "udp", hostname: this.#host.ip, port: 0 }),
    }));
    const keys = { ownSeed: seed, ownPublic: publicKey, peerPublic: this.#hubKey };
    const pair = await Pair.make({ kind: "key", ...keys });
    this.#ready.push({ name, pair, socket });
  }

  /** All at once. */
  async connect(): Promise<void> {
    await Promise.all(this.#ready.map((spoke) => this.#connect(spoke)));
  }

  async #connect({ name, pair, socket }: ReadySpoke): Promise<void> {
    const to = { transport: "udp", hostname: this.#hub.ip, port: this.#hub.port } as const;
    const send = (bytes: Uint8Array) => void socket.send(bytes, to).catch(() => {}); // closed
    let inFlight: AuthInFlight | undefined;
    let challenge: wire.Challenge;
    let nonce = random(16);
    let timer: number | undefined;
    let policy = newSpoke(0.75 + Math.random() / 2);
    let isConnected = false;
    const dispatch = (event: SpokeEvent) => {
      if (isConnected) return; // Deno calls timers that were cleared by another one of the same tick
      const [next, effects] = stepSpoke(policy, event);
      policy = next;
      for (const { kind } of effects) {
        if (kind === "send-hello") {
          nonce = random(16);
          send(wire.encodeHello({ nonce, name }));
        } else if (kind === "send-auth") {
          const request = { name, challenge, hub: this.#hub, ephemeralSecret: random(32) };
          void makeAuth(pair, { ...request, framing: "any", encrypt: true }).then((made) => {
            inFlight = made;
            send(made.message);
          });
        }
      }
      clearTimeout(timer);
      const tick = () => dispatch({ kind: "tick", nowMs: performance.now() });
      timer = setTimeout(tick, nextSpokeTickMs(policy) - performance.now());
    };
    dispatch({ kind: "start", nowMs: performance.now() });
    try {
      while (true) {
        const [bytes] = await socket.receive();
        const type = wire.messageType(bytes);
        if (type === "challenge") {
          challenge = wire.decodeChallenge(bytes.slice());
          if (!equalBytes(challenge.nonce, nonce)) continue;
          dispatch({ kind: "challenge", nowMs: performance.now() });
        } else if (type === "welcome" && inFlight) {
          const welcome = wire.decodeWelcome(bytes.slice())!;
          if (!equalBytes(welcome.nonce, inFlight.auth.nonce)) continue;
          if (await acceptWelcome(pair, inFlight, welcome)) return;
        }
      }
    } finally {
      isConnected = true;
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { socket } of this.#ready) socket.close();
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
