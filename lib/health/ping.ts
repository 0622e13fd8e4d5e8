/** Pings as `ping(8)` does them, without that program. */
import { type Family, familyOf, type Ip } from "../addr.ts";
import { equalBytes, startsWithBytes } from "../bytes.ts";
import type { Clock, Random } from "../edges.ts";
import {
  type IcmpError,
  type IcmpMessage,
  IcmpSocket,
  type IcmpSocketOptions,
  SystemError,
} from "../linux/mod.ts";
import { decodeEchoReply, decodeQuotedEcho, type Echo, encodeEcho, icmpErrorText } from "./icmp.ts";
import { type Answer, type ProbeOptions, type ProbeResult, runProbes } from "./probes.ts";

const TOKEN_LENGTH = 8;
const DEFAULT_SIZE_BYTES = 56;

/** What carries echoes: an `IcmpSocket`, or a fake. */
export interface EchoSocket extends Disposable {
  /** Replies carry an identifier that the socket chose, and are those to this socket alone. */
  readonly setsIdentifier: boolean;
  /** Throws `SystemError`. */
  send(message: Uint8Array<ArrayBuffer>, to: Ip): void;
}

export type OpenEchoSocket = (
  family: Family,
  onMessage: (message: IcmpMessage) => void,
) => EchoSocket;

/** `within` opens the socket, perhaps in another network namespace. */
export function icmpSockets(
  options: Omit<IcmpSocketOptions, "family">,
  within: <T>(body: () => T) => T = (body) => body(),
): OpenEchoSocket {
  return (family, onMessage) => within(() => IcmpSocket.open({ ...options, family }, onMessage));
}

export interface PingOptions extends ProbeOptions {
  open: OpenEchoSocket;
  random: Random;
  /** Of the echo's data, as `ping -s` counts it: 8 to 65507, 56 unless told. */
  sizeBytes?: number;
}

/** Throws `GretunError` when there can be no socket; what else fails is in the results. */
export async function ping(ip: Ip, options: PingOptions): Promise<ProbeResult[]> {
  using pinger = new Pinger(ip, options);
  return await runProbes((sequence, signal) => pinger.echo(sequence, signal), options);
}

interface Waiting {
  sentMs: number;
  resolve: (answer: Answer) => void;
}

/** Sends echoes to one address and knows their replies: by source, identifier, sequence and data. */
class Pinger implements Disposable {
  readonly #ip: Ip;
  readonly #identifier: number;
  readonly #data: Uint8Array;
  readonly #clock: Clock;
  readonly #socket: EchoSocket;
  /** By the sequence number on the wire. */
  readonly #waiting = new Map<number, Waiting>();

  constructor(ip: Ip, { open, clock, random, sizeBytes = DEFAULT_SIZE_BYTES }: PingOptions) {
    const [high, low] = random(2);
    this.#clock = clock;
    this.#ip = ip;
    this.#identifier = high! << 8 | low!;
    this.#data = new Uint8Array(sizeBytes);
    this.#data.set(random(TOKEN_LENGTH));
    this.#socket = open(familyOf(ip), (message) => this.#handle(message));
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  echo(number: number, signal: AbortSignal): Promise<Answer> {
    const sequence = number & 0xffff;
    const echo = { identifier: this.#identifier, sequence, data: this.#data };
    const message = encodeEcho(familyOf(this.#ip), echo);
    return new Promise<Answer>((resolve, reject) => {
      const waiting = { sentMs: this.#clock.nowMs(), resolve };
      this.#waiting.set(sequence, waiting);
      const end = (reason: unknown) => {
        if (this.#waiting.get(sequence) === waiting) this.#waiting.delete(sequence);
        reject(reason);
      };
      signal.addEventListener("abort", () => end(signal.reason), { once: true });
      try {
        this.#socket.send(message, this.#ip);
      } catch (error) {
        end(sendFailure(error));
      }
    });
  }

  #handle(message: IcmpMessage): void {
    if (message.error) this.#refused(message, message.error);
    else this.#replied(message);
  }

  #replied({ from, waitedMs, message }: IcmpMessage): void {
    const reply = decodeEchoReply(familyOf(this.#ip), message);
    if (!reply || from !== this.#ip || !equalBytes(reply.data, this.#data)) return;
    const waiting = this.#take(reply);
    if (!waiting) return;
    const rttMs = Math.max(0, this.#clock.nowMs() - waiting.sentMs - waitedMs);
    waiting.resolve({ rttMs });
  }

  /** Routers quote at least the echo's header, and as much of its data as they like. */
  #refused({ from, message }: IcmpMessage, error: IcmpError): void {
    const family = familyOf(this.#ip);
    const echo = decodeQuotedEcho(family, message);
    if (!echo || !startsWithBytes(this.#data, echo.data)) return;
    const why = `${icmpErrorText(family, error)}, says ${from}`;
    this.#take(echo)?.resolve({ error: why });
  }

  /** The one that waits for an answer to this echo; then it does not any more. */
  #take({ identifier, sequence }: Echo): Waiting | undefined {
    if (!this.#socket.setsIdentifier && identifier !== this.#identifier) return undefined;
    const waiting = this.#waiting.get(sequence);
    this.#waiting.delete(sequence);
    return waiting;
  }
}

/** In a user's words. */
function sendFailure(error: unknown): unknown {
  if (!(error instanceof SystemError)) return error;
  const why = SEND_FAILURES[error.code];
  return why ? new Error(why, { cause: error }) : error;
}

const SEND_FAILURES: Record<string, string> = {
  ENETUNREACH: "this host has no route to it",
  EHOSTUNREACH: "this host has no route to it",
  EMSGSIZE: "the message is larger than the path takes",
  EPERM: "a firewall of this host refuses to send it",
  EACCES: "a route of this host prohibits it",
};
