/** The node's keys in their file. */
import type { Random } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { whyNotOurs } from "../state_dir.ts";
import { formatKeys, type Identity, newIdentity, parseKeys } from "./identity.ts";

/** Tells of a new file, which is there once it is on the disk: that takes as long as other parts of a start. */
type OnNew = (path: string, written: Promise<void>) => void;

/**
 * Reads `keys.json` in `stateDir`, or makes it (directory 0700, file 0600, atomically). Refuses a
 * file that others can read, and one that it cannot parse, and leaves it untouched.
 */
export async function loadIdentity(
  stateDir: string,
  random: Random,
  onNew: OnNew,
): Promise<Identity> {
  const path = `${stateDir}/keys.json`;
  let info;
  try {
    info = Deno.statSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw unreadable(path, error);
    const identity = await newIdentity(random);
    const written = writeKeys(stateDir, path, identity);
    written.catch(() => {}); // told by who waits for it
    onNew(path, written);
    return identity;
  }
  if (((info.mode ?? 0) & 0o077) !== 0) {
    throw new GretunError(
      `cannot use ${path}: others can read it (mode ${(info.mode! & 0o777).toString(8)})`,
      `Run: chmod 600 ${path}`,
    );
  }
  const why = whyNotOurs(path);
  if (why) {
    throw new GretunError(
      `cannot use ${path}: it ${why}`,
      "Move it away, or give another --state-dir",
    );
  }
  let text;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    return await parseKeys(text);
  } catch (error) {
    throw new GretunError(
      `cannot use ${path}: ${errorText(error)}`,
      "Restore it from a copy, or move it away to get a new identity",
    );
  }
}

function unreadable(path: string, cause: unknown): GretunError {
  return new GretunError(
    `cannot read ${path}: ${errorText(cause)}`,
    "Run as the user that owns it, or give another --state-dir",
    { cause },
  );
}

async function writeKeys(stateDir: string, path: string, identity: Identity): Promise<void> {
  const temporary = `${path}.${Deno.pid}`;
  try {
    Deno.mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    {
      using file = Deno.openSync(temporary, { write: true, createNew: true, mode: 0o600 });
      file.writeSync(new TextEncoder().encode(formatKeys(identity)));
      await file.sync();
    }
    Deno.renameSync(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw new GretunError(
      `cannot write ${path}: ${errorText(error)}`,
      "Give a directory that you may write to with --state-dir",
      { cause: error },
    );
  }
}
