/**
 * What goes on between this node and its coordinator: registering, the list of peers, messages, and
 * what this node tells of itself. Once a node runs, nothing that the coordinator says, or somebody
 * in its place, ends that: every call is tried again until it succeeds.
 */
import type { Ip } from "../addr.ts";
import type { RegisterResponse, Signed, Statement } from "../coord/api.ts";
import {
  type AllPeers,
  type ClockNews,
  CoordClient,
  CoordError,
  type CoordHttp,
} from "../coord/client.ts";
import { aborted, type Clock, type Log, type Random } from "../edges.ts";
import type { Sign } from "../ed25519.ts";
import { errorText } from "../errors.ts";
import { type DiscoKey, keyBase64, type NodeKey } from "../keys.ts";
import type { Identity } from "./identity.ts";
import { Outage } from "./outage.ts";
import { OwnStatement } from "./own_statement.ts";
import { Outbox } from "./outbox.ts";

/** An answer to a held call that comes sooner and tells nothing new is no coordinator's. */
const HELD_AT_LEAST_MS = 1_000;
/** A held call that ends badly after so long was cut off on the way: others hold for less. */
const CUT_AFTER_MS = 1_000;

/** What this node says of itself, besides who it is. */
export type Said = Omit<Statement, "sequence" | "discoKey">;

export interface SessionOptions {
  url: string;
  identity: Identity;
  nodeName: string;
  /** What lets this node join a coordinator that asks for it. */
  tokenSecret?: Uint8Array | undefined;
  /** The coordinator's key, where it is known; the first contact tells it otherwise. */
  coordinatorKey: NodeKey | undefined;
  /** Where it is not known: asked before. */
  met: Promise<NodeKey | undefined> | undefined;
  onFirstContact: (key: NodeKey) => void;
  /** The address to ask for, for want of a known one the coordinator chooses. */
  wantedIp: () => Ip | undefined;
  /** What to tell the others of this node, now. */
  said: () => Said;
  /** Of the last statement of this node. */
  last: { sequence: number };
  /** Also when a coordinator that has forgotten this node takes it again. */
  onRegistered: (registered: RegisterResponse) => void;
  /** The whole list, this node's own record among them. */
  onPeers: (peers: Omit<AllPeers, "etag">) => Promise<void>;
  onSignal: (sealed: Uint8Array) => void;
  /** It answers again. */
  onBack: () => void;
  onClock: (news: ClockNews) => void;
  /** A call was sent. */
  onWaiting: () => void;
  sign: Sign;
  http: CoordHttp;
  clock: Clock;
  random: Random;
  log: Log;
  /** Ends what goes on. */
  signal: AbortSignal;
}

export class Session implements Disposable {
  readonly coord: CoordClient;
  readonly #options: SessionOptions;
  readonly #outage: Outage;
  readonly #statement: OwnStatement;
  readonly #outbox: Outbox;
  #isRegistered = false;
  /** To a registration. */
  #isAnswerLost = false;
  #connectedSinceMs: number | undefined;
  #joining: Promise<void> | undefined;
  /** That came with the answer to registering, and was not looked at yet. */
  #firstList: AllPeers | undefined;
  /** Resolved when the coordinator does not know what is advertised. */
  #postIsDue = Promise.withResolvers<void>();
  /** Ends the pause before the next try. */
  #wake = new AbortController();

  constructor(options: SessionOptions) {
    const { url, identity: { nodeKey }, sign, clock, random, http, log, coordinatorKey } = options;
    this.#options = options;
    this.#outage = new Outage({ clock, random, log });
    this.#outbox = new Outbox(clock, (to, sealed) => this.#postSignal(to, sealed));
    this.coord = new CoordClient({
      url,
      identity: { nodeKey, sign },
      ...(options.tokenSecret ? { tokenSecret: options.tokenSecret } : {}),
      clock,
      random,
      http,
      ...(coordinatorKey ? { coordinatorKey } : {}),
      met: options.met,
      onFirstContact: (key) => {
        log.info("first contact: from now on the coordinator has to have this key", {
          key: keyBase64(key),
        });
        options.onFirstContact(key);
      },
      onClock: options.onClock,
      onWaiting: options.onWaiting,
      onForgotten: () => void this.#joinAgain(),
    });
    const { last } = options;
    this.#statement = new OwnStatement({ sign, wallMs: () => this.coord.wallMs(), last });
  }

  /** Since when the coordinator has answered without a break. */
  get connectedSinceMs(): number | undefined {
    return this.#connectedSinceMs;
  }

  /** Since when it has not answered, in monotonic ms, and what was heard instead. */
  get outage(): Outage["current"] {
    return this.#outage.current;
  }

  [Symbol.dispose](): void {
    this.coord[Symbol.dispose]();
  }

  async #postSignal(to: DiscoKey, sealed: Uint8Array): Promise<void> {
    const { signal } = this.#options;
    await this.coord.sendSignal(to, sealed, signal).catch((error) => {
      if (signal.aborted) return;
      this.#options.log.debug("call-me-maybe not sent", { error: errorText(error) });
    });
  }

  /** Until it succeeds, or the signal is aborted. */
  async register(): Promise<void> {
    await this.#persist("register", () => this.#register());
  }

  /** Until the signal is aborted; to be called once the node is registered. */
  async run(): Promise<void> {
    await Promise.all([this.#post(), this.#pollPeers(), this.#pullSignals()]);
  }

  /** What is advertised has changed. */
  post(): void {
    this.#postIsDue.resolve();
  }

  sendSignal(to: DiscoKey, sealed: Uint8Array): void {
    this.#outbox.send(to, sealed);
  }

  /** The network is another: what waits for the next try does not wait any longer. */
  networkChanged(): void {
    this.#wake.abort();
    this.#wake = new AbortController();
  }

  /** This node is not listed any more. */
  async leave(signal: AbortSignal): Promise<void> {
    if (!this.#isRegistered) return;
    await this.coord.leave(signal).catch((error) => {
      this.#options.log.debug("coordinator not told", { error: errorText(error) });
    });
  }

  // --- loops

  async #pollPeers(): Promise<void> {
    const { signal } = this.#options;
    let known = this.#firstList;
    if (known) await this.#options.onPeers(known);
    while (!signal.aborted) {
      const held = this.#held();
      const answer = await this.#persist("peers", () => this.coord.peers(known, signal));
      if (!answer) return;
      const isNews = answer.etag !== known?.etag;
      known = answer;
      if (isNews) {
        // What the coordinator gave this node meanwhile is not known.
        if (this.#isAnswerLost) await this.#joinAgain();
        await this.#options.onPeers(answer);
      } else await held.pause(signal);
    }
  }

  async #pullSignals(): Promise<void> {
    const { signal } = this.#options;
    while (!signal.aborted) {
      const held = this.#held();
      const envelopes = await this.#persist("signals", () => this.coord.takeSignals(signal));
      for (const { sealed } of envelopes ?? []) this.#options.onSignal(sealed);
      if (envelopes?.length === 0) await held.pause(signal);
    }
  }

  /** Apart from looking at endpoints: that goes on while the coordinator is away. */
  async #post(): Promise<void> {
    const { signal } = this.#options;
    const stopped = aborted(signal);
    while (!signal.aborted) {
      await Promise.race([this.#postIsDue.promise, stopped]);
      if (signal.aborted) return;
      this.#postIsDue = Promise.withResolvers();
      // Each try posts what is known by then.
      const post = async () => {
        const said = this.#options.said();
        const { tunnelIp: _, endpoints, ...more } = said;
        const statement = await this.#state(said);
        await this.coord.postEndpoints(endpoints, signal, { ...more, statement });
      };
      await this.#persist("endpoints", post);
    }
  }

  #state(said: Said): Promise<Signed> {
    return this.#statement.of({ discoKey: this.#options.identity.discoKey, ...said });
  }

  /** Who answers at once with nothing is not asked again at once. */
  #held() {
    const { clock } = this.#options;
    const startMs = clock.nowMs();
    return {
      pause: async (signal: AbortSignal) => {
        const leftMs = startMs + HELD_AT_LEAST_MS - clock.nowMs();
        if (leftMs > 0) await clock.sleep(leftMs, signal).catch(() => {});
      },
    };
  }

  // --- calls

  /** Repeats `call` until it succeeds; undefined when the signal is aborted meanwhile. */
  async #persist<T>(what: string, call: () => Promise<T>): Promise<T | undefined> {
    const { clock, signal } = this.#options;
    while (!signal.aborted) {
      const startMs = clock.nowMs();
      try {
        const result = await call();
        this.#connectedSinceMs ??= clock.nowMs();
        if (this.#outage.end()) this.#isBack(what);
        return result;
      } catch (error) {
        if (signal.aborted) return undefined;
        if (isCutOff(what, error, clock.nowMs() - startMs)) continue;
        if (isForgotten(error)) await this.#joinAgain();
        this.#connectedSinceMs = undefined;
        const pauseMs = this.#outage.failed(what, error);
        // A held call does not tell for half a minute that the coordinator is there again.
        if (what !== "endpoints") this.post();
        await clock.sleep(pauseMs, AbortSignal.any([signal, this.#wake.signal])).catch(() => {});
      }
    }
    return undefined;
  }

  /**
   * Calls that find out at the same time register once. Those that are held are asked anew: they were
   * held by a coordinator that is not there any more.
   */
  async #joinAgain(): Promise<void> {
    if (!this.#isRegistered) return;
    this.#joining ??= this.#register().then(() => this.coord.reconnect(), () => {})
      .finally(() => this.#joining = undefined);
    return await this.#joining;
  }

  async #register(): Promise<void> {
    const { identity: { discoKey, discoPrivate }, nodeName, wantedIp, said, onRegistered, signal } =
      this.#options;
    const requestedTunnelIp = wantedIp();
    const more = {
      ...(requestedTunnelIp ? { requestedTunnelIp } : {}),
      ...(this.#isRegistered ? {} : { wantsList: true as const }),
    };
    this.#isAnswerLost = true;
    const answer = await this.coord.register(
      { ...{ discoKey, discoPrivate, nodeName }, statement: () => this.#state(said()), ...more },
      signal,
    );
    this.#isAnswerLost = false;
    this.#firstList ??= answer.list;
    if (!this.#isRegistered && this.coord.coordinatorKey === undefined) {
      this.#options.log.warn(
        "the coordinator has no key: who is on the way can change what it says",
        { hint: "Update gretun-coord" },
      );
    }
    // It does not know this node's endpoints any more.
    if (this.#isRegistered) this.post();
    this.#isRegistered = true;
    onRegistered(answer);
  }

  #isBack(what: string): void {
    this.#options.onBack();
    if (what !== "endpoints") this.post(); // it does not store all that it was told
  }
}

/** The coordinator, or who speaks in its name, does not know this node. */
function isForgotten(error: unknown): boolean {
  return error instanceof CoordError && error.status === 404;
}

/**
 * Proxies end calls that last longer than they like: the coordinator is not away for that. Where it was
 * sent again at once on another connection, the coordinator has seen it before.
 */
function isCutOff(what: string, error: unknown, lastedMs: number): boolean {
  const isHeldCall = what === "peers" || what === "signals";
  if (!isHeldCall || lastedMs < CUT_AFTER_MS || !(error instanceof CoordError)) return false;
  const { status, middleStatus, cause, code } = error;
  if (code === "replay") return true;
  const isOurTimeout = cause instanceof DOMException && cause.name === "TimeoutError";
  const answered = status ?? middleStatus;
  return answered === undefined ? !isOurTimeout : [408, 502, 503, 504].includes(answered);
}
