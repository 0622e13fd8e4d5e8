/** A daemon on a machine of the simulation: the real one. */
import { x25519 } from "@noble/curves/ed25519.js";
import type { Ip } from "../../../lib/addr.ts";
import { signer } from "../../../lib/ed25519.ts";
import type { Asked, DaemonReport, PingAnswer, PingWish } from "../../../lib/daemon/control.ts";
import {
  type DaemonEdges,
  type DaemonOptions,
  type Identity,
  runDaemon,
} from "../../../lib/daemon/mod.ts";
import { DaemonMetrics } from "../../../lib/daemon/metrics.ts";
import type { Clock, Log, LogFields } from "../../../lib/edges.ts";
import { errorText } from "../../../lib/errors.ts";
import { discoKeyFromBytes, nodeKeyFromBytes } from "../../../lib/keys.ts";
import { StandIns } from "../../../lib/relay/mod.ts";
import { publicOf } from "./crypto.ts";
import type { SimHost } from "./host.ts";
import type { Dice } from "./random.ts";
import { openWebSocket } from "./web_socket.ts";

const ANOTHER_ADDRESS = "the coordinator gives this node another address";

export interface LogLine {
  atMs: number;
  level: keyof Log;
  message: string;
  fields: LogFields;
}

/** One run of the daemon: what is of the world reaches it only as long as it lives. */
interface Run {
  isAlive: boolean;
  stop: AbortController;
  ended: Promise<void>;
  report?: Asked["report"];
  ping?: Asked["ping"];
  accept?: Asked["accept"];
  error?: unknown;
  hasEnded: boolean;
}

export class SimNode {
  readonly host: SimHost;
  readonly name: string;
  readonly log: LogLine[] = [];
  /** Lines of the log that {@link tunnelIp} knows. */
  #heard = 0;
  #tunnelCidr: string | undefined;
  identity: Identity;
  /** Whether peers answer its pings in the tunnel. */
  answersPings = true;
  /** What it remembers from one run to the next. */
  known: string | undefined;
  readonly #dice: Dice;
  readonly #options: Omit<DaemonOptions, "metrics" | "identity">;
  #run: Run | undefined;

  constructor(
    host: SimHost,
    dice: Dice,
    identity: Identity,
    coordinator: URL,
    options: Partial<DaemonOptions> = {},
  ) {
    this.host = host;
    this.name = host.name;
    this.#dice = dice;
    this.identity = identity;
    this.#options = {
      coordinator,
      nodeName: host.name,
      acceptsChangedKeys: false,
      port: 7777,
      ifnamePattern: "gretun%d",
      encapCsum: "off",
      dataPlane: "fou",
      greKeys: true,
      stunServers: [],
      endpoints: [],
      interfaces: { advertise: [], exclude: [] },
      portMapping: false,
      aggressivePunch: false,
      keepsLinks: () => false,
      ...options,
    };
  }

  /** With options that are for this run alone. */
  async start(once: Partial<DaemonOptions> = {}): Promise<void> {
    const run: Run = {
      isAlive: true,
      stop: new AbortController(),
      ended: Promise.resolve(),
      hasEnded: false,
    };
    this.#run = run;
    this.#tunnelCidr = undefined;
    this.#heard = this.log.length;
    const edges = await this.#edges(run);
    const { identity } = this;
    const options = { ...this.#options, identity, metrics: new DaemonMetrics(), ...once };
    run.ended = runDaemon(options, edges, run.stop.signal).catch((error) => {
      run.error = error;
    }).finally(() => run.hasEnded = true);
  }

  /** Asks it to end, as a signal does; resolves when it has. */
  async stop(): Promise<void> {
    const run = this.#run!;
    run.stop.abort();
    await run.ended;
  }

  /** As `kill -9` does: its links stay. */
  kill(): void {
    this.#run!.isAlive = false;
    this.host.kill();
  }

  /** Undefined as long as it runs; what it ended with, or "ended". */
  get ended(): string | undefined {
    const run = this.#run!;
    if (!run.hasEnded) return undefined;
    return run.error === undefined ? "ended" : errorText(run.error);
  }

  report(): DaemonReport {
    return this.#run!.report!();
  }

  accept(peer: string): Promise<boolean> {
    return this.#run!.accept!(peer);
  }

  /** Undefined before it is registered. */
  get tunnelIp(): Ip | undefined {
    // Its report has that too, at a hundred times the cost.
    for (; this.#heard < this.log.length; this.#heard++) {
      const { message, fields } = this.log[this.#heard]!;
      if (message === "registered") this.#tunnelCidr = String(fields!.tunnel_cidr);
      if (message === ANOTHER_ADDRESS) this.#tunnelCidr = String(fields!.to);
    }
    return this.#tunnelCidr?.split("/")[0] as Ip | undefined;
  }

  /** What it says of a peer. */
  peer(other: SimNode): DaemonReport["peers"][number] | undefined {
    return this.report().peers.find(({ node_key }) => node_key === other.identity.nodeKey);
  }

  /** What `gretun ping` gets to read, as it comes. */
  ping(other: SimNode, wish: PingWish): { answers: PingAnswer[]; hasEnded: boolean } {
    const heard = { answers: [] as PingAnswer[], hasEnded: false };
    const read = async () => {
      for await (const each of this.#run!.ping!(other.identity.nodeKey, wish) ?? []) {
        heard.answers.push(each);
      }
      heard.hasEnded = true;
    };
    void read();
    return heard;
  }

  state(other: SimNode): string | undefined {
    return this.#run?.report && this.peer(other)?.state;
  }

  /** What a user would read, if it holds this. */
  said(pattern: RegExp): LogLine[] {
    return this.log.filter(({ level, message, fields }) =>
      level !== "debug" && pattern.test(`${message} ${JSON.stringify(fields)}`)
    );
  }

  async #edges(run: Run): Promise<DaemonEdges> {
    const { host } = this;
    const clock = livingClock(host.clock, run);
    const http = host.openHttp();
    const standIns = new StandIns({
      openWebSocket: ({ url }, signal) => openWebSocket(host, url, signal),
      listenUdp: host.listenDatagram,
    });
    return {
      clock,
      random: this.#dice.bytes,
      log: this.#log(),
      sign: await signer(this.identity.nodeSeed),
      host,
      http: {
        ...http,
        request: async (url, request) => {
          try {
            const response = await http.request(url, request);
            if (run.isAlive) return response;
          } catch (error) {
            if (run.isAlive) throw error;
          }
          return await new Promise(() => {});
        },
        [Symbol.dispose]: () => http[Symbol.dispose](),
      },
      lookup: host.lookup,
      openStandIn: (options, signal) => standIns.open(options, signal),
      pingThrough: () => Promise.resolve(this.answersPings ? 1 : undefined),
      portMapNet: {
        openUdp: () => {
          throw new Error("no port mapping here");
        },
        openMulticast: () => undefined,
        connect: () => Promise.reject(new Error("no port mapping here")),
      },
      knownFile: {
        path: "known.json",
        read: () => this.known,
        write: (text) => {
          if (run.isAlive) this.known = text;
        },
      },
      serveControl: async ({ report, ping, accept }) => {
        Object.assign(run, { report, ping, accept });
        return { async [Symbol.asyncDispose]() {} };
      },
    };
  }

  #log(): Log {
    const line = (level: keyof Log) => (message: string, fields: LogFields = {}) => {
      this.log.push({ atMs: this.host.time.nowMs, level, message, fields });
    };
    return { debug: line("debug"), info: line("info"), warn: line("warn"), error: line("error") };
  }
}

/** Of a killed program no timer fires and no sleep ends. */
function livingClock(clock: Clock, run: Run): Clock {
  return {
    nowMs: () => clock.nowMs(),
    wallMs: () => clock.wallMs(),
    timer: (ms, fire) => clock.timer(ms, () => run.isAlive && fire()),
    sleep: async (ms, signal) => {
      const forEver = new Promise<void>(() => {});
      try {
        await clock.sleep(ms, signal);
      } catch (error) {
        if (run.isAlive) throw error;
        await forEver;
      }
      if (!run.isAlive) await forEver;
    },
  };
}

const identities: Identity[] = [];

/** The n-th of a row of identities, which is the same in every run: X25519 keys take a while. */
export function simIdentity(n: number): Identity {
  return identities[n] ??= makeIdentity(n);
}

function makeIdentity(n: number): Identity {
  const nodeSeed = new Uint8Array(32).fill(n + 1);
  const discoPrivate = new Uint8Array(32).fill(n + 101);
  return {
    nodeSeed,
    nodeKey: nodeKeyFromBytes(publicOf(nodeSeed)),
    discoPrivate,
    discoKey: discoKeyFromBytes(x25519.getPublicKey(discoPrivate)),
  };
}
