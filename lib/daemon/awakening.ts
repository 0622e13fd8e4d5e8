/** Finds that this host, or this process, was asleep. */
import type { Clock } from "../edges.ts";

const LOOK_INTERVAL_MS = 1_000;
/** Shorter than the 30 s after which many NATs forget a mapping, longer than a busy host pauses. */
const SLEPT_MS = 5_000;

/**
 * Calls `onAwake` when a pause took far longer than it should have: by the wall clock, because the
 * monotonic one stands still while a host is suspended. A wall clock that somebody sets forward
 * looks the same, and costs a few packets. Until `signal` is aborted.
 */
export async function watchForSleep(
  clock: Clock,
  onAwake: () => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const [startMs, startWallMs] = [clock.nowMs(), clock.wallMs()];
    await clock.sleep(LOOK_INTERVAL_MS, signal).catch(() => {});
    if (signal.aborted) return;
    const pauseMs = Math.max(clock.nowMs() - startMs, clock.wallMs() - startWallMs);
    if (pauseMs > LOOK_INTERVAL_MS + SLEPT_MS) onAwake();
  }
}
