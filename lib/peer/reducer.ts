/**
 * Hole-punch policy of one peer, as a pure function from state and event to state and effects:
 * no clock, no socket, no randomness. The loop in `peers.ts` feeds it and performs the effects.
 *
 * A life in short: the coordinator lists endpoints (or the peer invites us, or pings us), every
 * candidate is pinged in a quick burst, the first answered ping makes a path, the path becomes a
 * link, the link makes the peer `direct`. A ping every 25 s keeps the NAT mapping; when pings on
 * the path stay unanswered the bursts begin again, for ever, ever further apart. Where no burst is
 * answered within a second, a relay is asked for: its address is a candidate like any other, of the
 * lowest rank, and the search for a better one goes on.
 *
 * Which path: a kernel GRE link takes packets from one remote address only, so both ends must use
 * the same path. The node with the smaller node key is the controlling one (RFC 8445 section 2.3
 * in spirit): it picks, and marks its pings on the picked path as nominating; the other follows.
 */
import type { Endpoint } from "../addr.ts";
import { equalPaths, formatPath, type PathAddress } from "./path_address.ts";
import {
  type Candidate,
  type CandidateSource,
  type Detours,
  isSearching,
  type Path,
  type Peer,
  type PeerEffect,
  type PeerEvent,
  type PeerState,
  type PingEvent,
  PUBLIC_IPV4,
  rank,
  RELAYED,
  TUNNELLED,
  UNANSWERED,
  type Verification,
} from "./state.ts";
import {
  ABSENT_INVITE_ROUNDS,
  burst,
  CONFIRMED_FOR_MS,
  deadAfterMs,
  DOUBT_GAP_MS,
  FIRST_INVITE_MS,
  INVITE_GAP_MS,
  isAbsent,
  LINK_RETRY_MS,
  LOOK_GAP_MS,
  MAX_REFLEXIVE,
  nextLinkMs,
  nextPingMs,
  nextRelayMs,
  nextSilenceMs,
  nextVerifyMs,
  OPENER_HOLD_MS,
  PATH_SUSPECT_MAX_MS,
  PATH_SUSPECT_MIN_MS,
  PATH_SUSPECT_WORSE_MS,
  REFLEXIVE_KEPT_MS,
  RELAY_AFTER_MS,
  RELAY_RETRY_MS,
  RELAY_UNUSED_PAUSES_MS,
  roundPauseMs,
  SILENCE_MS,
  TRIGGER_GAP_MS,
  VERIFY_MS,
} from "./timing.ts";

/** A tunnel is taken before a relay if its round trip is so much shorter than the relay's. */
const TUNNEL_RTT_PART = 0.8;
/** Of a path of an earlier run, until its first answer. */
const ADOPTED_RTT_MS = 250;

export interface NewPeerOptions {
  controlling: boolean;
  nowMs: number;
  /** Where the peer's link of an earlier run goes: data may still flow there. */
  adopted?: PathAddress;
}

export function newPeer({ controlling, nowMs, adopted }: NewPeerOptions): Peer {
  const peer: Peer = {
    controlling,
    state: "unknown",
    listed: true,
    candidates: new Map(),
    link: { kind: "none" },
    relay: { kind: "none", askMs: nowMs + RELAY_AFTER_MS, failures: 0 },
    detours: new Map(),
    nextBurstMs: nowMs + FIRST_INVITE_MS,
    rounds: 0,
    invitedMs: -Infinity,
    heardMs: -Infinity,
    relaysUnused: 0,
    doubtedMs: -Infinity,
    punchingSinceMs: nowMs,
    receivedMs: -Infinity,
    receivedLooks: 0,
    receivedGapMs: 0,
    silentSinceMs: -Infinity,
    directSinceMs: nowMs,
  };
  return adopted ? adopt(peer, adopted, nowMs) : peer;
}

/** The path is kept for as long as any that has stopped answering would be. */
function adopt(peer: Peer, endpoint: PathAddress, nowMs: number): Peer {
  const candidate: Candidate = {
    endpoint,
    source: "reflexive",
    burstMs: nowMs,
    dueMs: [],
    vain: 0,
  };
  return {
    ...peer,
    candidates: new Map([[formatPath(endpoint), candidate]]),
    path: {
      endpoint,
      chosenMs: nowMs,
      pongMs: UNANSWERED,
      rttMs: ADOPTED_RTT_MS,
      leastRttMs: ADOPTED_RTT_MS,
      dead: false,
    },
  };
}

/** The state after `event`, and what is to be done, in order. */
export function step(peer: Peer, event: PeerEvent): [Peer, PeerEffect[]] {
  const next = new Transition(peer, event.nowMs);
  next.take(event);
  next.catchUp();
  return [next.peer, next.effects];
}

/** A ping that was sent after `sinceMs`. */
function hasAnswered({ pongMs, rttMs }: Candidate, sinceMs: number): boolean {
  return pongMs !== undefined && pongMs - rttMs! >= sinceMs;
}

/** The one mutable thing: a copy of the peer being changed by one event. */
class Transition {
  peer: Peer;
  readonly effects: PeerEffect[] = [];
  readonly #nowMs: number;
  readonly #candidates: Map<string, Candidate>;

  constructor(peer: Peer, nowMs: number) {
    this.#nowMs = nowMs;
    this.#candidates = new Map(peer.candidates);
    this.peer = { ...peer, candidates: this.#candidates };
  }

  take(event: PeerEvent): void {
    switch (event.kind) {
      case "tick":
        return;
      case "listed":
        return this.#listed(event.endpoints);
      case "unlisted":
        this.#set({ listed: false });
        return this.#verifyPath();
      case "call-me-maybe":
        return this.#invited(event.endpoints);
      case "ping":
        return this.#pinged(event);
      case "found":
        return this.#found(event.from);
      case "pong":
        return this.#ponged(event.from, event.rttMs);
      case "relay-ready":
        return this.#relayReady();
      case "moved":
        this.#verifyPath();
        this.#askForRelayWithin(RELAY_AFTER_MS);
        this.#searchAfresh();
        return this.#startRound({ invite: true });
      case "routed":
        return this.#routed(event.detours);
      case "traffic":
        return this.#traffic(event);
      case "relay-open":
        return this.#relayOpen(event.endpoint);
      case "relay-closed":
        return this.#relayClosed();
      case "not-direct":
        return this.#leave(event.endpoint);
      case "link-set":
        return this.#linkSet(event.endpoint);
      case "link-failed":
        return this.#linkFailed(event.endpoint);
      case "link-gone":
        if (this.peer.link.kind === "set") this.#set({ link: { kind: "none" } });
        return;
      default:
        event satisfies never;
    }
  }

  /** Everything that is due by now, whatever the event was. */
  catchUp(): void {
    this.#pruneReflexive();
    this.#roundIfDue();
    if (nextSilenceMs(this.peer) <= this.#nowMs) {
      this.#set({ silentSinceMs: this.peer.receivedMs });
      this.#verifyPath();
    }
    this.#verifyIfDue();
    this.#relayIfDue();
    this.#pingIfDue();
    this.#setLinkIfDue();
    if (!this.peer.listed && (!this.peer.path || this.peer.path.dead)) {
      this.effects.push({ kind: "forget" });
    }
  }

  #set(change: Partial<Peer>): void {
    this.peer = { ...this.peer, ...change };
  }

  #changeState(to: PeerState): void {
    const from = this.peer.state;
    if (from === to) return;
    const punchMs = to === "direct" ? { punchMs: this.#nowMs - this.peer.punchingSinceMs } : {};
    this.#set({
      state: to,
      ...(to === "punching" ? { punchingSinceMs: this.#nowMs } : {}),
      ...(to === "direct" ? { directSinceMs: this.#nowMs } : {}),
    });
    this.effects.push({ kind: "state-changed", from, to, ...punchMs });
  }

  // --- candidates

  #listed(endpoints: readonly Endpoint[]): void {
    this.#set({ listed: true });
    const known = new Set(this.#candidates.keys());
    this.#replaceCandidates("listed", endpoints);
    const { state } = this.peer;
    if (state === "unknown" || state === "have_endpoints") return this.#startPunching();
    const added = [...this.#candidates].filter(([key]) => !known.has(key));
    for (const [, candidate] of added) this.#openThenBurst(candidate);
    // When it was invited before, nothing had been sent to these.
    if (added.length > 0 && isSearching(this.peer)) {
      this.effects.push({ kind: "send-call-me-maybe" });
    }
  }

  #invited(endpoints: readonly Endpoint[]): void {
    this.#replaceCandidates("invited", endpoints);
    this.#heard();
    // The peer asks because it has no path to us: ours may be dead without our knowing.
    this.#verifyPath();
    if (this.#nowMs - this.peer.invitedMs < INVITE_GAP_MS) return;
    this.#set({ invitedMs: this.#nowMs });
    const { path } = this.peer;
    if (path) this.effects.push({ kind: "path-doubted", endpoint: path.endpoint });
    this.#startPunching();
    // An invitation is never answered with another: two such nodes would go on for ever. What was
    // sent a moment ago has found the peer's firewall closed, as likely as not.
    for (const candidate of this.#candidates.values()) {
      if (this.#isLivePath(candidate)) continue;
      // A later burst goes on: what is left of it meets what the peer sends.
      if (candidate.vain > 0 && candidate.dueMs.length > 0) continue;
      this.#burstFrom(this.#nowMs, candidate);
    }
  }

  /** The new list of one source stands in for its old one; known candidates keep their history. */
  #replaceCandidates(source: "listed" | "invited", endpoints: readonly Endpoint[]): void {
    const wanted = new Map(endpoints.map((endpoint) => [formatPath(endpoint), endpoint]));
    for (const [key, candidate] of this.#candidates) {
      if (candidate.source === source && !wanted.has(key)) this.#candidates.delete(key);
    }
    for (const [key, endpoint] of wanted) {
      const known = this.#candidates.get(key);
      if (known) this.#candidates.set(key, { ...known, source });
      else this.#add(endpoint, source);
    }
  }

  #add(endpoint: PathAddress, source: CandidateSource): Candidate {
    const candidate = { endpoint, source, burstMs: this.#nowMs, dueMs: [], vain: 0 };
    return this.#burstFrom(this.#nowMs, candidate);
  }

  /** What would lead through our own links is no way at all. */
  #routed(detours: Detours): void {
    this.#set({ detours });
    for (const [key, { endpoint }] of this.#candidates) {
      if (detours.get(endpoint.ip) === "own") this.#candidates.delete(key);
    }
    const { path } = this.peer;
    if (path && !path.dead && detours.get(path.endpoint.ip) === "own") this.#pathDied(path);
  }

  #pruneReflexive(): void {
    const reflexive = [...this.#candidates].filter(([, c]) => c.source === "reflexive");
    reflexive.sort(([, a], [, b]) => (a.heardMs ?? 0) - (b.heardMs ?? 0));
    for (const [i, [key, candidate]] of reflexive.entries()) {
      if (this.peer.path && equalPaths(candidate.endpoint, this.peer.path.endpoint)) continue;
      const silentMs = this.#nowMs - (candidate.heardMs ?? candidate.burstMs);
      if (silentMs > REFLEXIVE_KEPT_MS || reflexive.length - i > MAX_REFLEXIVE) {
        this.#candidates.delete(key);
      }
    }
  }

  #startBurst(candidate: Candidate): void {
    const { pingMs } = candidate;
    if (pingMs !== undefined && this.#nowMs - pingMs < TRIGGER_GAP_MS) return;
    this.#burstFrom(this.#nowMs, candidate);
  }

  #burstFrom(burstMs: number, candidate: Candidate): Candidate {
    const hasPinged = candidate.pingMs !== undefined && candidate.pingMs >= candidate.burstMs;
    const vain = candidate.vain + (hasPinged ? 1 : 0);
    const dueMs = burst(vain, this.#candidates.size).map((ms) => burstMs + ms);
    const next = { ...candidate, burstMs, dueMs, vain };
    this.#update(next);
    return next;
  }

  /** What was in vain before says nothing any more. */
  #searchAfresh(): void {
    for (const candidate of this.#candidates.values()) {
      this.#update({ ...candidate, burstMs: this.#nowMs, dueMs: [], vain: 0 });
    }
  }

  #openThenBurst(candidate: Candidate): void {
    const { endpoint } = candidate;
    const isHeard = this.#nowMs - (candidate.heardMs ?? -Infinity) < CONFIRMED_FOR_MS;
    if (isHeard || rank(this.peer, endpoint) !== PUBLIC_IPV4) return this.#startBurst(candidate);
    this.effects.push({ kind: "send-opener", to: endpoint });
    this.#burstFrom(this.#nowMs + OPENER_HOLD_MS, candidate);
  }

  #update(candidate: Candidate): void {
    this.#candidates.set(formatPath(candidate.endpoint), candidate);
  }

  // --- searching

  #startPunching(): void {
    if (this.#candidates.size === 0) return;
    if (this.peer.state === "unknown") this.#changeState("have_endpoints");
    if (this.peer.state !== "have_endpoints") return;
    this.#changeState("punching");
    const { relay } = this.peer;
    if (relay.kind === "none") {
      const askMs = Math.max(relay.askMs, this.#nowMs + RELAY_AFTER_MS);
      this.#set({ relay: { ...relay, askMs } });
    }
    this.#startRound({ invite: true });
  }

  /** Pings every candidate anew, and asks the peer to do the same. */
  #startRound({ invite }: { invite: boolean }): void {
    if (isAbsent(this.peer, this.#nowMs)) return this.#startQuietRound();
    for (const candidate of this.#candidates.values()) {
      if (!this.#isLivePath(candidate)) this.#openThenBurst(candidate);
    }
    if (invite) this.effects.push({ kind: "send-call-me-maybe" });
    this.#set({ nextBurstMs: this.#nowMs + roundPauseMs(this.peer) });
  }

  /** One ping. */
  #startQuietRound(): void {
    const all = [...this.#candidates.values()];
    const candidate = all[this.peer.rounds % Math.max(1, all.length)];
    if (candidate) {
      this.#update({ ...candidate, burstMs: this.#nowMs, dueMs: [this.#nowMs] });
    }
    if (this.peer.rounds % ABSENT_INVITE_ROUNDS === 0) {
      this.effects.push({ kind: "send-call-me-maybe" });
    }
    this.#set({ nextBurstMs: this.#nowMs + roundPauseMs(this.peer) });
  }

  /** Something came from the peer itself: it is there. */
  #heard(): void {
    const wasAbsent = isAbsent(this.peer, this.#nowMs);
    this.#set({ heardMs: this.#nowMs, relaysUnused: 0 });
    if (!wasAbsent) return;
    this.#askForRelayWithin(0);
    this.#set({ rounds: 0 });
    this.#searchAfresh();
    if (isSearching(this.peer)) this.#startRound({ invite: true });
  }

  #roundIfDue(): void {
    if (!isSearching(this.peer) || this.#nowMs < this.peer.nextBurstMs) return;
    const rounds = this.peer.rounds + 1;
    this.#set({ rounds });
    this.#startRound({ invite: true });
    const isToldOf = this.peer.state !== "unknown" && !isAbsent(this.peer, this.#nowMs);
    if (isToldOf) this.effects.push({ kind: "no-path-yet", rounds });
  }

  /** The best first: what is answered first makes the link, and another one soon after remakes it. */
  #pingIfDue(): void {
    const due = [...this.#candidates.values()].filter((c) => nextPingMs(c) <= this.#nowMs)
      .sort((a, b) => rank(this.peer, b.endpoint) - rank(this.peer, a.endpoint));
    for (const candidate of due) {
      if (this.#isAnswered(candidate)) {
        this.#update({ ...candidate, dueMs: [] });
        continue;
      }
      this.#update({ ...candidate, dueMs: candidate.dueMs.slice(1), pingMs: this.#nowMs });
      this.effects.push({ kind: "send-ping", to: candidate.endpoint, nominating: false });
    }
  }

  /** Whether the burst under way has had its answer. */
  #isAnswered({ pongMs, burstMs }: Candidate): boolean {
    return pongMs !== undefined && pongMs > burstMs;
  }

  // --- pings and pongs

  #found(from: PathAddress): void {
    const known = this.#candidates.get(formatPath(from)) ?? this.#add(from, "reflexive");
    const asked = { burstMs: this.#nowMs, dueMs: [] };
    const isBusy = nextPingMs(known) < Infinity;
    this.#update({ ...known, ...(isBusy ? {} : asked), heardMs: this.#nowMs });
    this.#startPunching();
  }

  #pinged({ from, txId, nominating, isNews = false }: PingEvent): void {
    this.#heard();
    this.effects.push({ kind: "send-pong", to: from, txId });
    const known = this.#candidates.get(formatPath(from)) ?? this.#add(from, "reflexive");
    this.#update({ ...known, heardMs: this.#nowMs });
    this.#startPunching();
    if (nominating && !this.peer.controlling) this.#set({ nominated: from });
    if (!this.#isPath(from)) {
      // A live peer on another address: has the old one died?
      if (known.heardMs === undefined || this.#isSilent()) this.#verifyPath();
      this.#follow(from);
    } else if (this.peer.path?.dead) {
      this.#startBurst(this.#candidates.get(formatPath(from))!);
    }
    if (!isNews) return;
    if (this.#isPath(from)) this.#verifyPath();
    else this.#startBurst(this.#candidates.get(formatPath(from))!);
  }

  /** The triggered check: whoever pings us from elsewhere than the path is pinged back. */
  #follow(from: PathAddress): void {
    const candidate = this.#candidates.get(formatPath(from))!;
    if (this.#isConfirmed(candidate)) this.#considerPath(candidate);
    else this.#startBurst(candidate);
  }

  #ponged(from: PathAddress, rttMs: number): void {
    this.#heard();
    const known = this.#candidates.get(formatPath(from));
    if (known) this.#update({ ...known, pongMs: this.#nowMs, rttMs, vain: 0 });
    if (this.#isPath(from)) {
      const { verify: _, ...path } = this.peer.path!;
      const leastRttMs = Math.min(rttMs, 2 * path.leastRttMs);
      this.#set({ path: { ...path, pongMs: this.#nowMs, rttMs, leastRttMs, dead: false } });
      this.#linkedOrNot();
    } else if (known) {
      this.#considerPath({ ...known, pongMs: this.#nowMs, rttMs });
    }
  }

  #isPath(endpoint: PathAddress): boolean {
    return this.peer.path !== undefined && equalPaths(this.peer.path.endpoint, endpoint);
  }

  /** Which is verified, if need be. */
  #isLivePath({ endpoint }: Candidate): boolean {
    return this.#isPath(endpoint) && !this.peer.path!.dead;
  }

  #isConfirmed({ pongMs }: Candidate): boolean {
    return pongMs !== undefined && this.#nowMs - pongMs < CONFIRMED_FOR_MS;
  }

  // --- the path

  #considerPath(candidate: Candidate): void {
    if (this.#isBetter(candidate)) this.#choosePath(candidate);
  }

  #isBetter(candidate: Candidate): boolean {
    const { path, controlling, nominated } = this.peer;
    if (!path || path.dead || this.#canBeReplaced(path, candidate)) return true;
    const { endpoint } = candidate;
    if (!controlling) return nominated !== undefined && equalPaths(nominated, endpoint);
    const [rankThen, rankNow] = [rank(this.peer, endpoint), rank(this.peer, path.endpoint)];
    // A tunnel that runs inside of ours answers later than ours does.
    if (rankThen === TUNNELLED && rankNow === RELAYED) {
      return candidate.rttMs! < TUNNEL_RTT_PART * path.leastRttMs;
    }
    return rankThen > rankNow;
  }

  #isSuspect({ verify, leastRttMs }: Path): boolean {
    const limitMs = Math.max(
      PATH_SUSPECT_MIN_MS,
      Math.min(3 * leastRttMs, PATH_SUSPECT_MAX_MS),
      1.5 * leastRttMs,
    );
    return verify !== undefined && this.#nowMs - verify.sinceMs >= limitMs;
  }

  /** Whether another path that works may take over without being better. */
  #canBeReplaced(path: Path, by: Candidate): boolean {
    const { verify } = path;
    if (!verify || !this.#isSuspect(path) || !hasAnswered(by, verify.sinceMs)) return false;
    const rankThen = rank(this.peer, by.endpoint);
    const isAsGood = rankThen > TUNNELLED && rankThen >= rank(this.peer, path.endpoint);
    return isAsGood || this.#nowMs - verify.sinceMs >= PATH_SUSPECT_WORSE_MS;
  }

  #choosePath(candidate: Candidate): void {
    const { endpoint } = candidate;
    const [pongMs, rttMs] = [candidate.pongMs!, candidate.rttMs!];
    const chosenMs = this.#nowMs;
    const path = { endpoint, chosenMs, pongMs, rttMs, leastRttMs: rttMs, dead: false };
    this.#set({ path, rounds: 0 });
    if (this.peer.controlling) {
      this.effects.push({ kind: "send-ping", to: endpoint, nominating: true });
    }
  }

  #verifyPath(): void {
    const { path } = this.peer;
    if (!path || path.dead || path.verify) return;
    this.#set({ path: { ...path, verify: { sinceMs: this.#nowMs, sent: 0, isDoubted: false } } });
  }

  #traffic({ sent, received }: { sent: boolean; received: boolean }): void {
    if (received) {
      const receivedGapMs = this.#nowMs - this.peer.receivedMs;
      const receivedLooks = receivedGapMs <= LOOK_GAP_MS ? this.peer.receivedLooks + 1 : 1;
      return this.#set({ receivedMs: this.#nowMs, receivedLooks, receivedGapMs });
    }
    if (sent && this.#isSilent()) this.#verifyPath();
  }

  /** Neither data nor a pong has come by the path lately. */
  #isSilent(): boolean {
    const { path, receivedMs } = this.peer;
    return this.#nowMs - Math.max(receivedMs, path?.pongMs ?? -Infinity) >= SILENCE_MS;
  }

  #verifyIfDue(): void {
    const { path } = this.peer;
    if (!path || path.dead || nextVerifyMs(this.peer, path) > this.#nowMs) return;
    const verify = path.verify ?? { sinceMs: this.#nowMs, sent: 0, isDoubted: false };
    const deadMs = deadAfterMs(this.peer, verify.sinceMs);
    if (this.#nowMs - verify.sinceMs >= deadMs) return this.#pathDied(path);
    const sent = VERIFY_MS.filter((offset) => verify.sinceMs + offset <= this.#nowMs).length;
    const isDoubted = this.#isSuspect(path);
    this.#set({ path: { ...path, verify: { ...verify, sent, isDoubted } } });
    this.effects.push({
      kind: "send-ping",
      to: path.endpoint,
      nominating: this.peer.controlling,
    });
    if (!isDoubted) return;
    if (!verify.isDoubted) this.#doubtPath(path.endpoint, verify);
    this.#takeOver({ ...path, verify });
  }

  /**
   * Either side's NAT may have mapped it anew: each asks how it is seen now, and tells the other. The
   * peer may also answer elsewhere.
   */
  #doubtPath(endpoint: PathAddress, { sinceMs }: Verification): void {
    this.effects.push({ kind: "path-doubted", endpoint });
    if (!this.peer.listed || this.#nowMs - this.peer.doubtedMs < DOUBT_GAP_MS) return;
    this.#set({ doubtedMs: this.#nowMs });
    this.effects.push({ kind: "send-call-me-maybe" });
    this.#searchAfresh();
    for (const candidate of this.#candidates.values()) {
      if (this.#isPath(candidate.endpoint) || hasAnswered(candidate, sinceMs)) continue;
      this.#startBurst(candidate);
    }
  }

  /** Another path that has answered since then takes over from a suspect one. */
  #takeOver(path: Path): void {
    const others = [...this.#candidates.values()]
      .filter((c) => !this.#isPath(c.endpoint) && c.heardMs !== undefined)
      .filter((c) => this.#canBeReplaced(path, c))
      .sort((a, b) => b.heardMs! - a.heardMs!);
    if (!others[0]) return;
    this.#choosePath(others[0]);
    // So that the controlling side looks at the old path, too, which it may have no reason to doubt.
    if (!this.peer.controlling) {
      this.effects.push({ kind: "send-ping", to: others[0].endpoint, nominating: false });
    }
  }

  #pathDied(path: Path): void {
    const { verify: _, ...rest } = path;
    const { nominated: __, ...peer } = this.peer;
    this.peer = { ...peer, path: { ...rest, dead: true } };
    this.effects.push({ kind: "path-lost", endpoint: path.endpoint });
    this.#changeState("punching");
    this.#set({ rounds: 0 });
    this.#searchAfresh();
    this.#startRound({ invite: this.peer.listed });
  }

  // --- the relay

  /** Invitations of before were lost. */
  #relayReady(): void {
    this.#askForRelayWithin(0);
    if (!isSearching(this.peer)) return;
    this.#set({ rounds: 0 });
    this.#searchAfresh();
    this.#startRound({ invite: true });
  }

  #askForRelayWithin(ms: number): void {
    const { relay } = this.peer;
    if (relay.kind !== "none") return;
    const askMs = Math.min(relay.askMs, this.#nowMs + ms);
    this.#set({ relay: { kind: "none", askMs, failures: 0 } });
  }

  #relayIfDue(): void {
    if (this.#nowMs < nextRelayMs(this.peer)) return;
    const isOpen = this.peer.relay.kind === "open";
    if (this.peer.relay.kind === "none") {
      this.#set({ relay: { kind: "asked", failures: this.peer.relay.failures } });
    }
    this.effects.push({ kind: isOpen ? "close-relay" : "open-relay" });
    if (!isOpen) return;
    const wasUsed = this.peer.state === "direct";
    this.#relayClosed();
    if (!wasUsed) this.#waitWithRelay();
  }

  /** Nothing came through the one that there was. */
  #waitWithRelay(): void {
    const { relaysUnused } = this.peer;
    const pauses = RELAY_UNUSED_PAUSES_MS;
    const pauseMs = pauses[Math.min(relaysUnused, pauses.length - 1)]!;
    this.#set({
      relay: { kind: "none", askMs: this.#nowMs + pauseMs, failures: 0 },
      relaysUnused: relaysUnused + 1,
    });
  }

  #relayOpen(endpoint: Endpoint): void {
    this.#relayClosed();
    this.#set({ relay: { kind: "open", endpoint, sinceMs: this.#nowMs } });
    this.#candidates.delete(formatPath(endpoint));
    this.#add(endpoint, "relay");
    this.#startPunching(); // of a peer without endpoints the relay is the first candidate
    this.#linkedOrNot(); // the peer's packets may have come through it before we knew
  }

  #relayClosed(): void {
    const { relay } = this.peer;
    const failures = relay.kind === "asked" ? relay.failures + 1 : 0;
    const pauseMs = RELAY_RETRY_MS[Math.min(failures, RELAY_RETRY_MS.length) - 1] ?? 0;
    this.#set({ relay: { kind: "none", askMs: this.#nowMs + pauseMs, failures } });
    if (relay.kind === "open") this.#leave(relay.endpoint);
  }

  #leave(endpoint: PathAddress): void {
    const { path } = this.peer;
    this.#candidates.delete(formatPath(endpoint));
    if (path && !path.dead && this.#isPath(endpoint)) this.#pathDied(path);
  }

  // --- the link

  #setLinkIfDue(): void {
    const { path } = this.peer;
    if (!path || path.dead || this.#nowMs < nextLinkMs(this.peer, path)) return;
    this.#set({ link: { kind: "setting", endpoint: path.endpoint } });
    this.effects.push({ kind: "set-link", endpoint: path.endpoint });
  }

  #linkSet(endpoint: PathAddress): void {
    this.#set({ link: { kind: "set", endpoint } });
    this.#linkedOrNot();
  }

  #linkFailed(endpoint: PathAddress): void {
    if (this.peer.link.kind !== "setting" || !equalPaths(this.peer.link.endpoint, endpoint)) {
      return;
    }
    this.#set({ link: { kind: "failed", retryMs: this.#nowMs + LINK_RETRY_MS } });
  }

  /** `direct` and `relay` mean that data can flow: the path answers and the link points there. */
  #linkedOrNot(): void {
    const { path, link } = this.peer;
    if (!path || path.dead || path.pongMs === UNANSWERED || link.kind !== "set") return;
    if (!equalPaths(link.endpoint, path.endpoint)) return;
    this.#changeState(rank(this.peer, path.endpoint) === RELAYED ? "relay" : "direct");
  }
}
