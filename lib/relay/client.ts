/**
 * A node's way through relays: gets a grant from the coordinator, an allocation from the relay, by
 * UDP or else by WebSocket, and keeps it until it is closed or lost.
 */
import { type Endpoint, formatEndpoint, type Ip } from "../addr.ts";
import { type Dialer, systemDialer } from "../dial/mod.ts";
import { type Clock, type Log, type Random, type SendDatagram, unlessAborted } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { Sign } from "../ed25519.ts";
import { type NodeKey, shortKey } from "../keys.ts";
import { firstToSucceed } from "../stagger.ts";
import { resolveServers, serverAt, StunClient } from "../stun/mod.ts";
import { Turns } from "../turns.ts";
import { RelayError, RelayExchange, type RelayLine } from "./exchange.ts";

import type { RelayCoordinator, RelayLatencies, RelayOffer, RelayPlace } from "./places.ts";
import { type StandInOptions, StandIns } from "./stand_in.ts";

/** Well under the 30 s after which many NATs forget a mapping (RFC 4787 section 4.3). */
const REFRESH_MS = 15_000;
/** Between two refreshes that somebody asks for. */
const REFRESH_GAP_MS = 1_000;
/** Messages to a relay's main port, 3 s of them. */
const FIRST_TRIES = 5;
/** Longer than most round trips: while nothing comes by UDP, a connection is tried beside it. */
const WEB_SOCKET_DELAY_MS = 1_000;
const MEASURE_TIMEOUT_MS = 2_000;
/** What an address of a relay has for itself before the next one is tried beside it. */
const ADDRESS_DELAY_MS = 250;
/**
 * From one allocation to the next, after as many at once: a relay answers an address 300 times a
 * second, an allocation takes four messages, and those that there are refresh.
 */
const ALLOCATION_GAP_MS = 50;
const ALLOCATIONS_AT_ONCE = 16;
/** Calls for grants: a coordinator closes connections of a node that has many. */
const GRANTS_AT_ONCE = 2;
const GRANT_PATIENCE_MS = 1_000;

export type RelayPathKind = "relay-udp" | "relay-tcp";

/** A way to one peer through a relay, kept alive until it is closed or lost. */
export interface RelayPath extends AsyncDisposable {
  readonly peer: NodeKey;
  readonly relayKey: NodeKey;
  /** To send to, and what comes from the peer comes from there. */
  readonly endpoint: Endpoint;
  readonly kind: RelayPathKind;
  /**
   * Refreshes it now, at most once a second: there is reason to think that it does not carry
   * anything, or that a NAT has mapped this node anew. It is lost if the relay does not know it.
   */
  check(): void;
}

export interface RelayClientOptions {
  nodeKey: NodeKey;
  sign: Sign;
  coordinator: RelayCoordinator;
  /** For WebSockets; the system's where there is none. */
  dialer?: Dialer;
  /** From the node's own port. */
  send: SendDatagram;
  /** That port. */
  nodePort: number;
  clock: Clock;
  /** The time as the coordinator has it; this host's unless told. */
  wallMs?: () => number;
  random: Random;
  log: Log;
  /** The relays that there are have other addresses than before. */
  onRelays?: () => void;
  /** The relay has forgotten the path or is away: it carries nothing any more. */
  onLost: (path: RelayPath, reason: string) => void;
  /** Whether what a connection brings gets to the node by loopback, and what it sends to the connection. */
  onLoopback?: (isOpen: boolean) => void;
  /** "host:port" to addresses that can be sent to, in the order to try them; the system's resolver unless told. */
  resolve?: (name: string) => Promise<Endpoint[]>;
  /** A WebSocket and its loopback socket unless told. */
  openStandIn?: (options: StandInOptions, signal: AbortSignal) => Promise<StandInLine>;
}

export interface StandInLine extends RelayLine, Disposable {
  readonly endpoint: Endpoint;
}

/** What a path was made with. */
interface Bound {
  line: RelayLine & Partial<Disposable>;
  endpoint: Endpoint;
  kind: RelayPathKind;
  /** That the line leads to; 0 for a connection. */
  port: number;
  nonce: Uint8Array;
}

export class RelayClient implements AsyncDisposable {
  readonly #options: RelayClientOptions;
  readonly #exchange: RelayExchange;
  readonly #stun: StunClient;
  readonly #openStandIn: NonNullable<RelayClientOptions["openStandIn"]>;
  readonly #paths = new Map<NodeKey, Promise<KeptPath>>();
  /** Paths by their line's key. */
  readonly #lines = new Map<string, KeptPath>();
  readonly #grantTurns: Turns;
  readonly #closed = new AbortController();
  /** Aborted when what is under way had better begin anew. */
  #moved = new AbortController();
  #ips: ReadonlySet<Ip> = new Set();
  #latencies = new Map<NodeKey, number>();
  #udpWorks: boolean | undefined;
  /** The last one, or the one that is under way; it never rejects. */
  #measuring: Promise<void> | undefined;
  #isMeasureDue = false;
  /** When the next allocation would begin if there were never several at once. */
  #nextTurnMs = -Infinity;

  constructor(options: RelayClientOptions) {
    this.#options = options;
    const { nodeKey, sign, clock, random } = options;
    const onHint = (line: string, nonce: Uint8Array) => this.#lines.get(line)?.hint(nonce);
    const wallMs = options.wallMs ?? (() => clock.wallMs());
    this.#exchange = new RelayExchange({ nodeKey, sign, clock, wallMs, random, onHint });
    this.#stun = new StunClient(options);
    this.#grantTurns = new Turns({
      ...{ atOnce: GRANTS_AT_ONCE, patienceMs: GRANT_PATIENCE_MS },
      clock,
    });
    const standIns = new StandIns();
    this.#openStandIn = options.openStandIn ??
      ((options, signal) => standIns.open(options, signal));
  }

  /** Of the relays that we were told of. */
  get ips(): Iterable<Ip> {
    return this.#ips;
  }

  /** Whether a relay that we were told of has that address. */
  isRelay(ip: Ip): boolean {
    return this.#ips.has(ip);
  }

  /** Whether the last measurement had an answer by UDP; undefined before the first. */
  get udpWorks(): boolean | undefined {
    return this.#udpWorks;
  }

  /**
   * To be given every STUN datagram; true if it answered a message of ours. Others are left to
   * whom they concern.
   */
  handle(bytes: Uint8Array, from: Endpoint): boolean {
    return this.#exchange.handle(bytes, formatEndpoint(from)) || this.#stun.handle(bytes, from);
  }

  /**
   * Measures the round trip to every relay and tells the coordinator, which picks by that. Throws
   * what its calls throw.
   */
  async measure(signal: AbortSignal): Promise<RelayLatencies> {
    const measured = this.#measure(signal);
    this.#measuring = measured.then(() => {}, () => {});
    return await measured;
  }

  async #measure(signal: AbortSignal): Promise<RelayLatencies> {
    const { coordinator } = this.#options;
    const either = AbortSignal.any([signal, this.#closed.signal]);
    const places = await coordinator.relays(this.#latencies, either);
    const servers = await this.#resolved(places);
    const ips = new Set(servers.map(({ endpoint }) => endpoint.ip));
    const areOthers = ips.symmetricDifference(this.#ips).size > 0;
    this.#ips = ips;
    if (areOthers) this.#options.onRelays?.();
    const timeoutMs = MEASURE_TIMEOUT_MS;
    const isRelayAway = this.#isMeasureDue;
    this.#isMeasureDue = false;
    const answers = await this.#stun.query(servers, { timeoutMs, signal: either });
    const rttOf = new Map(answers.map(({ server, rttMs }) => [server.name, rttMs]));
    this.#latencies = new Map(places.flatMap(({ relayKey, udp }) => {
      const rttMs = rttOf.get(udp);
      return rttMs === undefined ? [] : [[relayKey, rttMs] as const];
    }));
    // A relay that is away says nothing of UDP.
    if (answers.length > 0) this.#udpWorks = true;
    else if (places.length > 0 && !isRelayAway) this.#udpWorks = false;
    if (this.#latencies.size > 0) await coordinator.relays(this.#latencies, either);
    return this.#latencies;
  }

  async #resolved(places: readonly RelayPlace[]) {
    const resolved = await Promise.allSettled(
      places.map(async ({ udp }) => serverAt(udp, await this.#resolve(udp))),
    );
    return resolved.flatMap((r) => r.status === "fulfilled" && r.value ? [r.value] : []);
  }

  /** In the order in which they are to be tried. */
  async #resolve(name: string): Promise<Endpoint[]> {
    const { resolve } = this.#options;
    if (resolve) return await resolve(name);
    const servers = await resolveServers([name]);
    return servers.flatMap(({ endpoint, others = [] }) => [endpoint, ...others]);
  }

  /**
   * The path to that peer, the one there is or a new one, once data can go by it. The peer has to
   * do the same. Throws {@link RelayError}, what the coordinator's calls throw, or the signal's
   * reason.
   */
  allocate(peer: NodeKey, signal: AbortSignal): Promise<RelayPath> {
    const existing = this.#paths.get(peer);
    if (existing) return existing;
    const stop = AbortSignal.any([signal, this.#closed.signal, this.#moved.signal]);
    const made = this.#make(peer, stop);
    this.#paths.set(peer, made);
    made.catch(() => this.#paths.delete(peer));
    return made;
  }

  /** Until it answers a measurement, the coordinator is to name another one if there is any. */
  #isSilent(relay: NodeKey): void {
    this.#latencies.delete(relay);
    this.#isMeasureDue = this.#latencies.size === 0;
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const nowMs = clock.nowMs();
    const earliestMs = nowMs - (ALLOCATIONS_AT_ONCE - 1) * ALLOCATION_GAP_MS;
    const turnMs = Math.max(this.#nextTurnMs, earliestMs);
    this.#nextTurnMs = turnMs + ALLOCATION_GAP_MS;
    if (turnMs > nowMs) await clock.sleep(turnMs - nowMs, signal);
  }

  async #offer(peer: NodeKey, signal: AbortSignal): Promise<RelayOffer> {
    const ask = () => this.#options.coordinator.relay(peer, this.#latencies, signal);
    return await this.#grantTurns.run(ask);
  }

  async #make(peer: NodeKey, signal: AbortSignal): Promise<KeptPath> {
    const { log } = this.#options;
    await this.#turn(signal);
    if (this.#isMeasureDue) await this.measure(signal);
    // The coordinator picks by what it has been told: the first measurement may be under way.
    else if (this.#latencies.size === 0) await this.#measuring;
    const offer = await this.#offer(peer, signal);
    let onClosed: (reason: string) => void = (reason) => {
      closedEarly = reason;
    };
    let closedEarly: string | undefined;
    const bound = await this.#bind(offer, signal, (reason) => onClosed(reason));
    if (closedEarly !== undefined) throw new RelayError(`the relay is gone: ${closedEarly}`);
    const path = new KeptPath({
      peer,
      offer,
      bound,
      exchange: this.#exchange,
      clock: this.#options.clock,
      log,
      renewGrant: (signal) => this.#offer(peer, signal),
      onEnd: (reason) => {
        this.#paths.delete(peer);
        this.#lines.delete(bound.line.key);
        if (reason === undefined) return;
        this.#isSilent(path.relayKey);
        this.#options.onLost(path, reason);
      },
    });
    this.#lines.set(bound.line.key, path);
    onClosed = (reason) => path.lose(reason);
    return path;
  }

  async #bind(
    offer: RelayOffer,
    signal: AbortSignal,
    onClosed: (reason: string) => void,
  ): Promise<Bound> {
    const { clock, log } = this.#options;
    const byWebSocket = (signal: AbortSignal) => this.#bindByWebSocket(offer, signal, onClosed);
    if (this.#udpWorks === false) return await byWebSocket(signal);
    let isAnswered = false;
    const failed = Promise.withResolvers<unknown>();
    const byUdp = async (signal: AbortSignal) => {
      try {
        return await this.#bindByUdp(offer, signal, () => isAnswered = true);
      } catch (error) {
        failed.resolve(error);
        throw error;
      }
    };
    // Where UDP answers it is waited for: it is the better way.
    const instead = async (signal: AbortSignal) => {
      const error = isAnswered ? await unlessAborted(failed.promise, signal) : undefined;
      // A relay that answers by UDP would say the same by WebSocket.
      if (error instanceof RelayError && error.code !== undefined) throw error;
      log.debug("relay not reached by UDP, trying a connection", { relay: offer.udp });
      return await byWebSocket(signal);
    };
    try {
      return await firstToSucceed([byUdp, instead], (bind, signal) => bind(signal), {
        ...{ delayMs: WEB_SOCKET_DELAY_MS, clock, signal },
        discard: ({ line }) => line[Symbol.dispose]?.(),
      });
    } catch (error) {
      throw error instanceof AggregateError ? error.errors.at(-1) : error;
    }
  }

  /** Allocates at the main port, then binds at the relayed one, where a NAT may map differently. */
  async #bindByUdp(
    { udp, grant }: RelayOffer,
    signal: AbortSignal,
    onAnswer: () => void,
  ): Promise<Bound> {
    const mains = await this.#resolve(udp);
    const { main, allocated } = await this.#allocateAt(mains, grant, signal, onAnswer);
    const endpoint = { ip: main.ip, port: allocated.port };
    const line = this.#udpLine(endpoint);
    // Good there too, unless the NAT maps by destination.
    const { nonce } = await this.#exchange.ask(line, { ...allocated, grant }, signal);
    return { line, endpoint, kind: "relay-udp", port: endpoint.port, nonce };
  }

  /** At the first of the relay's addresses that answers. */
  async #allocateAt(
    mains: readonly Endpoint[],
    grant: Uint8Array,
    signal: AbortSignal,
    onAnswer: () => void,
  ) {
    const ask = { grant, port: 0, tries: FIRST_TRIES, onAnswer };
    const allocate = async (main: Endpoint, signal: AbortSignal) => {
      return { main, allocated: await this.#exchange.ask(this.#udpLine(main), ask, signal) };
    };
    const { clock } = this.#options;
    const options = { delayMs: ADDRESS_DELAY_MS, clock, signal };
    try {
      return await firstToSucceed(mains, allocate, options);
    } catch (error) {
      throw error instanceof AggregateError ? error.errors[0] : error;
    }
  }

  #udpLine(to: Endpoint): RelayLine {
    return { key: formatEndpoint(to), send: (bytes) => this.#options.send(bytes, to) };
  }

  async #bindByWebSocket(
    { ws: url, grant }: RelayOffer,
    signal: AbortSignal,
    onClosed: (reason: string) => void,
  ): Promise<Bound> {
    const { nodePort, clock, random } = this.#options;
    let isBound = false;
    const closed = new AbortController();
    const standIn: StandInLine = await this.#openStandIn({
      url,
      dialer: this.#options.dialer ?? systemDialer(),
      nodePort,
      clock,
      random,
      onMessage: (bytes) => this.#exchange.handle(bytes, standIn.key),
      onClosed: (reason) => {
        if (isBound) onClosed(reason);
        else closed.abort(new RelayError(`the relay is gone: ${reason}`));
      },
    }, signal);
    try {
      const either = AbortSignal.any([signal, closed.signal]);
      const { nonce } = await this.#exchange.ask(standIn, { grant, port: 0 }, either);
      isBound = true;
      void this.#lookAtLoopback(standIn);
      return { line: standIn, endpoint: standIn.endpoint, kind: "relay-tcp", port: 0, nonce };
    } catch (error) {
      standIn[Symbol.dispose]();
      throw error;
    }
  }

  /** A firewall of this host may drop all of it, and the connection would never know. */
  async #lookAtLoopback({ key, endpoint }: StandInLine): Promise<void> {
    const { signal } = this.#closed;
    try {
      do {
        const isOpen = await this.#exchange.answers(this.#udpLine(endpoint), signal);
        this.#options.onLoopback?.(isOpen);
        if (isOpen) return;
        await this.#options.clock.sleep(REFRESH_MS, signal);
      } while (this.#lines.has(key));
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** This host is in another network: checks all paths; allocations under way fail. */
  networkMoved(): void {
    this.#moved.abort(new RelayError("this host's network changed"));
    this.#moved = new AbortController();
    this.check();
  }

  /** Checks all paths: this host's addresses or routes have changed. */
  check(): void {
    for (const path of this.#lines.values()) path.check();
  }

  /** Closes all paths. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new RelayError("the relay client was closed"));
    const paths = await Promise.allSettled(this.#paths.values());
    for (const path of paths) {
      if (path.status === "fulfilled") await path.value[Symbol.asyncDispose]();
    }
  }
}

interface KeptPathOptions {
  peer: NodeKey;
  offer: RelayOffer;
  bound: Bound;
  exchange: RelayExchange;
  clock: Clock;
  log: Log;
  renewGrant: (signal: AbortSignal) => Promise<RelayOffer>;
  /** Called once; without a reason it was closed on purpose. */
  onEnd: (reason?: string) => void;
}

class KeptPath implements RelayPath {
  readonly peer: NodeKey;
  readonly relayKey: NodeKey;
  readonly endpoint: Endpoint;
  readonly kind: RelayPathKind;
  readonly #options: KeptPathOptions;
  readonly #ended = new AbortController();
  readonly #refreshing: Promise<void>;
  /** Ends the pause before the next refresh. */
  #wake = new AbortController();
  #refreshedMs = -Infinity;
  #grant: Uint8Array;
  #renewAtMs: number;

  constructor(options: KeptPathOptions) {
    const { peer, offer, bound } = options;
    this.#options = options;
    this.peer = peer;
    this.relayKey = offer.relayKey;
    this.endpoint = bound.endpoint;
    this.kind = bound.kind;
    this.#grant = offer.grant;
    this.#renewAtMs = this.#halfwayTo(offer);
    this.#refreshing = this.#refreshUntilEnded();
  }

  check(): void {
    this.#wake.abort();
  }

  /** What it says is done whoever says so, but not more often than once a second. */
  hint(nonce: Uint8Array): void {
    this.#options.bound.nonce = nonce;
    this.check();
  }

  lose(reason: string): void {
    if (this.#ended.signal.aborted) return;
    this.#end();
    this.#options.onEnd(reason);
  }

  /** The relay forgets it after its lifetime. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended.signal.aborted) {
      this.#end();
      this.#options.onEnd();
    }
    await this.#refreshing;
  }

  #end(): void {
    this.#ended.abort();
    this.#options.bound.line[Symbol.dispose]?.();
  }

  async #refreshUntilEnded(): Promise<void> {
    const { signal } = this.#ended;
    try {
      while (true) {
        const isChecked = await this.#pause(signal);
        await this.#refresh(signal, isChecked ? { tries: FIRST_TRIES } : {});
      }
    } catch (error) {
      this.lose(errorText(error)); // unless it was closed
    }
  }

  /** Until the next refresh is due, or asked for and the last one was not just now; whether asked. */
  async #pause(signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#options;
    let isAskedFor = false;
    try {
      await clock.sleep(REFRESH_MS, AbortSignal.any([signal, this.#wake.signal]));
    } catch {
      signal.throwIfAborted();
      isAskedFor = true;
      const sinceMs = clock.nowMs() - this.#refreshedMs;
      if (sinceMs < REFRESH_GAP_MS) await clock.sleep(REFRESH_GAP_MS - sinceMs, signal);
    }
    this.#wake = new AbortController();
    this.#refreshedMs = clock.nowMs();
    return isAskedFor;
  }

  async #refresh(signal: AbortSignal, tries: { tries?: number }): Promise<void> {
    const { bound, exchange } = this.#options;
    await this.#renewGrant(signal);
    const ask = { grant: this.#grant, port: bound.port, nonce: bound.nonce, ...tries };
    const { nonce } = await exchange.ask(bound.line, ask, signal);
    bound.nonce = nonce;
  }

  /** A coordinator that is away is asked again with the next refresh, until the grant ends. */
  async #renewGrant(signal: AbortSignal): Promise<void> {
    const { clock, renewGrant, log } = this.#options;
    if (clock.wallMs() < this.#renewAtMs) return;
    try {
      const offer = await renewGrant(signal);
      if (offer.relayKey !== this.relayKey) return this.lose("the coordinator names another relay");
      this.#grant = offer.grant;
      this.#renewAtMs = this.#halfwayTo(offer);
    } catch (error) {
      signal.throwIfAborted();
      log.warn("relay grant not renewed", { key: shortKey(this.peer), error: errorText(error) });
    }
  }

  #halfwayTo({ expiresAt }: RelayOffer): number {
    const nowMs = this.#options.clock.wallMs();
    return nowMs + Math.max(0, Date.parse(expiresAt) - nowMs) / 2;
  }
}
