/**
 * Whose signalling is looked at when more comes than can be: first who is in a session, then who
 * answers a challenge, then strangers. Each class has a budget of its own, so that forged packets,
 * which can only be strangers', cost nobody else anything. Pure: time is an argument.
 */
import { SourceLimits, TokenBucket } from "../../../limits.ts";

/** Of sessions that there are: forging one takes a guess of 64 bits. */
const SESSIONS = { perSecond: 4000, burst: 4000 };
/** Of challenges that were answered: forging one takes a guess of the microsecond it was made in. */
const ANSWERS = { perSecond: 2000, burst: 4000 };
/** Of hellos, from everywhere: what they cost is a fifth of a processor. */
const STRANGERS = { perSecond: 6000, burst: 6000 };
/**
 * Of one address, whether or not it has shown that it is one: hundreds of clients may be behind a NAT.
 * Strangers get more as long as others do not need it: whoever forges somebody's address must not
 * silence him.
 */
const SOURCE = { perSecond: 100, burst: 1000, maxSources: 4096, whenFull: "forget" } as const;
const SPARE = { perSecond: 5500, burst: 3000 };
/** Of the time of this process: who drops the rest at once has no queue that others wait in. */
const STRANGERS_SHARE = 0.5;
const STRANGERS_BURST_MS = 200;

export class Admission {
  readonly #sessions = new TokenBucket(SESSIONS);
  readonly #answers = new TokenBucket(ANSWERS);
  readonly #proven = new SourceLimits(SOURCE);
  readonly #strangers = new TokenBucket(STRANGERS);
  readonly #sources = new SourceLimits(SOURCE);
  readonly #spare = new TokenBucket(SPARE);
  /** What strangers may still use, and as of when. */
  #leftMs = STRANGERS_BURST_MS;
  #countedMs = 0;

  /** A keepalive of a session that there is. */
  session(nowMs: number): boolean {
    return this.#sessions.take(nowMs);
  }

  /** An answer to a challenge that was made: its cookie is worth a look. */
  answer(nowMs: number): boolean {
    return this.#answers.take(nowMs);
  }

  /** The cookie was right: the client is where it says. */
  proven(source: string, nowMs: number): boolean {
    return this.#proven.take(source, nowMs);
  }

  /** The hello of a name that there is. */
  stranger(source: string, nowMs: number): boolean {
    this.#leftMs += (nowMs - this.#countedMs) * STRANGERS_SHARE;
    this.#leftMs = Math.min(this.#leftMs, STRANGERS_BURST_MS);
    this.#countedMs = nowMs;
    if (this.#leftMs <= 0) return false;
    if (!this.#sources.take(source, nowMs) && !this.#spare.take(nowMs)) return false;
    return this.#strangers.take(nowMs);
  }

  /** What the answer to a stranger took. */
  spent(ms: number): void {
    this.#leftMs -= ms;
  }
}
