/**
 * Errors a user can meet. The message says what failed and why, the hint what to do next; the
 * programs print both on one line. Everything that is not a {@link GretunError} is a bug.
 */
export class GretunError extends Error {
  override name = "GretunError";
  /** What the user should do next: an imperative sentence without a final period. */
  readonly hint: string;

  constructor(message: string, hint: string, options?: { cause?: unknown }) {
    super(message, options);
    this.hint = hint;
  }
}

/** The command line was wrong: the program exits with 2 instead of 1. */
export class UsageError extends GretunError {
  override name = "UsageError";
}

/** The user stopped it, as by Ctrl-C: the program exits with 130 instead of 1. */
export class InterruptedError extends GretunError {
  override name = "InterruptedError";
}

/** A running daemon was asked for and there is none: the program exits with 3 instead of 1. */
export class NoDaemonError extends GretunError {
  override name = "NoDaemonError";
}

/** What the runtime says in its own terms, and what it means. */
const RUNTIME_TEXTS: [pattern: RegExp, meaning: string][] = [
  [/ \(os error \d+\)(: \w+ '[^']*'$)?/g, ""],
  // It keeps /proc, /sys and the like to programs that may do everything.
  [/Requires \w+ access to ("[^"]*"|<[^>]*>).*$/s, "not a place for files"],
  [/^getaddrinfo (?:ENOTFOUND|EAI_NONAME) (\S+)$/, "there is no such name as $1"],
  [/^getaddrinfo EAI_AGAIN\b.*$/s, "no DNS server answers"],
  [/\bkeys may not be consistent: KeyMismatch\b/, "the key is not the certificate's"],
  [/\bOther\(OtherError\((\w+)\)\)/g, "$1"],
];

/** What a host may run out of, wherever that is met: no bug of ours. */
const SHORTAGES: [pattern: RegExp, hint: string][] = [
  [
    /Too many open files|EMFILE|ENFILE/,
    "Let this program open more: ulimit -n 1024, or LimitNOFILE= of its service",
  ],
  [
    /No space left on device|ENOSPC/,
    "Free space, or inodes, in /run, /tmp and the state directory",
  ],
  [/Read-only file system|EROFS/, "Make /run and the state directory writable"],
  [
    /Cannot allocate memory|Resource temporarily unavailable|ENOMEM/,
    "Allow this program more memory, or more processes",
  ],
];

/** As an error that a user can meet, if it is one. */
export function asUserError(error: unknown): unknown {
  if (error instanceof GretunError) return error;
  const text = errorText(error);
  const hint = SHORTAGES.find(([pattern]) => pattern.test(text))?.[1];
  return hint === undefined ? error : new GretunError(text, hint, { cause: error });
}

/** Fields of the log: why, and what to do where that is known. */
export function errorFields(error: unknown): { error: string; hint?: string } {
  const meant = asUserError(error);
  return {
    error: errorText(meant),
    ...(meant instanceof GretunError ? { hint: meant.hint } : {}),
  };
}

/** The text of whatever was thrown, on one line, without the runtime's number, call and path. */
export function errorText(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const plain = RUNTIME_TEXTS.reduce((t, [pattern, meaning]) => t.replace(pattern, meaning), text);
  return plain.replace(/\s+/g, " ").trim();
}
