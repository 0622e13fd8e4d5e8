/** What a command needs to be allowed, found out before it asks the kernel for anything. */
import { GretunError } from "../errors.ts";
import { hasCapability, raiseFileLimit, threadRoom } from "../linux/mod.ts";

/** Of a daemon with one peer; the runtime ends without a word of ours where it runs out of them. */
const MIN_FILES = 64;
/** Beside those of the runtime: of the data path, and for looking up names. It ends in the same way. */
const MIN_THREADS = 8;

/** Throws {@link GretunError}. Holding the capability is enough: root is not needed. */
export function requireNetAdmin(command: string): void {
  if (hasCapability("CAP_NET_ADMIN")) return;
  throw new GretunError(
    `permission denied: gretun ${command} needs root or CAP_NET_ADMIN`,
    "Run it with sudo, or once: sudo setcap cap_net_admin+ep gretun",
  );
}

/** Of a daemon, which opens files besides: root is not needed. Throws {@link GretunError}. */
export function requireCapabilities(command: string): void {
  for (const capability of ["CAP_NET_ADMIN", "CAP_NET_RAW"] as const) {
    if (hasCapability(capability)) continue;
    throw new GretunError(
      `gretun ${command} needs ${capability}`,
      "Run it as root, or: setcap cap_net_admin,cap_net_raw+ep gretun",
    );
  }
  requireFiles();
  requireThreads();
}

function requireThreads(): void {
  const threads = threadRoom();
  if (threads === undefined || threads >= MIN_THREADS) return;
  throw new GretunError(
    `this program may start ${threads} threads more, and needs ${MIN_THREADS}`,
    "Raise that: TasksMax= of its service, or --pids-limit of its container",
  );
}

/** Of a daemon or coordinator. Throws {@link GretunError}. */
export function requireFiles(needed = MIN_FILES): void {
  const files = raiseFileLimit();
  if (files >= needed) return;
  throw new GretunError(
    `this program may open ${files} files, and needs ${needed}`,
    "Raise that: ulimit -n 1024, or LimitNOFILE= of its service",
  );
}
