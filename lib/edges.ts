/**
 * The interfaces that the world comes in by: time, randomness, datagrams, the log. Protocol code
 * takes these as arguments; the programs and the tests hand them in.
 */
import type { Endpoint } from "./addr.ts";

export interface Clock {
  /** Monotonic milliseconds; only differences mean something. */
  nowMs(): number;
  /** Milliseconds since 1970, for what is sent to others. */
  wallMs(): number;
  /** Resolves after `ms`, or rejects with the signal's reason. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `fire` once in `ms` unless it is disposed before. */
  timer(ms: number, fire: () => void): Disposable;
}

/** Cryptographically strong random bytes. */
export type Random = (length: number) => Uint8Array<ArrayBuffer>;

export interface Datagram {
  bytes: Uint8Array;
  from: Endpoint;
}

/**
 * Sends one datagram; a datagram that cannot be sent is lost, like any other on the way. `ttl` is the
 * IP header's, where it is not to be the system's.
 */
export type SendDatagram = (bytes: Uint8Array, to: Endpoint, ttl?: number) => void;

/** A UDP socket, as `Deno.listenDatagram` opens it. */
export type ListenUdp = (hostname: string, port: number) => Deno.DatagramConn;

export const systemListenUdp: ListenUdp = (hostname, port) =>
  Deno.listenDatagram({ transport: "udp", hostname, port });

export type LogFields = Record<string, string | number | boolean | undefined>;

/** A constant message plus fields from one vocabulary (peer, endpoint, ifname, state, error). */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** What `setTimeout` takes: more is less than a millisecond to it. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  timer(ms, fire) {
    const timer = setTimeout(fire, Math.min(ms, MAX_TIMER_MS));
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  },
  sleep(ms, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, ms);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  },
};

/** A signal that is aborted after `ms`; to be disposed when what it limits is over. */
export function timeLimit(
  clock: Clock,
  ms: number,
  reason?: Error,
): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const tooLate = () => controller.abort(reason ?? new DOMException("timed out", "TimeoutError"));
  const timer = clock.timer(ms, tooLate);
  return { signal: controller.signal, [Symbol.dispose]: () => timer[Symbol.dispose]() };
}

/** Resolves when the signal is aborted, at once if it is. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** What `work` gives, or the signal's reason once it is aborted: `work` is then no longer waited for. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const ended = Promise.withResolvers<never>();
  const onAbort = () => ended.reject(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, ended.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

export const systemRandom: Random = (length) => crypto.getRandomValues(new Uint8Array(length));

export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };
