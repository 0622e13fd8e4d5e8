/** A coordinator in memory under virtual time, and nodes that sign as ours do. */
import { type Cidr, parseCidr } from "../../lib/addr.ts";
import { toBase64 } from "../../lib/bytes.ts";
import { type Sign, signRequest } from "../../lib/coord/auth.ts";
import { Registry } from "../../lib/coord/registry.ts";
import { CoordServer } from "../../lib/coord/server.ts";
import { Store } from "../../lib/coord/store.ts";
import { silentLog, systemRandom } from "../../lib/edges.ts";
import {
  type DiscoKey,
  discoKeyFromBytes,
  keyBase64,
  keyBytes,
  type NodeKey,
  nodeKeyFromBytes,
} from "../../lib/keys.ts";
import { VirtualClock } from "./virtual_clock.ts";

export interface FakeNode {
  nodeKey: NodeKey;
  discoKey: DiscoKey;
  name: string;
  sign: Sign;
}

export async function fakeNode(name: string): Promise<FakeNode> {
  const { publicKey, privateKey } = await crypto.subtle.generateKey("Ed25519", true, [
    "sign",
    "verify",
  ]) as CryptoKeyPair;
  return {
    nodeKey: nodeKeyFromBytes(new Uint8Array(await crypto.subtle.exportKey("raw", publicKey))),
    discoKey: discoKeyFromBytes(systemRandom(32)),
    name,
    sign: async (bytes) => new Uint8Array(await crypto.subtle.sign("Ed25519", privateKey, bytes)),
  };
}

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
  /** Replace what was signed. */
  headers?: Record<string, string>;
}

export interface FakeCoordinatorOptions {
  pool?: Cidr;
  store?: Store;
  clock?: VirtualClock;
  debug?: boolean;
  stun?: string[];
}

export class FakeCoordinator {
  readonly clock: VirtualClock;
  readonly store: Store;
  readonly registry: Registry;
  readonly server: CoordServer;

  constructor(options: FakeCoordinatorOptions = {}) {
    const pool = options.pool ?? parseCidr("100.64.0.0/24");
    this.clock = options.clock ?? new VirtualClock();
    this.store = options.store ?? Store.open(":memory:");
    const wallMs = this.clock.wallMs();
    const version = Math.max(this.store.version(), wallMs) + 1;
    this.registry = new Registry(pool, this.store.nodes(), version, wallMs);
    this.server = new CoordServer({
      registry: this.registry,
      store: this.store,
      clock: this.clock,
      log: silentLog,
      stun: options.stun ?? [":3478"],
      debug: options.debug ?? false,
    });
  }

  /** A request that `node` signed. */
  async request(
    node: FakeNode,
    method: string,
    pathAndQuery: string,
    options: CallOptions = {},
  ): Promise<Request> {
    const body = bodyText(options.body);
    const nonce = options.nonce === undefined ? toBase64(systemRandom(16)) : options.nonce;
    const headers = await signRequest(
      {
        timestamp: String(Math.floor(this.clock.wallMs() / 1000) + (options.ahead ?? 0)),
        method,
        path: pathAndQuery.split("?")[0]!,
        body: new TextEncoder().encode(body) as Uint8Array<ArrayBuffer>,
        ...(nonce === null ? {} : { nonce }),
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
    return this.server.handle(await this.request(node, method, pathAndQuery, options));
  }

  async register(node: FakeNode, more: object = {}): Promise<Response> {
    return this.call(node, "POST", "/v1/register", { body: registration(node, more) });
  }

  /** Everything that a refused request must leave as it was. */
  dump(nodes: readonly Pick<FakeNode, "nodeKey">[]): string {
    const { registry, store } = this;
    return JSON.stringify({
      etag: registry.etag,
      listed: registry.listed(),
      records: nodes.map(({ nodeKey }) => registry.node(nodeKey) ?? null),
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
