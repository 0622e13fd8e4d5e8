/**
 * The coordinator's key in its file, beside the database: nodes know it, so it outlives a database that
 * was moved away, and one that is kept in memory.
 */
import { fromBase64, toBase64 } from "../../bytes.ts";
import { errorText, GretunError } from "../../errors.ts";
import { KEY_LENGTH } from "../../keys.ts";
import { whyNotOurs } from "../../state_dir.ts";
import { IN_MEMORY, makeStateDirectory, statePath } from "./state.ts";

const OTHERS = 0o077;

export function keyPath(state: string): string {
  return (state === IN_MEMORY ? statePath(undefined) : state).replace(/\.db$/, "") + ".signing-key";
}

/** The 32-byte seed; `fresh` is taken and kept where there is none. Throws `GretunError`. */
export function openKeySeed(path: string, fresh: Uint8Array): Uint8Array {
  return readSeed(path) ?? writeSeed(path, fresh);
}

function readSeed(path: string): Uint8Array | undefined {
  try {
    const { mode, isFile } = Deno.lstatSync(path);
    if (!isFile) throw new Error("it is no regular file");
    const why = whyNotOurs(path);
    if (why) throw new Error(`it ${why}`);
    if (((mode ?? 0) & OTHERS) !== 0) throw new Error("others can use it: run chmod 600 on it");
    const seed = fromBase64(Deno.readTextFileSync(path).trim());
    if (seed.length === KEY_LENGTH) return seed;
    throw new Error(`it has ${seed.length} bytes, and not ${KEY_LENGTH}`);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    throw new GretunError(
      `cannot use the coordinator's key ${path}: ${errorText(cause)}`,
      "Restore it from a copy, or move it away: then all nodes have to accept another key",
      { cause },
    );
  }
}

function writeSeed(path: string, seed: Uint8Array): Uint8Array {
  const temporary = `${path}.${Deno.pid}`;
  try {
    makeStateDirectory(path);
    Deno.writeTextFileSync(temporary, toBase64(seed) + "\n", { mode: 0o600, createNew: true });
    Deno.renameSync(temporary, path);
    return seed;
  } catch (cause) {
    if (cause instanceof GretunError) throw cause;
    throw new GretunError(
      `cannot write the coordinator's key ${path}: ${errorText(cause)}`,
      "Give a file that you may write with --state",
      { cause },
    );
  }
}
