/**
 * How often what others change is put right: at once, until it is seen that somebody keeps undoing
 * it. Then it is left alone for ever longer, so that no two programs work against each other for ever,
 * and one that has left off has not stopped a tunnel for more than a moment.
 */
export const MEND_BURST = 10;
export const MEND_WINDOW_MS = 60_000;
export const FIRST_MEND_PAUSE_MS = 10_000;
export const LAST_MEND_PAUSE_MS = 600_000;

/** Of one facet of one link. */
export interface MendHistory {
  /** When it was put right, of late. */
  timesMs: readonly number[];
  /** The last one; 0 while it is put right at once. */
  pauseMs: number;
  pausedUntilMs: number;
}

export const NEVER_MENDED: MendHistory = { timesMs: [], pauseMs: 0, pausedUntilMs: -Infinity };

/** `give-up`: it is left from now on, and that is news. */
export type MendDecision = "mend" | "give-up" | "leave";

/** At a difference that is there now. */
export function decideMend(history: MendHistory, nowMs: number): [MendDecision, MendHistory] {
  if (nowMs < history.pausedUntilMs) return ["leave", history];
  const timesMs = history.timesMs.filter((timeMs) => nowMs - timeMs < MEND_WINDOW_MS);
  const hasLasted = timesMs.length === 0 && nowMs - history.pausedUntilMs >= MEND_WINDOW_MS;
  const pauseMs = hasLasted ? 0 : history.pauseMs;
  if (timesMs.length < (pauseMs === 0 ? MEND_BURST : 1)) {
    return ["mend", { ...history, pauseMs, timesMs: [...timesMs, nowMs] }];
  }
  const nextMs = Math.min(2 * pauseMs || FIRST_MEND_PAUSE_MS, LAST_MEND_PAUSE_MS);
  const next = { timesMs: [], pauseMs: nextMs, pausedUntilMs: nowMs + nextMs };
  return [pauseMs === 0 ? "give-up" : "leave", next];
}
