/** Performs what the reducer of a peer asks for; what is asynchronous comes back as an event. */
import { type Cidr, type Endpoint, formatEndpoint } from "../addr.ts";
import type { DataPlane, LinkKeys, WantedLink } from "../dataplane/mod.ts";
import * as disco from "../disco/mod.ts";
import type { Clock, Log, Random } from "../edges.ts";
import { errorFields, errorText, GretunError } from "../errors.ts";
import { type DiscoKey, keyBytes, type NodeKey } from "../keys.ts";
import type { Inner } from "../links/mod.ts";
import {
  AnswerCredit,
  isHearsay,
  type PathAddress,
  type PeerEffect,
  type PeerEvent,
  type PendingPings,
  PingBudget,
  standing,
} from "../peer/mod.ts";
import type { RelayPath } from "../relay/mod.ts";
import type { Collisions } from "./collisions.ts";
import { Trouble } from "../trouble.ts";
import { type Entry, innerOf, isRelayed } from "./entry.ts";
import type { Identity } from "./identity.ts";
import type { InnerChecks } from "./inner_checks.ts";
import type { DaemonMeter } from "./meter.ts";
import type { PortGuesser } from "./port_guesser.ts";
import { pathLimit } from "./probed_path.ts";
import { peerFields, stateText } from "./words.ts";

/**
 * Padding, in zero bytes, by which a ping of the controlling side says "this path". Any disco
 * implementation takes such a ping as an ordinary one.
 */
export const NOMINATING_PADDING = 4;
const TX_ID_LENGTH = 12;
/** A pong, and a ping of our own. */
const BOTH_LENGTH = disco.PONG_LENGTH + disco.PING_LENGTH;
/**
 * Of a ping to where the peer has not been heard from: it may not know of this address of ours, and then
 * answers with no more bytes than came.
 */
const FIRST_PING_LENGTH = BOTH_LENGTH + 2 * disco.EXTENSION_LENGTH;
/** Longer than any round trip. */
const ANSWER_WAIT_MS = 2_000;
/** Past one or two NATs of our own, and hardly ever as far as a NAT of the peer's. */
const OPENER_TTL = 4;

export interface EffectsOptions {
  identity: Identity;
  plane: DataPlane;
  clock: Clock;
  random: Random;
  log: Log;
  metrics: DaemonMeter;
  /** Sends a sealed message through the coordinator. */
  signal: (to: DiscoKey, sealed: Uint8Array) => void;
  /** A way to that peer through a relay; rejects when there is none. */
  allocateRelay: (peer: NodeKey, signal: AbortSignal) => Promise<RelayPath>;
  /** Pings stay unanswered: a NAT may have mapped this node anew. */
  onDoubt: () => void;
  /** A search for a direct path has no success; more than once. */
  onStuck: () => void;
  /** Where this node believes it can be reached, now. */
  ownEndpoints: () => readonly Endpoint[];
  guesser: PortGuesser;
}

export interface PingOptions {
  nominating?: boolean;
  ttl?: number;
  /** At a port of a hard NAT. */
  isGuess?: boolean;
  /** As long as a datagram of so many bytes, if it is not longer anyway. */
  padTo?: number;
  /** The epoch of a ping that this one answers. */
  echo?: Uint8Array;
  onPong?: (rttMs: number) => void;
}

/** What effects ask of the table of peers. */
export interface EffectsTable {
  pending: PendingPings;
  collisions: Collisions;
  innerChecks: InnerChecks;
  /** This node's address and the overlay's prefix length. */
  tunnelIp: () => Cidr;
  closed: AbortSignal;
  onEvent: (entry: Entry, event: PeerEvent) => void;
  onForget: (entry: Entry) => void;
  /** Whether the entry still stands for its peer, after something was waited for. */
  isCurrent: (entry: Entry) => boolean;
}

export class Effects {
  /** For whom a relay was last asked for, while it is. */
  readonly #askedFor = new Map<NodeKey, Entry>();
  readonly #options: EffectsOptions & EffectsTable;
  readonly #budget = new PingBudget();
  readonly #credit = new AnswerCredit();

  constructor(options: EffectsOptions & EffectsTable) {
    this.#options = options;
  }

  perform(entry: Entry, effect: PeerEffect): void {
    const { log } = this.#options;
    const peer = peerFields(entry.record);
    switch (effect.kind) {
      case "send-ping":
        return void this.sendPing(entry, effect.to, { nominating: effect.nominating });
      case "send-opener":
        return this.sendOpener(entry, effect.to);
      case "send-pong":
        return this.sendPong(entry, effect.to, effect.txId);
      case "send-call-me-maybe":
        return this.#invite(entry);
      case "set-link":
        return void this.#setLink(entry, effect.endpoint);
      case "state-changed":
        return this.#stateChanged(entry, effect);
      case "path-doubted":
        if (isRelayed(entry, effect.endpoint)) entry.relay!.check();
        return this.#options.onDoubt();
      case "path-lost":
        entry.session.renew();
        // Known sooner than by its next refresh, if it is the relay that is gone.
        if (isRelayed(entry, effect.endpoint)) entry.relay!.check();
        return log.warn("path lost, searching again", {
          ...peer,
          endpoint: formatEndpoint(effect.endpoint),
        });
      case "no-path-yet":
        if (effect.rounds === 1) log.warn("no direct path yet, searching on", peer);
        // Nothing came by a relay either: its connection may be dead, and would say so at its next refresh.
        if (entry.peer.state !== "relay") entry.relay?.check();
        return this.#options.onStuck();
      case "open-relay":
        this.#options.onStuck();
        return void this.#openRelay(entry);
      case "close-relay":
        return this.closeRelay(entry);
      case "forget":
        return this.#options.onForget(entry);
      default:
        effect satisfies never;
    }
  }

  #stateChanged(
    { record }: Entry,
    { from, to, punchMs }: Extract<PeerEffect, { kind: "state-changed" }>,
  ): void {
    if (punchMs !== undefined) this.#options.metrics.punched(punchMs / 1000);
    const states = { from: stateText(from), to: stateText(to) };
    if (states.from === states.to) return;
    this.#options.log.info("peer state change", { ...peerFields(record), ...states });
  }

  sendOpener(entry: Entry, to: PathAddress, isGuess = false): void {
    if (!isGuess && this.#isHearsay(entry, to)) return;
    if (!this.#mayPing(entry, to, isGuess)) return;
    this.#ping(entry, to, { ttl: OPENER_TTL });
  }

  /** A ping of so many bytes came, which may be answered. */
  pinged(from: PathAddress, lengthBytes: number): void {
    this.#credit.came(from, lengthBytes);
  }

  /** Whether it was sent. */
  sendPing(entry: Entry, to: PathAddress, options: PingOptions = {}): boolean {
    const isBounded = !options.isGuess && this.#isHearsay(entry, to);
    if (isBounded && this.#credit.left(to) < pingLength(entry)) {
      this.#options.metrics.pingHeldBack();
      return false;
    }
    if (!this.#mayPing(entry, to, options.isGuess)) return false;
    if (isBounded) this.#credit.take(to, pingLength(entry));
    this.#ping(entry, to, options);
    return true;
  }

  #isAsked(to: PathAddress): boolean {
    const { clock, pending } = this.#options;
    return pending.isAsked(to, clock.nowMs() - ANSWER_WAIT_MS);
  }

  #isHearsay({ peer }: Entry, to: PathAddress): boolean {
    return isHearsay(peer, to, this.#options.clock.nowMs());
  }

  /** Whether the peer has answered there, or may be looked for there once more. */
  #mayPing({ peer, record: { nodeKey } }: Entry, to: PathAddress, isGuess = false): boolean {
    const nowMs = this.#options.clock.nowMs();
    const because = standing(peer, to, nowMs);
    if (because === "proven") return true;
    const ping = { peer: nodeKey, to: to.ip, because: isGuess ? "guessed" as const : because };
    if (this.#budget.take(ping, nowMs)) return true;
    this.#options.metrics.pingHeldBack();
    return false;
  }

  #ping(
    entry: Entry,
    to: PathAddress,
    { nominating = false, ttl, isGuess, echo, padTo, onPong }: PingOptions,
  ): void {
    const { identity, clock, random, metrics } = this.#options;
    const txId = random(TX_ID_LENGTH);
    const nowMs = clock.nowMs();
    this.#options.pending.add(txId, {
      ...{ peer: entry.record.nodeKey, to, sentMs: nowMs },
      ...(onPong ? { onPong } : {}),
    });
    metrics.pingSent();
    const nodeKey = keyBytes(identity.nodeKey);
    const { session } = entry;
    // Programs of before know what is nominated by the length of the padding.
    const isBare = nominating ? session.isOld : isBareTo(entry) && this.#isHearsay(entry, to);
    const rest = isBare
      ? { padding: nominating ? NOMINATING_PADDING : 0 }
      : { padding: 0, extension: session.extension({ nominating, ...(echo ? { echo } : {}) }) };
    const isFirst = !isGuess && ttl === undefined && standing(entry.peer, to, nowMs) === "told";
    const length = padTo ?? (isFirst && !this.#isHearsay(entry, to) ? FIRST_PING_LENGTH : 0);
    this.#send(entry, to, { type: "ping", txId, nodeKey, ...rest, padTo: length }, ttl);
  }

  /**
   * Where only pings speak for the peer's being there, and they have no room for both: a ping of our
   * own that goes there, `ping`, stands in for the first pong.
   */
  sendPong(entry: Entry, to: PathAddress, txId: Uint8Array, ping: PingOptions = {}): void {
    const { session } = entry;
    const extension = session.isPingExtended ? { extension: session.extension() } : {};
    if (this.#isHearsay(entry, to)) {
      const isShort = this.#credit.left(to) < pongLength(entry) + pingLength(entry);
      if (isShort && !this.#isAsked(to) && this.sendPing(entry, to, ping)) return;
      if (!this.#credit.take(to, pongLength(entry))) return;
    }
    this.#send(entry, to, { type: "pong", txId, source: to, ...extension });
  }

  #send(entry: Entry, to: PathAddress, message: disco.DiscoMessage, ttl?: number): void {
    const { plane, guesser } = this.#options;
    const { localPort } = to;
    const port = localPort === undefined ? plane : guesser.port(entry.record.nodeKey, localPort);
    port?.send(this.seal(entry, message), to, ttl);
  }

  seal(entry: Entry, message: disco.DiscoMessage): Uint8Array {
    const { identity, random } = this.#options;
    return disco.seal(disco.encodeMessage(message), identity.discoKey, entry.boxKey, random);
  }

  #invite(entry: Entry): void {
    const endpoints = [...this.#options.ownEndpoints()];
    const sealed = this.seal(entry, { type: "call-me-maybe", endpoints });
    this.#options.signal(entry.record.discoKey, sealed);
  }

  async #openRelay(entry: Entry): Promise<void> {
    const { clock, log, allocateRelay } = this.#options;
    const { nodeKey } = entry.record;
    const peer = peerFields(entry.record);
    this.#askedFor.set(nodeKey, entry);
    try {
      const relay = await allocateRelay(nodeKey, this.#options.closed);
      if (!this.#options.isCurrent(entry)) {
        // One that was made for a peer that is gone, and is listed again, is the new one's.
        if (this.#askedFor.get(nodeKey) === entry) void relay[Symbol.asyncDispose]();
        return;
      }
      entry.relay = relay;
      const endpoint = formatEndpoint(relay.endpoint);
      log.info("relay opened", { ...peer, endpoint, path: relay.kind });
      this.#knowRelay(entry);
      const nowMs = clock.nowMs();
      this.#options.onEvent(entry, { kind: "relay-open", nowMs, endpoint: relay.endpoint });
    } catch (error) {
      if (!this.#options.isCurrent(entry)) return;
      log.debug("no relay", { ...peer, error: errorText(error) });
      this.#options.onEvent(entry, { kind: "relay-closed", nowMs: clock.nowMs() });
    } finally {
      if (this.#askedFor.get(nodeKey) === entry) this.#askedFor.delete(nodeKey);
    }
  }

  /** The link may go there already: what the peer sent from a relay that was not known looked direct. */
  #knowRelay(entry: Entry): void {
    const { wanted } = entry;
    if (!wanted || wanted.meetsSocket || !isRelayed(entry, wanted.remote)) return;
    this.#changeLink(entry, { ...wanted, meetsSocket: true });
  }

  closeRelay(entry: Entry): void {
    void entry.relay?.[Symbol.asyncDispose]();
    delete entry.relay;
  }

  async #setLink(entry: Entry, endpoint: PathAddress): Promise<void> {
    const { plane, tunnelIp, log, clock, guesser, collisions } = this.#options;
    const { ip, port, localPort } = endpoint;
    const keys = await latestKeys(entry);
    if (!this.#options.isCurrent(entry)) return;
    const { record } = entry;
    const peer = peerFields(record);
    try {
      const wanted = innerOf(record, tunnelIp().ip);
      const inner = collisions.admit(record, wanted);
      const link: WantedLink = {
        id: record.nodeKey,
        remote: { ip, port },
        ...wanted,
        ...inner,
        ...(localPort === undefined ? {} : { localPort }),
        ...(keys ? { keys, ...(entry.session.text ? { session: entry.session.text } : {}) } : {}),
        ...(isRelayed(entry, endpoint) ? { meetsSocket: true } : {}),
        ...pathLimit(entry.probed, endpoint),
      };
      const state = plane.setLink(link);
      Object.assign(entry, state, {
        ...{ wanted: link, linkKeys: entry.session.keys, pathSinceMs: clock.nowMs() },
      });
      guesser.linkUses(record.nodeKey, localPort);
      log.info("tunnel up", {
        ifname: state.ifname,
        ...peer,
        endpoint: formatEndpoint(endpoint),
        port: localPort,
        tunnel_ip: record.tunnelIp,
        mtu: state.mtu,
        plane: plane.kind,
      });
      delete entry.linkTrouble;
      delete entry.linkFinding;
      this.#checkInner(entry, inner);
      this.#options.onEvent(entry, { kind: "link-set", nowMs: clock.nowMs(), endpoint });
    } catch (error) {
      this.#linkFailed(entry, error);
      this.#options.onEvent(entry, { kind: "link-failed", nowMs: clock.nowMs(), endpoint });
    }
  }

  #linkFailed(entry: Entry, cause: unknown): void {
    const { clock, log } = this.#options;
    const trouble = entry.linkTrouble ??= new Trouble(clock);
    const news = trouble.news();
    if (cause instanceof GretunError) {
      entry.linkFinding = { text: `no tunnel: ${errorText(cause)}`, remedy: cause.hint };
    }
    log[news ? "error" : "debug"]("tunnel not set, trying again", {
      ...peerFields(entry.record),
      ...errorFields(cause),
      ...(news === "first" ? {} : { since: trouble.since }),
    });
  }

  /** Another size than was known gets through to the link's far end. */
  resize(entry: Entry): void {
    const { wanted, probed } = entry;
    if (!wanted || !probed) return;
    const { pathMtu: _, ...before } = wanted;
    this.#changeLink(entry, { ...before, ...pathLimit(probed, probed.endpoint) });
  }

  #changeLink(entry: Entry, link: WantedLink): void {
    try {
      Object.assign(entry, this.#options.plane.setLink(link), { wanted: link });
    } catch (error) {
      const { log } = this.#options;
      log.warn("link not changed", { ...peerFields(entry.record), error: errorText(error) });
    }
  }

  #checkInner({ record, ifname }: Entry, { addresses }: Inner): void {
    const { innerChecks } = this.#options;
    const { name, nodeKey, tunnelIp: ip, isSilent } = record;
    if (addresses.length > 0 && ifname && !isSilent) {
      innerChecks.start(nodeKey, { name, ip, ifname });
    } else innerChecks.stop(nodeKey);
  }
}

/** They may be others by the time that they are there. */
async function latestKeys({ session }: Entry): Promise<LinkKeys | undefined> {
  for (;;) {
    const { keys } = session;
    const found = await keys;
    if (keys === session.keys) return found;
  }
}

/** Whether what the peer sends has no extension: then an answer with one would be longer. */
function isBareTo({ session }: Entry): boolean {
  return !session.isPingExtended;
}

function pingLength(entry: Entry): number {
  return disco.PING_LENGTH + (isBareTo(entry) ? 0 : disco.EXTENSION_LENGTH);
}

function pongLength(entry: Entry): number {
  return disco.PONG_LENGTH + (isBareTo(entry) ? 0 : disco.EXTENSION_LENGTH);
}
