/** A coordinator with its STUN server and relay on a machine of the simulation: the real ones. */
import { type Cidr, type Ip, parseCidr } from "../../../lib/addr.ts";
import type { NodeRecord, TokenRecord } from "../../../lib/coord/api.ts";
import { signer } from "../../../lib/ed25519.ts";
import { RelayDirectory } from "../../../lib/coord/relays.ts";
import { CoordServer } from "../../../lib/coord/server.ts";
import type { Store } from "../../../lib/coord/store.ts";
import { silentLog } from "../../../lib/edges.ts";
import { type NodeKey, nodeKeyFromBytes } from "../../../lib/keys.ts";
import { RelayServer } from "../../../lib/relay/serve.ts";
import { StunService } from "../../../lib/stun/mod.ts";
import { responseOf, serverRequest } from "../../fakes/server_http.ts";
import { agreementOf, publicOf } from "./crypto.ts";
import type { Serve, SimHost } from "./host.ts";
import type { Dice } from "./random.ts";
import { upgradeWebSocket } from "./web_socket.ts";

const PORT = 8443;
const KEYS = 8;

/** What outlives the coordinator's process. */
class MemoryStore implements Store {
  readonly #nodes = new Map<NodeKey, NodeRecord>();
  readonly #tokens = new Map<string, TokenRecord>();
  readonly #seeds = new Map<string, Uint8Array>();
  #version = 0;

  nodes(): NodeRecord[] {
    return [...this.#nodes.values()].map((record) => ({ ...record }));
  }

  version(): number {
    return this.#version;
  }

  tokens(): TokenRecord[] {
    return [...this.#tokens.values()];
  }

  saveToken(token: TokenRecord): void {
    this.#tokens.set(token.hash, token);
  }

  save(records: readonly NodeRecord[], version: number, gone: readonly NodeKey[] = []): void {
    for (const key of gone) this.#nodes.delete(key);
    for (const record of records) {
      for (const [key, other] of this.#nodes) {
        if (other.tunnelIp === record.tunnelIp) this.#nodes.delete(key);
      }
      this.#nodes.set(record.nodeKey, { ...record });
    }
    this.#version = version;
  }

  seed(name: string, fresh: Uint8Array): Uint8Array {
    const seed = this.#seeds.get(name) ?? fresh;
    this.#seeds.set(name, seed);
    return seed;
  }

  [Symbol.dispose](): void {}
}

export interface SimCoordinatorOptions {
  pool?: string;
  /** Whether it serves a relay, and STUN at two ports. */
  relay?: boolean;
  stun?: boolean;
}

export class SimCoordinator {
  readonly host: SimHost;
  readonly ip: Ip;
  readonly url: string;
  readonly #dice: Dice;
  readonly #options: SimCoordinatorOptions;
  /** Stands before the coordinator, as a proxy does; `pass` hands a request on. */
  proxy: ((request: Request, pass: () => Promise<Response>) => Promise<Response>) | undefined;
  server: CoordServer | undefined;
  #pool: Cidr;
  #store: MemoryStore;
  /** Kept apart from the rest of the state. */
  #keySeed: Uint8Array;
  #stop = new AbortController();

  constructor(host: SimHost, ip: Ip, dice: Dice, options: SimCoordinatorOptions) {
    this.host = host;
    this.ip = ip;
    this.url = `http://${ip}:${PORT}`;
    this.#dice = dice;
    this.#options = options;
    this.#pool = parseCidr(options.pool ?? "100.64.0.0/24");
    this.#store = new MemoryStore();
    this.#keySeed = this.#newSeed();
  }

  /** Of a few, whose public halves are known: they take a while. */
  #newSeed(): Uint8Array {
    return new Uint8Array(32).fill(200 + this.#dice.below(KEYS));
  }

  get key(): NodeKey {
    return nodeKeyFromBytes(publicOf(this.#keySeed));
  }

  /** As one that is made anew in its place. */
  changeKey(): void {
    const before = this.key;
    while (this.key === before) this.#keySeed = this.#newSeed();
  }

  /** Its state survives from one start to the next. */
  async start(): Promise<void> {
    const { host } = this;
    const { clock } = host;
    const { relay = true, stun = true } = this.#options;
    this.#stop = new AbortController();
    const random = this.#dice.bytes;
    const [key, sign] = [this.key, await signer(this.#keySeed)];
    const listenUdp = host.listenDatagram;
    if (stun) {
      const service = new StunService({ signal: this.#stop.signal, listenUdp, clock });
      for (const port of [3478, 3480]) service.listen({ hostname: "0.0.0.0", port });
    }
    const relayServer = relay
      ? new RelayServer({
        hostname: "0.0.0.0",
        port: 3479,
        ports: { from: 50_000, to: 50_999 },
        bytesPerSecond: 0,
        relayKey: key,
        grantKey: () => key,
        clock,
        random,
        log: silentLog,
        listenUdp,
        upgradeWebSocket,
      })
      : undefined;
    this.#stop.signal.addEventListener("abort", () => relayServer?.[Symbol.dispose]());
    const server = new CoordServer({
      pool: this.#pool,
      store: this.#store,
      clock,
      log: silentLog,
      key: { publicKey: key, sign, agree: agreementOf(this.#keySeed) },
      stun: stun ? [":3478"] : [],
      debug: false,
      relays: {
        directory: new RelayDirectory({
          allowed: [],
          ...(relayServer ? { own: { relayKey: key, udp: ":3479", ws: "" } } : {}),
        }),
        grantKey: key,
        sign,
        ...(relayServer
          ? { acceptWebSocket: (request, source) => relayServer.acceptWebSocket(request, source) }
          : {}),
      },
    });
    this.server = server;
    const serve: Serve = async (request, source) => {
      const pass = async () => responseOf(await server.handle(serverRequest(request), source));
      return await (this.proxy ? this.proxy(request, pass) : pass());
    };
    host.servers.set(PORT, serve);
    void server.run(this.#stop.signal);
  }

  stop(): void {
    this.#stop.abort();
    this.host.servers.delete(PORT);
    this.host.resetConnections();
    this.server = undefined;
  }

  /** Starts with nothing that it knew, and maybe another pool. */
  async startAfresh(pool?: string): Promise<void> {
    this.#store = new MemoryStore();
    if (pool) this.#pool = parseCidr(pool);
    await this.start();
  }
}
