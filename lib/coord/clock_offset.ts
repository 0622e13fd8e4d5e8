/**
 * By how much the coordinator's clock is ahead of this host's, from the times that its answers
 * carry: whoever's is wrong, requests are signed with the time that the coordinator takes.
 */
import type { Clock } from "../edges.ts";

/** Answers tell whole seconds: differences below say nothing. */
const TOLERANCE_MS = 5_000;
/** No host that runs this has an earlier time (2024-01-01): it has not been told yet. */
const NEVER_SET_MS = 1_704_067_200_000;

export interface ClockNews {
  /** The coordinator's clock less this host's. */
  aheadMs: number;
  /** Whose clock is wrong or was set, as far as it can be told. */
  whose: "this host" | "coordinator" | "unknown";
}

export class ClockOffset {
  readonly #clock: Clock;
  #aheadMs = 0;
  /** Wall time less monotonic time when the offset was measured: a change of it is a set clock. */
  #baseMs: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get aheadMs(): number {
    return this.#aheadMs;
  }

  /**
   * News if an answer, made at that time by the coordinator's clock, shows another offset. It was made
   * at some time since the call was sent: held there, or on its way since.
   */
  answered(timeMs: number | undefined, sentMs: number): ClockNews | undefined {
    if (timeMs === undefined) return undefined;
    const [wallMs, nowMs] = [this.#clock.wallMs(), this.#clock.nowMs()];
    const baseMs = wallMs - nowMs;
    const leastMs = timeMs - wallMs;
    const aheadMs = Math.min(Math.max(this.#aheadMs, leastMs), leastMs + nowMs - sentMs);
    const knownBaseMs = this.#baseMs;
    this.#baseMs = baseMs;
    if (Math.abs(aheadMs - this.#aheadMs) < TOLERANCE_MS) return undefined;
    // What nothing minds is no reason to sign with another time than this host's.
    this.#aheadMs = Math.abs(aheadMs) < TOLERANCE_MS ? 0 : aheadMs;
    return { aheadMs: this.#aheadMs, whose: whoseClock(wallMs, baseMs, knownBaseMs) };
  }
}

function whoseClock(
  wallMs: number,
  baseMs: number,
  knownBaseMs: number | undefined,
): ClockNews["whose"] {
  if (wallMs < NEVER_SET_MS) return "this host";
  if (knownBaseMs === undefined) return "unknown";
  return Math.abs(baseMs - knownBaseMs) >= TOLERANCE_MS ? "this host" : "coordinator";
}
