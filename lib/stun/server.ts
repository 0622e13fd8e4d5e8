/** A STUN server on UDP ports of its own. */
import {
  type Endpoint,
  familyOf,
  type Ip,
  isUnspecified,
  parseIp,
  UNSPECIFIED_4,
} from "../addr.ts";
import { type Log, silentLog, systemClock } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { Change } from "./attributes.ts";
import {
  type BindingRequest,
  decodeBindingRequest,
  encodeBindingAnswer,
  encodeChangeRefusal,
} from "./binding.ts";

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
}

export interface StunServiceOptions {
  signal: AbortSignal;
  log?: Log;
  /** For each source address, over all ports; 50 by default, more requests are dropped. */
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

/** An address may be unspecified, "0.0.0.0" or "::": all of the host. */
interface Place extends Endpoint {
  socket: Deno.DatagramConn;
}

/**
 * Answers binding requests at any number of places until the signal is aborted. From two ports of
 * an address, and from two addresses, it also tells hosts how their NAT filters (RFC 5780): it
 * answers from another of its places when a CHANGE-REQUEST asks for it.
 */
export class StunService {
  readonly #places: Place[] = [];
  readonly #signal: AbortSignal;
  readonly #log: Log;
  readonly #limit: SourceLimit;

  constructor({ signal, log = silentLog, answersPerSecond }: StunServiceOptions) {
    signal.throwIfAborted();
    this.#signal = signal;
    this.#log = log;
    this.#limit = new SourceLimit(answersPerSecond ?? ANSWERS_PER_SECOND);
    signal.addEventListener("abort", () => this.#close(), { once: true });
  }

  /** Gives the bound address; throws Deno's error when the port cannot be had. */
  listen({ hostname, port }: StunListen): Endpoint {
    this.#signal.throwIfAborted();
    const socket = Deno.listenDatagram({ transport: "udp", hostname, port });
    const bound = endpointOf(socket.addr as Deno.NetAddr);
    const place = { socket, ...bound };
    this.#places.push(place);
    void this.#answerAll(place);
    return bound;
  }

  #close(): void {
    for (const { socket } of this.#places) socket.close();
  }

  /** Never rejects: one bad datagram or one unreachable client is no reason to stop. */
  async #answerAll(place: Place): Promise<void> {
    while (!this.#signal.aborted) {
      try {
        const [bytes, address] = await place.socket.receive();
        const from = endpointOf(address as Deno.NetAddr);
        if (!this.#limit.allow(from.ip, systemClock.nowMs())) continue;
        const request = decodeBindingRequest(bytes);
        if (request) await this.#answer(place, request, from, address);
      } catch (error) {
        if (this.#signal.aborted) return;
        this.#log.debug("STUN server error", { error: errorText(error) });
        await systemClock.sleep(PAUSE_AFTER_ERROR_MS, this.#signal).catch(() => {});
      }
    }
  }

  async #answer(place: Place, request: BindingRequest, from: Endpoint, to: Deno.Addr) {
    const origin = request.change ? changedPlace(this.#places, place, request.change) : place;
    const answer = origin
      ? encodeBindingAnswer(request, from, this.#otherOf(place, from))
      : encodeChangeRefusal(request);
    await (origin ?? place).socket.send(answer, to);
  }

  /** What OTHER-ADDRESS says: another address and port if there is such a place, else one of them. */
  #otherOf(place: Place, from: Endpoint): Endpoint | undefined {
    const change = (ip: boolean, port: boolean) => changedPlace(this.#places, place, { ip, port });
    const other = change(true, true) ?? change(false, true) ?? change(true, false);
    if (!other) return undefined;
    const unspecified = familyOf(from.ip) === 4 ? UNSPECIFIED_4 : parseIp("::");
    return { ip: isUnspecified(other.ip) ? unspecified : other.ip, port: other.port };
  }
}

/** The place that differs from `place` in just that. */
export function changedPlace<P extends Endpoint>(
  places: readonly P[],
  place: P,
  { ip, port }: Change,
): P | undefined {
  return places.find((other) =>
    (other.port !== place.port) === port &&
    (ip ? isOtherAddress(other.ip, place.ip) : other.ip === place.ip)
  );
}

/** All addresses of the host are not another than one of them. */
function isOtherAddress(a: Ip, b: Ip): boolean {
  return a !== b && familyOf(a) === familyOf(b) && !isUnspecified(a) && !isUnspecified(b);
}

/**
 * A server at one place. Resolves with the bound address; rejects with Deno's error when the port
 * cannot be had.
 */
export async function serveStun(listen: StunListen, signal: AbortSignal): Promise<Endpoint> {
  return new StunService({ signal }).listen(listen);
}

function endpointOf({ hostname, port }: Deno.NetAddr): Endpoint {
  return { ip: parseIp(hostname), port };
}
