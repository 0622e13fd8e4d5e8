/**
 * How often what others change is put right: at once, until it is seen that somebody keeps undoing
 * it. Then it is left alone for a while, so that no two programs work against each other for ever.
 */
export const MEND_BURST = 10;
export const MEND_WINDOW_MS = 60_000;
export const MEND_PAUSE_MS = 600_000;

/** Of one facet of one link. */
export interface MendHistory {
  /** When it was put right, of late. */
  timesMs: readonly number[];
  pausedUntilMs: number;
}

export const NEVER_MENDED: MendHistory = { timesMs: [], pausedUntilMs: -Infinity };

export type MendDecision = "mend" | "give-up" | "leave";

/** At a difference that is there now. */
export function decideMend(history: MendHistory, nowMs: number): [MendDecision, MendHistory] {
  if (nowMs < history.pausedUntilMs) return ["leave", history];
  const timesMs = history.timesMs.filter((timeMs) => nowMs - timeMs < MEND_WINDOW_MS);
  if (timesMs.length >= MEND_BURST) {
    return ["give-up", { timesMs: [], pausedUntilMs: nowMs + MEND_PAUSE_MS }];
  }
  return ["mend", { ...history, timesMs: [...timesMs, nowMs] }];
}
