/** Pings that wait for their pong, by transaction id. Pure: time is an argument. */
import { toHex } from "../bytes.ts";
import type { NodeKey } from "../keys.ts";
import { equalPaths, type PathAddress } from "./path_address.ts";

/** After this a pong is no longer believed. */
export const PONG_WAIT_MS = 10_000;
/** More pings than this in flight: the oldest are forgotten. */
const MAX_PENDING = 65_536;

interface PendingPing {
  peer: NodeKey;
  to: PathAddress;
  sentMs: number;
  onPong?: (rttMs: number) => void;
}

export class PendingPings {
  /** In the order of sending, so that the oldest stand first. */
  readonly #pings = new Map<string, PendingPing>();

  get size(): number {
    return this.#pings.size;
  }

  add(txId: Uint8Array, ping: PendingPing): void {
    this.#expire(ping.sentMs);
    this.#pings.set(toHex(txId), ping);
  }

  /**
   * The round-trip time in ms when this pong answers a ping to that peer at that very address,
   * else undefined. Each transaction id counts once.
   */
  take(txId: Uint8Array, peer: NodeKey, from: PathAddress, nowMs: number): number | undefined {
    const key = toHex(txId);
    const ping = this.#pings.get(key);
    if (!ping || ping.peer !== peer || !equalPaths(ping.to, from)) return undefined;
    this.#pings.delete(key);
    const rttMs = nowMs - ping.sentMs;
    if (rttMs > PONG_WAIT_MS) return undefined;
    ping.onPong?.(rttMs);
    return rttMs;
  }

  /** Whether a ping went there since then. */
  isAsked(to: PathAddress, sinceMs: number): boolean {
    return this.#pings.values().some((ping) => ping.sentMs >= sinceMs && equalPaths(ping.to, to));
  }

  #expire(nowMs: number): void {
    for (const [key, { sentMs }] of this.#pings) {
      if (nowMs - sentMs <= PONG_WAIT_MS && this.#pings.size < MAX_PENDING) return;
      this.#pings.delete(key);
    }
  }
}
