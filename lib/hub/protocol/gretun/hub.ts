/** Our own protocol on the hub: see `wire.ts` for the messages and `auth.ts` for what they prove. */
import { type Endpoint, formatEndpoint, UNSPECIFIED_4 } from "../../../addr.ts";
import { Reader, startsWithBytes, toBase64, toHex } from "../../../bytes.ts";
import {
  type DataPlane,
  openPlane,
  type PlaneKind,
  type PlaneOptions,
} from "../../../dataplane/mod.ts";
import type { Datagram } from "../../../edges.ts";
import { publicKeyOf } from "../../../ed25519.ts";
import { errorText } from "../../../errors.ts";
import { TokenBucket } from "../../../limits.ts";
import { ReplayWindow } from "../../../replay_window.ts";
import { endpointOf, equalSockAddrs, type SockAddr, sockAddrOf } from "../../../linux/mod.ts";
import { Admission } from "./admission.ts";
import { checkAuth, Cookies, type Credential, makeWelcome, Pair } from "./auth.ts";
import { SealedCodec, type SealedSession } from "./codec.ts";
import { counterTag, equalTags } from "./crypto.ts";
import { sha256 } from "./digest.ts";
import { type GreKeys, greKeys } from "./gre_keys.ts";
import type { HubCore, HubEntry, HubOptions, HubProtocol } from "../../hub_core.ts";
import { Sealer, type SessionKeys, sessionText } from "./seal.ts";
import {
  type Auth,
  decodeAuth,
  decodeHello,
  decodeKeepalive,
  encodeAlive,
  encodeReset,
  type Framing,
  HUB_SIGNALLING,
  MAGIC,
  MESSAGE_LENGTH,
  messageType,
  SESSION_LENGTH,
  TAG_LENGTH,
  type WelcomeStatus,
} from "./wire.ts";

/** "I do not know that session", from everywhere: a restarted hub says it to each client once. */
const RESET_LIMIT = { perSecond: 200, burst: 400 };
/** To one client whose packets come from elsewhere. */
const MOVED_HINT_GAP_MS = 500;
/** Authentications that wait for their turn, and those that are looked at together. */
const MAX_WAITING = 1024;
const MAX_WORKING = 8;
/** Without a lifetime clients authenticate again so often, for fresh keys. */
const REAUTH_MS = 3_600_000;

const FRAMING: Record<PlaneKind, Framing> = {
  ...{ "fou": "gre", "gre-fou": "gre", "ipip-fou": "ipip", "tun": "sealed" },
};

/** A session that a client has proven itself in. */
interface Session extends SealedSession {
  entry: HubEntry;
  keys: SessionKeys;
  /** What its client was told of. */
  options: HubOptions;
  controlWindow: ReplayWindow;
}

/** An authentication whose cookie is good. */
interface Waiting {
  entry: HubEntry;
  state: ClientState;
  auth: Auth;
  message: Uint8Array;
  from: Endpoint;
}

/** What is known of a client besides its link. */
interface ClientState {
  /** What is dear to make: when the client first comes. */
  known?: { pair: Pair; keys: GreKeys };
  /** Its authentications are looked at one after the other. */
  turn: Promise<unknown>;
  /** Of the last authentication that was taken. */
  lastStamp: bigint;
  /** Newest first; the client may still be in the second when a welcome was lost. */
  sessions: Session[];
  hintedMs: number;
  /** Where it is, in the socket's form: compared with every packet. */
  at?: { endpoint: Endpoint; address: SockAddr };
}

export class GretunHub implements HubProtocol {
  readonly plane: DataPlane;
  readonly publicKey?: string;
  readonly takesAnySource = false;
  readonly #core: HubCore;
  readonly #own: { seed: Uint8Array; publicKey: Uint8Array } | undefined;
  readonly #cookies: Cookies;
  readonly #clients = new Map<HubEntry, ClientState>();
  readonly #sessions = new Map<string, Session>();
  readonly #codec: SealedCodec;
  readonly #admission = new Admission();
  readonly #resets = new TokenBucket(RESET_LIMIT);
  /** By client and endpoint, first come first served; the newest first in each. */
  readonly #waiting = new Map<string, Waiting[]>();
  #waitingCount = 0;
  #working = 0;

  constructor(core: HubCore, options: PlaneOptions) {
    this.#core = core;
    const { ownSeed, dataPlane } = core.options;
    if (ownSeed) {
      this.#own = { seed: ownSeed, publicKey: publicKeyOf(ownSeed) };
      this.publicKey = toBase64(this.#own.publicKey);
    }
    this.#cookies = new Cookies(core.edges.random(32));
    this.#codec = new SealedCodec({
      onHeard: (session, source) => this.#heard(session as Session, source),
      onCarried: (name) => core.carried(name),
      onUnknownSession: (bytes, source) => this.#unknownSession(bytes, endpointOf(source)),
      onRefused: (reason) => core.refused(reason),
    });
    this.plane = openPlane(
      { wanted: dataPlane, kernel: "gre-fou", codec: () => this.#codec },
      { ...options, signalling: HUB_SIGNALLING },
      core.edges,
    );
    this.#sayWhatIsNotProtected();
  }

  #sayWhatIsNotProtected(): void {
    const { edges: { log }, options: { encrypt } } = this.#core;
    if (this.plane.kind !== "tun") {
      log.warn("data is neither encrypted nor authenticated by the tunnel", {
        plane: this.plane.kind,
      });
    } else if (encrypt) log.info("data is encrypted and authenticated");
    else log.warn("data is authenticated and NOT encrypted, unless the client insists");
  }

  get #framing(): Framing {
    return FRAMING[this.plane.kind];
  }

  // --- clients

  admit(entry: HubEntry): string | undefined {
    const { publicKey, token, remote } = entry.file;
    if (publicKey && !this.#own) {
      return "has a public-key, but the hub has no key: give it one with --key-file";
    }
    if (!publicKey && !token && !remote) return "has neither public-key nor token nor remote";
    const turn = Promise.resolve();
    this.#clients.set(entry, { turn, lastStamp: 0n, sessions: [], hintedMs: -Infinity });
    return undefined;
  }

  async #know(entry: HubEntry): Promise<{ pair: Pair; keys: GreKeys }> {
    const pair = await Pair.make(await this.#credential(entry));
    return { pair, keys: await greKeys(pair, entry.file.name) };
  }

  async #credential({ file }: HubEntry): Promise<Credential> {
    const { publicKey, token } = file;
    if (!publicKey) {
      return token ? { kind: "token", key: await sha256(token) } : { kind: "address" };
    }
    const secret = file.secret ?? this.#core.options.secret;
    return {
      kind: "key",
      ownSeed: this.#own!.seed,
      ownPublic: this.#own!.publicKey,
      peerPublic: publicKey,
      ...(secret === undefined ? {} : { secret: await sha256(secret) }),
    };
  }

  forget(entry: HubEntry): void {
    this.disconnected(entry);
    this.#clients.delete(entry);
  }

  disconnected(entry: HubEntry): void {
    const state = this.#clients.get(entry);
    if (!state) return;
    for (const { id } of state.sessions) this.#sessions.delete(sessionText(id));
    state.sessions = [];
    this.#codec.setSessions(entry.file.name, undefined);
  }

  linkExtras(entry: HubEntry) {
    if (this.plane.kind !== "gre-fou") return {};
    // A link is set when its client has authenticated.
    const { keys } = this.#clients.get(entry)!.known!;
    return { keys: { kind: "gre", ikey: keys.fromClient, okey: keys.fromHub } } as const;
  }

  clientId(name: string): string {
    return toHex(new TextEncoder().encode(name));
  }

  // --- signalling

  signal({ bytes, from }: Datagram): void {
    switch (messageType(bytes)) {
      case "hello":
        return this.#hello(bytes, from);
      case "auth":
        return this.#auth(bytes, from);
      case "keepalive":
        return this.#keepalive(bytes, from);
      default:
        return this.#core.refused("malformed");
    }
  }

  get #nowMs(): number {
    return this.#core.edges.clock.nowMs();
  }

  #hello(bytes: Uint8Array, from: Endpoint): void {
    const hello = decodeHello(bytes);
    if (!this.#core.entries.has(hello.name)) {
      return this.#core.refusedAuthentication("unknown-client", from, hello.name);
    }
    const beganMs = this.#nowMs;
    if (!this.#admission.stranger(from.ip, beganMs)) return this.#core.refused("rate-limited");
    this.plane.send(this.#cookies.challenge(hello, from, this.#core.edges.clock.wallMs()), from);
    this.#admission.spent(this.#nowMs - beganMs);
  }

  #auth(bytes: Uint8Array, from: Endpoint): void {
    const { edges } = this.#core;
    // The datagram is a view of a buffer that is used again.
    const message = bytes.slice(0, MESSAGE_LENGTH.auth);
    const auth = decodeAuth(message);
    const entry = this.#core.entries.get(auth.name);
    const state = entry && this.#clients.get(entry);
    if (!state) return this.#core.refused("unknown-client");
    const nowMs = this.#nowMs;
    if (!this.#cookies.wasMade(auth.stamp, edges.clock.wallMs())) {
      return this.#core.refused("stale");
    }
    if (!this.#admission.answer(nowMs)) return this.#core.refused("rate-limited");
    if (!this.#cookies.isRight(auth, from)) return this.#core.refused("bad-cookie");
    const isFull = this.#waitingCount >= MAX_WAITING;
    if (isFull || !this.#admission.proven(from.ip, nowMs)) {
      return this.#core.refused("rate-limited");
    }
    this.#waitingCount++;
    const key = `${auth.name} ${formatEndpoint(from)}`;
    const waiting = { entry, state, auth, message, from };
    this.#waiting.set(key, [waiting, ...this.#waiting.get(key) ?? []]);
    if (this.#working < MAX_WORKING) void this.#work();
  }

  /** Until nobody waits: when hundreds come at once, the first are not to wait for the last. */
  async #work(): Promise<void> {
    this.#working++;
    for (const [key, messages] of this.#waiting) {
      this.#waiting.delete(key);
      this.#waitingCount -= messages.length;
      // A client that has sent another one meanwhile wants an answer to that alone.
      for (const waiting of messages) if (await this.#take(waiting)) break;
    }
    this.#working--;
  }

  /** After others of the same client. */
  #take(waiting: Waiting): Promise<boolean> {
    const { state } = waiting;
    const taken = state.turn.then(() => this.#authInTurn(waiting)).catch((error) => {
      this.#core.edges.log.error("authentication failed", { error: errorText(error) });
      return false;
    });
    state.turn = taken;
    return taken;
  }

  /** Whether it was the client's. */
  async #authInTurn({ entry, state, auth, message, from }: Waiting): Promise<boolean> {
    const { publicEndpoints } = this.#core.options;
    const { remote } = entry.file;
    const { pair } = state.known ??= await this.#know(entry);
    const refusal = await checkAuth({
      ...{ auth, bytes: message, from, pair, lastStamp: state.lastStamp, publicEndpoints },
      ...(remote ? { remote } : {}),
    });
    if (this.#clients.get(entry) !== state) return false; // its file was removed meanwhile
    if (refusal) {
      this.#core.refusedAuthentication(refusal, from, auth.name);
      return false;
    }
    state.lastStamp = auth.stamp;
    await this.#welcome(entry, state, pair, auth, from);
    return true;
  }

  async #welcome(
    entry: HubEntry,
    state: ClientState,
    pair: Pair,
    auth: Auth,
    from: Endpoint,
  ): Promise<void> {
    const { edges, options } = this.#core;
    const framing = this.#framing;
    const encrypt = framing === "sealed" && (options.encrypt || auth.encrypt);
    const isMatch = auth.framing === "any" || auth.framing === framing;
    if (!isMatch) this.#core.refused("framing-mismatch");
    const id = this.#newSessionId();
    const isUp = isMatch && this.#core.authenticated(entry, from);
    const status: WelcomeStatus = isUp ? "ok" : isMatch ? "link-failed" : "framing-mismatch";
    const local = entry.link?.local;
    const { address } = entry.file;
    const made = await makeWelcome(pair, auth, from, {
      ...{ session: id, status, framing, encrypt, keepaliveMs: options.keepaliveMs },
      reauthMs: this.#reauthMs(entry),
      hub: { ip: options.bind ?? UNSPECIFIED_4, port: options.port },
      ephemeralSecret: edges.random(32),
      ...(address && local
        ? { clientAddress: address, hubAddress: { ...address, ip: local } }
        : {}),
    });
    if (!made) return this.#core.refused("malformed");
    if (isUp && !entry.link) return; // it was disconnected meanwhile
    if (isUp) this.#addSession(entry, state, id, made.keys, encrypt);
    else if (isMatch) this.#core.refused("link-failed");
    this.plane.send(made.message, from);
  }

  #reauthMs({ policy }: HubEntry): number {
    const { lifetimeMs } = policy.limits;
    return lifetimeMs > 0 ? Math.min(REAUTH_MS, Math.max(1000, lifetimeMs / 2)) : REAUTH_MS;
  }

  /** Never one that a message of ours begins with. */
  #newSessionId(): Uint8Array {
    while (true) {
      const id = this.#core.edges.random(SESSION_LENGTH);
      if (!startsWithBytes(id, MAGIC) && !this.#sessions.has(sessionText(id))) return id;
    }
  }

  #addSession(
    entry: HubEntry,
    state: ClientState,
    id: Uint8Array,
    keys: SessionKeys,
    encrypt: boolean,
  ): void {
    const sealer = new Sealer(
      id,
      { send: keys.dataFromHub, receive: keys.dataFromClient },
      encrypt,
    );
    const { name } = entry.file;
    const session: Session = {
      ...{ name, entry, id, keys, sealer },
      options: this.#core.options,
      controlWindow: new ReplayWindow(),
    };
    // The client is in the session that we send in, not in those between it and the new one.
    const current = this.#codec.sessions(name)?.sending;
    for (const old of state.sessions) {
      if (old !== current) this.#sessions.delete(sessionText(old.id));
    }
    this.#sessions.set(sessionText(id), session);
    state.sessions = [session, ...state.sessions.filter((old) => old === current)];
    this.#codec.setSessions(name, { sending: current ?? session, taking: state.sessions });
  }

  /** The client is in this session now: its welcome has arrived. */
  #confirm(session: Session): void {
    const state = this.#clients.get(session.entry);
    if (!state || state.sessions[0] !== session) return;
    if (this.#codec.sessions(session.name)?.sending === session) return;
    this.#codec.setSessions(session.name, { sending: session, taking: state.sessions });
  }

  #heard(session: Session, source: SockAddr): void {
    const { entry } = session;
    this.#confirm(session);
    this.#core.heard(entry);
    const state = this.#clients.get(entry)!;
    if (this.#isAt(state, entry.policy.endpoint, source)) return;
    // Only an authentication moves a client, lest a captured packet does: it is asked for one.
    const from = endpointOf(source);
    const nowMs = this.#nowMs;
    if (nowMs - state.hintedMs < MOVED_HINT_GAP_MS) return;
    state.hintedMs = nowMs;
    const { id, sealer } = session;
    this.plane.send(encodeReset({ session: id, counter: sealer.highest }), from);
  }

  #isAt(state: ClientState, endpoint: Endpoint | undefined, source: SockAddr): boolean {
    if (!endpoint) return false;
    if (state.at?.endpoint !== endpoint) {
      state.at = { endpoint, address: sockAddrOf(endpoint) };
    }
    return equalSockAddrs(state.at.address, source);
  }

  #unknownSession(bytes: Uint8Array, from: Endpoint): void {
    this.#core.refused("unknown-session");
    if (!this.#resets.take(this.#nowMs)) return;
    const reader = new Reader(bytes, "network");
    const session = reader.bytes(SESSION_LENGTH);
    this.plane.send(encodeReset({ session, counter: reader.u64() }), from);
  }

  #keepalive(bytes: Uint8Array, from: Endpoint): void {
    const keepalive = decodeKeepalive(bytes);
    const { counter, bye } = keepalive;
    const session = this.#sessions.get(sessionText(keepalive.session));
    if (!session) return this.#unknownSession(bytes.subarray(8), from);
    if (!this.#admission.session(this.#nowMs)) return this.#core.refused("rate-limited");
    if (!session.controlWindow.isFresh(Number(counter))) return this.#core.refused("replayed");
    const covered = bytes.subarray(0, 64 - TAG_LENGTH);
    const tag = counterTag(session.keys.controlFromClient, counter, covered);
    if (!equalTags(tag, keepalive.tag)) return this.#core.refused("bad-tag");
    session.controlWindow.take(Number(counter));
    if (bye) return this.#core.bye(session.entry);
    this.#confirm(session);
    this.#core.heard(session.entry);
    // There is news, which is told with a new session: both answers would be longer than this.
    if (session.options !== this.#core.options) {
      return this.plane.send(encodeReset({ session: session.id, counter }), from);
    }
    const alive = encodeAlive({ session: session.id, counter, observed: from });
    const end = alive.length - TAG_LENGTH;
    alive.set(counterTag(session.keys.controlFromHub, counter, alive.subarray(0, end)), end);
    this.plane.send(alive, from);
  }
}
