/** The log of a long-running command: its flags, and where its lines go. */
import { type Log, systemClock } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import {
  journalLine,
  jsonLine,
  keyValueLine,
  type LineFormat,
  type LogLevel,
  terminalLine,
  textLog,
} from "../log.ts";
import { type CommandIo, errorLine } from "./command.ts";
import { flag } from "./flags.ts";

export const LOG_FLAGS = {
  "log-format": flag.choice(
    ["text", "json"],
    "text",
    "log lines as words with key=value, or one JSON object each",
  ),
  verbose: flag.on("log more", { short: "v" }),
} as const;

export type LogFormat = "text" | "json";

/** Both may change while the program runs. */
export function openLog(
  io: CommandIo,
  format: LogFormat | (() => LogFormat),
  level: LogLevel | (() => LogLevel),
): Log {
  const formatNow = typeof format === "function" ? format : () => format;
  io.logsAs?.(formatNow);
  return textLog(
    io.stderr,
    level,
    systemClock,
    (line) => lineFormat(formatNow(), io.stderrKind)(line),
  );
}

/** What standard error is. */
export type StderrKind = "journal" | "terminal" | "other";

export function lineFormat(format: LogFormat, stderr: StderrKind = "other"): LineFormat {
  const text = stderr === "terminal" ? terminalLine : keyValueLine;
  const line = format === "json" ? jsonLine : text;
  return stderr === "journal" ? journalLine(line) : line;
}

/** The line of what ends the program: as text the same for commands that have no log. */
export function fatalLine(error: unknown, format: LogFormat, stderr: StderrKind): string {
  const fields = error instanceof GretunError ? { hint: error.hint } : { bug: true };
  const text: LineFormat = () => errorLine(error);
  const line = format === "json" ? jsonLine : text;
  return (stderr === "journal" ? journalLine(line) : line)({
    timeMs: systemClock.wallMs(),
    level: "fatal",
    message: errorText(error),
    fields,
  });
}

/**
 * systemd says in $JOURNAL_STREAM which stream is its journal, as DEVICE:INODE: whoever sends the
 * output elsewhere does not take the variable away.
 */
export function stderrKind(
  journalStream: string | undefined,
  stderr: { isTerminal(): boolean; stat(): { dev: number; ino: number | null } },
): StderrKind {
  if (stderr.isTerminal()) return "terminal";
  if (journalStream === undefined) return "other";
  const { dev, ino } = stderr.stat();
  return journalStream === `${dev}:${ino}` ? "journal" : "other";
}
