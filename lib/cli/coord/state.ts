/** Where gretun-coord keeps its state. */
import { directoryOf, refuseOthers } from "../../state_dir.ts";
import { stateDirectory } from "../home.ts";
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
  return `${stateDirectory("gretun-coord", "--state")}/coord.db`;
}

/** Where that file is to be: a directory that others cannot put files into. Throws `GretunError`. */
export function makeStateDirectory(path: string): void {
  const directory = directoryOf(path);
  Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
  refuseOthers(directory, "--state");
}
