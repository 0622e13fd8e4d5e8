/**
 * Token buckets: how much of something may happen in a time, in all or for each source. Pure: time
 * is an argument, in monotonic ms.
 */
import { ipBytes, parseIp } from "./addr.ts";
import { toHex } from "./bytes.ts";

export interface Rate {
  /** Tokens that come back in a second. */
  perSecond: number;
  /** Tokens of a full bucket. */
  burst: number;
}

/** So many a second, all of which may come at once. */
export function oneSecondOf(perSecond: number): Rate {
  return { perSecond, burst: perSecond };
}

/** What is left of a bucket, and since when it has been filling. */
interface Level {
  tokens: number;
  atMs: number;
}

/** One bucket, full at first. */
export class TokenBucket {
  readonly #rate: Rate;
  readonly #level: Level;

  constructor(rate: Rate) {
    this.#rate = rate;
    this.#level = fullLevel(rate);
  }

  /** Whether there were so many tokens, which are then gone. */
  take(nowMs: number, tokens = 1): boolean {
    return takeOrWait(this.#rate, this.#level, nowMs, tokens) === 0;
  }
}

/** What happens to a new source when the table is full of buckets in use. */
export type WhenFull =
  /** It gets nothing: forged sources cannot make more than `maxSources` bursts. */
  | "refuse"
  /** The oldest source starts anew with a full bucket; a limit over all has to stand beside this. */
  | "forget";

export interface SourceLimitsOptions extends Rate {
  maxSources?: number;
  whenFull?: WhenFull;
}

export const MAX_SOURCES = 65_536;
/** Looking through a full table for buckets that are full again is not done for each packet. */
const SWEEP_PAUSE_MS = 1000;

/** A bucket for each source, in a bounded table. */
export class SourceLimits {
  readonly #rate: Rate;
  readonly #maxSources: number;
  readonly #whenFull: WhenFull;
  /** A source that is absent has a full bucket. */
  readonly #levels = new Map<string, Level>();
  #sweptMs = -Infinity;

  constructor({ maxSources = MAX_SOURCES, whenFull = "refuse", ...rate }: SourceLimitsOptions) {
    this.#rate = rate;
    this.#maxSources = maxSources;
    this.#whenFull = whenFull;
  }

  get size(): number {
    return this.#levels.size;
  }

  /** Whether the source has a token. */
  has(source: string, nowMs: number): boolean {
    const level = this.#levels.get(source);
    return !level || tokensAt(this.#rate, level, nowMs) + ROUNDING >= 1;
  }

  /** Whether the source had a token, which is then gone. */
  take(source: string, nowMs: number): boolean {
    return this.takeOrWait(source, nowMs) === 0;
  }

  /** 0 when a token was taken, else ms until there is one. */
  takeOrWait(source: string, nowMs: number): number {
    let level = this.#levels.get(source);
    if (!level) {
      if (!this.#makeRoom(nowMs)) return 1000 / this.#rate.perSecond;
      this.#levels.set(source, level = fullLevel(this.#rate));
    }
    return takeOrWait(this.#rate, level, nowMs, 1);
  }

  #makeRoom(nowMs: number): boolean {
    if (this.#levels.size < this.#maxSources) return true;
    if (this.#whenFull === "forget") {
      return this.#levels.delete(this.#levels.keys().next().value!);
    }
    if (nowMs - this.#sweptMs < SWEEP_PAUSE_MS) return false;
    this.#sweptMs = nowMs;
    for (const [source, level] of this.#levels) {
      if (tokensAt(this.#rate, level, nowMs) >= this.#rate.burst) this.#levels.delete(source);
    }
    return this.#levels.size < this.#maxSources;
  }
}

/** Of what fractions of tokens sum up to. */
const ROUNDING = 1e-9;

function fullLevel({ burst }: Rate): Level {
  return { tokens: burst, atMs: -Infinity };
}

function tokensAt({ perSecond, burst }: Rate, { tokens, atMs }: Level, nowMs: number): number {
  return Math.min(burst, tokens + Math.max(0, nowMs - atMs) * perSecond / 1000);
}

/** 0 when the tokens were taken, else ms until there are enough. */
function takeOrWait(rate: Rate, level: Level, nowMs: number, wanted: number): number {
  const tokens = tokensAt(rate, level, nowMs);
  const missing = wanted - tokens;
  if (missing > ROUNDING) return missing * 1000 / rate.perSecond;
  level.tokens = tokens - wanted;
  level.atMs = nowMs;
  return 0;
}

/** What one host can choose its addresses from: an IPv4 address, or an IPv6 /64. */
export function sourceNetwork(address: string): string {
  if (!address.includes(":")) return address;
  const bytes = ipBytes(parseIp(address.split("%")[0]!));
  return bytes.length === 4 ? bytes.join(".") : toHex(bytes.subarray(0, 8));
}
