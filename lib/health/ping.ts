/** Pings as `ping(8)` does them, without that program. */
import type { Ip } from "../addr.ts";
import { equalBytes } from "../bytes.ts";
import type { Clock, Random } from "../edges.ts";
import { errorText } from "../errors.ts";
import { IcmpSocket, type Poller, SystemError } from "../netlink.ts";
import { decodeEchoReply, encodeEcho } from "./icmp.ts";

const TOKEN_LENGTH = 8;

export interface PingOptions {
  count: number;
  intervalMs: number;
  /** How long an answer may take. */
  timeoutMs: number;
  /** Of the echo's data, as `ping -s` counts it; at least 8. */
  sizeBytes?: number;
  clock: Clock;
  random: Random;
  poller: Poller;
}

export interface PingResult {
  sent: number;
  /** Round-trip times in the order of their answers. */
  rttsMs: number[];
  /** Why the last echo that could not be sent could not. */
  error?: string;
}

export interface PingTarget {
  /** Opens the socket, perhaps in another network namespace. */
  open?: <T>(body: () => T) => T;
  ip: Ip;
}

/** Sends echoes and waits for their answers: matched by source, identifier, sequence and data. */
export async function ping(target: PingTarget, options: PingOptions): Promise<PingResult> {
  const { count, intervalMs, timeoutMs, sizeBytes = 56, clock, random, poller } = options;
  const { ip, open = (body) => body() } = target;
  const [high, low] = random(2);
  const identifier = high! << 8 | low!;
  const data = new Uint8Array(Math.max(sizeBytes, TOKEN_LENGTH));
  data.set(random(TOKEN_LENGTH));
  const sentMs = new Map<number, number>();
  const result: PingResult = { sent: 0, rttsMs: [] };
  const answered = new AbortController();

  using socket = open(() =>
    IcmpSocket.open(poller, ({ from, message }) => {
      const reply = decodeEchoReply(message);
      const atMs = sentMs.get(reply?.sequence ?? -1);
      if (!reply || atMs === undefined || from !== ip || !equalBytes(reply.data, data)) return;
      if (!socket.setsIdentifier && reply.identifier !== identifier) return;
      sentMs.delete(reply.sequence);
      const rttMs = clock.nowMs() - atMs;
      if (rttMs <= timeoutMs) result.rttsMs.push(rttMs);
      if (sentMs.size === 0 && result.sent === count) answered.abort();
    })
  );

  for (let sequence = 1; sequence <= count; sequence++) {
    if (sequence > 1) await clock.sleep(intervalMs);
    sentMs.set(sequence, clock.nowMs());
    result.sent++;
    try {
      socket.send(encodeEcho({ identifier, sequence, data }), ip);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      sentMs.delete(sequence);
      result.error = errorText(error);
    }
  }
  if (sentMs.size > 0) await clock.sleep(timeoutMs, answered.signal).catch(() => {});
  return result;
}
