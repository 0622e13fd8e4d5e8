/** Processes by the network namespace that they run in, as `ip netns pids` finds them. */
import type { Clock } from "../edges.ts";
import { listKernelDirectory, readKernelLink } from "../linux/mod.ts";

const NETNS_DIR = "/run/netns";
const TERM_GRACE_MS = 2000;
const POLL_MS = 20;

/** The names of all namespaces that begin so. */
export function namedNetnses(prefix: string): string[] {
  try {
    return [...Deno.readDirSync(NETNS_DIR)].map(({ name }) => name)
      .filter((name) => name.startsWith(prefix)).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Children that have not ended yet. */
export class ChildProcesses {
  readonly #running = new Set<Deno.ChildProcess>();

  add(child: Deno.ChildProcess): void {
    this.#running.add(child);
    child.status.finally(() => this.#running.delete(child));
  }

  pids(): number[] {
    return [...this.#running].map(({ pid }) => pid);
  }
}

/**
 * Ends the children and every process in these namespaces, whoever started it: SIGTERM, and
 * SIGKILL for what is still there after 2 s.
 */
export async function endProcesses(
  netnsNames: readonly string[],
  children: ChildProcesses,
  clock: Clock,
): Promise<void> {
  const links = new Set(netnsNames.flatMap((name) => netLink(name) ?? []));
  const deadlineMs = clock.nowMs() + TERM_GRACE_MS;
  const asked = new Set<number>();
  while (true) {
    const pids = new Set([...children.pids(), ...processesIn(links)]);
    if (pids.size === 0) return;
    const late = clock.nowMs() >= deadlineMs;
    for (const pid of pids) {
      if (late) signal(pid, "SIGKILL");
      else if (!asked.has(pid)) signal(pid, "SIGTERM");
      asked.add(pid);
    }
    await clock.sleep(POLL_MS);
  }
}

/** What /proc/PID/ns/net of a process in the namespace reads: "net:[4026532008]". */
function netLink(netnsName: string): string | undefined {
  try {
    return `net:[${Deno.statSync(`${NETNS_DIR}/${netnsName}`).ino}]`;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function processesIn(links: ReadonlySet<string>): number[] {
  return listKernelDirectory("/proc")
    .filter((name) => /^\d+$/.test(name) && links.has(readKernelLink(`/proc/${name}/ns/net`) ?? ""))
    .map(Number);
}

function signal(pid: number, name: Deno.Signal): void {
  try {
    Deno.kill(pid, name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // it has ended meanwhile
  }
}
