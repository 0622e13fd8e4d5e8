/** The coordinator as a function from Request to Response; no port is opened here. */
import type { Clock, Log } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { DiscoKey, NodeKey, Sign } from "../keys.ts";
import { encodeGrant } from "../relay/mod.ts";
import {
  ApiError,
  envelopesJson,
  MAX_BODY_LENGTH,
  parseEndpointsRequest,
  parseNat,
  parseRegisterRequest,
  parseRelayRegistration,
  parseRelayRequest,
  parseRelaysRequest,
  parseSignal,
  peersJson,
  registerResponseJson,
  relayOfferJson,
  relayRegisteredJson,
  relaysJson,
  stunJson,
} from "./api.ts";
import { AuthError, type Claim, readClaim, verifyClaim, WINDOW_SECONDS } from "./auth.ts";
import { NewcomerLimit } from "./newcomers.ts";
import { RELAY_LEASE_MS, type RelayDirectory } from "./relays.ts";
import { LEASE_MS, type NodeRecord, type Registry, RegistryError } from "./registry.ts";
import type { Store } from "./store.ts";

export const HOLD_MS = 25_000;
export const BODY_TIMEOUT_MS = 10_000;
export const SWEEP_MS = 5_000;
/** A node polls peers and signals; of more of a kind than this the oldest is answered at once. */
export const MAX_HELD_PER_NODE = 2;

export interface CoordServerOptions {
  registry: Registry;
  store: Store;
  clock: Clock;
  log: Log;
  /** What nodes are told of the STUN server. */
  stun: string[];
  /** Whether /debug/peers is served. */
  debug: boolean;
  /** Absent: this coordinator knows of no relays. */
  relays?: RelayOptions;
}

export interface RelayOptions {
  directory: RelayDirectory;
  /** Grants are signed with it. */
  grantKey: NodeKey;
  sign: Sign;
  /** Takes nodes without UDP at this coordinator's own relay. */
  acceptWebSocket?: (request: Request, source: string) => Response;
}

/** So many new nodes may come from one source at once, and as many again in the time of a lease. */
const MIN_NEWCOMERS = 32;
const MAX_NEWCOMERS = 1024;

interface Call {
  request: Request;
  path: string;
  body: Uint8Array<ArrayBuffer>;
}

const MAX_ERROR_LENGTH = 200;
/** Who is told of changes asked since one of the last few lists, as a rule. */
const MAX_CACHED_LISTS = 32;

const RELAY_REGISTER_PATH = "/v1/relay/register";
const RELAY_WS_PATH = "/v1/relay/ws";
/** For a coordinator without a relay: one may be started. */
const NO_RELAY_RETRY_MS = 30_000;

const ROUTES: Record<string, readonly string[]> = {
  "/v1/register": ["POST", "DELETE"],
  "/v1/endpoints": ["POST"],
  "/v1/peers": ["GET"],
  "/v1/signal": ["POST", "GET"],
  "/v1/relays": ["POST", "GET"],
  "/v1/relay": ["POST"],
  [RELAY_REGISTER_PATH]: ["POST"],
  [RELAY_WS_PATH]: ["GET"],
  "/v1/stun": ["GET"],
  "/healthz": ["GET"],
  "/debug/peers": ["GET"],
};

export class CoordServer {
  readonly #options: CoordServerOptions;
  readonly #started: { wallMs: number; nowMs: number };
  readonly #newcomers: NewcomerLimit;
  /** Held calls: each is told when what it waits for may have changed. */
  readonly #listWaiters = new Set<() => void>();
  readonly #mailWaiters = new Map<DiscoKey, Set<() => void>>();
  readonly #held = new Map<string, Set<() => void>>();
  /** Nodes whose last change is not on the disk yet. */
  readonly #unsaved = new Set<NodeKey>();
  /** By the etag that changes are since, or "" for the whole list. */
  #cachedPeers: { etag: string; texts: Map<string, string> } | undefined;

  constructor(options: CoordServerOptions) {
    const { clock, registry } = options;
    this.#options = options;
    this.#started = { wallMs: clock.wallMs(), nowMs: clock.nowMs() };
    // Nodes that only register hold their address for one lease: one source gets half of a pool.
    const quarter = Math.floor(registry.capacity / 4);
    const burst = Math.max(MIN_NEWCOMERS, Math.min(MAX_NEWCOMERS, quarter));
    this.#newcomers = new NewcomerLimit({ burst, refillMs: Math.ceil(LEASE_MS / burst) });
  }

  /** Ends leases and forgets what is old; runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    while (!signal.aborted) {
      await clock.sleep(SWEEP_MS, signal).catch(() => {});
      try {
        this.#sweep();
      } catch (error) {
        log.error("state not saved", { error: errorText(error) });
      }
    }
  }

  #sweep(): void {
    const { clock, registry, relays } = this.#options;
    const nowMs = this.#nowMs();
    registry.sweep(nowMs, clock.wallMs());
    relays?.directory.sweep(nowMs, (node) => registry.node(node) !== undefined);
    const ended = registry.expire(nowMs);
    if (ended.length > 0) this.#listChanged(...ended);
    else if (this.#unsaved.size > 0) this.#save();
  }

  /** Wall-clock time as at the start, but never set: leases do not end when this host's clock is. */
  #nowMs(): number {
    const { wallMs, nowMs } = this.#started;
    return wallMs + Math.floor(this.#options.clock.nowMs() - nowMs);
  }

  /** `source` is the address that the request came from. Never throws. */
  async handle(request: Request, source = ""): Promise<Response> {
    try {
      return await this.#route(request, source);
    } catch (error) {
      if (error instanceof ApiError) return plain(400, error.message);
      if (error instanceof AuthError) return plain(401, error.message);
      if (error instanceof RegistryError) return refusal(error);
      this.#options.log.error("request failed", { error: errorText(error) });
      return plain(500, "internal error");
    }
  }

  async #route(request: Request, source: string): Promise<Response> {
    const path = new URL(request.url).pathname;
    const methods = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
    if (!methods || (path === "/debug/peers" && !this.#options.debug)) {
      return plain(404, "not found");
    }
    if (!methods.includes(request.method)) {
      return plain(405, "method not allowed", { allow: methods.join(", ") });
    }
    if (path === "/healthz") return plain(200, "ok");
    if (path === "/v1/stun") return Response.json(stunJson(this.#options.stun));
    if (path === "/debug/peers") return this.#peersNow();
    if (path === "/v1/register" && request.method === "POST") {
      return await this.#register(request, source);
    }
    if (path === RELAY_WS_PATH) return this.#relayWebSocket(request, source);
    if (path === RELAY_REGISTER_PATH) return await this.#registerRelay(request, source);
    // Cheap checks come before the body is read, and the body before the signature's cost.
    const claim = this.#claim(request);
    this.#member(claim.nodeKey);
    const body = await readBody(request, this.#options.clock);
    const call = { request, path, body };
    const node = await this.#authenticated(claim, call);
    return await this.#answer(call, node);
  }

  async #answer(call: Call, node: NodeRecord): Promise<Response> {
    const { registry } = this.#options;
    const nowMs = this.#nowMs();
    switch (`${call.request.method} ${call.path}`) {
      case "DELETE /v1/register":
        if (registry.leave(node.nodeKey, nowMs)) this.#listChanged(node);
        return Response.json({ ok: true });
      case "POST /v1/endpoints": {
        const body = json(call.body);
        const endpoints = parseEndpointsRequest(body);
        if (registry.setEndpoints(node.nodeKey, endpoints, nowMs, parseNat(body))) {
          this.#listChanged(node);
        }
        return Response.json({ ok: true });
      }
      case "GET /v1/peers":
        return await this.#peers(call.request, node);
      case "GET /v1/relays":
        return this.#listRelays();
      case "POST /v1/relays":
        this.#relays().directory.report(node.nodeKey, parseRelaysRequest(json(call.body)));
        return this.#listRelays();
      case "POST /v1/relay":
        return await this.#offerRelay(call, node);
      case "POST /v1/signal":
        return this.#signal(call, node);
      default:
        return await this.#signals(call.request, node);
    }
  }

  // --- authentication

  #claim(request: Request): Claim {
    const { clock } = this.#options;
    const claim = readClaim(request.headers, clock.wallMs());
    // Signatures seen before a restart are forgotten: nothing from before it is taken again. The
    // program starts again in another second than the one it ended in.
    const { wallMs: startedMs, nowMs: startedNowMs } = this.#started;
    const isNew = clock.nowMs() - startedNowMs <= WINDOW_SECONDS * 1000;
    if (isNew && claim.timestampSeconds < Math.floor(startedMs / 1000)) {
      throw new RegistryError(425, "signed before the coordinator started: sign again", 1000);
    }
    return claim;
  }

  #member(nodeKey: NodeKey): NodeRecord {
    const node = this.#options.registry.node(nodeKey);
    if (!node) throw new RegistryError(404, "not registered: this node must register first");
    return node;
  }

  async #authenticated(claim: Claim, { request, path, body }: Call): Promise<NodeRecord> {
    await this.#verify(claim, { request, path, body });
    const node = this.#member(claim.nodeKey);
    if (this.#options.registry.renew(claim.nodeKey, this.#nowMs())) this.#listChanged(node);
    return node;
  }

  async #verify(claim: Claim, { request, path, body }: Call): Promise<void> {
    const { method, headers } = request;
    if (!await verifyClaim(claim, { method, path, headers, body })) {
      throw new AuthError("bad signature");
    }
    // Looking at the list changes nothing: the original, whose requests in one second are all
    // alike, may look twice.
    const mayRepeat = !claim.hasNonce && method === "GET" && path === "/v1/peers";
    if (!mayRepeat) this.#options.registry.acceptOnce(claim);
  }

  // --- calls

  async #register(request: Request, source: string): Promise<Response> {
    const { registry, clock, log, stun } = this.#options;
    const signed = request.headers.has("authorization");
    const claim = signed ? this.#claim(request) : undefined;
    const body = await readBody(request, clock);
    const wanted = parseRegisterRequest(json(body));
    if (claim && claim.nodeKey !== wanted.nodeKey) throw new AuthError("signed by another node");
    if (!registry.node(wanted.nodeKey)) this.#limitNewcomers(source);
    if (claim) await this.#verify(claim, { request, path: "/v1/register", body });
    const { record, changed } = registry.register(wanted, { signed, nowMs: this.#nowMs() });
    if (changed) {
      this.#listChanged(record);
      log.info("node registered", { peer: record.nodeKey, tunnel_ip: record.tunnelIp });
    } else if (this.#unsaved.size > 0) {
      this.#save();
    }
    const { prefixLength } = registry.pool;
    return Response.json(registerResponseJson({
      tunnelIp: { ip: record.tunnelIp, prefixLength },
      peersEtag: registry.etag,
      stun,
      leaseSeconds: LEASE_MS / 1000,
    }));
  }

  #limitNewcomers(source: string): void {
    const waitMs = this.#newcomers.take(source, this.#nowMs());
    if (waitMs > 0) {
      throw new RegistryError(429, "too many new nodes from this address: try later", waitMs);
    }
  }

  async #peers(request: Request, node: NodeRecord): Promise<Response> {
    const { registry } = this.#options;
    const { searchParams } = new URL(request.url);
    const since = searchParams.get("since");
    if (since === registry.etag) {
      await this.#hold(`peers ${node.nodeKey}`, request.signal, this.#listWaiters);
    }
    return this.#peersNow(searchParams.has("changes") ? since ?? "" : "");
  }

  /**
   * The whole list, or what has changed in it since then, where that is known. The same bytes for all
   * who ask between two changes.
   */
  #peersNow(since = ""): Response {
    const { etag } = this.#options.registry;
    if (this.#cachedPeers?.etag !== etag) this.#cachedPeers = { etag, texts: new Map() };
    const { texts } = this.#cachedPeers;
    let text = texts.get(since);
    if (text === undefined) {
      text = JSON.stringify(this.#peersSince(since));
      if (texts.size >= MAX_CACHED_LISTS) texts.clear();
      texts.set(since, text);
    }
    return new Response(text, { headers: { "content-type": "application/json" } });
  }

  #peersSince(since: string): unknown {
    const { registry } = this.#options;
    const { etag } = registry;
    const changes = registry.changes(since);
    if (!changes) return peersJson({ etag, peers: registry.listed() });
    const { peers, gone } = changes;
    return peersJson({ etag, peers, changes: { since, gone } });
  }

  #signal({ body }: Call, node: NodeRecord): Response {
    const { to, sealed } = parseSignal(json(body));
    if (this.#options.registry.enqueue(to, { from: node.discoKey, sealed }, this.#nowMs())) {
      for (const wake of this.#mailWaiters.get(to) ?? []) wake();
    }
    return Response.json({ queued: true });
  }

  async #signals(request: Request, { nodeKey, discoKey }: NodeRecord): Promise<Response> {
    const { registry } = this.#options;
    let envelopes = registry.dequeue(discoKey, this.#nowMs());
    if (envelopes.length === 0) {
      const waiters = this.#mailWaiters.get(discoKey) ?? new Set();
      this.#mailWaiters.set(discoKey, waiters);
      await this.#hold(`signals ${nodeKey}`, request.signal, waiters);
      if (waiters.size === 0) this.#mailWaiters.delete(discoKey);
      if (!request.signal.aborted) envelopes = registry.dequeue(discoKey, this.#nowMs());
    }
    return Response.json(envelopesJson(envelopes.map(({ enqueuedMs, ...envelope }) => ({
      ...envelope,
      enqueued: new Date(enqueuedMs).toISOString(),
    }))));
  }

  // --- relays

  #relays(): RelayOptions {
    const { relays } = this.#options;
    if (relays) return relays;
    throw new RegistryError(503, "this coordinator has no relay", NO_RELAY_RETRY_MS);
  }

  #listRelays(): Response {
    const { directory, grantKey } = this.#relays();
    return Response.json(relaysJson(grantKey, directory.list(this.#nowMs())));
  }

  async #offerRelay({ body }: Call, { nodeKey }: NodeRecord): Promise<Response> {
    const { directory, sign } = this.#relays();
    const { peer, latencies } = parseRelayRequest(json(body));
    if (peer === nodeKey) throw new ApiError("peer is this node itself");
    if (!this.#options.registry.node(peer)) throw new RegistryError(404, "no such peer");
    if (latencies.size > 0) directory.report(nodeKey, latencies);
    const place = directory.choose(nodeKey, peer, this.#nowMs());
    if (!place) throw new RegistryError(503, "no relay is there now", NO_RELAY_RETRY_MS);
    const wallMs = this.#options.clock.wallMs();
    const grant = directory.grant(nodeKey, peer, place.relayKey, wallMs);
    const expiresAt = new Date(grant.endsSeconds * 1000).toISOString();
    const offer = { ...place, grant: await encodeGrant(grant, sign), expiresAt };
    return Response.json(relayOfferJson(offer));
  }

  /** A relay is no node: it signs with its own key, which the operator has named. */
  async #registerRelay(request: Request, source: string): Promise<Response> {
    const { directory, grantKey } = this.#relays();
    const claim = this.#claim(request);
    if (!directory.isAllowed(claim.nodeKey)) {
      throw new RegistryError(403, "unknown relay: start the coordinator with its --relay-key");
    }
    const body = await readBody(request, this.#options.clock);
    await this.#verify(claim, { request, path: RELAY_REGISTER_PATH, body });
    const wanted = parseRelayRegistration(json(body));
    if (directory.register(claim.nodeKey, wanted, source, this.#nowMs())) {
      this.#options.log.info("relay registered", { relay: claim.nodeKey, endpoint: wanted.udp });
    }
    return Response.json(relayRegisteredJson(grantKey, RELAY_LEASE_MS / 1000));
  }

  #relayWebSocket(request: Request, source: string): Response {
    const accept = this.#options.relays?.acceptWebSocket;
    return accept ? accept(request, source) : plain(404, "no relay is served here");
  }

  // --- holding

  /** Waits until woken, for {@link HOLD_MS}, or until the caller hangs up. */
  async #hold(who: string, hungUp: AbortSignal, waiters: Set<() => void>): Promise<void> {
    const woken = new AbortController();
    const wake = () => woken.abort();
    const held = this.#held.get(who) ?? new Set();
    const [oldest] = held;
    if (oldest && held.size >= MAX_HELD_PER_NODE) {
      held.delete(oldest);
      oldest();
    }
    this.#held.set(who, held.add(wake));
    waiters.add(wake);
    const either = AbortSignal.any([woken.signal, hungUp]);
    await this.#options.clock.sleep(HOLD_MS, either).catch(() => {});
    waiters.delete(wake);
    held.delete(wake);
    if (held.size === 0 && this.#held.get(who) === held) this.#held.delete(who);
  }

  /** Stores what changed in the list, then tells those who wait for it. */
  #listChanged(...records: NodeRecord[]): void {
    for (const { nodeKey } of records) this.#unsaved.add(nodeKey);
    this.#save();
    for (const wake of this.#listWaiters) wake();
  }

  /** What cannot be written now is tried again by the next sweep. */
  #save(): void {
    const { registry, store } = this.#options;
    const records = [...this.#unsaved].flatMap((key) => registry.node(key) ?? []);
    store.save(records, registry.version);
    this.#unsaved.clear();
  }
}

function refusal({ status, message, retryAfterMs }: RegistryError): Response {
  if (retryAfterMs === undefined) return plain(status, message);
  return plain(status, message, { "retry-after": String(Math.ceil(retryAfterMs / 1000)) });
}

/** One line: what was sent may be quoted in it. */
function plain(status: number, text: string, headers: Record<string, string> = {}): Response {
  return new Response(text.slice(0, MAX_ERROR_LENGTH) + "\n", { status, headers });
}

function json(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new ApiError("body is not JSON");
  }
}

const TOO_LONG = `body is longer than ${MAX_BODY_LENGTH} bytes`;

/** At most {@link MAX_BODY_LENGTH} bytes, however slowly or endlessly they come. */
async function readBody(request: Request, clock: Clock): Promise<Uint8Array<ArrayBuffer>> {
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BODY_LENGTH) {
    throw new RegistryError(413, TOO_LONG);
  }
  if (!request.body) return new Uint8Array(0);
  const reader = request.body.getReader();
  const finished = new AbortController();
  let tooSlow = false;
  clock.sleep(BODY_TIMEOUT_MS, finished.signal).then(() => {
    tooSlow = true;
    return reader.cancel("too slow");
  }).catch(() => {});
  const body = new Uint8Array(MAX_BODY_LENGTH);
  let length = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (length + part.value.length > MAX_BODY_LENGTH) {
        await reader.cancel("too long").catch(() => {});
        throw new RegistryError(413, TOO_LONG);
      }
      body.set(part.value, length);
      length += part.value.length;
    }
  } finally {
    finished.abort();
  }
  if (tooSlow) throw new RegistryError(408, "body came too slowly");
  return body.slice(0, length);
}
