/** One daemon a UDP port and network namespace: two would take each other's links for left-overs. */
import { GretunError } from "../errors.ts";
import type { LockHolder, Locks } from "../linux/mod.ts";
import type { DaemonRole } from "./mark.ts";

export class PortLockedError extends GretunError {
  override name = "PortLockedError";

  constructor(port: number, readonly holder: LockHolder | undefined, role: string, flag: string) {
    const other = holder?.role === role ? "another" : "a running";
    super(
      `${other} ${formatHolder(holder)} uses port ${port}`,
      `Stop it first, or choose another port with ${flag}`,
    );
  }
}

const nameOf = (port: number) => `port-${port}`;

/** As in "gretun up (pid 12)". */
export function formatHolder(holder: LockHolder | undefined): string {
  if (!holder?.role) return "gretun";
  return `gretun ${holder.role} (pid ${holder.pid})`;
}

/** Held until disposed; throws {@link PortLockedError}, which names who has it. */
export function lockPort(
  locks: Locks,
  { port, role, flag }: { port: number; role: DaemonRole; flag: string },
): Disposable {
  const lock = locks.tryLock(nameOf(port), role);
  if (lock) return lock;
  throw new PortLockedError(port, locks.holder(nameOf(port)), role, flag);
}

/** The daemon that runs on the port, with or without links. */
export function portHolder(locks: Locks, port: number): LockHolder | undefined {
  return locks.holder(nameOf(port));
}
