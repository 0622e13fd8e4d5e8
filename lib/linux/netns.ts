/** Network namespaces, as `ip netns` keeps them: bind mounts in /run/netns (man 8 ip-netns). */
import { check, cString, Fd, libc, O_CLOEXEC, O_RDONLY } from "./libc.ts";

const CLONE_NEWNET = 0x40000000;
const MS_BIND = 4096n;
const MS_REC = 16384n;
const MS_SHARED = 1048576n;
const MNT_DETACH = 2;
const NETNS_DIR = "/run/netns";

function openNs(path: string): Fd {
  return new Fd(check(`open ${path}`, libc().open(cString(path), O_RDONLY | O_CLOEXEC)));
}

/**
 * Runs `body` with the calling thread in another network namespace. Only synchronous code is in
 * it: sockets opened and processes spawned inside belong to that namespace for good.
 */
export function withNetns<T>(netns: Fd, body: () => T): T {
  using home = openNs("/proc/thread-self/ns/net");
  check("setns", libc().setns(netns.fd, CLONE_NEWNET));
  try {
    return body();
  } finally {
    check("setns back", libc().setns(home.fd, CLONE_NEWNET));
  }
}

/** Makes a namespace that `ip netns` shows; throws `SystemError`, EEXIST for a name in use. */
export function createNamedNetns(name: string): Fd {
  const path = `${NETNS_DIR}/${name}`;
  prepareDirectory();
  Deno.writeTextFileSync(path, "", { createNew: true, mode: 0o444 });
  try {
    using home = openNs("/proc/thread-self/ns/net");
    check("unshare", libc().unshare(CLONE_NEWNET));
    try {
      mount("/proc/thread-self/ns/net", path, MS_BIND);
      return openNs("/proc/thread-self/ns/net");
    } finally {
      check("setns back", libc().setns(home.fd, CLONE_NEWNET));
    }
  } catch (error) {
    deleteNamedNetns(name);
    throw error;
  }
}

/** The namespace goes when the last process, socket and descriptor in it has gone. */
export function deleteNamedNetns(name: string): void {
  const path = `${NETNS_DIR}/${name}`;
  libc().umount2(cString(path), MNT_DETACH);
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

export function openNamedNetns(name: string): Fd {
  return openNs(`${NETNS_DIR}/${name}`);
}

/** Shared, so that a namespace made here is seen, and let go of, in all mount namespaces. */
function prepareDirectory(): void {
  Deno.mkdirSync(NETNS_DIR, { recursive: true, mode: 0o755 });
  if (
    libc().mount(cString(""), cString(NETNS_DIR), cString("none"), MS_SHARED | MS_REC, null) === 0
  ) {
    return;
  }
  mount(NETNS_DIR, NETNS_DIR, MS_BIND | MS_REC);
  mount("", NETNS_DIR, MS_SHARED | MS_REC);
}

function mount(source: string, target: string, flags: bigint): void {
  const result = libc().mount(cString(source), cString(target), cString("none"), flags, null);
  check(`mount ${target}`, result);
}
