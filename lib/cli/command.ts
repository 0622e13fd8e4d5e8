/** What a subcommand is to the programs, and how an error becomes one line and an exit code. */
import {
  asUserError,
  errorText,
  GretunError,
  InterruptedError,
  NoDaemonError,
  UsageError,
} from "../errors.ts";

/** The world as a command sees it. */
export interface CommandIo {
  stdout: (text: string) => void;
  stderr: (text: string) => void;
  /** Aborted when the program is to stop. */
  signal: AbortSignal;
  stderrKind?: "journal" | "terminal" | "other";
  /** From now on everything on standard error has the format that this tells then. */
  logsAs?: (format: () => "text" | "json") => void;
  /** Set by a command that has found another use for SIGHUP than to stop. */
  outlivesHangup?: boolean;
}

export interface Command {
  /** One line for the program's overview. */
  summary: string;
  help(): string;
  /** Signals that it hears for a purpose of its own; others stop it. */
  ownSignals?: readonly Deno.Signal[];
  /** The exit code; throws {@link GretunError} for what the user should read. */
  run(args: string[], io: CommandIo): Promise<number>;
}

export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
export const EXIT_NO_DAEMON = 3;
export const EXIT_INTERRUPTED = 130;

export function exitCode(error: unknown): number {
  return classOf(asUserError(error)).exit;
}

function classOf(error: unknown): { code: string; exit: number } {
  if (error instanceof UsageError) return { code: "usage", exit: EXIT_USAGE };
  if (error instanceof NoDaemonError) return { code: "no-daemon", exit: EXIT_NO_DAEMON };
  if (error instanceof InterruptedError) return { code: "interrupted", exit: EXIT_INTERRUPTED };
  return { code: error instanceof GretunError ? "failed" : "internal", exit: EXIT_FAILURE };
}

/** For who asked for JSON. */
export function errorJson(thrown: unknown): string {
  const error = asUserError(thrown);
  const { code, exit } = classOf(error);
  const hint = error instanceof GretunError ? error.hint : "This is a bug: please report it";
  return JSON.stringify({ error: { code, exit_code: exit, message: errorText(error), hint } }) +
    "\n";
}

/** Whether a command line asks for JSON; what follows "--" is another program's. */
export function wantsJson(words: readonly string[]): boolean {
  const end = words.indexOf("--");
  const own = end < 0 ? words : words.slice(0, end);
  return own.includes("--json") || own.includes("--json=true");
}

/** "Error: what: why. What to do next." on one line. */
export function errorLine(thrown: unknown): string {
  const error = asUserError(thrown);
  const text = errorText(error);
  if (error instanceof GretunError) {
    return `Error: ${text}. ${error.hint}${error.hint.endsWith("?") ? "" : "."}`;
  }
  return `Error: internal: ${text}. This is a bug: please report it with the command you ran.`;
}
