/** The coordinator as a function from Request to Response; no port is opened here. */
import type { Clock, Log } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { DiscoKey } from "../keys.ts";
import {
  ApiError,
  envelopesJson,
  MAX_BODY_LENGTH,
  parseEndpointsRequest,
  parseRegisterRequest,
  parseSignal,
  peersJson,
  registerResponseJson,
} from "./api.ts";
import { AuthError, type Claim, readClaim, verifyClaim, WINDOW_SECONDS } from "./auth.ts";
import { LEASE_MS, type NodeRecord, type Registry, RegistryError } from "./registry.ts";
import type { Store } from "./store.ts";

export const HOLD_MS = 25_000;
const BODY_TIMEOUT_MS = 10_000;
const EXPIRY_CHECK_MS = 5_000;
/** A node polls peers and signals; more of a kind than this are answered at once. */
const MAX_HELD_PER_NODE = 2;

export interface CoordServerOptions {
  registry: Registry;
  store: Store;
  clock: Clock;
  log: Log;
  /** What nodes are told of the STUN server. */
  stun: string[];
  /** Whether /debug/peers is served. */
  debug: boolean;
}

interface Call {
  request: Request;
  path: string;
  body: Uint8Array<ArrayBuffer>;
}

const ROUTES: Record<string, readonly string[]> = {
  "/v1/register": ["POST", "DELETE"],
  "/v1/endpoints": ["POST"],
  "/v1/peers": ["GET"],
  "/v1/signal": ["POST", "GET"],
  "/healthz": ["GET"],
  "/debug/peers": ["GET"],
};

export class CoordServer {
  readonly #options: CoordServerOptions;
  readonly #startedMs: number;
  /** Held calls: each is told when what it waits for may have changed. */
  readonly #listWaiters = new Set<() => void>();
  readonly #mailWaiters = new Map<DiscoKey, Set<() => void>>();
  readonly #held = new Map<string, number>();
  #cachedPeers: { etag: string; text: string } | undefined;
  #expiredMs: number;

  constructor(options: CoordServerOptions) {
    this.#options = options;
    this.#startedMs = options.clock.wallMs();
    this.#expiredMs = this.#startedMs;
  }

  /** Ends leases in time; runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, registry } = this.#options;
    while (!signal.aborted) {
      await clock.sleep(EXPIRY_CHECK_MS, signal).catch(() => {});
      const nowMs = clock.wallMs();
      if (registry.expire(this.#expiredMs, nowMs)) this.#listChanged();
      this.#expiredMs = nowMs;
    }
  }

  /** Never throws. */
  async handle(request: Request): Promise<Response> {
    try {
      return await this.#route(request);
    } catch (error) {
      if (error instanceof ApiError) return plain(400, error.message);
      if (error instanceof AuthError) return plain(401, error.message);
      if (error instanceof RegistryError) return plain(error.status, error.message);
      this.#options.log.error("request failed", { error: errorText(error) });
      return plain(500, "internal error");
    }
  }

  async #route(request: Request): Promise<Response> {
    const path = new URL(request.url).pathname;
    const methods = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
    if (!methods || (path === "/debug/peers" && !this.#options.debug)) {
      return plain(404, "not found");
    }
    if (!methods.includes(request.method)) {
      return plain(405, "method not allowed", { allow: methods.join(", ") });
    }
    if (path === "/healthz") return plain(200, "ok");
    if (path === "/debug/peers") return this.#peersNow();
    if (path === "/v1/register" && request.method === "POST") return await this.#register(request);
    const call = { request, path, body: new Uint8Array(0) };
    // Cheap checks come before the body is read, and the body before the signature's cost.
    const claim = this.#claim(request);
    if (!this.#options.registry.node(claim.nodeKey)) throw new RegistryError(404, "not registered");
    call.body = await readBody(request);
    const node = await this.#authenticated(claim, call);
    return await this.#answer(call, node);
  }

  async #answer(call: Call, node: NodeRecord): Promise<Response> {
    const { registry, clock } = this.#options;
    const nowMs = clock.wallMs();
    switch (`${call.request.method} ${call.path}`) {
      case "DELETE /v1/register":
        registry.leave(node.nodeKey, nowMs);
        this.#options.store.save(node, registry.version);
        this.#listChanged();
        return Response.json({ ok: true });
      case "POST /v1/endpoints":
        if (registry.setEndpoints(node.nodeKey, parseEndpointsRequest(json(call.body)), nowMs)) {
          this.#options.store.save(node, registry.version);
          this.#listChanged();
        }
        return Response.json({ ok: true });
      case "GET /v1/peers":
        return await this.#peers(call.request, node);
      case "POST /v1/signal":
        return this.#signal(call, node);
      default:
        return await this.#signals(call.request, node);
    }
  }

  // --- authentication

  #claim(request: Request): Claim {
    const nowMs = this.#options.clock.wallMs();
    const claim = readClaim(request.headers, nowMs);
    // Signatures seen before a restart are forgotten: nothing from before it is taken again.
    const startedMs = this.#startedMs;
    const window = WINDOW_SECONDS * 1000;
    if (nowMs - startedMs < window && claim.timestampSeconds * 1000 + 999 < startedMs) {
      throw new RegistryError(425, "signed before the coordinator started: sign again");
    }
    return claim;
  }

  async #authenticated(claim: Claim, { request, path, body }: Call): Promise<NodeRecord> {
    await this.#verify(claim, { request, path, body });
    const { registry, clock } = this.#options;
    const node = registry.node(claim.nodeKey);
    if (!node) throw new RegistryError(404, "not registered");
    if (registry.renew(claim.nodeKey, clock.wallMs())) this.#listChanged();
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
    if (mayRepeat) return;
    const { registry, clock } = this.#options;
    registry.acceptOnce(claim.signature, claim.timestampSeconds, clock.wallMs());
  }

  // --- calls

  async #register(request: Request): Promise<Response> {
    const { registry, store, clock, log, stun } = this.#options;
    const signed = request.headers.has("authorization");
    const claim = signed ? this.#claim(request) : undefined;
    const body = await readBody(request);
    const wanted = parseRegisterRequest(json(body));
    if (claim) {
      if (claim.nodeKey !== wanted.nodeKey) throw new AuthError("signed by another node");
      await this.#verify(claim, { request, path: "/v1/register", body });
    }
    const { record, changed } = registry.register(wanted, { signed, nowMs: clock.wallMs() });
    if (changed) {
      store.save(record, registry.version);
      this.#listChanged();
      log.info("node registered", { peer: record.nodeKey, tunnel_ip: record.tunnelIp });
    }
    const { prefixLength } = registry.pool;
    return Response.json(registerResponseJson({
      tunnelIp: { ip: record.tunnelIp, prefixLength },
      peersEtag: registry.etag,
      stun,
      leaseSeconds: LEASE_MS / 1000,
    }));
  }

  async #peers(request: Request, node: NodeRecord): Promise<Response> {
    const { registry } = this.#options;
    const since = new URL(request.url).searchParams.get("since");
    if (since === registry.etag) {
      await this.#hold(`peers ${node.nodeKey}`, request.signal, this.#listWaiters);
    }
    return this.#peersNow();
  }

  /** The same bytes for all who ask between two changes. */
  #peersNow(): Response {
    const { registry, clock } = this.#options;
    const { etag } = registry;
    if (this.#cachedPeers?.etag !== etag) {
      const text = JSON.stringify(peersJson(etag, registry.listed(clock.wallMs())));
      this.#cachedPeers = { etag, text };
    }
    const headers = { "content-type": "application/json" };
    return new Response(this.#cachedPeers.text, { headers });
  }

  #signal({ body }: Call, node: NodeRecord): Response {
    const { registry, clock } = this.#options;
    const { to, sealed } = parseSignal(json(body));
    if (registry.enqueue(to, { from: node.discoKey, sealed }, clock.wallMs())) {
      for (const wake of this.#mailWaiters.get(to) ?? []) wake();
    }
    return Response.json({ queued: true });
  }

  async #signals(request: Request, { nodeKey, discoKey }: NodeRecord): Promise<Response> {
    const { registry, clock } = this.#options;
    let envelopes = registry.dequeue(discoKey, clock.wallMs());
    if (envelopes.length === 0) {
      const waiters = this.#mailWaiters.get(discoKey) ?? new Set();
      this.#mailWaiters.set(discoKey, waiters);
      await this.#hold(`signals ${nodeKey}`, request.signal, waiters);
      if (waiters.size === 0) this.#mailWaiters.delete(discoKey);
      if (!request.signal.aborted) envelopes = registry.dequeue(discoKey, clock.wallMs());
    }
    return Response.json(envelopesJson(envelopes.map(({ enqueuedMs, ...envelope }) => ({
      ...envelope,
      enqueued: new Date(enqueuedMs).toISOString(),
    }))));
  }

  // --- holding

  /** Waits until woken, for {@link HOLD_MS}, or until the caller hangs up. */
  async #hold(who: string, hungUp: AbortSignal, waiters: Set<() => void>): Promise<void> {
    const held = this.#held.get(who) ?? 0;
    if (held >= MAX_HELD_PER_NODE) return;
    this.#held.set(who, held + 1);
    const woken = new AbortController();
    const wake = () => woken.abort();
    waiters.add(wake);
    const either = AbortSignal.any([woken.signal, hungUp]);
    await this.#options.clock.sleep(HOLD_MS, either).catch(() => {});
    waiters.delete(wake);
    const left = this.#held.get(who)! - 1;
    if (left === 0) this.#held.delete(who);
    else this.#held.set(who, left);
  }

  #listChanged(): void {
    for (const wake of this.#listWaiters) wake();
  }
}

function plain(status: number, text: string, headers: Record<string, string> = {}): Response {
  return new Response(text + "\n", { status, headers });
}

function json(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new ApiError("body is not JSON");
  }
}

/** At most {@link MAX_BODY_LENGTH} bytes, however slowly or endlessly they come. */
async function readBody(request: Request): Promise<Uint8Array<ArrayBuffer>> {
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BODY_LENGTH) {
    throw new RegistryError(413, "body is too long");
  }
  if (!request.body) return new Uint8Array(0);
  const reader = request.body.getReader();
  const timer = setTimeout(() => reader.cancel("too slow").catch(() => {}), BODY_TIMEOUT_MS);
  const body = new Uint8Array(MAX_BODY_LENGTH);
  let length = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (length + part.value.length > MAX_BODY_LENGTH) {
        await reader.cancel("too long").catch(() => {});
        throw new RegistryError(413, "body is too long");
      }
      body.set(part.value, length);
      length += part.value.length;
    }
  } finally {
    clearTimeout(timer);
  }
  return body.slice(0, length);
}
