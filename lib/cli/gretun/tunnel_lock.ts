/**
 * Only one program at a time changes the tunnels of a network namespace: who plans by what is
 * there must not be overtaken, or a FOU port would be closed under another's new tunnel.
 */
import { systemClock } from "../../edges.ts";
import { GretunError, InterruptedError } from "../../errors.ts";
import { fileLocks } from "../../linux/mod.ts";

const LOCK_NAME = "tunnels";
const OTHER_RUNS = [
  "another gretun is changing tunnels: nothing was done",
  "Try again when it has ended",
] as const;
const POLL_MS = 20;
const PATIENCE_MS = 30_000;

/** At once where nobody has it. */
export function tryLockTunnels(): Disposable | undefined {
  return fileLocks().tryLock(LOCK_NAME, "create or delete");
}

/** Throws `GretunError` when the other one takes longer than 30 s, or on Ctrl-C. */
export async function lockTunnels(signal: AbortSignal): Promise<Disposable> {
  const deadlineMs = systemClock.nowMs() + PATIENCE_MS;
  while (systemClock.nowMs() < deadlineMs) {
    const lock = tryLockTunnels();
    if (lock) return lock;
    await systemClock.sleep(POLL_MS, signal).catch(() => {});
    if (signal.aborted) throw new InterruptedError(...OTHER_RUNS);
  }
  throw new GretunError(...OTHER_RUNS);
}
