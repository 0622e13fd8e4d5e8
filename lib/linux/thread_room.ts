/** Threads that this process may still start, by its control groups (kernel's admin-guide/cgroup-v2.rst, "PID"). */
import { tryReadKernelFile } from "./process.ts";

const MOUNT = "/sys/fs/cgroup";

/** Undefined: nothing limits them, or it cannot be seen. `read` gives undefined for what is not there. */
export function threadRoom(
  read: (path: string) => string | undefined = tryReadKernelFile,
): number | undefined {
  const rooms = directories(read("/proc/self/cgroup") ?? "").flatMap((directory) => {
    const [max, current] = ["max", "current"].map((what) =>
      Number(read(`${directory}/pids.${what}`))
    );
    const room = max! - current!;
    return Number.isNaN(room) ? [] : [Math.max(0, room)];
  });
  return rooms.length > 0 ? Math.min(...rooms) : undefined;
}

/** Of the groups that count processes, and of all groups around them. In a container the path may be the host's. */
function directories(groups: string): string[] {
  return groups.split("\n").flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):\/?(.*)$/.exec(line) ?? [];
    const isVersion2 = controllers === "";
    if (path === undefined || !(isVersion2 || controllers!.split(",").includes("pids"))) return [];
    const mount = isVersion2 ? MOUNT : `${MOUNT}/pids`;
    const names = path.split("/").filter((name) => name !== "");
    return [...names.keys(), names.length].map((count) =>
      [mount, ...names.slice(0, count)].join("/")
    );
  });
}
