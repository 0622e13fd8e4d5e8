/** A question in a datagram, repeated until it is answered; and time limits. */
import type { Endpoint } from "../addr.ts";
import { type Clock, type Datagram, timeLimit } from "../edges.ts";
import { PortMapFormatError, PortMapRefusedError } from "./errors.ts";
import type { UdpSocket } from "./net.ts";
import type { GatewayAccess } from "./protocol.ts";

/**
 * RFC 6886 section 3.1: 250 ms, doubling; but three repetitions, not eight, for who asks here
 * asks again later. PCP's own 3 s (RFC 6887 section 8.1.1) would let every lost datagram be seen.
 */
export const ASK_PAUSES_MS: readonly number[] = [250, 500, 1000, 750];

export interface Question<T> {
  /** All of them are sent each time. */
  requests: readonly { bytes: Uint8Array; to: Endpoint }[];
  /** After each time; the last one ends the waiting. */
  pausesMs: readonly number[];
  /** Undefined, or a {@link PortMapFormatError}: not the answer. */
  read(datagram: Datagram): T | undefined;
}

/** Undefined: no answer. Throws the signal's reason, and what opening a socket throws. */
export async function exchange<T>(
  { net, local, clock }: GatewayAccess,
  question: Question<T>,
  signal: AbortSignal,
): Promise<T | undefined> {
  signal.throwIfAborted();
  const socket = net.openUdp(local);
  const answered = new AbortController();
  const answer = firstAnswer(socket, question).finally(() => answered.abort());
  try {
    await askAgainAndAgain(socket, question, clock, AbortSignal.any([answered.signal, signal]));
  } catch (error) {
    if (!answered.signal.aborted) throw error;
  } finally {
    socket[Symbol.dispose]();
  }
  return answer;
}

async function askAgainAndAgain<T>(
  socket: UdpSocket,
  { requests, pausesMs }: Question<T>,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  for (const pauseMs of pausesMs) {
    for (const { bytes, to } of requests) socket.send(bytes, to);
    await clock.sleep(pauseMs, signal);
  }
}

/** Undefined when the socket is closed before. */
async function firstAnswer<T>(socket: UdpSocket, { read }: Question<T>): Promise<T | undefined> {
  while (true) {
    const datagram = await socket.receive();
    if (!datagram) return undefined;
    const answer = ignoringMalformed(() => read(datagram));
    if (answer !== undefined) return answer;
  }
}

function ignoringMalformed<T>(read: () => T | undefined): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof PortMapFormatError) return undefined;
    throw error;
  }
}

/** `body` gets a signal that ends it after `ms`, with a {@link PortMapRefusedError}. */
export async function withDeadline<T>(
  clock: Clock,
  ms: number,
  signal: AbortSignal,
  body: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  using late = timeLimit(clock, ms, new PortMapRefusedError(`no answer within ${ms} ms`));
  return await body(AbortSignal.any([late.signal, signal]));
}
