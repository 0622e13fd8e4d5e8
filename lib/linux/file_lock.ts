/**
 * Locks that belong to the network namespace of the calling thread and end with the process, however
 * it ends: files held with flock(2), in a directory that nobody else can write. A file names its
 * holder, so that a refusal can; it is removed with the lock, and what a killed program leaves is held by
 * nobody.
 */
import { GretunError } from "../errors.ts";
import {
  check,
  cString,
  Fd,
  lastErrno,
  libc,
  O_CLOEXEC,
  O_CREAT,
  O_RDONLY,
  O_RDWR,
  SystemError,
} from "./libc.ts";
import { readKernelLink } from "./process.ts";

const ROOT = 0;
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;
const FILE_MODE = 0o644;
const DIRECTORY_MODE = 0o755;
const WRITABLE_BY_OTHERS = 0o022;
/** Whoever only looks holds a lock for a moment. */
const TRIES = 5;
const TRY_GAP_MS = 2;

export interface LockHolder {
  /** What it calls itself, as in "up"; empty where it has not said so yet. */
  role: string;
  /** 0 where it has not said so yet. */
  pid: number;
}

export interface Locks {
  /** Undefined when another process has it. Throws `GretunError` where there can be no locks. */
  tryLock(name: string, role: string): Disposable | undefined;
  /** Undefined when nobody has it. */
  holder(name: string): LockHolder | undefined;
}

/** In root's directory, which systemd makes for the services' user. */
const SERVICES_DIRECTORY = "/run/gretun/service";

/** In the first of `directories` that is this user's alone; they are made where they are missing. */
export function fileLocks(
  directories: () => readonly string[] = lockDirectories,
  servicesDirectory = SERVICES_DIRECTORY,
): Locks {
  const holder = (name: string) => {
    for (const directory of directories()) {
      const found = isTrusted(directory, servicesDirectory) && holderOf(pathOf(directory, name));
      if (found) return found;
    }
    return undefined;
  };
  return {
    tryLock(name, role) {
      if (holder(name)) return undefined; // root's too
      return tryLockFile(pathOf(ownDirectory(directories()), name), role);
    },
    holder,
  };
}

const euid = () => libc().geteuid();

/** Whoever has a directory in one of root's has it from root. */
function isTrusted(directory: string, servicesDirectory: string): boolean {
  const parent = directory.replace(/\/[^/]*$/, "");
  return isOursAlone(directory, [euid(), ROOT]) ||
    (directory === servicesDirectory && isOursAlone(parent, [ROOT]) && isOursAlone(directory));
}

function lockDirectories(): string[] {
  const user = Deno.env.get("XDG_RUNTIME_DIR") || `/run/user/${euid()}`;
  return ["/run/gretun", SERVICES_DIRECTORY, `${user}/gretun`, `/tmp/gretun-${euid()}`];
}

/** Other namespaces have the same ports, and other files. */
function pathOf(directory: string, name: string): string {
  const netns = /\d+/.exec(readKernelLink("/proc/thread-self/ns/net") ?? "")?.[0] ?? "0";
  return `${directory}/net-${netns}-${name}.lock`;
}

function ownDirectory(directories: readonly string[]): string {
  let failure: unknown;
  for (const directory of directories) {
    try {
      if (directory !== SERVICES_DIRECTORY) {
        Deno.mkdirSync(directory, { mode: DIRECTORY_MODE });
        Deno.chmodSync(directory, DIRECTORY_MODE); // whatever the umask
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) failure = error;
    }
    if (isOursAlone(directory, [euid()])) return directory;
  }
  throw new GretunError(
    `no directory for locks that is this user's alone: ${directories.join(", ")}`,
    "Set XDG_RUNTIME_DIR to a directory of this user's, with mode 700",
    { cause: failure },
  );
}

/** Whether only one user, of these if any are named, can make files there. */
function isOursAlone(directory: string, owners?: readonly number[]): boolean {
  try {
    const { isDirectory, uid, mode } = Deno.lstatSync(directory);
    const isOwned = owners === undefined || owners.includes(uid!);
    return isDirectory && isOwned && (mode! & WRITABLE_BY_OTHERS) === 0;
  } catch {
    return false;
  }
}

function tryLockFile(path: string, role: string): Disposable | undefined {
  for (let tries = 0; tries < TRIES; tries++) {
    const flags = O_RDWR | O_CREAT | O_CLOEXEC;
    using stack = new DisposableStack();
    const file = stack.use(
      new Fd(check(`open ${path}`, libc().create(cString(path), flags, FILE_MODE))),
    );
    if (!flock(file, LOCK_EX)) libc().pollHere(null, 0n, TRY_GAP_MS);
    else if (!isRemoved(file)) { // else by a holder that let go of it meanwhile
      tell(path, { role, pid: Deno.pid });
      Deno.chmodSync(path, FILE_MODE); // whatever the umask
      stack.defer(() => remove(path));
      return stack.move();
    }
  }
  return undefined;
}

/** A full disk has no room for that, and the lock holds all the same. */
function tell(path: string, holder: LockHolder): void {
  try {
    Deno.writeTextFileSync(path, JSON.stringify(holder));
  } catch {
    // Who meets it says "another program".
  }
}

/** False when another process holds it. */
function flock(file: Fd, operation: number): boolean {
  if (libc().flock(file.fd, operation | LOCK_NB) === 0) return true;
  const error = new SystemError("flock", lastErrno());
  if (error.code === "EAGAIN") return false;
  throw error;
}

function isRemoved({ fd }: Fd): boolean {
  return readKernelLink(`/proc/thread-self/fd/${fd}`)?.endsWith(" (deleted)") ?? false;
}

function remove(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // somebody tidied up
  }
}

function holderOf(path: string): LockHolder | undefined {
  const fd = libc().open(cString(path), O_RDONLY | O_CLOEXEC);
  if (fd === -1) return undefined; // it is not there
  using file = new Fd(fd);
  return flock(file, LOCK_SH) ? undefined : readHolder(path);
}

function readHolder(path: string): LockHolder {
  try {
    const { role, pid } = JSON.parse(Deno.readTextFileSync(path));
    return { role: String(role), pid: Number(pid) };
  } catch {
    return { role: "", pid: 0 }; // it is being written
  }
}
