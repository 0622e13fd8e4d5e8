/** Which program has a UDP port: /proc/net/udp knows the socket, /proc/PID/fd whose it is. */
import type { Family } from "../addr.ts";
import { SystemError } from "./libc.ts";
import { listKernelDirectory, readKernelLink, tryReadKernelFile } from "./process.ts";

/** "name (pid 123)"; undefined where nobody, the kernel or a program out of sight has the port. */
export function udpPortOwner(port: number, family: Family): string | undefined {
  // A socket of IPv6 mostly takes the port of IPv4 too.
  const tables = family === 4 ? ["udp", "udp6"] : ["udp6"];
  const inodes = tables.flatMap((table) =>
    socketInodes(tryReadKernelFile(`/proc/thread-self/net/${table}`) ?? "", port)
  );
  if (inodes.length === 0) return undefined;
  const links = new Set(inodes.map((inode) => `socket:[${inode}]`));
  for (const pid of listKernelDirectory("/proc").filter((name) => /^\d+$/.test(name))) {
    if (!holdsAny(pid, links)) continue;
    return `${tryReadKernelFile(`/proc/${pid}/comm`)?.trim() || "a program"} (pid ${pid})`;
  }
  return undefined;
}

/** Inodes of the sockets bound to the port, by the text of /proc/net/udp; the kernel's have 0. */
export function socketInodes(table: string, port: number): string[] {
  const hexPort = port.toString(16).toUpperCase().padStart(4, "0");
  return table.split("\n").slice(1).flatMap((line) => {
    const words = line.trim().split(/\s+/);
    const [local, inode] = [words[1], words[9]];
    return local?.endsWith(`:${hexPort}`) && inode && inode !== "0" ? [inode] : [];
  });
}

/** Other users' processes do not show theirs, and processes end while we look. */
function holdsAny(pid: string, links: ReadonlySet<string>): boolean {
  try {
    return listKernelDirectory(`/proc/${pid}/fd`)
      .some((fd) => links.has(readKernelLink(`/proc/${pid}/fd/${fd}`) ?? ""));
  } catch (error) {
    if (error instanceof SystemError) return false;
    throw error;
  }
}
