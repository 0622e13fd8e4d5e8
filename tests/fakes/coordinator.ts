/** A coordinator in memory under virtual time, and nodes that sign as ours do. */
import { type Cidr, parseCidr } from "../../lib/addr.ts";
import { toBase64 } from "../../lib/bytes.ts";
import { type CoordinatorKey, ownNonce, signRequest } from "../../lib/coord/auth.ts";
import { HOLD_MS } from "../../lib/coord/hold.ts";
import type { CoordMetrics } from "../../lib/coord/metrics.ts";
import type { Nodes } from "../../lib/coord/nodes.ts";
import { CoordServer, type RelayOptions } from "../../lib/coord/server.ts";
import { SqliteStore } from "../../lib/coord/sqlite.ts";
import type { Store } from "../../lib/coord/store.ts";
import { agreement, publicKeyOf, signer } from "../../lib/ed25519.ts";
import { type Log, silentLog, systemRandom } from "../../lib/edges.ts";
import {
  type DiscoKey,
  discoKeyFromBytes,
  keyBase64,
  keyBytes,
  type NodeKey,
  nodeKeyFromBytes,
} from "../../lib/keys.ts";
import type { Policy } from "../../lib/policy/mod.ts";
import { type FakeNode, fakeNode } from "./fake_node.ts";
import { responseOf, serverRequest } from "./server_http.ts";
import { VirtualClock } from "./virtual_clock.ts";

export { type FakeNode, fakeNode };

export function randomNodeKey(): NodeKey {
  return nodeKeyFromBytes(systemRandom(32));
}

export function randomDiscoKey(): DiscoKey {
  return discoKeyFromBytes(systemRandom(32));
}

/** The body of a registration, as the wire has it. */
export function registration(node: Omit<FakeNode, "sign">, more: object = {}) {
  return {
    node_pubkey: keyBase64(node.nodeKey),
    disco_pubkey: [...keyBytes(node.discoKey)],
    node_name: node.name,
    ...more,
  };
}

export interface CallOptions {
  /** Sent as JSON; a string as it is. */
  body?: unknown;
  signal?: AbortSignal;
  /** Seconds that the node's clock is ahead. */
  ahead?: number;
  /** Replaces the random one; null: signed as the original does, without. */
  nonce?: string | null;
  /** Whom it is signed for, in place of this one; null: nobody, as nodes of before do. */
  coordinator?: NodeKey | null;
  /** Address that the call comes from. */
  source?: string;
  /** Replace what was signed. */
  headers?: Record<string, string>;
}

export interface FakeCoordinatorOptions {
  key?: CoordinatorKey;
  allowsV1?: boolean;
  pool?: Cidr;
  store?: Store;
  clock?: WatchedClock;
  debug?: boolean;
  stun?: string[];
  relays?: RelayOptions;
  log?: Log;
  metrics?: CoordMetrics;
  policy?: Policy;
}

export function signingKey(seed: Uint8Array): CoordinatorKey {
  const [sign, agree] = [signer(seed), agreement(seed)];
  return {
    agree: async (key) => (await agree)(key),
    publicKey: nodeKeyFromBytes(publicKeyOf(seed)),
    sign: async (bytes) => (await sign)(bytes),
  };
}

/** Of all that are given none: started again, they are the same. */
const KEY = signingKey(new Uint8Array(32).fill(9));

/** Tells who waits for what, so that a test lets time pass only when a call is really held. */
export class WatchedClock extends VirtualClock {
  readonly #waiting = new Map<number, number>();
  readonly #begun = new Map<number, number>();
  /** By how much somebody set the wall clock. */
  wallStepMs = 0;

  override wallMs(): number {
    return super.wallMs() + this.wallStepMs;
  }

  /** How many timers of `ms` run now. */
  waiting(ms: number): number {
    return this.#waiting.get(ms) ?? 0;
  }

  /** How many timers of `ms` there were ever. */
  begun(ms: number): number {
    return this.#begun.get(ms) ?? 0;
  }

  override timer(ms: number, fire: () => void): Disposable {
    this.#begun.set(ms, this.begun(ms) + 1);
    this.#waiting.set(ms, this.waiting(ms) + 1);
    let isOver = false;
    const end = () => {
      if (!isOver) this.#waiting.set(ms, this.waiting(ms) - 1);
      isOver = true;
    };
    const timer = super.timer(ms, () => {
      end();
      fire();
    });
    return {
      [Symbol.dispose]() {
        end();
        timer[Symbol.dispose]();
      },
    };
  }
}

export class FakeCoordinator {
  readonly clock: WatchedClock;
  readonly store: Store;
  readonly server: CoordServer;
  readonly key: CoordinatorKey;

  constructor(options: FakeCoordinatorOptions = {}) {
    this.clock = options.clock ?? new WatchedClock();
    this.store = options.store ?? SqliteStore.open(":memory:");
    this.key = options.key ?? KEY;
    this.server = new CoordServer({
      key: this.key,
      ...(options.allowsV1 ? { allowsV1: true } : {}),
      pool: options.pool ?? parseCidr("100.64.0.0/24"),
      store: this.store,
      clock: this.clock,
      log: options.log ?? silentLog,
      stun: options.stun ?? [":3478"],
      debug: options.debug ?? false,
      ...(options.metrics ? { metrics: options.metrics } : {}),
      ...(options.relays ? { relays: options.relays } : {}),
      ...(options.policy ? { policy: options.policy } : {}),
    });
  }

  get nodes(): Nodes {
    return this.server.nodes;
  }

  async handle(request: Request, source?: string): Promise<Response> {
    return responseOf(await this.server.handle(serverRequest(request), source));
  }

  /** A request that `node` signed. */
  async request(
    node: FakeNode,
    method: string,
    pathAndQuery: string,
    options: CallOptions = {},
  ): Promise<Request> {
    const body = bodyText(options.body);
    const { coordinator = options.nonce === null ? null : this.key.publicKey } = options;
    const random = systemRandom(16);
    const { nonce = coordinator === null ? toBase64(random) : ownNonce(random) } = options;
    const [path, query] = pathAndQuery.split("?");
    const headers = await signRequest(
      {
        timestamp: String(Math.floor(this.clock.wallMs() / 1000) + (options.ahead ?? 0)),
        method,
        path: path!,
        query: query === undefined ? "" : `?${query}`,
        body: new TextEncoder().encode(body) as Uint8Array<ArrayBuffer>,
        ...(nonce === null ? {} : { nonce }),
        ...(coordinator === null ? {} : { coordinator }),
      },
      node.nodeKey,
      node.sign,
    );
    return new Request(`http://coordinator${pathAndQuery}`, {
      method,
      headers: { ...headers, ...options.headers },
      ...(body === "" ? {} : { body }),
      ...(options.signal ? { signal: options.signal } : {}),
    });
  }

  async call(node: FakeNode, method: string, pathAndQuery: string, options: CallOptions = {}) {
    const request = await this.request(node, method, pathAndQuery, options);
    return this.handle(request, options.source);
  }

  /** Whether a call that was just made is held rather than answered. */
  async isHeld(answer: Promise<unknown>): Promise<boolean> {
    const before = this.clock.begun(HOLD_MS);
    let isAnswered = false;
    answer.finally(() => isAnswered = true);
    // Signatures are checked on another thread, which takes real time.
    while (!isAnswered && this.clock.begun(HOLD_MS) === before) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return !isAnswered;
  }

  /** The answer to a call that was just made; time passes if it is held. */
  async answer(answer: Promise<Response>): Promise<Response> {
    return await this.isHeld(answer) ? await this.clock.until(answer) : await answer;
  }

  async register(node: FakeNode, more: object = {}): Promise<Response> {
    return this.call(node, "POST", "/v1/register", { body: registration(node, more) });
  }

  /** Everything that a refused request must leave as it was. */
  dump(nodes: readonly Pick<FakeNode, "nodeKey">[]): string {
    const { nodes: known, store } = this;
    return JSON.stringify({
      etag: known.etag,
      listed: known.listed(),
      records: nodes.map(({ nodeKey }) => known.get(nodeKey) ?? null),
      stored: store.nodes(),
      storedVersion: store.version(),
    });
  }
}

export function unsigned(method: string, path: string, body?: unknown): Request {
  const text = bodyText(body);
  return new Request(`http://coordinator${path}`, {
    method,
    ...(text === "" ? {} : { body: text }),
  });
}

function bodyText(body: unknown): string {
  if (body === undefined) return "";
  return typeof body === "string" ? body : JSON.stringify(body);
}
