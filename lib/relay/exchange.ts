/**
 * Asks a relay: hello for a nonce, then the signed request, each repeated until it is answered. It
 * owns no socket: messages go out by the line that is asked over and come in by `handle`.
 */
import { equalBytes, toHex } from "../bytes.ts";
import type { Clock, Random } from "../edges.ts";
import { GretunError } from "../errors.ts";
import type { Sign } from "../ed25519.ts";
import type { NodeKey } from "../keys.ts";
import { HEADER_LENGTH, StunFormatError, TX_ID_LENGTH } from "../stun/mod.ts";
import {
  decodeRelayMessage,
  encodeHello,
  encodeRequest,
  NO_TX_ID,
  RELAY_ERROR_CODE,
} from "./messages.ts";

/** Pauses after each message that stays without answer: 20 % loss each way defeats 1 in 1300. */
const PAUSES_MS = [200, 300, 500, 800, 1200, 1500, 1500] as const;
/** A relay that knows only to send new nonces is none. */
const MAX_NONCES = 3;

/** A way to a relay: a UDP port of it, or a connection. */
export interface RelayLine {
  /** Answers come from there. */
  readonly key: string;
  send(bytes: Uint8Array): void;
  /** Nothing of what was asked has been answered. */
  unanswered?(): void;
}

export interface RelayAsk {
  grant: Uint8Array;
  /** The relayed port that is asked, or 0: see `RelayRequest`. */
  port: number;
  /** To begin with, if there is one. */
  nonce?: Uint8Array;
  /** How many messages may stay without answer, 7 at most and unless told. */
  tries?: number;
  /** Something was answered. */
  onAnswer?: () => void;
}

/** The relay did not answer, or said no; `code` is absent where no answer came. */
export class RelayError extends GretunError {
  override name = "RelayError";
  readonly code?: number;

  constructor(message: string, code?: number, hint?: string) {
    super(message, hint ?? hintFor(code));
    if (code !== undefined) this.code = code;
  }
}

function hintFor(code: number | undefined): string {
  switch (code) {
    case undefined:
      return "Check that the relay runs and that its UDP port or its HTTP port can be reached";
    case RELAY_ERROR_CODE.FORBIDDEN:
      return "Check the clocks of the relay and of the coordinator, and that it is the relay's own";
    case RELAY_ERROR_CODE.QUOTA:
    case RELAY_ERROR_CODE.FULL:
      return "Start another relay, or give this one more ports with --relay-ports";
    default:
      return "Look into the relay's log";
  }
}

type Answer = ReturnType<typeof decodeRelayMessage> & { kind: "success" | "error" };

interface Waiting {
  line: string;
  take: (answer: Answer) => void;
}

interface RelayExchangeOptions {
  nodeKey: NodeKey;
  sign: Sign;
  clock: Clock;
  /** Of requests: the relay takes none that is earlier than the last. */
  wallMs: () => number;
  random: Random;
  /** The relay does not know who sends it data by that line. Anybody can forge it. */
  onHint?: (line: string, nonce: Uint8Array) => void;
}

export class RelayExchange {
  readonly #options: RelayExchangeOptions;
  /** By transaction id. */
  readonly #waiting = new Map<string, Waiting>();
  #lastTimestampMs = 0;
  /** When the monotonic clock was 0, by the first request. */
  #zeroMs: number | undefined;

  constructor(options: RelayExchangeOptions) {
    this.#options = options;
  }

  /** True if it answers a message of ours that went out by that line, or is a hint. */
  handle(bytes: Uint8Array, line: string): boolean {
    const answer = tryDecode(bytes);
    if (!answer) return false;
    if (answer.kind === "error" && answer.nonce && equalBytes(answer.txId, NO_TX_ID)) {
      this.#options.onHint?.(line, answer.nonce.slice());
      return true;
    }
    const waiting = this.#waiting.get(toHex(answer.txId));
    if (waiting?.line !== line) return false;
    waiting.take(answer);
    return true;
  }

  /**
   * The relayed port and the nonce to begin with next time. Throws {@link RelayError}, or the
   * signal's reason.
   */
  async ask(
    line: RelayLine,
    { grant, port, nonce, tries = PAUSES_MS.length, onAnswer }: RelayAsk,
    signal: AbortSignal,
  ): Promise<{ port: number; nonce: Uint8Array }> {
    let nonces = 0;
    for (let tried = 0; tried < tries;) {
      const bytes = await this.#message(grant, port, nonce);
      const answer = await this.#once(line, bytes, PAUSES_MS[tried]!, signal);
      if (answer) onAnswer?.();
      if (!answer) {
        tried++;
      } else if (answer.kind === "success") {
        // Only a request with a nonce has success.
        if (nonce) return { ...answer, nonce };
      } else if (answer.code === RELAY_ERROR_CODE.UNAUTHENTICATED && answer.nonce) {
        if (++nonces > MAX_NONCES) throw new RelayError("the relay takes no nonce", answer.code);
        nonce = answer.nonce.slice();
      } else {
        throw new RelayError(`the relay refused: ${answer.code}`, answer.code);
      }
    }
    line.unanswered?.();
    throw new RelayError(`the relay does not answer at ${line.key}`);
  }

  /** Whether anything answers a hello by that line. Throws the signal's reason. */
  async answers(line: RelayLine, signal: AbortSignal): Promise<boolean> {
    for (const pauseMs of PAUSES_MS) {
      const hello = encodeHello(this.#options.random(TX_ID_LENGTH));
      if (await this.#once(line, hello, pauseMs, signal)) return true;
    }
    return false;
  }

  /** Each with an id of its own, a repeated one as well. */
  async #message(
    grant: Uint8Array,
    port: number,
    nonce: Uint8Array | undefined,
  ): Promise<Uint8Array> {
    const { nodeKey: node, sign, random } = this.#options;
    const txId = random(TX_ID_LENGTH);
    if (!nonce) return encodeHello(txId);
    const timestampMs = this.#timestamp();
    return await encodeRequest({ txId, nonce, grant, node, timestampMs, port }, sign);
  }

  /** Sends it; undefined when no answer came in time. */
  async #once(
    line: RelayLine,
    bytes: Uint8Array,
    pauseMs: number,
    signal: AbortSignal,
  ): Promise<Answer | undefined> {
    signal.throwIfAborted();
    const id = toHex(txIdOf(bytes));
    const answered = new AbortController();
    let answer: Answer | undefined;
    this.#waiting.set(id, {
      line: line.key,
      take: (taken) => {
        answer = taken;
        answered.abort();
      },
    });
    try {
      line.send(bytes);
      await this.#options.clock.sleep(pauseMs, AbortSignal.any([answered.signal, signal]));
    } catch {
      signal.throwIfAborted();
    } finally {
      this.#waiting.delete(id);
    }
    return answer;
  }

  /** Later than any before, also when the clock stands still or is set back. */
  #timestamp(): number {
    const { clock, wallMs } = this.#options;
    // A clock that is set forward in between would lock out this node's next run.
    this.#zeroMs ??= wallMs() - clock.nowMs();
    const nowMs = Math.floor(this.#zeroMs + clock.nowMs());
    this.#lastTimestampMs = Math.max(this.#lastTimestampMs + 1, nowMs);
    return this.#lastTimestampMs;
  }
}

/** Of a message of our own. */
function txIdOf(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(HEADER_LENGTH - TX_ID_LENGTH, HEADER_LENGTH);
}

function tryDecode(bytes: Uint8Array): Answer | undefined {
  try {
    const message = decodeRelayMessage(bytes);
    return message.kind === "success" || message.kind === "error" ? message : undefined;
  } catch (error) {
    if (error instanceof StunFormatError) return undefined;
    throw error;
  }
}
