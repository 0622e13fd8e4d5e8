/** A STUN server on a UDP port of its own. */
import { type Endpoint, parseIp } from "../addr.ts";
import { type Log, silentLog, systemClock } from "../edges.ts";
import { errorText } from "../errors.ts";
import { answerBinding } from "./binding.ts";

const ANSWERS_PER_SECOND = 50;
const MAX_SOURCES = 65_536;
const WINDOW_MS = 1000;
/** After a failed receive, so that an error that stays does not take the whole CPU. */
const PAUSE_AFTER_ERROR_MS = 100;

export interface StunListen {
  /** Address to bind, as "0.0.0.0" or "::". */
  hostname: string;
  /** 0 takes a free one. */
  port: number;
  /** For each source address, 50 by default; more requests are dropped. */
  answersPerSecond?: number;
}

/**
 * Counts answers for each source address in windows of one second. The table is bounded: within a
 * window, sources beyond its size get no answer, which also bounds what forged sources can cause.
 */
export class SourceLimit {
  readonly #perSecond: number;
  readonly #maxSources: number;
  readonly #counts = new Map<string, number>();
  #windowStartMs = -Infinity;

  constructor(perSecond: number, maxSources: number = MAX_SOURCES) {
    this.#perSecond = perSecond;
    this.#maxSources = maxSources;
  }

  /** Whether this source may have one more answer now. */
  allow(source: string, nowMs: number): boolean {
    if (nowMs - this.#windowStartMs >= WINDOW_MS) {
      this.#counts.clear();
      this.#windowStartMs = nowMs;
    }
    const count = this.#counts.get(source);
    if (count === undefined && this.#counts.size >= this.#maxSources) return false;
    this.#counts.set(source, (count ?? 0) + 1);
    return (count ?? 0) < this.#perSecond;
  }
}

/**
 * Answers binding requests until `signal` is aborted. Resolves with the bound address as soon as
 * it listens; rejects with Deno's error when the port cannot be had.
 */
export async function serveStun(
  listen: StunListen,
  signal: AbortSignal,
  log: Log = silentLog,
): Promise<Endpoint> {
  signal.throwIfAborted();
  const { hostname, port, answersPerSecond = ANSWERS_PER_SECOND } = listen;
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port });
  signal.addEventListener("abort", () => socket.close(), { once: true });
  void answerAll(socket, new SourceLimit(answersPerSecond), signal, log);
  return endpointOf(socket.addr as Deno.NetAddr);
}

/** Never rejects: one bad datagram or one unreachable client is no reason to stop. */
async function answerAll(
  socket: Deno.DatagramConn,
  limit: SourceLimit,
  signal: AbortSignal,
  log: Log,
): Promise<void> {
  while (!signal.aborted) {
    try {
      const [request, address] = await socket.receive();
      const from = endpointOf(address as Deno.NetAddr);
      if (!limit.allow(from.ip, systemClock.nowMs())) continue;
      const answer = answerBinding(request, from);
      if (answer) await socket.send(answer, address);
    } catch (error) {
      if (signal.aborted) return;
      log.debug("STUN server error", { error: errorText(error) });
      await systemClock.sleep(PAUSE_AFTER_ERROR_MS, signal).catch(() => {});
    }
  }
}

function endpointOf({ hostname, port }: Deno.NetAddr): Endpoint {
  return { ip: parseIp(hostname), port };
}
