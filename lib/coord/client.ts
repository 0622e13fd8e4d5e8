/** A node's calls to the coordinator. */
import type { Ip } from "../addr.ts";
import { toHex } from "../bytes.ts";
import {
  type Dialer,
  DialError,
  HttpClient,
  type HttpRequest,
  nobodyListens,
  systemDialer,
} from "../dial/mod.ts";
import { type Clock, type Random, timeLimit } from "../edges.ts";
import type { Sign } from "../ed25519.ts";
import { errorText, GretunError, UsageError } from "../errors.ts";
import { type DiscoKey, keyBase64, type NodeKey } from "../keys.ts";
import type { RelayCoordinator, RelayLatencies, RelayOffer, RelayPlace } from "../relay/mod.ts";
import {
  type AdvertisedEndpoint,
  ApiError,
  collisionsJson,
  type Envelope,
  INSTANCE_HEADER,
  type NodeReach,
  NONCE_HEADER,
  parseEnvelopes,
  parsePeers,
  parseRegisterResponse,
  parseRelayOffer,
  parseRelayRegistered,
  parseRelays,
  parseStun,
  type PeerList,
  reachJson,
  REFUSAL_HEADER,
  type RefusalCode,
  registerRequestJson,
  type RegisterResponse,
  type RelayRegistration,
  relayRegistrationJson,
  relayRequestJson,
  relaysRequestJson,
  signalJson,
  type Signed,
} from "./api.ts";
import { type Asked, readSigner } from "./answer_signature.ts";
import { originalTimestamp, ownNonce, signRequest } from "./auth.ts";
import { proveDiscoKey } from "./disco_proof.ts";
import { type ClockNews, ClockOffset } from "./clock_offset.ts";

export type { ClockNews };

/** How the answer to a node that the coordinator does not know begins. */
const NOT_REGISTERED = "not registered";
const TIMEOUT_MS = 15_000;
/** A long poll is held for 25 s; a coordinator that has moved is to be followed within 30. */
const POLL_TIMEOUT_MS = 28_000;
/** Of the first try of a call that is not held: the connection may be dead, and nobody say so. */
const FIRST_TIMEOUT_MS = 4_000;
/** Several connections that are kept may have ended. */
const MAX_REPEATS = 3;
const NONCE_LENGTH = 16;
const INSTANCE_LENGTH = 8;
/** Longer than a coordinator has reason to send a node away for. */
const MAX_RETRY_AFTER_MS = 10 * 60_000;

export interface CoordErrorOptions {
  status?: number;
  retryAfterMs?: number;
  code?: string;
  middleStatus?: number;
  cause?: unknown;
}

/** A call failed; `status` is absent where the coordinator gave no answer. */
export class CoordError extends GretunError {
  override name = "CoordError";
  readonly status?: number;
  /** For how long the coordinator asks not to be called again, where it says so. */
  readonly retryAfterMs?: number;
  /** What kind of refusal it is, in our own coordinator's words (`RefusalCode`). */
  readonly code?: string;
  /** Of an answer that is not the coordinator's own. */
  readonly middleStatus?: number;

  constructor(message: string, hint: string, options: CoordErrorOptions = {}) {
    super(message, hint, { cause: options.cause });
    if (options.status !== undefined) this.status = options.status;
    if (options.retryAfterMs !== undefined) this.retryAfterMs = options.retryAfterMs;
    if (options.code !== undefined) this.code = options.code;
    if (options.middleStatus !== undefined) this.middleStatus = options.middleStatus;
  }
}

/** http or https; a trailing slash is fine, anything behind the path is not. */
export function parseCoordinatorUrl(text: string): URL {
  // A password does not belong on a screen.
  const shown = JSON.stringify(text.replace(/\/\/[^/@]*@/, "//...@"));
  const wrong = (why: string) =>
    new UsageError(
      `--coordinator ${shown} ${why}`,
      "Give it as http://HOST:PORT or https://HOST:PORT",
    );
  if (!/^https?:\/\//.test(text)) throw wrong("does not begin with http:// or https://");
  if (!URL.canParse(text)) throw wrong("is not a URL");
  const url = new URL(text);
  if (url.username || url.password || url.search || url.hash) {
    throw wrong("has more than host, port and path");
  }
  url.pathname = url.pathname.replace(/\/+$/, "");
  return url;
}

interface CallOptions {
  /** Made for that coordinator's key, anew for each try. */
  body?: (coordinator: NodeKey | undefined) => unknown;
  query?: string;
  /**
   * Answered at once, and made by one at a time: its silence is the connections'. Many that give up
   * those early would keep each other, and calls that are held, from ever giving up.
   */
  isPrompt?: boolean;
  signal: AbortSignal;
}

interface SignedCall {
  url: string;
  init: { method: string; headers: Record<string, string>; body?: string };
  asked: Asked;
}

/** The coordinator's list, and by which name it knows this state of it. */
export type AllPeers = Omit<PeerList, "changes">;

/** Who a node is when it registers. */
export interface Joining {
  discoKey: DiscoKey;
  /** The key is proven with it. */
  discoPrivate?: Uint8Array;
  nodeName: string;
  requestedTunnelIp?: Ip;
  /** Asked for when the request is made: what it says is as new as can be. */
  statement?: () => Promise<Signed>;
  /** Whether the list of peers is to come with the answer, from a coordinator that can. */
  wantsList?: true;
}

export interface CoordClientOptions {
  url: string;
  identity: { nodeKey: NodeKey; sign: Sign };
  clock: Clock;
  random: Random;
  /** The system's where there is none. */
  dialer?: Dialer;
  /** In place of HTTP by the dialer. */
  http?: CoordHttp;
  /** The coordinator's key; without it the first that is met is taken. */
  coordinatorKey?: NodeKey;
  /** What {@link askCoordinatorKey} gives, where no key is known. */
  met?: Promise<NodeKey | undefined> | undefined;
  /** That key. */
  onFirstContact?: (key: NodeKey) => void;
  /** Any call was answered so that the coordinator does not know this node. */
  onForgotten?: () => void;
  /** A call was sent: there is nothing to do until its answer. */
  onWaiting?: () => void;
  /** The coordinator's clock turned out to differ from what it was taken for. */
  onClock?: (news: ClockNews) => void;
  /** What a token lets this node join by. */
  tokenSecret?: Uint8Array;
}

/** How calls are made; answers have a bound. */
export type CoordHttp = Pick<HttpClient, "request" | "forgetConnections"> & Disposable;

export class CoordClient implements RelayCoordinator, Disposable {
  readonly #options: CoordClientOptions;
  readonly #base: string;
  readonly #http: CoordHttp;
  readonly #clockOffset: ClockOffset;
  /** Aborted when connections are given up; calls under way begin anew on others. */
  #abandoned = new AbortController();
  #answeredMs = -Infinity;
  /** Names this run among all that may use the node's key. */
  readonly #instance: string;
  #key: NodeKey | undefined;
  /** The coordinator is the original, which knows of no nonces. */
  #isOriginal = false;

  constructor(options: CoordClientOptions) {
    this.#options = options;
    this.#base = options.url.replace(/\/+$/, "");
    this.#http = options.http ?? new HttpClient(options.dialer ?? systemDialer());
    this.#clockOffset = new ClockOffset(options.clock);
    this.#instance = toHex(options.random(INSTANCE_LENGTH));
    this.#key = options.coordinatorKey;
  }

  /** What all answers have to be signed with; undefined as long as none was. */
  get coordinatorKey(): NodeKey | undefined {
    return this.#key;
  }

  /** The time as the coordinator has it, in ms since 1970: its clock or ours may be off. */
  wallMs(): number {
    return this.#options.clock.wallMs() + this.#clockOffset.aheadMs;
  }

  /** When the coordinator answered last, in monotonic ms. */
  get answeredMs(): number {
    return this.#answeredMs;
  }

  /**
   * This host's addresses changed: answers to the old ones do not arrive, and nobody says so. Calls
   * under way begin anew on new connections.
   */
  reconnect(): void {
    const old = this.#abandoned;
    this.#abandoned = new AbortController();
    this.#http.forgetConnections();
    old.abort();
  }

  [Symbol.dispose](): void {
    this.#http[Symbol.dispose]();
  }

  async register(
    { nodeName: name, discoKey, discoPrivate, statement, ...more }: Joining,
    signal: AbortSignal,
  ): Promise<RegisterResponse> {
    const { identity: { nodeKey }, tokenSecret } = this.#options;
    const met = this.#key ?? await this.#options.met;
    if (met !== undefined) this.#firstMet(met);
    const body = async (coordinator: NodeKey | undefined) => {
      const proof = coordinator && discoPrivate &&
        await proveDiscoKey(discoPrivate, { nodeKey, discoKey }, coordinator);
      return registerRequestJson({
        ...{ nodeKey, discoKey, name, ...more },
        ...(statement ? { statement: await statement() } : {}),
        ...(proof ? { discoProof: proof } : {}),
        ...(tokenSecret ? { token: tokenSecret } : {}),
      });
    };
    const answer = await this.#call("POST", "/v1/register", { body, isPrompt: true, signal });
    const registered = parsedAnswer(() => parseRegisterResponse(answer));
    // It takes the request without a look at the signature, and knows no leases.
    this.#isOriginal = this.#key === undefined && registered.leaseSeconds === undefined;
    return { ...registered, stun: withHost(registered.stun, this.#base) };
  }

  /** The first that is met is taken. */
  #firstMet(key: NodeKey): void {
    if (this.#key !== undefined) return;
    this.#key = key;
    this.#options.onFirstContact?.(key);
  }

  async postEndpoints(
    endpoints: readonly AdvertisedEndpoint[],
    signal: AbortSignal,
    more: Omit<NodeReach, "endpoints"> = {},
  ): Promise<void> {
    const body = () => reachJson({ endpoints: [...endpoints], ...more });
    const answer = await this.#call("POST", "/v1/endpoints", { body, isPrompt: true, signal });
    parsedAnswer(() => expectField(answer, "ok"));
  }

  /** What of the overlay this host cannot take; it replaces what was told before. */
  async tellCollisions(collisions: readonly string[], signal: AbortSignal): Promise<void> {
    const body = () => collisionsJson(collisions);
    const answer = await this.#call("POST", "/v1/collisions", { body, signal });
    parsedAnswer(() => expectField(answer, "ok"));
  }

  /**
   * All peers. Held by the coordinator until something differs from what is `known`, at most 25 s;
   * then it tells just the differences, unless it is an original one.
   */
  async peers(known: AllPeers | undefined, signal: AbortSignal): Promise<AllPeers> {
    const query = known ? `?since=${encodeURIComponent(known.etag)}&changes=1` : "";
    const isPrompt = known === undefined;
    const answer = await this.#call("GET", "/v1/peers", { query, isPrompt, signal });
    return parsedAnswer(() => merged(known, parsePeers(answer)));
  }

  async sendSignal(to: DiscoKey, sealed: Uint8Array, signal: AbortSignal): Promise<void> {
    const answer = await this.#call("POST", "/v1/signal", {
      body: () => signalJson(to, sealed),
      signal,
    });
    parsedAnswer(() => expectField(answer, "queued"));
  }

  /** Held by the coordinator until there is one, at most 25 s. */
  async takeSignals(signal: AbortSignal): Promise<Envelope[]> {
    const answer = await this.#call("GET", "/v1/signal", { signal });
    return parsedAnswer(() => {
      expectField(answer, "envelopes");
      return parseEnvelopes(answer);
    });
  }

  /** The relays there are; what this node measured replaces what it told before. */
  async relays(measured: RelayLatencies, signal: AbortSignal): Promise<RelayPlace[]> {
    const body = () => relaysRequestJson(measured);
    const answer = await this.#call("POST", "/v1/relays", { body, signal });
    return parsedAnswer(() => parseRelays(answer)).map((place) => this.#filledIn(place));
  }

  /** A relay to go through to the peer, and leave to do so. */
  async relay(
    peer: NodeKey,
    measured: RelayLatencies,
    signal: AbortSignal,
  ): Promise<RelayOffer> {
    const body = () => relayRequestJson(peer, measured);
    const answer = await this.#call("POST", "/v1/relay", { body, signal });
    return this.#filledIn(parsedAnswer(() => parseRelayOffer(answer)));
  }

  /** The coordinator's own relay is where the coordinator is. */
  #filledIn<T extends RelayPlace>(place: T): T {
    const { hostname } = new URL(this.#base);
    const udp = place.udp.startsWith(":") ? hostname + place.udp : place.udp;
    const ws = place.ws || `${this.#base.replace(/^http/, "ws")}/v1/relay/ws`;
    return { ...place, udp, ws };
  }

  /** As a relay: from now on nodes are told of this one, for the time of the lease. */
  async registerRelay(
    registration: RelayRegistration,
    signal: AbortSignal,
  ): Promise<{ grantKey: NodeKey; leaseSeconds: number }> {
    const body = () => relayRegistrationJson(registration);
    const answer = await this.#call("POST", "/v1/relay/register", { body, signal });
    return parsedAnswer(() => parseRelayRegistered(answer));
  }

  /** This node is not listed any more; it keeps its address. */
  async leave(signal: AbortSignal): Promise<void> {
    await this.#call("DELETE", "/v1/register", { signal });
  }

  async #call(method: string, path: string, options: CallOptions): Promise<unknown> {
    const { isPrompt = false } = options;
    const isHeld = method === "GET" && !isPrompt;
    let mayWaitAgain = true;
    let mayCorrectClock = true;
    let repeats = 0;
    while (true) {
      const signedFor = this.#key;
      const request = await this.#signed(method, path, options);
      const abandoned = this.#abandoned; // as it is by now
      const { aheadMs } = this.#clockOffset;
      try {
        const longestMs = method === "GET" ? POLL_TIMEOUT_MS : TIMEOUT_MS;
        const timeoutMs = mayWaitAgain && !isHeld ? FIRST_TIMEOUT_MS : longestMs;
        return await this.#callOver(abandoned.signal, request, { ...options, timeoutMs });
      } catch (error) {
        if (options.signal.aborted) throw error;
        if (abandoned !== this.#abandoned) continue;
        if (isUnauthorized(error) && mayCorrectClock && aheadMs !== this.#clockOffset.aheadMs) {
          mayCorrectClock = false;
          continue;
        }
        // A proxy sent it again, or we did, on another connection when one had ended without an answer.
        if (hasCode(error, "replay") && repeats++ < MAX_REPEATS) continue;
        // The first answer of all has told whom to sign for.
        if (hasCode(error, "key") && signedFor !== this.#key) continue;
        // The one that holds calls is there no more: a NAT may have kept their end from us.
        if (!isHeld && error instanceof CoordError && nobodyListens(error.cause)) this.reconnect();
        if (!isTimeout(error)) throw error;
        // The coordinator may be elsewhere by now, and nobody say so.
        if (isHeld || isPrompt || !mayWaitAgain) this.reconnect();
        if (!mayWaitAgain) throw error;
        mayWaitAgain = false;
      }
    }
  }

  async #signed(method: string, path: string, options: CallOptions): Promise<SignedCall> {
    const { identity, random } = this.#options;
    const { body: make, query = "" } = options;
    const coordinator = this.#key;
    const body = make === undefined ? "" : JSON.stringify(await make(coordinator));
    const nonce = ownNonce(random(NONCE_LENGTH));
    const seconds = Math.floor(this.wallMs() / 1000);
    const isOriginal = this.#isOriginal && coordinator === undefined;
    const parts = {
      timestamp: isOriginal ? originalTimestamp(seconds) : String(seconds),
      method,
      // As the coordinator sees it, also behind a proxy that serves it under a path of its own.
      path,
      query,
      body: new TextEncoder().encode(body) as Uint8Array<ArrayBuffer>,
      ...(isOriginal ? {} : { nonce }),
      ...(coordinator === undefined ? {} : { coordinator }),
    };
    const headers = await signRequest(parts, identity.nodeKey, identity.sign);
    return {
      asked: { nonce, method, path: path + query, authorization: headers.authorization! },
      url: `${this.#base}${path}${query}`,
      init: {
        method,
        headers: {
          ...headers,
          [INSTANCE_HEADER]: this.#instance,
          "content-type": "application/json",
        },
        ...(body === "" ? {} : { body }),
      },
    };
  }

  async #callOver(
    abandoned: AbortSignal,
    { url, init, asked }: SignedCall,
    { signal, timeoutMs }: CallOptions & { timeoutMs: number },
  ): Promise<unknown> {
    using timeout = timeLimit(this.#options.clock, timeoutMs);
    const either = AbortSignal.any([timeout.signal, abandoned, signal]);
    const sentMs = this.#options.clock.nowMs();
    const answer = await this.#fetch(url, { ...init, signal: either }, signal);
    return await this.#take(answer, asked, sentMs);
  }

  /** Throws `CoordError`, or the reason of the caller's signal. */
  async #fetch(url: string, init: HttpRequest, callerSignal: AbortSignal): Promise<Answer> {
    try {
      const asked = this.#http.request(url, init);
      this.#options.onWaiting?.();
      const response = await asked;
      return { response, body: await bodyOf(response) };
    } catch (cause) {
      callerSignal.throwIfAborted();
      throw unreachable(this.#base, cause);
    }
  }

  /** What the coordinator says. Throws {@link CoordError} for a refusal, and for what is not its word. */
  async #take({ response, body }: Answer, asked: Asked, sentMs: number): Promise<unknown> {
    const { status, headers } = response;
    const signer = await readSigner(asked, { status, headers, body });
    const text = new TextDecoder().decode(body);
    if (signer) this.#firstMet(signer.coordinator);
    if (this.#key !== signer?.coordinator) {
      throw signer
        ? otherKey(this.#base, signer.coordinator, this.#key!)
        : notSigned(this.#base, { status, text });
    }
    this.#answeredMs = this.#options.clock.nowMs();
    const news = this.#clockOffset.answered(signer?.timeMs ?? timeOf(response), sentMs);
    if (news) this.#options.onClock?.(news);
    if (!response.ok) {
      const code = headers.get(REFUSAL_HEADER) ?? undefined;
      const retryAfterMs = readRetryAfter(response, this.wallMs());
      if (status === 404 && text.startsWith(NOT_REGISTERED)) this.#options.onForgotten?.();
      throw refused(this.#base, { status, text, retryAfterMs, code });
    }
    return readJson(text, this.#base);
  }
}

/**
 * The key with which that coordinator signs; undefined where it has none, or does not answer in time. A
 * node that registers without it is sent away to come again.
 */
export async function askCoordinatorKey(
  url: string,
  { http, clock, random }: { http: CoordHttp; clock: Clock; random: Random },
): Promise<NodeKey | undefined> {
  const path = "/v1/stun";
  const nonce = ownNonce(random(NONCE_LENGTH));
  using timeout = timeLimit(clock, FIRST_TIMEOUT_MS);
  try {
    const response = await http.request(url.replace(/\/+$/, "") + path, {
      ...{ method: "GET", headers: { [NONCE_HEADER]: nonce }, signal: timeout.signal },
    });
    const { status, headers } = response;
    const asked = { nonce, method: "GET", path, authorization: "" };
    const signer = await readSigner(asked, { status, headers, body: await bodyOf(response) });
    return signer?.coordinator;
  } catch {
    return undefined; // why is told by registering
  }
}

interface Answer {
  response: Response;
  body: Uint8Array<ArrayBuffer>;
}

/**
 * The STUN servers of a coordinator, which it tells everybody; undefined from one that keeps them
 * to its members. Throws {@link CoordError}, or the signal's reason.
 */
export async function askStunServers(
  url: URL,
  signal: AbortSignal,
  dialer: Dialer = systemDialer(),
): Promise<string[] | undefined> {
  using http = new HttpClient(dialer);
  const base = url.href.replace(/\/+$/, "");
  let response;
  let text;
  try {
    response = await http.request(`${base}/v1/stun`, { method: "GET", signal });
    text = new TextDecoder().decode(await bodyOf(response));
  } catch (cause) {
    signal.throwIfAborted();
    throw unreachable(base, cause);
  }
  if (response.status === 404) return undefined;
  if (!response.ok) {
    throw refused(base, { status: response.status, text });
  }
  return withHost(parsedAnswer(() => parseStun(readJson(text, base))), base);
}

/** ":3478" is a port of the coordinator's own host. */
function withHost(stun: readonly string[], base: string): string[] {
  const host = new URL(base).hostname;
  return stun.map((name) => name.startsWith(":") ? host + name : name);
}

/** Throws `ApiError`. */
function merged(known: AllPeers | undefined, { changes, ...list }: PeerList): AllPeers {
  if (!changes) return list;
  if (changes.since !== known?.etag) throw new ApiError("changes of another list");
  const all = new Map(known.peers.map((peer) => [peer.nodeKey, peer]));
  for (const key of changes.gone) all.delete(key);
  for (const peer of list.peers) all.set(peer.nodeKey, peer);
  const gone = new Set([...known.away ?? [], ...changes.gone]);
  const left = known.away && [...gone].filter((key) => !all.has(key));
  const { etag } = list;
  return { ...known, etag, peers: [...all.values()], ...(left ? { away: left } : {}) };
}

function readJson(text: string, base: string): unknown {
  try {
    return text === "" ? {} : JSON.parse(text);
  } catch {
    throw new CoordError(`${base} is no coordinator: its answer is not JSON`, "Check the URL", {
      status: 400,
    });
  }
}

function unreachable(base: string, cause: unknown): CoordError {
  const message = `coordinator ${base} does not answer: ${errorText(cause)}`;
  const hint = cause instanceof DialError
    ? cause.hint
    : "Check that gretun-coord runs and that its port can be reached";
  return new CoordError(message, hint, { cause });
}

/** By its header, as far as it is the coordinator's: others have clocks of their own. */
function timeOf({ ok, status, headers }: Response): number | undefined {
  if (!ok && status !== 401) return undefined;
  const dateMs = Date.parse(headers.get("date") ?? "");
  // It tells whole seconds.
  return Number.isNaN(dateMs) ? undefined : dateMs + 500;
}

function otherKey(base: string, key: NodeKey, known: NodeKey): CoordError {
  const message = `coordinator ${base} has another key: ${keyBase64(key)}, not ` +
    `${keyBase64(known)} as this node knows it`;
  const hint = "Somebody may be in its place; if its operator says that the new key is right, " +
    `start once with --coordinator-key ${keyBase64(key)}`;
  return new CoordError(message, hint, { code: "other-key" });
}

function notSigned(base: string, { status, text }: Pick<Refusal, "status" | "text">): CoordError {
  const message = `what answers at ${base} does not sign with the coordinator's key: ` +
    told(status, text);
  const hint = "Something on the way answers in its place, or it runs a version without a key";
  return new CoordError(message, hint, { code: "not-signed", middleStatus: status });
}

function hasCode(error: unknown, code: RefusalCode): boolean {
  return error instanceof CoordError && error.code === code;
}

function isUnauthorized(error: unknown): boolean {
  return error instanceof CoordError && error.status === 401;
}

function isTimeout(error: unknown): boolean {
  return error instanceof CoordError && error.cause instanceof DOMException &&
    error.cause.name === "TimeoutError";
}

interface Refusal {
  status: number;
  text: string;
  retryAfterMs?: number | undefined;
  code?: string | undefined;
}

function refused(base: string, { status, text, retryAfterMs, code }: Refusal): CoordError {
  const message = `coordinator ${base} refused: ${told(status, text)}`;
  const hint = text.startsWith(NOT_REGISTERED) ? JOINS_AGAIN : refusedHint(status, code);
  return new CoordError(message, hint, {
    status,
    ...(code === undefined ? {} : { code }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

/** What an answer said, on one line. */
function told(status: number, text: string): string {
  return `${status} ${text.replace(/[\p{C}\s]+/gu, " ").trim().slice(0, 200)}`.trim();
}

/** RFC 9110 section 10.2.3: seconds, or a date; it means something with these. */
function readRetryAfter({ status, headers }: Response, wallMs: number): number | undefined {
  if (![403, 409, 429, 503].includes(status)) return undefined;
  const text = headers.get("retry-after") ?? "";
  let waitMs = NaN;
  if (/^\d{1,9}$/.test(text)) waitMs = Number(text) * 1000;
  else if (/^[A-Z][a-z]+, .* GMT$/.test(text)) waitMs = Date.parse(text) - wallMs;
  return waitMs >= 0 ? Math.min(waitMs, MAX_RETRY_AFTER_MS) : undefined;
}

const HINTS: Partial<Record<string, string>> = {
  clone: "If this machine was cloned, delete its keys.json so that it makes its own",
  token: "Ask the coordinator's operator for a token, and give it with --token-file",
  approval: "Have the coordinator's operator approve this node",
  v1: "Update gretun on this host",
  expired: "Ask the coordinator's operator for a new token, and give it with --token-file",
} satisfies Partial<Record<RefusalCode, string>>;

/** One that has lost its state, or was restored from a copy. */
const JOINS_AGAIN = "It does not know this node any more, which joins again by itself";

function refusedHint(status: number, code: string | undefined): string {
  const hint = HINTS[code ?? ""];
  if (hint !== undefined) return hint;
  switch (status) {
    case 401:
      return "Check this host's clock and that keys.json belongs to this coordinator's node";
    case 404:
      return "Check that the URL is a coordinator's";
    case 407:
      return "A proxy on the way wants a name and a password: give them in HTTP_PROXY or HTTPS_PROXY";
    case 511:
      return "Log in to this network: its portal answers in the coordinator's place";
    case 429:
      return "Wait: the coordinator takes few calls at a time from one address";
    default:
      return "Look into the coordinator's log";
  }
}

/** What parses wrongly is a coordinator of another kind; trying again does not mend it. */
function parsedAnswer<T>(parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    if (!(cause instanceof ApiError)) throw cause;
    throw new CoordError(`the coordinator's answer is wrong: ${cause.message}`, "Check the URL", {
      status: 400,
      cause,
    });
  }
}

/** Somebody who answers in the coordinator's place does not know what it says. */
function expectField(answer: unknown, field: string): void {
  if (typeof answer === "object" && answer !== null && field in answer) return;
  throw new ApiError(`it has no "${field}"`);
}

async function bodyOf(response: Response): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await response.arrayBuffer());
}
