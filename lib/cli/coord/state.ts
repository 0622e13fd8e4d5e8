/** Where gretun-coord keeps its state. */
import { errorText, GretunError } from "../../errors.ts";
import { stateDirectory as ownDirectory } from "../home.ts";
import { SqliteStore, type Store } from "../../coord/serve.ts";
import { isThere, refuseOthers, whyNotOurs } from "../../state_dir.ts";
import { flag } from "../flags.ts";

export const STATE_FLAG = {
  state: flag.text(
    "FILE",
    "database (default /var/lib/gretun-coord/coord.db as root), or :memory:",
  ),
} as const;

export const IN_MEMORY = ":memory:";

export function statePath(given: string | undefined): string {
  if (given !== undefined) return given;
  return `${ownDirectory("gretun-coord", "--state")}/coord.db`;
}

export function stateDirectory(path: string): string {
  return path.includes("/") ? path.replace(/\/[^/]*$/, "") || "/" : ".";
}

/** Where that file is to be: a directory that others cannot put files into. Throws `GretunError`. */
export function makeStateDirectory(path: string): void {
  const directory = stateDirectory(path);
  Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
  refuseOthers(directory, "--state");
}

/** The database's directory and file are this user's alone. Throws `GretunError`. */
export function openStore(path: string): Store {
  if (path !== IN_MEMORY) {
    try {
      makeStateDirectory(path);
      const why = isThere(path) && whyNotOurs(path);
      if (why) throw new Error(`it ${why}`);
      Deno.openSync(path, { write: true, create: true, mode: 0o600 }).close();
    } catch (cause) {
      if (cause instanceof GretunError) throw cause;
      throw new GretunError(
        `cannot write ${path}: ${errorText(cause)}`,
        "Give a file that you may write with --state, or :memory:",
        { cause },
      );
    }
  }
  return SqliteStore.open(path);
}
