/** The coordinator's database, apart from what commands need that only ask a running coordinator. */
import { SqliteStore, type Store } from "../../coord/serve.ts";
import { errorText, GretunError } from "../../errors.ts";
import { isThere, whyNotOurs } from "../../state_dir.ts";
import { IN_MEMORY, makeStateDirectory } from "./state.ts";

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
