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

/** A running daemon was asked for and there is none: the program exits with 3 instead of 1. */
export class NoDaemonError extends GretunError {
  override name = "NoDaemonError";
}

/** The text of whatever was thrown, on one line, without the runtime's number, call and path. */
export function errorText(error: unknown): string {
  const text = (error instanceof Error ? error.message : String(error))
    .replace(/ \(os error \d+\)(: \w+ '[^']*'$)?/g, "");
  return text.replace(/\s+/g, " ").trim();
}
