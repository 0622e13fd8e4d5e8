/** Carries out what `hard_nat.ts` says: one attempt at a time, for a NAT has only so many ports. */
import type { Endpoint } from "../addr.ts";
import { toHex } from "../bytes.ts";
import type { NodeNat } from "../coord/api.ts";
import type { PortGuess } from "../disco/mod.ts";
import type { Clock, Log, Random, SendDatagram } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { NodeKey } from "../keys.ts";
import {
  ANSWER_MS,
  ATTEMPT_MS,
  FIRST_WINDOW,
  GUESS_AFTER_MS,
  guessKind,
  guessRole,
  isAsker,
  nextPorts,
  OPEN_PORTS,
  type OuterPorts,
  outerPorts,
  type PathAddress,
  pauseMs,
  pingsDue,
  PROBES,
  randomPorts,
  REFLEXIVE_KEPT_MS,
  SERVE_GAP_MS,
  walk,
} from "../peer/mod.ts";
import { peerFields } from "./words.ts";

const ATTEMPT_LENGTH = 8;
/** A port that its link has left is kept open for as long as its path may come back. */
const PORT_KEPT_MS = REFLEXIVE_KEPT_MS;
const STEP_MS = 20;
/** Pings beyond this in one step are sent in the next one: a socket's buffer is finite. */
const MAX_PINGS_PER_STEP = 64;

/** A port of this node's, besides the main one. */
export interface GuessPort extends Disposable {
  readonly port: number;
  readonly send: SendDatagram;
  /** Where a STUN server sees it, by a mapping made for that; undefined when none answers. */
  measure(): Promise<Endpoint | undefined>;
}

/** What guessing needs of a peer. */
export interface GuessPeer {
  readonly name: string;
  readonly nodeKey: NodeKey;
  /** Of the pair, see `peer.ts`. */
  readonly controlling: boolean;
  /** As the coordinator tells it. */
  readonly nat: NodeNat | undefined;
  /** When the search for a direct path began; undefined while there is one. */
  readonly searchingSinceMs: number | undefined;
  /** When a ping of the peer's last came from where nobody had said that it is. */
  readonly heardMs: number;
  /** Sends a sealed ping, whose answer makes a path as any other's does. */
  ping(to: PathAddress): void;
  /** Sends a ping that gets past our own NAT and not to the peer's. */
  open(to: PathAddress): void;
  /** Sends a sealed message through the coordinator. */
  tell(message: PortGuess): void;
}

export interface PortGuesserOptions {
  /** Whether NATs that choose ports at random are tried too. */
  aggressive: boolean;
  clock: Clock;
  random: Random;
  log: Log;
  /** How our NAT maps; undefined while it is not known. */
  ownNat: () => NodeNat | undefined;
  /** Where those see the main port whom this node has not sent to before. */
  ownMapped: () => Endpoint | undefined;
  /** Throws `SystemError`. */
  openPort: () => GuessPort;
}

interface History {
  nextMs: number;
  /** Attempts so far, and those in a row that ended so. */
  rounds: number;
  unanswered: number;
  failed: number;
  servedMs: number;
  lastAsk?: string;
}

interface Attempt {
  peer: GuessPeer;
  id: string;
  answer: PromiseWithResolvers<PortGuess | undefined>;
}

export class PortGuesser implements Disposable {
  readonly #options: PortGuesserOptions;
  readonly #histories = new Map<NodeKey, History>();
  /** Open ports of each peer. */
  readonly #ports = new Map<NodeKey, Map<number, GuessPort>>();
  /** The port that the peer's link uses, or used until then. */
  readonly #used = new Map<NodeKey, { port: number; leftMs?: number }>();
  readonly #closed = new AbortController();
  /** The one under way. */
  #attempt: Attempt | undefined;

  constructor(options: PortGuesserOptions) {
    this.#options = options;
  }

  [Symbol.dispose](): void {
    this.#closed.abort();
    this.#used.clear();
    for (const nodeKey of [...this.#ports.keys()]) this.#closeUnused(nodeKey);
  }

  port(nodeKey: NodeKey, localPort: number): GuessPort | undefined {
    return this.#ports.get(nodeKey)?.get(localPort);
  }

  /** The peer's link uses this port since an earlier run. */
  adopt(nodeKey: NodeKey, port: GuessPort): void {
    this.#ports.set(nodeKey, new Map([[port.port, port]]));
    this.#used.set(nodeKey, { port: port.port });
  }

  /** The peer's link uses this extra port now, or none; then it may be back soon. */
  linkUses(nodeKey: NodeKey, port: number | undefined): void {
    const used = this.#used.get(nodeKey);
    if (port !== undefined) this.#used.set(nodeKey, { port });
    else if (used) used.leftMs ??= this.#options.clock.nowMs();
    if (this.#attempt?.peer.nodeKey !== nodeKey) this.#closeUnused(nodeKey);
  }

  forget(nodeKey: NodeKey): void {
    this.#histories.delete(nodeKey);
    this.#used.delete(nodeKey);
    this.#closeUnused(nodeKey);
  }

  /** Begins an attempt with that of these that could do with one and is due for the longest time. */
  look(peers: readonly GuessPeer[]): void {
    if (this.#attempt) return;
    for (const nodeKey of [...this.#ports.keys()]) this.#closeUnused(nodeKey);
    const own = this.#options.ownNat();
    if (!own) return;
    const due = peers.filter((peer) => peer.nat && this.#isDue(peer))
      .sort((a, b) => this.#history(a).nextMs - this.#history(b).nextMs);
    for (const peer of due) {
      if (this.#attempt) return;
      void this.#ask(peer, own, outerPorts(peer.nat!));
    }
  }

  /** A sealed message of the peer's, through the coordinator. */
  received(peer: GuessPeer, message: PortGuess): void {
    const id = toHex(message.attempt);
    if (!message.isAnswer) void this.#serve(peer, message);
    else if (this.#attempt?.peer.nodeKey === peer.nodeKey && this.#attempt.id === id) {
      this.#attempt.answer.resolve(message);
    }
  }

  #history({ nodeKey }: GuessPeer): History {
    let history = this.#histories.get(nodeKey);
    if (!history) {
      history = { nextMs: 0, rounds: 0, unanswered: 0, failed: 0, servedMs: -Infinity };
      this.#histories.set(nodeKey, history);
    }
    return history;
  }

  #isDue(peer: GuessPeer): boolean {
    const { searchingSinceMs } = peer;
    const nowMs = this.#options.clock.nowMs();
    return searchingSinceMs !== undefined && nowMs - searchingSinceMs >= GUESS_AFTER_MS &&
      nowMs >= this.#history(peer).nextMs;
  }

  #mayTry(own: OuterPorts, peer: OuterPorts): boolean {
    return this.#options.aggressive || guessKind(own, peer) !== "random";
  }

  // --- asking

  async #ask(peer: GuessPeer, nat: NodeNat, theirs: OuterPorts): Promise<void> {
    const own = outerPorts(nat);
    const role = guessRole(own, theirs);
    if (!role || !isAsker(role, peer.controlling) || !this.#mayTry(own, theirs)) return;
    const history = this.#history(peer);
    const round = history.rounds++;
    const id = this.#options.random(ATTEMPT_LENGTH);
    await this.#try(peer, id, async (attempt) => {
      const kind = guessKind(own, theirs);
      // A router that tracks what reaches itself may have moved the main one meanwhile.
      const port = role === "both" || round > 0 ? this.#open(peer) : undefined;
      const endpoint = port ? await port.measure() : this.#options.ownMapped();
      if (!endpoint) return;
      const delta = nat.portDelta ?? 0;
      const about = { attempt: id, round, ports: own, delta, endpoint };
      peer.tell({ type: "port-guess", isAnswer: false, ...about });
      const answer = await this.#answer(attempt);
      if (!answer || guessRole(own, answer.ports) !== role) {
        this.#options.log.debug("ports not told", { ...peerFields(peer) });
        history.nextMs = this.#later(pauseMs("unanswered", kind, ++history.unanswered));
        return;
      }
      history.unanswered = 0;
      const ports = role === "both"
        ? walk(toSequence(answer), { round, isAsker: true })
        : answer.ports === "random"
        ? randomPorts(PROBES, this.#options.random)
        : nextPorts(toSequence(answer)).slice(0, round === 0 ? FIRST_WINDOW : undefined);
      const targets = toTargets(answer.endpoint, ports, port?.port);
      if (role === "both" && isOpened(round)) { for (const target of targets) peer.open(target); }
      const isDirect = await this.#probe(
        peer,
        kind,
        targets,
        () => peer.searchingSinceMs === undefined,
      );
      history.failed = isDirect ? 0 : history.failed + 1;
      history.nextMs = this.#later(pauseMs("failed", kind, Math.max(1, history.failed)));
      this.#options.log.info("guessed ports", {
        ...peerFields(peer),
        state: isDirect ? "direct" : "failed",
      });
    });
  }

  async #answer({ answer }: Attempt): Promise<PortGuess | undefined> {
    const timeout = this.#sleep(ANSWER_MS).then(() => undefined);
    return await Promise.race([answer.promise, timeout]);
  }

  // --- serving: what asks has no direct path, whatever ours may seem to be

  async #serve(peer: GuessPeer, ask: PortGuess): Promise<void> {
    const nat = this.#options.ownNat();
    if (!nat || this.#attempt) return;
    const own = outerPorts(nat);
    const role = guessRole(own, ask.ports);
    if (!role || role === "guess" || !this.#mayTry(own, ask.ports)) return;
    const kind = guessKind(own, ask.ports);
    const history = this.#history(peer);
    const nowMs = this.#options.clock.nowMs();
    const id = toHex(ask.attempt);
    if (history.lastAsk === id || nowMs - history.servedMs < SERVE_GAP_MS[kind]) return;
    Object.assign(history, { lastAsk: id, servedMs: nowMs });
    await this.#try(peer, ask.attempt, async () => {
      const count = role === "both" ? 1 : OPEN_PORTS[kind];
      const ports = Array.from({ length: count }, () => this.#open(peer));
      const endpoint = kind === "random"
        ? addressOf(this.#options.ownMapped())
        : await ports[0]!.measure();
      if (!endpoint) return;
      const targets = role === "both"
        ? toTargets(
          ask.endpoint,
          walk(toSequence(ask), { round: ask.round, isAsker: false }),
          ports[0]!.port,
        )
        : ports.map(({ port }) => ({ ...ask.endpoint, localPort: port }));
      if (isOpened(ask.round)) { for (const target of targets) peer.open(target); }
      else if (role === "guessed") { for (const target of targets) peer.ping(target); }
      const about = { attempt: ask.attempt, round: ask.round, delta: nat.portDelta ?? 0, endpoint };
      peer.tell({ type: "port-guess", isAnswer: true, ports: own, ...about });
      const isDone = () => ports.some(({ port }) => this.#used.get(peer.nodeKey)?.port === port);
      await this.#probe(peer, kind, role === "both" ? targets : [], isDone);
    });
  }

  // --- both

  /** Runs `body` as the only attempt; only the port of a path that came of it stays open. */
  async #try(
    peer: GuessPeer,
    id: Uint8Array,
    body: (attempt: Attempt) => Promise<void>,
  ): Promise<void> {
    const { log } = this.#options;
    const attempt = { peer, id: toHex(id), answer: Promise.withResolvers<PortGuess | undefined>() };
    this.#attempt = attempt;
    log.debug("guessing ports", { ...peerFields(peer), attempt: attempt.id });
    try {
      await body(attempt);
    } catch (error) {
      if (this.#closed.signal.aborted) return;
      log.warn("ports not guessed", { ...peerFields(peer), error: errorText(error) });
    } finally {
      this.#attempt = undefined;
      this.#closeUnused(peer.nodeKey);
      // An attempt that ended early has not said when the next one is.
      const history = this.#history(peer);
      history.nextMs = Math.max(history.nextMs, this.#later(GUESS_AFTER_MS));
    }
  }

  #open({ nodeKey }: GuessPeer): GuessPort {
    const port = this.#options.openPort();
    const ports = this.#ports.get(nodeKey) ?? new Map<number, GuessPort>();
    this.#ports.set(nodeKey, ports.set(port.port, port));
    return port;
  }

  #closeUnused(nodeKey: NodeKey): void {
    const used = this.#used.get(nodeKey);
    const unusedMs = this.#options.clock.nowMs() - (used?.leftMs ?? Infinity);
    if (unusedMs > PORT_KEPT_MS) this.#used.delete(nodeKey);
    const kept = this.#used.get(nodeKey)?.port;
    const ports = this.#ports.get(nodeKey) ?? new Map<number, GuessPort>();
    for (const [localPort, port] of ports) {
      if (localPort === kept) continue;
      ports.delete(localPort);
      port[Symbol.dispose]();
    }
    if (ports.size === 0) this.#ports.delete(nodeKey);
  }

  /** Pings the targets by the schedule, until it is done or over. Whether it was done. */
  async #probe(
    peer: GuessPeer,
    kind: OuterPorts,
    targets: readonly PathAddress[],
    isDone: () => boolean,
  ): Promise<boolean> {
    const { clock } = this.#options;
    const startMs = clock.nowMs();
    let sent = 0;
    while (clock.nowMs() - startMs < ATTEMPT_MS[kind]) {
      if (isDone()) return true;
      const due = pingsDue(kind, targets.length, clock.nowMs() - startMs);
      // Once one of so many has hit, it is answered, and the rest is as with any other address.
      const isHit = kind === "random" && peer.heardMs >= startMs;
      const end = isHit ? sent : Math.min(due, sent + MAX_PINGS_PER_STEP);
      for (; sent < end; sent++) peer.ping(targets[sent % targets.length]!);
      await this.#sleep(STEP_MS);
    }
    return isDone();
  }

  /** Throws the signal's reason when all is closed. */
  async #sleep(ms: number): Promise<void> {
    await this.#options.clock.sleep(ms, this.#closed.signal);
  }

  #later(ms: number): number {
    return this.#options.clock.nowMs() + ms;
  }
}

/**
 * Whether ports are opened by openers in this round. Routers that track what reaches themselves would move
 * the other side's mapping by pings. But some NATs are too far away for openers.
 */
function isOpened(round: number): boolean {
  return round % 2 === 0;
}

function toSequence({ endpoint, delta }: PortGuess) {
  return { port: endpoint.port, delta };
}

function toTargets(
  { ip }: Endpoint,
  ports: readonly number[],
  localPort: number | undefined,
): PathAddress[] {
  return ports.map((port) => ({ ip, port, ...(localPort === undefined ? {} : { localPort }) }));
}

function addressOf(mapped: Endpoint | undefined): Endpoint | undefined {
  return mapped && { ip: mapped.ip, port: 0 };
}
