/** Secrets come from files that their owner alone can read, never from the command line. */
import { errorText, GretunError, UsageError } from "../errors.ts";
import { refuseEverybodys } from "../state_dir.ts";

/** Shells give `<(command)` such a name. */
const PIPE_PATH = /^\/(dev|proc\/self)\/(fd\/|stdin$)/;

/** Opening a pipe, or reading a device, could take for ever. Throws `GretunError` for everybody's. */
export function readText(path: string): { text: string; mode: number } {
  const { isFile, mode } = Deno.statSync(path);
  if (!isFile && !PIPE_PATH.test(path)) throw new Error("it is no regular file");
  refuseEverybodys(path);
  return { text: Deno.readTextFileSync(path), mode: mode ?? 0 };
}

/** The first line that is no comment, as keygen writes it or bare. Throws `UsageError`. */
export function readSecretFile(path: string): string {
  let text, mode;
  try {
    ({ text, mode } = readText(path));
  } catch (cause) {
    if (cause instanceof GretunError) throw cause;
    throw new UsageError(`cannot read ${path}: ${errorText(cause)}`, "Check the path", { cause });
  }
  if ((mode & 0o077) !== 0) {
    throw new UsageError(`${path} is a secret and others can read it`, `Run: chmod 600 ${path}`);
  }
  // As keygen writes it, or bare.
  const line = text.split("\n").find((each) => each.trim() !== "" && !each.startsWith("#")) ?? "";
  const secret = line.trim().replace(/^private-key\s+/, "");
  if (secret === "") throw new UsageError(`${path} is empty`, "Put the secret into it");
  return secret;
}
