/** Locks of one network namespace in memory, held by processes of the number `pid`. */
import type { LockHolder, Locks } from "../../lib/linux/mod.ts";

export function memoryLocks(pid: number): Locks {
  const held = new Map<string, LockHolder>();
  return {
    tryLock(name, role) {
      if (held.has(name)) return undefined;
      held.set(name, { role, pid });
      return { [Symbol.dispose]: () => void held.delete(name) };
    },
    holder: (name) => held.get(name),
  };
}
