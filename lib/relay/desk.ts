/**
 * The desk of a relay: answers hellos and requests, and books what they ask for in the table of
 * allocations. No socket, no clock: what came, from where and when are arguments.
 *
 * A request costs two signature checks at most. What is cheap is looked at first, so that a stranger
 * gets no further than the nonce unless it receives at its address, and then no more than its share.
 */
import type { Ip } from "../addr.ts";
import { equalBytes } from "../bytes.ts";
import type { Random } from "../edges.ts";
import type { NodeKey } from "../keys.ts";
import { oneSecondOf, SourceLimits, sourceNetwork, TokenBucket } from "../limits.ts";
import { type Allocations, LIFETIME_MS, type Side, type Via } from "./allocations.ts";
import { decodeGrant, type Grant, verifyGrant } from "./grants.ts";
import {
  decodeRelayMessage,
  encodeError,
  encodeSuccess,
  HELLO_LENGTH,
  NO_TX_ID,
  RELAY_ERROR_CODE,
  type SignedRelayRequest,
  verifyRequest,
} from "./messages.ts";
import { Nonces } from "./nonces.ts";

/** Answers to one address in a second: four thousand paths of nodes behind a NAT refresh every 15 s. */
export const ANSWERS_PER_SECOND = 300;
/** Requests of one address, and of all, whose signatures are looked at in a second. */
const CHECKS_PER_SECOND = 300;
const ALL_CHECKS_PER_SECOND = 2_000;
/** To one address in a second, in answer to data of unknown nodes. */
const HINTS_PER_SECOND = 10;

export const DESK_RESULTS = [
  "hello",
  "allocated",
  "bound",
  "malformed",
  "limited",
  "stale-nonce",
  "replayed",
  "wrong-port",
  "bad-grant",
  "bad-signature",
  "no-allocation",
  "quota",
  "full",
] as const;
export type DeskResult = typeof DESK_RESULTS[number];

export interface Arrival<V extends Via> {
  /** Names the address and port, or the connection, that an answer goes to. */
  source: string;
  /** The address alone, for limits. */
  ip: Ip;
  /** The relayed port it came to; 0: the main port, or a connection. */
  port: number;
  /** What to bind; absent at the main port, which only allocates. */
  via?: V;
}

export interface DeskOptions<V extends Via> {
  allocations: Allocations<V>;
  relayKey: NodeKey;
  /** The coordinator's; undefined as long as it is not known. */
  grantKey: () => NodeKey | undefined;
  random: Random;
  onResult?: (result: DeskResult) => void;
}

export interface DeskAnswer<V extends Via> {
  answer?: Uint8Array<ArrayBuffer>;
  bound?: Side<V>;
}

/** A request whose nonce is good, and when that was made. */
type FreshRequest = SignedRelayRequest & { nonceMs: number };

type Outcome<V extends Via> =
  | { result: DeskResult; side: Side<V> }
  | { result: DeskResult; code?: number };

export class Desk<V extends Via> {
  readonly #options: DeskOptions<V>;
  readonly #nonces: Nonces;
  readonly #answers = new SourceLimits(oneSecondOf(ANSWERS_PER_SECOND));
  readonly #checks = new SourceLimits(oneSecondOf(CHECKS_PER_SECOND));
  readonly #hints = new SourceLimits(oneSecondOf(HINTS_PER_SECOND));
  readonly #allChecks = new TokenBucket(oneSecondOf(ALL_CHECKS_PER_SECOND));

  constructor(options: DeskOptions<V>) {
    this.#options = options;
    this.#nonces = new Nonces(options.random);
  }

  /**
   * What to send back, if anything, never more than came, and the side that was bound by it, if
   * one was. `bytes` must stay as they are until then.
   * `nowMs` is monotonic, `wallMs` since 1970. Throws nothing for what others send.
   */
  async answer(
    bytes: Uint8Array,
    arrival: Arrival<V>,
    time: { nowMs: number; wallMs: number },
  ): Promise<DeskAnswer<V>> {
    const message = decoded(bytes);
    if (message?.kind !== "hello" && message?.kind !== "request") return this.#drop("malformed");
    if (!this.#answers.take(sourceNetwork(arrival.ip), time.nowMs)) return this.#drop("limited");
    const { txId } = message;
    const refuse = (code: number, nonce?: Uint8Array) => ({
      answer: encodeError({ txId, code, ...(nonce ? { nonce } : {}) }),
    });
    const sendNonce = async () =>
      refuse(RELAY_ERROR_CODE.UNAUTHENTICATED, await this.#nonces.make(arrival.source, time.nowMs));
    if (message.kind === "hello") {
      if (message.lengthBytes < HELLO_LENGTH) return this.#drop("malformed");
      this.#options.onResult?.("hello");
      return await sendNonce();
    }
    const nonceMs = await this.#nonces.madeMs(message.nonce, arrival.source, time.nowMs);
    if (nonceMs === undefined) {
      this.#options.onResult?.("stale-nonce");
      return await sendNonce();
    }
    const outcome = await this.#request({ ...message, nonceMs }, arrival, time);
    this.#options.onResult?.(outcome.result);
    // A genuine one may have been overtaken by the next.
    if (outcome.result === "replayed") return await sendNonce();
    if (!("side" in outcome)) return outcome.code === undefined ? {} : refuse(outcome.code);
    const { side } = outcome;
    const lifetimeSeconds = LIFETIME_MS / 1000;
    return {
      answer: encodeSuccess({ txId, port: side.port, lifetimeSeconds }),
      ...(arrival.via ? { bound: side } : {}),
    };
  }

  /**
   * For the sender of data that is not bound at that port: it may be a node behind a NAT that has
   * mapped it anew, which then asks at once rather than with its next refresh. Undefined when the
   * data was shorter, or too much of it came.
   */
  async hint(
    { source, ip }: Pick<Arrival<V>, "source" | "ip">,
    lengthBytes: number,
    nowMs: number,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (lengthBytes < HELLO_LENGTH || !this.#hints.take(sourceNetwork(ip), nowMs)) return undefined;
    const nonce = await this.#nonces.make(source, nowMs);
    return encodeError({ txId: NO_TX_ID, code: RELAY_ERROR_CODE.NO_ALLOCATION, nonce });
  }

  #drop(result: DeskResult): DeskAnswer<V> {
    this.#options.onResult?.(result);
    return {};
  }

  /** A request whose nonce is good: who sent it receives at its address. */
  async #request(
    request: FreshRequest,
    arrival: Arrival<V>,
    { nowMs, wallMs }: { nowMs: number; wallMs: number },
  ): Promise<Outcome<V>> {
    // Signed for one port, so that it cannot be sent to another.
    if (request.port !== arrival.port) return { result: "wrong-port" };
    const grant = this.#readGrant(request, wallMs);
    if (!grant) return { result: "bad-grant", code: RELAY_ERROR_CODE.FORBIDDEN };
    const { allocations } = this.#options;
    const known = allocations.find(grant.nodes, request.node);
    if (known && isReplayed(known, request)) return { result: "replayed" };
    const mayCheck = this.#checks.take(sourceNetwork(arrival.ip), nowMs) &&
      this.#allChecks.take(nowMs);
    if (!mayCheck) return { result: "limited" };
    if (!await this.#isGenuine(request.grant, known)) {
      return { result: "bad-grant", code: RELAY_ERROR_CODE.FORBIDDEN };
    }
    if (!await verifyRequest(request)) {
      return { result: "bad-signature", code: RELAY_ERROR_CODE.FORBIDDEN };
    }
    return this.#book(request, grant, arrival, nowMs);
  }

  #readGrant({ grant: bytes, node }: SignedRelayRequest, wallMs: number): Grant | undefined {
    try {
      const grant = decodeGrant(bytes);
      const isOurs = grant.relay === this.#options.relayKey && grant.nodes.includes(node);
      return isOurs && grant.endsSeconds * 1000 > wallMs ? grant : undefined;
    } catch {
      return undefined;
    }
  }

  async #isGenuine(grant: Uint8Array, known: Side<V> | undefined): Promise<boolean> {
    if (known?.grant && equalBytes(known.grant, grant)) return true;
    const grantKey = this.#options.grantKey();
    return grantKey !== undefined && await verifyGrant(grant, grantKey);
  }

  /** Synchronous: between looking and booking nothing else happens. */
  #book(
    request: FreshRequest,
    { nodes }: Grant,
    { port, via }: Arrival<V>,
    nowMs: number,
  ): Outcome<V> {
    const { allocations } = this.#options;
    const found = port === 0
      ? allocations.allocate(nodes, request.node, nowMs)
      : allocations.find(nodes, request.node);
    if (found === "quota") return { result: found, code: RELAY_ERROR_CODE.QUOTA };
    if (found === "full") return { result: found, code: RELAY_ERROR_CODE.FULL };
    if (!found || (port !== 0 && found.port !== port)) {
      return { result: "no-allocation", code: RELAY_ERROR_CODE.NO_ALLOCATION };
    }
    // Another one like it may have been booked while the signatures were looked at.
    if (isReplayed(found, request)) return { result: "replayed" };
    found.lastNonceMs = request.nonceMs;
    found.lastTimestampMs = request.timestampMs;
    found.grant = request.grant.slice();
    if (!via) return { result: "allocated", side: found };
    allocations.bind(found, via, nowMs);
    return { result: "bound", side: found };
  }
}

/**
 * Requests of a node have ever later nonces and, with one nonce, ever later times. A node that starts
 * again asks for a nonce first, so neither its clock nor the relay's need to be right.
 */
function isReplayed<V extends Via>(
  { lastNonceMs, lastTimestampMs }: Side<V>,
  { nonceMs, timestampMs }: FreshRequest,
): boolean {
  return nonceMs < lastNonceMs || (nonceMs === lastNonceMs && timestampMs <= lastTimestampMs);
}

function decoded(bytes: Uint8Array) {
  try {
    return decodeRelayMessage(bytes);
  } catch {
    return undefined;
  }
}
