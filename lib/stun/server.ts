/** A STUN server on UDP ports of its own. */
import {
  type Endpoint,
  familyOf,
  type Ip,
  isInner,
  isUnspecified,
  parseIp,
  UNSPECIFIED_4,
} from "../addr.ts";
import {
  type Clock,
  type ListenUdp,
  type Log,
  silentLog,
  systemClock,
  systemListenUdp,
} from "../edges.ts";
import { errorText } from "../errors.ts";
import { AnswerLimit } from "./answer_limit.ts";
import type { Change } from "./attributes.ts";
import {
  decodeBindingRequest,
  encodeBindingAnswer,
  encodeChangeRefusal,
  type ToldPlaces,
} from "./binding.ts";

const ANSWERS_PER_SECOND = 50;
/** After a failed receive, so that an error that stays does not take the whole CPU. */
/** Requests may be padded up to what a network carries. */
const MAX_DATAGRAM = 16 * 1024;
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
  /**
   * This host's address on the way to there, for what says where an answer comes from and a socket
   * of all addresses does not know. Default: that is left out.
   */
  localAddress?: (to: Ip) => Ip | undefined;
  /** Whether somebody receives at that address: only there go answers longer than their request. */
  isProven?: (source: Ip) => boolean;
  /** The system's unless told. */
  listenUdp?: ListenUdp;
  clock?: Clock;
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
  readonly #limit: AnswerLimit;
  readonly #localAddress: (to: Ip) => Ip | undefined;
  readonly #listenUdp: ListenUdp;
  readonly #clock: Clock;

  constructor({ signal, log = silentLog, ...options }: StunServiceOptions) {
    signal.throwIfAborted();
    this.#signal = signal;
    this.#log = log;
    this.#limit = new AnswerLimit(options.answersPerSecond ?? ANSWERS_PER_SECOND, options.isProven);
    this.#localAddress = options.localAddress ?? (() => undefined);
    this.#listenUdp = options.listenUdp ?? systemListenUdp;
    this.#clock = options.clock ?? systemClock;
    signal.addEventListener("abort", () => this.#close(), { once: true });
  }

  /** Gives the bound address; throws Deno's error when the port cannot be had. */
  listen({ hostname, port }: StunListen): Endpoint {
    this.#signal.throwIfAborted();
    const socket = this.#listenUdp(hostname, port);
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
    const buffer = new Uint8Array(MAX_DATAGRAM);
    while (!this.#signal.aborted) {
      try {
        const [bytes, address] = await place.socket.receive(buffer);
        const from = endpointOf(address as Deno.NetAddr);
        if (!this.#limit.allow(from.ip, this.#clock.nowMs())) continue;
        await this.#answer(place, bytes, from, address);
      } catch (error) {
        if (this.#signal.aborted) return;
        this.#log.debug("STUN server error", { error: errorText(error) });
        await this.#clock.sleep(PAUSE_AFTER_ERROR_MS, this.#signal).catch(() => {});
      }
    }
  }

  async #answer(place: Place, bytes: Uint8Array, from: Endpoint, to: Deno.Addr): Promise<void> {
    const request = decodeBindingRequest(bytes);
    if (!request) return;
    const origin = request.change ? changedPlace(this.#places, place, request.change) : place;
    const answer = origin
      ? encodeBindingAnswer(request, from, () => this.#told(place, origin, from))
      : encodeChangeRefusal(request);
    if (!this.#limit.allowAnswer(from.ip, bytes, answer, this.#clock.nowMs())) return;
    await (origin ?? place).socket.send(answer, to);
  }

  /** OTHER-ADDRESS is a place with another address and port if there is one, else one of them. */
  #told(place: Place, origin: Place, from: Endpoint): ToldPlaces {
    const change = (ip: boolean, port: boolean) => changedPlace(this.#places, place, { ip, port });
    const other = change(true, true) ?? change(false, true) ?? change(true, false);
    const known = this.#known(origin, from);
    return {
      ...(other ? { other: this.#known(other, from) ?? unspecified(other, from) } : {}),
      ...(known ? { origin: known } : {}),
    };
  }

  /** Undefined where a place has no address that `from` could send to. */
  #known({ ip, port }: Endpoint, from: Endpoint): Endpoint | undefined {
    const local = isUnspecified(ip) ? this.#localAddress(from.ip) : ip;
    return local && (isInner(from.ip) || !isInner(local)) ? { ip: local, port } : undefined;
  }
}

function unspecified({ port }: Endpoint, from: Endpoint): Endpoint {
  return { ip: familyOf(from.ip) === 4 ? UNSPECIFIED_4 : parseIp("::"), port };
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

function endpointOf({ hostname, port }: Deno.NetAddr): Endpoint {
  return { ip: parseIp(hostname), port };
}
