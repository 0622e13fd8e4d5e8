/** The coordinator as a function from request to answer; no port is opened here. */
import type { Cidr } from "../addr.ts";
import type { Clock, Log } from "../edges.ts";
import { errorFields, errorText } from "../errors.ts";
import type { Sign } from "../ed25519.ts";
import { type DiscoKey, keyBase64, type NodeKey, shortKey } from "../keys.ts";
import { SourceLimits, sourceNetwork } from "../limits.ts";
import type { Policy } from "../policy/mod.ts";
import { encodeGrant } from "../relay/mod.ts";
import { jsonAnswer, type ServerAnswer, type ServerRequest, textAnswer } from "../server_http.ts";
import {
  ApiError,
  CLONE_HEADER,
  envelopesJson,
  type NodeReach,
  type NodeRecord,
  parseCollisions,
  parseReach,
  parseRegisterRequest,
  parseRelayRegistration,
  parseRelayRequest,
  parseRelaysRequest,
  parseSignal,
  readInstance,
  readNonce,
  readStatement,
  REFUSAL_HEADER,
  type RegisterRequest,
  registerResponseJson,
  relayOfferJson,
  relayRegisteredJson,
  relaysJson,
  type Signed,
  stunJson,
  type TokenRecord,
} from "./api.ts";
import { signAnswer } from "./answer_signature.ts";
import {
  AuthError,
  type Claim,
  ClockError,
  type CoordinatorKey,
  isAble,
  readClaim,
  verifyClaim,
  WINDOW_SECONDS,
} from "./auth.ts";
import { Bodies, jsonOf } from "./body.ts";
import { isProof } from "./disco_proof.ts";
import type { Caller } from "./http_server.ts";
import { HeldCalls, HOLD_MS } from "./hold.ts";
import { Instances } from "./instances.ts";
import { Mailbox } from "./mailbox.ts";
import { MemberLimits } from "./member_limits.ts";
import { CoordMetrics, type NodeState } from "./metrics.ts";
import { isExpired, type Joining, LEASE_MS, Nodes } from "./nodes.ts";
import { Refusal } from "./refusal.ts";
import { RELAY_LEASE_MS, type RelayDirectory } from "./relays.ts";
import { Replays } from "./replays.ts";
import type { Store } from "./store.ts";
import { hashOf, Tokens } from "./tokens.ts";
import { type Explanation, PeerView } from "./view.ts";

export const SWEEP_MS = 5_000;

export interface CoordServerOptions {
  /** Addresses for nodes. */
  pool: Cidr;
  store: Store;
  clock: Clock;
  log: Log;
  /** Answers are signed with it. */
  key: CoordinatorKey;
  /** What nodes are told of the STUN server. */
  stun: string[];
  /** Whether nodes may join without a token though there are some. */
  isOpen?: boolean;
  /** Whether nodes of before are taken though a token is needed: they sign for no coordinator. */
  allowsV1?: boolean;
  /** Who sees whom, and may open what there; absent: everybody everything. */
  policy?: Policy;
  /** Whether /debug/peers is served. */
  debug: boolean;
  metrics?: CoordMetrics;
  /** Absent: this coordinator knows of no relays. */
  relays?: RelayOptions;
}

export interface RelayOptions {
  directory: RelayDirectory;
  /** Grants are signed with it. */
  grantKey: NodeKey;
  sign: Sign;
  /** Takes nodes without UDP at this coordinator's own relay. */
  acceptWebSocket?: (request: ServerRequest, source: string) => Promise<ServerAnswer>;
}

/** So many new nodes may come from one source at once, and as many again in the time of a lease. */
const MIN_NEWCOMERS = 32;
const MAX_NEWCOMERS = 1024;
const MAX_NEWCOMER_SOURCES = 16_384;

type Body = Uint8Array<ArrayBuffer>;
type Answer = ServerAnswer | Promise<ServerAnswer>;
/** What is done once the body has come. */
type OnBody = (body: Body) => Promise<ServerAnswer>;

interface Call {
  request: ServerRequest;
  body: Body;
}

/** What held calls wait for. */
const LIST = "list";
const mailOf = (key: DiscoKey) => `mail ${key}`;

/** Another run of the node's program is asked for its life for so long. */
const PROBE_MS = 1_500;
const CLONE_RETRY_MS = 30_000;
const runOf = (key: NodeKey) => `run ${key}`;

const MAX_ERROR_LENGTH = 200;

const RELAY_REGISTER_PATH = "/v1/relay/register";
const RELAY_WS_PATH = "/v1/relay/ws";
/** For a coordinator without a relay: one may be started. */
const NO_RELAY_RETRY_MS = 30_000;
const SAVE_RETRY_MS = 5_000;
const APPROVAL_RETRY_MS = 10_000;

/** A node holds calls of 25 s: one that is there was heard since. */
const SILENT_MS = 60_000;

const ROUTES: Record<string, readonly string[]> = {
  "/v1/register": ["POST", "DELETE"],
  "/v1/endpoints": ["POST"],
  "/v1/collisions": ["POST"],
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
  readonly #metrics: CoordMetrics;
  readonly #started: { wallMs: number; nowMs: number };
  readonly nodes: Nodes;
  readonly tokens: Tokens;
  /**
   * Anybody may register, so a node that is not known yet costs its source a token. Known nodes
   * never pay.
   */
  readonly #newcomers: SourceLimits;
  readonly #mailbox = new Mailbox();
  readonly #memberLimits = new MemberLimits();
  readonly #bodies: Bodies;
  readonly #replays = new Replays();
  readonly #held: HeldCalls;
  readonly #instances = new Instances();
  /** Not stored: nodes tell it again. */
  readonly #collisions = new Map<NodeKey, readonly string[]>();
  /** Nodes whose last change is not on the disk yet. */
  readonly #unsaved = new Set<NodeKey>();
  readonly #view: PeerView;

  /** Throws `GretunError` for a state that cannot be read, `RangeError` for one of another pool. */
  constructor(options: CoordServerOptions) {
    const { clock, pool, store } = options;
    this.#options = options;
    this.#metrics = options.metrics ?? new CoordMetrics();
    this.#started = { wallMs: clock.wallMs(), nowMs: clock.nowMs() };
    // Above all that an earlier run can have told, so that no node misses a change.
    const version = Math.max(store.version(), clock.wallMs()) + 1;
    this.nodes = new Nodes(pool, store.nodes(), version, clock.wallMs());
    this.#view = new PeerView(this.nodes, options.policy);
    this.tokens = new Tokens(store.tokens());
    this.#held = new HeldCalls(clock);
    this.#bodies = new Bodies(clock);
    this.#metrics.watch({
      nodes: () => this.#nodesByState(),
      heldCalls: () => this.#held.size,
      mailboxes: () => this.#mailbox.sizes,
    });
    // Nodes that only register hold their address for one lease: one source gets half of a pool.
    const quarter = Math.floor(this.nodes.capacity / 4);
    const burst = Math.max(MIN_NEWCOMERS, Math.min(MAX_NEWCOMERS, quarter));
    this.#newcomers = new SourceLimits({
      burst,
      perSecond: burst * 1000 / LEASE_MS,
      maxSources: MAX_NEWCOMER_SOURCES,
    });
  }

  /** Ends leases and forgets what is old; runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    while (!signal.aborted) {
      await clock.sleep(SWEEP_MS, signal).catch(() => {});
      try {
        this.#sweep();
      } catch (error) {
        // Told by what saves.
        if (!(error instanceof Refusal)) log.error("sweep failed", { error: errorText(error) });
      }
    }
  }

  #sweep(): void {
    const { clock, relays } = this.#options;
    const nowMs = this.#nowMs();
    this.#mailbox.sweep(nowMs);
    this.#instances.sweep(nowMs);
    for (const node of this.#collisions.keys()) {
      if (!this.nodes.get(node)?.listed) this.#collisions.delete(node);
    }
    this.#replays.sweep(clock.wallMs());
    relays?.directory.sweep(nowMs, (node) => this.nodes.get(node) !== undefined);
    for (const key of this.nodes.takeSettled()) this.#unsaved.add(key);
    const ended = this.nodes.expire(nowMs);
    for (const node of ended) {
      const reason = isExpired(node, nowMs) ? "membership ended" : "silent";
      this.#options.log.info("node not listed any more", { ...nodeFields(node), reason });
    }
    if (ended.length > 0) this.#listChanged(...ended);
    else if (this.#unsaved.size > 0) this.#save();
  }

  /** Wall-clock time as at the start, but never set: leases do not end when this host's clock is. */
  #nowMs(): number {
    const { wallMs, nowMs } = this.#started;
    return wallMs + Math.floor(this.#options.clock.nowMs() - nowMs);
  }

  /**
   * `source` is the address that the request came from; `claimed` is told whose it is once that is
   * known. Never throws. Nothing waits for the body but one function, which costs less than all that are
   * on the way from here to an answer.
   */
  handle(
    request: ServerRequest,
    source = "",
    claimed: (node: NodeKey) => void = () => {},
  ): Promise<ServerAnswer> {
    const startMs = this.#options.clock.nowMs();
    const answer = (work: () => Answer) => this.#answered(request, startMs, work);
    let begun: Answer | OnBody;
    try {
      begun = this.#begin(request, { source, claimed });
    } catch (error) {
      return answer(() => Promise.reject(error));
    }
    if (typeof begun !== "function") return answer(() => begun);
    return this.#bodies.read(request, source).then(
      (body) => answer(() => begun(body)),
      (error) => answer(() => Promise.reject(error)),
    );
  }

  async #answered(
    request: ServerRequest,
    startMs: number,
    work: () => Answer,
  ): Promise<ServerAnswer> {
    let answer: ServerAnswer;
    try {
      answer = await work();
    } catch (error) {
      answer = this.#refusalOf(error);
    }
    this.#measure(request, answer.status, startMs);
    return answer.status === 101 ? answer : await this.#finished(request, answer);
  }

  /** Nodes whose clock is off sign by ours, so each answer tells the time. */
  async #finished(request: ServerRequest, answer: ServerAnswer): Promise<ServerAnswer> {
    const { clock, key } = this.#options;
    answer.headers.date = httpDate(clock);
    const { method, path, query, headers } = request;
    const nonce = readNonce(headers);
    if (nonce === undefined) return answer;
    const authorization = headers.get("authorization") ?? "";
    const asked = { nonce, method, path: path + query, authorization };
    return await signAnswer(answer, asked, key, clock.wallMs());
  }

  #measure({ path, method }: ServerRequest, status: number, startMs: number): void {
    const methods = Object.hasOwn(ROUTES, path) ? ROUTES[path]! : undefined;
    this.#metrics.answered({
      route: methods ? path : "other",
      method: methods?.includes(method) ? method : "other",
      status,
      seconds: (this.#options.clock.nowMs() - startMs) / 1000,
    });
  }

  #nodesByState(): Record<NodeState, number> {
    const counts = { listed: 0, waiting: 0, silent: 0 };
    for (const { isWaiting, listed } of this.nodes.all()) {
      counts[isWaiting ? "waiting" : listed ? "listed" : "silent"]++;
    }
    return counts;
  }

  #refusalOf(error: unknown): ServerAnswer {
    if (error instanceof ApiError) return plain(400, error.message);
    if (error instanceof ClockError) {
      return plain(401, error.message, { [REFUSAL_HEADER]: "clock" });
    }
    if (error instanceof AuthError) return plain(401, error.message);
    if (error instanceof Refusal) return refusal(error);
    this.#options.log.error("request failed", { error: errorText(error) });
    return plain(500, "internal error");
  }

  /** Cheap checks come before the body is read, and the body before the signature's cost. */
  #begin(request: ServerRequest, caller: Caller): Answer | OnBody {
    const { path } = request;
    const methods = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
    if (!methods || (path === "/debug/peers" && !this.#options.debug)) {
      return plain(404, "not found");
    }
    if (!methods.includes(request.method)) {
      return plain(405, "method not allowed", { allow: methods.join(", ") });
    }
    if (path === "/healthz") return plain(200, "ok");
    if (path === "/v1/stun") return jsonAnswer(stunJson(this.#options.stun));
    if (path === "/debug/peers") return this.#peersNow();
    if (path === RELAY_WS_PATH) return this.#relayWebSocket(request, caller.source);
    if (path === "/v1/register" && request.method === "POST") {
      const claim = request.headers.has("authorization") ? this.#claim(request) : undefined;
      if (!claim) this.#refuseV1();
      return (body) => this.#register(claim, { request, body }, caller);
    }
    const claim = this.#claim(request);
    if (path === RELAY_REGISTER_PATH) {
      this.#checkRelay(claim);
      return (body) => this.#registerRelay(claim, { request, body }, caller);
    }
    this.#member(claim.nodeKey);
    return (body) => this.#ask(claim, { request, body }, caller);
  }

  async #ask(claim: Claim, call: Call, caller: Caller): Promise<ServerAnswer> {
    const node = await this.#authenticated(claim, call);
    caller.claimed(node.nodeKey);
    await this.#checkInstance(call.request, node, caller.source);
    const answer = await this.#answer(call, node);
    const rival = this.#instances.rivalOf(node.nodeKey, this.#nowMs());
    if (rival !== undefined) answer.headers[CLONE_HEADER] = rival;
    return answer;
  }

  async #answer(call: Call, node: NodeRecord): Promise<ServerAnswer> {
    const nowMs = this.#nowMs();
    switch (`${call.request.method} ${call.request.path}`) {
      case "DELETE /v1/register":
        this.#instances.forget(node.nodeKey);
        if (this.nodes.leave(node.nodeKey, nowMs)) {
          this.#listChanged(node);
          this.#options.log.info("node left", nodeFields(node));
        }
        return jsonAnswer({ ok: true });
      case "POST /v1/endpoints": {
        const reach = parseReach(jsonOf(call.body));
        this.#memberLimits.reach(node.nodeKey, nowMs);
        await statedReach(reach.statement, node);
        this.#noteChange(node, this.nodes.setReach(node.nodeKey, reach, nowMs));
        return jsonAnswer({ ok: true });
      }
      case "POST /v1/collisions": {
        const collisions = parseCollisions(jsonOf(call.body));
        this.#memberLimits.reach(node.nodeKey, nowMs);
        this.#tellCollisions(node, collisions);
        return jsonAnswer({ ok: true });
      }
      case "GET /v1/peers":
        return await this.#peers(call.request, node);
      case "GET /v1/relays":
        return this.#listRelays();
      case "POST /v1/relays":
        this.#relays().directory.report(node.nodeKey, parseRelaysRequest(jsonOf(call.body)));
        return this.#listRelays();
      case "POST /v1/relay":
        return await this.#offerRelay(call, node);
      case "POST /v1/signal":
        return this.#signal(call, node);
      default:
        return await this.#signals(call.request, node);
    }
  }

  #tellCollisions(node: NodeRecord, collisions: readonly string[]): void {
    if (collisions.length === 0) return void this.#collisions.delete(node.nodeKey);
    this.#collisions.set(node.nodeKey, collisions);
    this.#options.log.warn("a node cannot take addresses of the overlay", {
      ...nodeFields(node),
      collisions: collisions.join("; "),
    });
  }

  /** What the node's host cannot take of the overlay, as it said last. */
  collisionsOf(node: NodeKey): readonly string[] {
    return this.#collisions.get(node) ?? [];
  }

  // --- authentication

  #claim(request: ServerRequest): Claim {
    const { clock, key } = this.#options;
    const claim = readClaim(request.headers, clock.wallMs());
    if (isAble(request.headers)) {
      // What was meant for another coordinator is worth nothing here.
      if (claim.coordinator !== key.publicKey) {
        throw new Refusal(421, "not signed for this coordinator's key", undefined, "key");
      }
    } else {
      this.#refuseV1();
    }
    // Signatures seen before a restart are forgotten: nothing from before it is taken again. The
    // program starts again in another second than the one it ended in.
    const sinceStartMs = clock.nowMs() - this.#started.nowMs;
    const isNew = sinceStartMs <= WINDOW_SECONDS * 1000;
    // As the clock is by now: it may have been set since.
    const startedMs = clock.wallMs() - sinceStartMs;
    if (isNew && claim.timestampSeconds < Math.floor(startedMs / 1000)) {
      throw new Refusal(425, "signed before the coordinator started: sign again", 1000);
    }
    return claim;
  }

  #refuseV1(): void {
    if (this.isOpen || this.#options.allowsV1) return;
    throw new Refusal(
      403,
      "nodes of an older gretun may not come in here: update it, or ask the operator for --allow-v1",
      undefined,
      "v1",
    );
  }

  #member(nodeKey: NodeKey): NodeRecord {
    const node = this.nodes.get(nodeKey);
    if (!node) throw new Refusal(404, "not registered: this node must register first");
    return node;
  }

  async #authenticated(claim: Claim, call: Call): Promise<NodeRecord> {
    await this.#verify(claim, call);
    const node = this.#member(claim.nodeKey);
    checkMembership(node, this.#nowMs());
    if (this.nodes.renew(claim.nodeKey, this.#nowMs())) this.#listChanged(node);
    return node;
  }

  async #verify(claim: Claim, { request, body }: Call): Promise<void> {
    const { method, path, query, headers } = request;
    if (!await verifyClaim(claim, { method, path, query, headers, body })) {
      throw new AuthError("bad signature");
    }
    // Looking at the list changes nothing: the original, whose requests in one second are all
    // alike, may look twice.
    const mayRepeat = !claim.hasNonce && method === "GET" && path === "/v1/peers";
    if (!mayRepeat) this.#replays.acceptOnce(claim);
  }

  /**
   * Of two hosts with one key the first is served. Whether it is still there shows when its held
   * calls are answered: it calls again at once. Throws {@link Refusal}.
   */
  async #checkInstance(
    request: ServerRequest,
    { nodeKey, discoKey }: Pick<NodeRecord, "nodeKey" | "discoKey">,
    source: string,
  ): Promise<void> {
    const instance = readInstance(request.headers);
    if (instance === undefined) return;
    const heard = () => this.#instances.heard(nodeKey, instance, source, this.#nowMs());
    if (heard()) return this.#held.wake(runOf(nodeKey));
    const calls = this.#held.wakeCaller(nodeKey, [LIST, mailOf(discoKey)]);
    if (calls || this.#instances.isRecent(nodeKey, source, this.#nowMs())) {
      const before = this.#instances.current(nodeKey)?.calls ?? 0;
      await this.#held.hold(runOf(nodeKey), instance, request.signal, PROBE_MS);
      const other = this.#instances.current(nodeKey);
      if (other && other.instance !== instance && other.calls > before) {
        this.#refuseClone(nodeKey, other.source, source);
      }
    }
    this.#instances.forget(nodeKey);
    heard();
  }

  #refuseClone(nodeKey: NodeKey, first: string, second: string): never {
    if (this.#instances.rivals(nodeKey, second, this.#nowMs())) {
      this.#options.log.warn("two hosts use one node key", {
        ...nodeFields({ nodeKey, name: this.nodes.get(nodeKey)?.name ?? "" }),
        source: `${first}, ${second}`,
      });
    }
    throw new Refusal(
      409,
      `another host with the same node key is there, at ${first}: give each host a key of its own`,
      CLONE_RETRY_MS,
      "clone",
    );
  }

  // --- calls

  async #register(
    claim: Claim | undefined,
    { request, body }: Call,
    { source, claimed }: Caller,
  ): Promise<ServerAnswer> {
    const { log, stun } = this.#options;
    const signed = claim !== undefined;
    const wanted = parseRegisterRequest(jsonOf(body));
    if (claim && claim.nodeKey !== wanted.nodeKey) throw new AuthError("signed by another node");
    if (!this.nodes.get(wanted.nodeKey)) this.#limitNewcomers(source);
    const tokenHash = wanted.token && await hashOf(wanted.token);
    let isProven = false;
    let reach: NodeReach | undefined;
    if (claim) {
      await this.#verify(claim, { request, body });
      reach = await statedReach(wanted.statement, wanted);
      isProven = await this.#ownsDiscoKey(wanted);
      claimed(claim.nodeKey);
      const known = this.nodes.get(claim.nodeKey) ?? wanted;
      await this.#checkInstance(request, known, source);
    }
    const nowMs = this.#nowMs();
    const token = this.#tokenToJoin(wanted.nodeKey, { hash: tokenHash, signed, nowMs });
    const known = this.nodes.get(wanted.nodeKey);
    const { record, changed, removed } = this.#using(token, () =>
      this.nodes.register(wanted, {
        signed,
        isProven,
        nowMs,
        origin: { source: sourceNetwork(source), token },
        ...(token ? { joining: joiningBy(token) } : {}),
        ...(reach ? { reach } : {}),
      }));
    if (removed) {
      this.#listChanged(removed);
      log.warn("node removed: its disco key is another node's", nodeFields(removed));
    }
    if (changed) {
      this.#listChanged(record);
      log.info(known ? "node is back" : "node joined", {
        ...nodeFields(record),
        source,
        tunnel_ip: record.tunnelIp,
        token: token?.id,
        state: record.isWaiting ? "waiting for approval" : undefined,
      });
    } else if (this.#unsaved.size > 0) {
      this.#save();
    }
    checkMembership(record, nowMs);
    const list = signed && wanted.wantsList ? { list: this.#view.list(record, nowMs) } : {};
    return jsonAnswer(registerResponseJson({
      ...{ ...this.nodes.given(record), peersEtag: this.nodes.etag },
      ...{ stun, leaseSeconds: LEASE_MS / 1000, ...list },
    }));
  }

  /** The proof is dear, and good for ever. */
  async #ownsDiscoKey({ nodeKey, discoKey, discoProof }: RegisterRequest): Promise<boolean> {
    const known = this.nodes.get(nodeKey);
    if (known?.isProven && known.discoKey === discoKey) return true;
    const { agree } = this.#options.key;
    return discoProof !== undefined && await isProof(discoProof, { nodeKey, discoKey }, agree);
  }

  /** New nodes need one where there are any. Throws {@link Refusal}. */
  #tokenToJoin(
    nodeKey: NodeKey,
    { hash, signed, nowMs }: { hash: string | undefined; signed: boolean; nowMs: number },
  ): TokenRecord | undefined {
    const known = this.nodes.get(nodeKey);
    const isMember = known !== undefined && !isExpired(known, nowMs);
    if (isMember || (this.isOpen && hash === undefined)) return undefined;
    return this.tokens.check(signed ? hash : undefined, nowMs);
  }

  /** A use is stored first: where the disk is full nobody joins by a token that was used already. */
  #using<T>(token: TokenRecord | undefined, join: () => T): T {
    if (!token) return join();
    this.#stored(() => this.saveToken({ ...token, uses: token.uses + 1 }));
    try {
      return join();
    } catch (error) {
      this.#stored(() => this.saveToken(token));
      throw error;
    }
  }

  /** Whether anybody may join. */
  get isOpen(): boolean {
    return this.#options.isOpen === true || !this.tokens.areThere;
  }

  /** Stored first: what the operator was told of must not be lost. */
  saveToken(token: TokenRecord): void {
    this.#options.store.saveToken(token);
    this.tokens.put(token);
  }

  /** Keys that two hosts use, and from where. */
  clones(): { node: string; sources: [string, string] }[] {
    return this.#instances.clones(this.#nowMs())
      .map(({ node, sources }) => ({ node: keyBase64(node), sources }));
  }

  /** The operator changed what is known of that node. */
  edited(node: NodeRecord): void {
    this.#listChanged(node);
  }

  #limitNewcomers(source: string): void {
    const waitMs = this.#newcomers.takeOrWait(sourceNetwork(source), this.#nowMs());
    if (waitMs > 0) {
      throw new Refusal(429, "too many new nodes from this address: try later", waitMs);
    }
  }

  /** Held until something changes of what the node sees. */
  async #peers(request: ServerRequest, node: NodeRecord): Promise<ServerAnswer> {
    const asked = new URLSearchParams(request.query);
    const since = asked.get("since") ?? "";
    const untilMs = this.#nowMs() + HOLD_MS;
    const viewer = () => this.nodes.get(node.nodeKey) ?? node;
    const isNews = () => this.#view.answer(viewer(), since, this.#nowMs()).isNews;
    let hasChanged = true;
    while (hasChanged && !request.signal.aborted && !isNews()) {
      const { etag } = this.nodes;
      await this.#held.hold(LIST, node.nodeKey, request.signal, untilMs - this.#nowMs());
      hasChanged = etag !== this.nodes.etag && this.#nowMs() < untilMs;
    }
    return this.#peersNow(viewer(), asked.has("changes") ? since : "");
  }

  /** Nobody as the viewer sees all. */
  #peersNow(viewer?: NodeRecord, since = ""): ServerAnswer {
    return jsonAnswer(this.#view.answer(viewer, since, this.#nowMs()).json);
  }

  get policy(): Policy | undefined {
    return this.#view.policy;
  }

  /** From now on; nodes are told at once. */
  setPolicy(policy: Policy): void {
    this.#view.setPolicy(policy);
    this.#listChanged();
  }

  /** What one may open at the other, and the rules that say so; undefined without a policy. */
  explain(from: NodeRecord, to: NodeRecord): Explanation | undefined {
    return this.#view.explain(from, to);
  }

  #signal({ body }: Call, node: NodeRecord): ServerAnswer {
    const { to, sealed } = parseSignal(jsonOf(body));
    // Nothing is kept for a key that nobody has, or nobody whom this node sees.
    if (this.#view.seenBy(node, { disco: to })) {
      this.#memberLimits.message(node.nodeKey, to, this.#nowMs());
      this.#mailbox.put(to, { from: node.discoKey, sealed }, this.#nowMs());
      this.#held.wake(mailOf(to));
    }
    return jsonAnswer({ queued: true });
  }

  async #signals(request: ServerRequest, { nodeKey, discoKey }: NodeRecord): Promise<ServerAnswer> {
    const take = () =>
      this.#mailbox.take(discoKey, this.#nowMs())
        .filter(({ from }) => this.#view.seenBy(this.nodes.get(nodeKey)!, { disco: from }));
    let envelopes = take();
    if (envelopes.length === 0) {
      await this.#held.hold(mailOf(discoKey), nodeKey, request.signal);
      if (!request.signal.aborted) envelopes = take();
    }
    return jsonAnswer(envelopesJson(envelopes.map(({ enqueuedMs, ...envelope }) => ({
      ...envelope,
      enqueued: new Date(enqueuedMs).toISOString(),
    }))));
  }

  // --- relays

  #relays(): RelayOptions {
    const { relays } = this.#options;
    if (relays) return relays;
    throw new Refusal(503, "this coordinator has no relay", NO_RELAY_RETRY_MS);
  }

  #listRelays(): ServerAnswer {
    const { directory, grantKey } = this.#relays();
    return jsonAnswer(relaysJson(grantKey, directory.list(this.#nowMs())));
  }

  async #offerRelay({ body }: Call, node: NodeRecord): Promise<ServerAnswer> {
    const { nodeKey } = node;
    const { directory, sign } = this.#relays();
    const { peer, latencies } = parseRelayRequest(jsonOf(body));
    if (peer === nodeKey) throw new ApiError("peer is this node itself");
    const other = this.#view.seenBy(node, { node: peer });
    if (!other) throw new Refusal(404, "no such peer");
    if (other.isV1) throw new Refusal(404, "that peer is an original node, which uses no relay");
    if (this.#nowMs() - (other.leaseEndsMs - LEASE_MS) > SILENT_MS) {
      throw new Refusal(503, "that peer was not heard of lately", NO_RELAY_RETRY_MS);
    }
    if (latencies.size > 0) directory.report(nodeKey, latencies);
    const place = directory.choose(nodeKey, peer, this.#nowMs());
    if (!place) throw new Refusal(503, "no relay is there now", NO_RELAY_RETRY_MS);
    const wallMs = this.#options.clock.wallMs();
    const grant = directory.grant(nodeKey, peer, place.relayKey, wallMs);
    const expiresAt = new Date(grant.endsSeconds * 1000).toISOString();
    const offer = { ...place, grant: await encodeGrant(grant, sign), expiresAt };
    return jsonAnswer(relayOfferJson(offer));
  }

  /** A relay is no node: it signs with its own key, which the operator has named. Throws {@link Refusal}. */
  #checkRelay({ nodeKey }: Claim): void {
    if (this.#relays().directory.isAllowed(nodeKey)) return;
    throw new Refusal(403, "unknown relay: start the coordinator with its --relay-key");
  }

  async #registerRelay(
    claim: Claim,
    { request, body }: Call,
    { source, claimed }: Caller,
  ): Promise<ServerAnswer> {
    const { directory, grantKey } = this.#relays();
    await this.#verify(claim, { request, body });
    claimed(claim.nodeKey);
    const wanted = parseRelayRegistration(jsonOf(body));
    if (directory.register(claim.nodeKey, wanted, source, this.#nowMs())) {
      this.#options.log.info("relay registered", {
        key: shortKey(claim.nodeKey),
        source,
        endpoint: wanted.udp,
      });
    }
    return jsonAnswer(relayRegisteredJson(grantKey, RELAY_LEASE_MS / 1000));
  }

  async #relayWebSocket(request: ServerRequest, source: string): Promise<ServerAnswer> {
    const accept = this.#options.relays?.acceptWebSocket;
    return accept ? await accept(request, source) : plain(404, "no relay is served here");
  }

  /** Stores what changed in the list, then tells those who wait for it. */
  #listChanged(...records: NodeRecord[]): void {
    this.#view.changed(records);
    for (const { nodeKey } of records) this.#unsaved.add(nodeKey);
    this.#save();
    this.#held.wake(LIST);
  }

  /** What the disk has refused before is not answered for until it is there. */
  #noteChange(record: NodeRecord, isChanged: boolean): void {
    if (isChanged) this.#listChanged(record);
    else if (this.#unsaved.has(record.nodeKey)) this.#save();
  }

  /** What cannot be written now is tried again by the next sweep. */
  #save(): void {
    const records = [...this.#unsaved].flatMap((key) => this.nodes.get(key) ?? []);
    const gone = [...this.#unsaved].filter((key) => !this.nodes.get(key));
    this.#stored(() => this.#options.store.save(records, this.nodes.version, gone));
    this.#unsaved.clear();
  }

  #stored(write: () => void): void {
    const { clock } = this.#options;
    const startMs = clock.nowMs();
    try {
      write();
      this.#metrics.saved((clock.nowMs() - startMs) / 1000);
    } catch (error) {
      this.#metrics.saveFailed();
      this.#options.log.error("state not saved", errorFields(error));
      throw new Refusal(503, "the state cannot be saved: see the coordinator's log", SAVE_RETRY_MS);
    }
  }
}

/** How the log names a node. */
function nodeFields({ name, nodeKey }: Pick<NodeRecord, "name" | "nodeKey">) {
  return { node: name, key: shortKey(nodeKey) };
}

function httpDate(clock: Clock): string {
  return new Date(clock.wallMs()).toUTCString();
}

/** What it says; nothing is handed on that peers would not believe. Throws {@link ApiError}. */
async function statedReach(
  statement: Signed | undefined,
  { nodeKey, discoKey }: Pick<NodeRecord, "nodeKey" | "discoKey">,
): Promise<NodeReach | undefined> {
  if (!statement) return undefined;
  const { endpoints, nat, discoKey: stated } = await readStatement(statement, nodeKey);
  if (stated === discoKey) return { endpoints, ...(nat ? { nat } : {}), statement };
  throw new ApiError("statement is of another disco key than the node's");
}

/** Throws {@link Refusal}. */
function checkMembership(node: NodeRecord, nowMs: number): void {
  if (node.isWaiting) {
    const command = `gretun-coord node approve ${keyBase64(node.nodeKey)}`;
    const text = `this node waits for the coordinator's operator: ${command}`;
    throw new Refusal(403, text, APPROVAL_RETRY_MS, "approval");
  }
  if (isExpired(node, nowMs)) {
    throw new Refusal(
      403,
      "this node's membership has ended: join again with a token",
      undefined,
      "expired",
    );
  }
}

function joiningBy({ id, tags, isEphemeral, isApproving }: TokenRecord): Joining {
  return {
    tokenId: id,
    tags,
    ...(isEphemeral ? { isEphemeral } : {}),
    ...(isApproving ? {} : { isWaiting: true }),
  };
}

function refusal({ status, message, retryAfterMs, code }: Refusal): ServerAnswer {
  return plain(status, message, {
    ...(retryAfterMs === undefined ? {} : { "retry-after": `${Math.ceil(retryAfterMs / 1000)}` }),
    ...(code === undefined ? {} : { [REFUSAL_HEADER]: code }),
  });
}

/** One line: what was sent may be quoted in it. */
function plain(status: number, text: string, headers: Record<string, string> = {}): ServerAnswer {
  return textAnswer(status, text.slice(0, MAX_ERROR_LENGTH) + "\n", headers);
}
