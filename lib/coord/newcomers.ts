/**
 * Anybody may register, so a node that is not known yet costs its source a token: a token bucket
 * for each IPv4 address and IPv6 /64. Known nodes never pay. Pure: time is an argument.
 */
import { ipBytes, parseIp } from "../addr.ts";
import { toHex } from "../bytes.ts";

export const MAX_SOURCES = 16_384;

export class NewcomerLimit {
  readonly #burst: number;
  readonly #refillMs: number;
  /** When the source's bucket is full again; absent: it is. */
  readonly #fullAtMs = new Map<string, number>();

  /** `burst` tokens to begin with, then one each `refillMs`. */
  constructor(options: { burst: number; refillMs: number }) {
    this.#burst = options.burst;
    this.#refillMs = options.refillMs;
  }

  /** 0 when a token was taken, else ms until there is one. */
  take(address: string, nowMs: number): number {
    const source = sourceOf(address);
    if (!this.#fullAtMs.has(source) && !this.#hasRoom(nowMs)) return this.#refillMs;
    const fullAtMs = Math.max(this.#fullAtMs.get(source) ?? nowMs, nowMs) + this.#refillMs;
    const overMs = fullAtMs - nowMs - this.#burst * this.#refillMs;
    if (overMs > 0) return overMs;
    this.#fullAtMs.set(source, fullAtMs);
    return 0;
  }

  #hasRoom(nowMs: number): boolean {
    if (this.#fullAtMs.size < MAX_SOURCES) return true;
    for (const [source, fullAtMs] of this.#fullAtMs) {
      if (fullAtMs <= nowMs) this.#fullAtMs.delete(source);
    }
    return this.#fullAtMs.size < MAX_SOURCES;
  }
}

/** An IPv4 address, or the /64 that one IPv6 host can choose from. */
function sourceOf(address: string): string {
  if (!address.includes(":")) return address;
  const bytes = ipBytes(parseIp(address.split("%")[0]!));
  return toHex(bytes.length === 4 ? bytes : bytes.subarray(0, 8));
}
