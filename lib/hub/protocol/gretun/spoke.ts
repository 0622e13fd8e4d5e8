/** Our own protocol on a spoke. */
import { type Endpoint, equalEndpoints, formatEndpoint } from "../../../addr.ts";
import { Alarm } from "../../../alarm.ts";
import { equalBytes } from "../../../bytes.ts";
import {
  type DataCodec,
  type DataPlane,
  GreCodec,
  type HubPlaneKind,
  leftKernelPlane,
  NoKernelPlaneError,
  openPlane,
  type PlaneOptions,
} from "../../../dataplane/mod.ts";
import type { Datagram } from "../../../edges.ts";
import { errorFields, errorText } from "../../../errors.ts";
import { jitter } from "../../../retry.ts";
import { acceptWelcome, type AuthInFlight, makeAuth, Pair } from "./auth.ts";
import { SealedCodec, type SealedSession } from "./codec.ts";
import { bareCodec } from "../ipipou/codec.ts";
import { counterTag, equalTags } from "./crypto.ts";
import { greKeys } from "./gre_keys.ts";
import { Sealer, type SessionKeys } from "./seal.ts";
import {
  HUB_LINK,
  type SpokeCore,
  type SpokeProtocol,
  type SpokeStatus,
} from "../../spoke/spoke_core.ts";
import {
  newSpoke,
  nextSpokeTickMs,
  type Spoke,
  type SpokeEvent,
  stepSpoke,
} from "../../spoke/spoke_policy.ts";
import {
  type Challenge,
  decodeAlive,
  decodeChallenge,
  decodeReset,
  decodeWelcome,
  encodeHello,
  encodeKeepalive,
  type Framing,
  HUB_SIGNALLING,
  MESSAGE_LENGTH,
  messageType,
  NONCE_LENGTH,
  TAG_LENGTH,
  type Welcome,
} from "./wire.ts";

/** A reset names a packet of ours; this many back it is believed. */
const RESET_WINDOW = 4096n;
/** After so many hellos without an answer the hub is looked up again. */
const LOOK_UP_TRIES = 3;
const HINTS = {
  silent: "it may be away, behind a firewall, or does not know a client of this name",
  deaf:
    "it answers, and does not take this proof: compare keys, token, secret and --hub-key of both ends",
};

interface Session extends SealedSession {
  keys: SessionKeys;
  /** Of the next keepalive. */
  counter: bigint;
  aliveCounter: bigint;
  observed: Endpoint;
  encrypt: boolean;
}

export class GretunSpoke implements SpokeProtocol {
  plane: DataPlane;
  readonly #core: SpokeCore;
  /** Made when it is first needed. */
  #pair: Pair | undefined;
  readonly #sealed: SealedCodec;
  #framing: Framing | undefined;
  #policy: Spoke;
  #nonce = new Uint8Array();
  #challenge: Challenge | undefined;
  #inFlight: AuthInFlight | undefined;
  #session: Session | undefined;
  readonly #tick: Alarm;
  #authentications = 0;
  #lastStatus = "";
  #isSwitching = false;
  #closed = false;

  constructor(core: SpokeCore) {
    this.#core = core;
    this.#tick = new Alarm(
      core.edges.clock,
      () => this.#dispatch({ kind: "tick", nowMs: this.#now() }),
    );
    this.#policy = newSpoke(jitter(core.edges.random));
    this.#sealed = new SealedCodec({
      onHeard: () => {},
      onCarried: () => {},
      onUnknownSession: () => core.refused("unknown-session"),
      onRefused: (reason) => core.refused(reason),
    }, core.isHub);
    this.plane = this.#openFirst();
    this.#sayWhatIsNotProtected();
  }

  /** With "auto" the hub says which; until then a socket is enough, or what a killed run left. */
  #openFirst(): DataPlane {
    const { options: { dataPlane, port }, edges: { host } } = this.#core;
    const kind = dataPlane === "auto" ? leftKernelPlane(host, port) ?? "tun" : dataPlane;
    if (kind !== "tun") {
      this.#framing = kind === "gre-fou" ? "gre" : "ipip";
      return this.#open(kind, this.#sealed);
    }
    this.#framing = dataPlane === "auto" ? undefined : "sealed";
    return this.#open("tun", this.#sealed);
  }

  #planeOptions(): PlaneOptions {
    return {
      ...this.#core.planeOptions,
      signalling: HUB_SIGNALLING,
      onDatagram: (datagram) => this.#signal(datagram),
    };
  }

  #open(wanted: HubPlaneKind, codec: DataCodec, change: { port?: number } = {}): DataPlane {
    const { edges, options: { allowFragments } } = this.#core;
    return openPlane(
      { wanted, codec: () => codec },
      { ...this.#planeOptions(), allowFragments, ...change },
      edges,
    );
  }

  #sayWhatIsNotProtected(): void {
    const { kind } = this.#core.options.credential;
    if (kind === "address") {
      this.#core.edges.log.warn("no key and no token: who the hub is cannot be told");
    }
  }

  start(): void {
    this.#dispatch({ kind: "start", nowMs: this.#now() });
  }

  reauth(reason: "moved" | "asked"): void {
    this.#dispatch({ kind: reason === "moved" ? "moved" : "reauth", nowMs: this.#now() });
  }

  status(): SpokeStatus {
    const session = this.#session;
    return {
      state: this.#policy.state,
      authentications: this.#authentications,
      ...(session ? { observed: session.observed } : {}),
      ...(session && this.plane.kind === "tun" ? { encrypt: session.encrypt } : {}),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#tick[Symbol.dispose]();
    this.#sendKeepalive(true);
    await this.plane[Symbol.asyncDispose]();
  }

  // --- the loop

  #now(): number {
    return this.#core.edges.clock.nowMs();
  }

  #dispatch(event: SpokeEvent): void {
    if (this.#closed) return;
    const [policy, effects] = stepSpoke(this.#policy, event);
    this.#policy = policy;
    for (const effect of effects) {
      switch (effect.kind) {
        case "send-hello":
          this.#sendHello(effect.tries);
          break;
        case "send-auth":
          this.#sendAuth();
          break;
        case "send-keepalive":
          this.#sendKeepalive(false);
          break;
        case "state-changed":
          this.#stateChanged(effect.from, effect.to);
          break;
        default:
          effect satisfies never;
      }
    }
    this.#tick.set(nextSpokeTickMs(this.#policy));
  }

  #stateChanged(from: Spoke["state"], to: Spoke["state"]): void {
    this.#core.setUp(to === "up");
    const fields = { from, to, hub: formatEndpoint(this.#core.hub) };
    if (to === "lost") this.#core.edges.log.warn("hub lost, asking for a new session", fields);
    else this.#core.edges.log.info("connected", fields);
  }

  // --- sending

  #send(bytes: Uint8Array): void {
    this.plane.send(bytes, this.#core.hub);
  }

  #sendHello(tries: number): void {
    if (tries === LOOK_UP_TRIES) {
      this.#core.edges.log.warn("hub does not let us in, trying again", {
        ...{ hub: formatEndpoint(this.#core.hub), client: this.#core.options.name },
        hint: this.#challenge ? HINTS.deaf : HINTS.silent,
      });
    }
    if (tries >= LOOK_UP_TRIES) void this.#core.lookUpHub(true);
    // The welcome to an earlier auth may still come: it is as good.
    this.#nonce = this.#core.edges.random(NONCE_LENGTH);
    this.#send(encodeHello({ nonce: this.#nonce, name: this.#core.options.name }));
  }

  #sendAuth(): void {
    this.#makeAuth().catch((error) => {
      this.#core.edges.log.error("authentication failed", { error: errorText(error) });
    });
  }

  async #makeAuth(): Promise<void> {
    const { options, edges, hub } = this.#core;
    const challenge = this.#challenge!;
    const pair = this.#pair ??= await Pair.make(options.credential);
    const inFlight = await makeAuth(pair, {
      name: options.name,
      challenge,
      hub,
      ephemeralSecret: edges.random(32),
      framing: this.#framing ?? "any",
      encrypt: options.encrypt,
    });
    if (this.#closed || this.#challenge !== challenge) return; // there is a newer one
    this.#inFlight = inFlight;
    this.#send(inFlight.message);
  }

  #sendKeepalive(bye: boolean): void {
    const session = this.#session;
    if (!session) return;
    const counter = session.counter++;
    const message = encodeKeepalive({ session: session.id, counter, bye });
    const end = message.length - TAG_LENGTH;
    message.set(
      counterTag(session.keys.controlFromClient, counter, message.subarray(0, end)),
      end,
    );
    this.#send(message);
  }

  // --- receiving

  #signal({ bytes, from }: Datagram): void {
    if (this.#closed || !equalEndpoints(from, this.#core.hub)) {
      return this.#core.refused("wrong-address");
    }
    switch (messageType(bytes)) {
      case "challenge":
        return this.#onChallenge(decodeChallenge(bytes));
      case "welcome":
        return void this.#onWelcome(decodeWelcome(bytes.slice()));
      case "alive":
        return this.#onAlive(bytes);
      case "reset":
        return this.#onReset(decodeReset(bytes));
      default:
        return this.#core.refused("malformed");
    }
  }

  #onChallenge(challenge: Challenge): void {
    if (!equalBytes(challenge.nonce, this.#nonce)) return this.#core.refused("replayed");
    this.#challenge = copyChallenge(challenge);
    this.#dispatch({ kind: "challenge", nowMs: this.#now() });
  }

  async #onWelcome(welcome: Welcome | undefined): Promise<void> {
    const inFlight = this.#inFlight;
    if (!welcome || !inFlight || this.#isSwitching) return this.#core.refused("malformed");
    if (!equalBytes(welcome.nonce, inFlight.auth.nonce)) return this.#core.refused("replayed");
    const keys = await acceptWelcome(this.#pair!, inFlight, welcome);
    if (this.#closed || this.#inFlight !== inFlight) return; // another one was taken meanwhile
    if (!keys) {
      this.#core.edges.log.warn("hub is not the one it should be", {
        hub: formatEndpoint(this.#core.hub),
      });
      return this.#core.refused("bad-proof");
    }
    this.#inFlight = undefined;
    this.#challenge = undefined;
    if (welcome.status !== "ok") return this.#onRefusal(welcome);
    await this.#enter(welcome, keys, inFlight.observed);
  }

  #onRefusal({ status, framing }: Welcome): void {
    this.#dispatch({ kind: "refused", nowMs: this.#now() });
    if (status === this.#lastStatus) return;
    this.#lastStatus = status;
    const plane = { sealed: "tun", gre: "gre-fou", ipip: "ipip-fou" }[framing];
    const hint = status === "framing-mismatch"
      ? `start this spoke with --data-plane ${plane} or auto`
      : "look at the hub's log";
    this.#core.edges.log.error("hub refused", { reason: status, hint });
  }

  /** A new session: the right plane first, then the link, then what is sent in it. */
  async #enter(welcome: Welcome, keys: SessionKeys, observed: Endpoint): Promise<void> {
    const { options, edges } = this.#core;
    this.#isSwitching = true;
    try {
      if (this.#framing !== welcome.framing) await this.#switchTo(welcome.framing);
    } catch (error) {
      edges.log.error("data plane not opened", errorFields(error));
      return this.#dispatch({ kind: "refused", nowMs: this.#now() });
    } finally {
      this.#isSwitching = false;
    }
    const gre = await greKeys(this.#pair!, options.name);
    if (this.#closed) return;
    this.#lastStatus = "";
    this.#setSession(welcome, keys, observed);
    const { keepaliveMs, reauthMs } = welcome;
    const local = options.address ?? welcome.clientAddress?.ip;
    const peer = options.hubAddress ?? welcome.hubAddress?.ip;
    const greLink = { kind: "gre", ikey: gre.fromHub, okey: gre.fromClient } as const;
    const isSet = this.#core.setLink({
      ...(local && peer ? { local, peer } : {}),
      ...(welcome.framing === "gre" ? { keys: greLink } : {}),
    });
    this.#authentications++;
    options.metrics.authenticated();
    if (!isSet) return this.#dispatch({ kind: "refused", nowMs: this.#now() });
    this.#dispatch({ kind: "welcome", nowMs: this.#now(), keepaliveMs, reauthMs });
    // Tells the hub that the welcome has arrived.
    this.#sendKeepalive(false);
  }

  #setSession(welcome: Welcome, keys: SessionKeys, observed: Endpoint): void {
    const { encrypt } = welcome;
    const id = welcome.session.slice();
    const sealer = new Sealer(
      id,
      { send: keys.dataFromClient, receive: keys.dataFromHub },
      encrypt,
    );
    const previous = this.#session;
    const session: Session = {
      ...{ name: HUB_LINK, id, keys, sealer, observed, encrypt },
      ...{ counter: 0n, aliveCounter: -1n },
    };
    this.#session = session;
    // The hub sends in the old one until it hears from us in the new one.
    const taking = previous ? [session, previous] : [session];
    this.#sealed.setSessions(HUB_LINK, { sending: session, taking });
    if (previous?.encrypt === encrypt || welcome.framing !== "sealed") return;
    if (encrypt) this.#core.edges.log.info("data is encrypted and authenticated");
    else this.#core.edges.log.warn("data is authenticated and NOT encrypted");
  }

  async #switchTo(framing: Framing): Promise<void> {
    const { port } = this.plane;
    const isOpen = this.#framing === undefined && framing === "sealed";
    if (isOpen) return void (this.#framing = framing);
    await this.plane[Symbol.asyncDispose]();
    this.#framing = framing;
    if (framing === "sealed") this.plane = this.#open("tun", this.#sealed);
    else this.plane = this.#openKernel(framing, port);
  }

  #openKernel(framing: "gre" | "ipip", port: number): DataPlane {
    const kind = framing === "gre" ? "gre-fou" : "ipip-fou";
    const { log } = this.#core.edges;
    try {
      const plane = this.#open(kind, this.#sealed, { port });
      log.warn("data is neither encrypted nor authenticated by the tunnel", { plane: kind });
      return plane;
    } catch (error) {
      if (!(error instanceof NoKernelPlaneError)) throw error;
      log.info("no kernel plane here, using user space", { framing });
      return this.#open("tun", framing === "gre" ? new GreCodec() : bareCodec());
    }
  }

  #onAlive(bytes: Uint8Array): void {
    const { session: id, counter, observed, tag } = decodeAlive(bytes);
    const session = this.#session;
    if (!session || !equalBytes(id, session.id)) return this.#core.refused("unknown-session");
    const covered = bytes.subarray(0, MESSAGE_LENGTH.alive - TAG_LENGTH);
    if (!equalTags(counterTag(session.keys.controlFromHub, counter, covered), tag)) {
      return this.#core.refused("bad-tag");
    }
    if (counter <= session.aliveCounter) return this.#core.refused("replayed");
    session.aliveCounter = counter;
    const moved = !equalEndpoints(observed, session.observed);
    this.#dispatch({ kind: "alive", nowMs: this.#now(), moved });
  }

  /** Not proven by anything: it names a packet that was sent a moment ago, and costs one hello. */
  #onReset({ session: id, counter }: { session: Uint8Array; counter: bigint }): void {
    const session = this.#session;
    if (!session || !equalBytes(id, session.id)) return this.#core.refused("unknown-session");
    const isRecent = (next: bigint) => counter < next && counter + RESET_WINDOW >= next;
    if (!isRecent(session.counter) && !isRecent(session.sealer.sent)) {
      return this.#core.refused("replayed");
    }
    this.#dispatch({ kind: "reset", nowMs: this.#now() });
  }
}

/** Datagrams are views of a buffer that is used again. */
function copyChallenge({ nonce, observed, stamp, cookie }: Challenge): Challenge {
  return { nonce: nonce.slice(), observed, stamp, cookie: cookie.slice() };
}
