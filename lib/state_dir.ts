/**
 * The directory of what a running program keeps: sockets, locks, state. Nothing in it is believed
 * that somebody else could have put there.
 */
import { errorText, GretunError } from "./errors.ts";

const OTHERS_WRITE = 0o022;
const EVERYBODY_WRITES = 0o002;
/** Of a directory: a file in it is its owner's to replace. */
const STICKY = 0o1000;
const ROOT = 0;

export interface StateDir {
  readonly path: string;
  /**
   * A file's text; undefined when there is none. Throws `GretunError` for one that somebody else
   * owns or can write.
   */
  read(name: string): string | undefined;
  /** Replaces the file; only its owner can read it. Throws what the system says. */
  write(name: string, text: string): void;
  remove(name: string): void;
}

/** Makes it where it is missing. Throws `GretunError` when it cannot be made or is somebody else's. */
export function openStateDir(path: string): StateDir {
  try {
    if (!isThere(path)) {
      Deno.mkdirSync(path, { recursive: true, mode: 0o755 });
      Deno.chmodSync(path, 0o755); // whatever the umask: services may have theirs in it
    }
  } catch (cause) {
    throw new GretunError(
      `cannot make ${path}: ${errorText(cause)}`,
      "Give a writable directory with --state-dir",
      { cause },
    );
  }
  refuseOthers(path, "--state-dir");
  return {
    path,
    read: (name) => readOwn(`${path}/${name}`),
    write: (name, text) => replace(`${path}/${name}`, text),
    remove: (name) => removeIfThere(`${path}/${name}`),
  };
}

/** Throws `GretunError`, which names `flag`, for a directory that others can put files into. */
export function refuseOthers(directory: string, flag: string): void {
  const why = whyNotOurs(directory);
  if (!why) return;
  throw new GretunError(
    `the state directory ${directory} ${why}`,
    `Give another one with ${flag}, or let this user alone own and write it`,
  );
}

/**
 * For a file, or a directory of files, that says who may do what, and that an operator may share with
 * others. Throws `GretunError` where everybody may change or replace it.
 */
export function refuseEverybodys(path: string): void {
  const file = Deno.statSync(path);
  if (!file.isFile && !file.isDirectory) return; // a pipe has no place
  const around = Deno.statSync(directoryOf(Deno.realPathSync(path)));
  const isSticky = file.isDirectory && ((file.mode ?? 0) & STICKY) !== 0;
  if (isEverybodys(file) && !isSticky) {
    throw new GretunError(`everybody can write to ${path}`, `Run: chmod o-w ${path}`);
  }
  if (isEverybodys(around) && file.uid !== null && ![ROOT, Deno.uid()].includes(file.uid)) {
    throw new GretunError(
      `${path} belongs to user ${file.uid}, in a directory that everybody can write to`,
      "Move it to a directory that is not everybody's",
    );
  }
}

function isEverybodys({ mode }: Deno.FileInfo): boolean {
  return ((mode ?? 0) & EVERYBODY_WRITES) !== 0;
}

export function directoryOf(path: string): string {
  return path.includes("/") ? path.replace(/\/[^/]*$/, "") || "/" : ".";
}

/** Also a link that leads nowhere. */
export function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Links are not followed: whoever made one chose what it leads to. */
export function whyNotOurs(path: string): string | undefined {
  const { uid, mode, isSymlink } = Deno.lstatSync(path);
  if (uid !== null && uid !== ROOT && uid !== Deno.uid()) return `belongs to user ${uid}`;
  if (isSymlink) return whyNotOurs(Deno.realPathSync(path));
  if (((mode ?? 0) & OTHERS_WRITE) !== 0) return "can be written by others";
  return undefined;
}

function readOwn(path: string): string | undefined {
  try {
    const why = Deno.lstatSync(path).isFile ? whyNotOurs(path) : "is no regular file";
    if (why) throw new GretunError(`${path} ${why}`, "Remove it");
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    if (error instanceof GretunError) throw error;
    throw new GretunError(
      `cannot read ${path}: ${errorText(error)}`,
      "Give it to the user that runs this, with chown, or remove it",
      { cause: error },
    );
  }
}

/** In one step: whoever reads sees the old text or the new one. */
function replace(path: string, text: string): void {
  const temporary = `${path}.new`;
  removeIfThere(temporary);
  Deno.writeTextFileSync(temporary, text, { mode: 0o600, createNew: true });
  // A service may have got the directory since root's program began.
  const { uid, gid } = Deno.statSync(directoryOf(path));
  if (Deno.uid() === ROOT && uid !== ROOT) Deno.chownSync(temporary, uid, gid);
  Deno.renameSync(temporary, path);
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
