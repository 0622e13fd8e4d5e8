/**
 * Where the daemon keeps keys, and where it is asked: /var/lib/gretun and /run/gretun as root and as a
 * service, else in the user's state directory (XDG Base Directory Specification).
 */
import { whoAnswers } from "../../control_socket.ts";
import { controlPath, groupPath } from "../../daemon/control.ts";
import { errorText, GretunError, UsageError } from "../../errors.ts";
import type { Log } from "../../edges.ts";
import { stateDirectory, userDirectory } from "../home.ts";
import { RUNTIME_DIRS, runtimeDir } from "./runtime_dir.ts";
import { exists } from "../exists.ts";
import { directoryOf, whyNotOurs } from "../../state_dir.ts";
import { flag, type FlagValues } from "../flags.ts";

export const STATE_FLAGS = {
  "state-dir": flag.text(
    "DIR",
    "keys and control socket (default /var/lib/gretun and /run/gretun as root, else ~/.local/state/gretun)",
  ),
  instance: flag.text(
    "NAME",
    "one of several daemons on this host, each with state and configuration of its own",
  ),
} as const;

type StateFlags = FlagValues<typeof STATE_FLAGS>;

export function stateDirOf(flags: StateFlags): string {
  if (flags["state-dir"] !== undefined) return flags["state-dir"];
  const { instance } = flags;
  if (instance !== undefined) checkInstance(instance);
  return instance === undefined ? defaultStateDir() : `${defaultStateDir()}/instances/${instance}`;
}

/** Where a daemon that is started now is asked; its directory is made. */
export function socketToServe(flags: StateFlags): string {
  const path = ownSocket(flags);
  const directory = directoryOf(path);
  try {
    if (!exists(directory)) {
      Deno.mkdirSync(directory, { recursive: true });
      // Services have theirs in it, whatever root's umask is.
      if (directory === RUNTIME_DIRS[0]) Deno.chmodSync(directory, 0o755);
    }
  } catch (cause) {
    throw new GretunError(
      `cannot make ${directory}: ${errorText(cause)}`,
      "Make it, with mode 755, or give another one with --state-dir",
      { cause },
    );
  }
  return path;
}

/** Where one is asked that may run: this user's own, or another one's that this user may ask. */
export async function socketToAsk(flags: StateFlags): Promise<string> {
  const own = ownSocket(flags);
  if (flags["state-dir"] !== undefined) return own;
  const system = RUNTIME_DIRS.map((directory) => `${directory}/${socketName(flags)}`);
  const others = Deno.uid() === 0 ? system : [...system.map(groupPath), ...system];
  let denied: string | undefined;
  for (const path of [own, ...others]) {
    const who = await whoAnswers(path);
    if (who === "program") return path;
    // With another user's HOME this user's own place is closed, too.
    if (who === "denied" && path !== own) denied ??= path;
  }
  return denied ?? own;
}

function ownSocket(flags: StateFlags): string {
  const directory = flags["state-dir"] === undefined ? runtimeDir() : undefined;
  return directory === undefined
    ? controlPath(stateDirOf(flags))
    : `${directory}/${socketName(flags)}`;
}

function socketName({ instance }: StateFlags): string {
  if (instance !== undefined) checkInstance(instance);
  return instance === undefined ? "up.sock" : `up-${instance}.sock`;
}

export function checkInstance(name: string): void {
  if (/^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}$/.test(name)) return;
  throw new UsageError(
    `--instance ${JSON.stringify(name)} cannot be an instance's name`,
    "Use up to 32 letters, digits, ., - and _",
  );
}

function defaultStateDir(): string {
  return stateDirectory("gretun", "--state-dir");
}

/** Version 0.1 had it in the configuration directory. */
function oldStateDir(): string {
  return `${userDirectory("XDG_CONFIG_HOME", "--state-dir")}/gretun`;
}

/** Keys of version 0.1 are moved to where they are looked for now, and that is said. */
export function moveOldState(stateDir: string, log: Log): void {
  if (stateDir !== defaultStateDir()) return;
  const [from, to] = [`${oldStateDir()}/keys.json`, `${stateDir}/keys.json`];
  if (from === to || exists(to) || !exists(from)) return;
  // Root may have another user's HOME, who must not choose the keys.
  const why = whyNotOurs(oldStateDir()) ?? whyNotOurs(from);
  if (why) return log.warn("keys not moved", { from, to, error: why });
  try {
    Deno.mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const temporary = `${to}.moved`;
    Deno.copyFileSync(from, temporary);
    Deno.chmodSync(temporary, 0o600);
    Deno.renameSync(temporary, to);
    Deno.removeSync(from);
  } catch (cause) {
    throw new GretunError(
      `cannot move ${from} to ${to}: ${errorText(cause)}`,
      `Move it by hand, or give --state-dir ${oldStateDir()}`,
      { cause },
    );
  }
  log.info("keys moved", { from, to });
}
