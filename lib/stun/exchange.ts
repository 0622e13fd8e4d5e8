/**
 * The client: asks servers and matches their answers. It owns no socket: datagrams go out by
 * `send` and come in by {@link StunClient.handle}, so that it can share the port of the data.
 */
import {
  type Endpoint,
  equalEndpoints,
  familyOf,
  isInner,
  isMulticast,
  isUnspecified,
} from "../addr.ts";
import { toHex } from "../bytes.ts";
import type { Clock, Random, SendDatagram } from "../edges.ts";
import type { Change } from "./attributes.ts";
import { decodeBindingAnswer, encodeBindingRequest } from "./binding.ts";
import { TX_ID_LENGTH } from "./message.ts";

/**
 * The pause after the first request; each further one is twice as long, up to the second
 * constant. RFC 8489 section 6.2.1 begins with 500 ms, to spare a network whose round-trip time
 * it does not know; here a lost datagram would delay the first contact of two hosts by that
 * much, and a request is 64 bytes (100 over IPv6).
 */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 1600;

export interface StunServer {
  /** As the user gave it. */
  name: string;
  endpoint: Endpoint;
  /** Further addresses of that name, which are asked too when the first one is slow to answer. */
  others?: readonly Endpoint[];
}

export interface StunAnswer {
  server: StunServer;
  /** Where that server saw us. */
  mapped: Endpoint;
  /** Of the very request that was answered, not of the first one. */
  rttMs: number;
  /** Where else the server can answer from: another port, another address, or both. */
  other?: Endpoint;
  /** Where the answer came from, if it was asked to come from elsewhere. */
  from?: Endpoint;
}

export interface QueryOptions {
  /** Monotonic; what has come until then is the result. */
  timeoutMs: number;
  /** Aborting rejects the query with the signal's reason. */
  signal?: AbortSignal;
  /** End with the first answer. Default false: wait for all servers. */
  firstOnly?: boolean;
  /** How long to wait for the other servers after the first answer. Default: `timeoutMs`. */
  graceMs?: number;
  /** After the first request; each further pause is twice as long, up to 1.6 s. Default: 100 ms. */
  firstPauseMs?: number;
  /** Requests are so long, a multiple of 4 bytes, if they are not longer anyway. */
  padTo?: number;
  /** Asks for answers from elsewhere; a server may ignore that, see {@link StunAnswer.from}. */
  change?: Change;
}

interface Transaction<Owner> {
  owner: Owner;
  server: StunServer;
  /** Where the request went. */
  to: Endpoint;
  sentMs: number;
  isFromAnywhere?: boolean;
}

/**
 * Requests in flight by transaction id. Pure: time is an argument. Each request has an id of its
 * own, a repeated one as well, so that an answer tells which of them it belongs to.
 */
export class Transactions<Owner> {
  readonly #inFlight = new Map<string, Transaction<Owner>>();

  get size(): number {
    return this.#inFlight.size;
  }

  add(txId: Uint8Array, transaction: Transaction<Owner>): void {
    this.#inFlight.set(toHex(txId), transaction);
  }

  /**
   * The request that this answers, once and only if it comes from where the request went, or from
   * anywhere if that was asked for: the id, 96 random bits, is known to the server alone.
   */
  take(txId: Uint8Array, from: Endpoint): Transaction<Owner> | undefined {
    const key = toHex(txId);
    const transaction = this.#inFlight.get(key);
    if (!transaction) return undefined;
    const { to, isFromAnywhere } = transaction;
    if (!isFromAnywhere && !equalEndpoints(to, from)) return undefined;
    this.#inFlight.delete(key);
    return transaction;
  }

  /** Forgets the requests of `owner`: all, or those to `server`. */
  forget(owner: Owner, server?: StunServer): void {
    for (const [key, transaction] of this.#inFlight) {
      if (transaction.owner !== owner) continue;
      if (!server || transaction.server === server) this.#inFlight.delete(key);
    }
  }
}

interface Query {
  /** Servers that have not answered. */
  waiting: Set<StunServer>;
  answers: StunAnswer[];
  deadlineMs: number;
  nextSendMs: number;
  pauseMs: number;
  isAskedAgain: boolean;
  graceMs: number;
  change: Change | undefined;
  padTo: number;
  /** Ends the sleep of this query, because something has changed. */
  wake: AbortController;
}

export class StunClient {
  readonly #send: SendDatagram;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #transactions = new Transactions<Query>();

  constructor(options: { send: SendDatagram; clock: Clock; random: Random }) {
    this.#send = options.send;
    this.#clock = options.clock;
    this.#random = options.random;
  }

  /**
   * To be given every datagram that may be STUN; true if it answered a request of ours. Answers
   * from elsewhere, with an unknown id, broken or repeated are ignored.
   */
  handle(bytes: Uint8Array, from: Endpoint): boolean {
    const answer = tryDecode(bytes);
    const transaction = answer && this.#transactions.take(answer.txId, from);
    if (!transaction) return false;
    const { owner: query, server, to, sentMs } = transaction;
    const nowMs = this.#clock.nowMs();
    const other = answer.other && elsewhere(answer.other, to);
    query.answers.push({
      server: to === server.endpoint ? server : { name: server.name, endpoint: to },
      mapped: answer.mapped,
      rttMs: nowMs - sentMs,
      ...(other ? { other } : {}),
      ...(query.change ? { from } : {}),
    });
    query.waiting.delete(server);
    this.#transactions.forget(query, server);
    if (query.answers.length === 1) {
      query.deadlineMs = Math.min(query.deadlineMs, nowMs + query.graceMs);
    }
    query.wake.abort();
    return true;
  }

  /** Asks all servers at once and again until they answer; resolves with what came in time. */
  async query(servers: readonly StunServer[], options: QueryOptions): Promise<StunAnswer[]> {
    const { timeoutMs, signal, firstOnly = false, graceMs = timeoutMs, change } = options;
    const { firstPauseMs = FIRST_PAUSE_MS, padTo = 0 } = options;
    signal?.throwIfAborted();
    const nowMs = this.#clock.nowMs();
    const query: Query = {
      waiting: new Set(servers),
      answers: [],
      deadlineMs: nowMs + timeoutMs,
      nextSendMs: nowMs,
      pauseMs: firstPauseMs,
      isAskedAgain: false,
      graceMs: firstOnly ? 0 : graceMs,
      change,
      padTo,
      wake: new AbortController(),
    };
    try {
      await this.#run(query, signal);
    } finally {
      this.#transactions.forget(query);
    }
    return query.answers;
  }

  async #run(query: Query, signal: AbortSignal | undefined): Promise<void> {
    while (query.waiting.size > 0) {
      const nowMs = this.#clock.nowMs();
      if (nowMs >= query.deadlineMs) return;
      if (nowMs >= query.nextSendMs) this.#ask(query, nowMs);
      const untilMs = Math.min(query.nextSendMs, query.deadlineMs);
      await this.#sleep(query, untilMs - nowMs, signal);
    }
  }

  #ask(query: Query, nowMs: number): void {
    for (const server of query.waiting) {
      const others = query.isAskedAgain ? server.others ?? [] : [];
      for (const to of [server.endpoint, ...others]) this.#askOne(query, server, to, nowMs);
    }
    query.isAskedAgain = true;
    query.nextSendMs = nowMs + query.pauseMs;
    query.pauseMs = Math.min(2 * query.pauseMs, LONGEST_PAUSE_MS);
  }

  #askOne(query: Query, server: StunServer, to: Endpoint, nowMs: number): void {
    const { change, padTo } = query;
    const txId = this.#random(TX_ID_LENGTH);
    const isFromAnywhere = change !== undefined;
    this.#transactions.add(txId, { owner: query, server, to, sentMs: nowMs, isFromAnywhere });
    const family = familyOf(to.ip);
    this.#send(encodeBindingRequest(txId, { family, padTo, ...(change ? { change } : {}) }), to);
  }

  /** Until `ms` are over or an answer has come; throws the signal's reason. */
  async #sleep(query: Query, ms: number, signal: AbortSignal | undefined): Promise<void> {
    // A transport may answer within send: then the wake-up came before the sleep.
    const { wake } = query;
    const either = signal ? AbortSignal.any([wake.signal, signal]) : wake.signal;
    try {
      await this.#clock.sleep(ms, either);
    } catch (error) {
      signal?.throwIfAborted();
      if (!wake.signal.aborted) throw error;
      query.wake = new AbortController();
    }
  }
}

/**
 * What a server says of its other place; undefined where that is the one that was asked, or none to
 * send to: a server on the internet must not direct us into our own network.
 */
function elsewhere({ ip, port }: Endpoint, server: Endpoint): Endpoint | undefined {
  const other = { ip: isUnspecified(ip) ? server.ip : ip, port };
  const isPlace = port !== 0 && familyOf(other.ip) === familyOf(server.ip) &&
    !isMulticast(other.ip) && (isInner(server.ip) || !isInner(other.ip));
  return isPlace && !equalEndpoints(other, server) ? other : undefined;
}

function tryDecode(bytes: Uint8Array) {
  try {
    return decodeBindingAnswer(bytes);
  } catch {
    return undefined;
  }
}
