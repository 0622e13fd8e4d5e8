/** The log as text: one line an event. docs/LOGGING.md has the words. */
import type { Clock, Log, LogFields } from "./edges.ts";

const LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = typeof LEVELS[number];

export interface LogEntry {
  timeMs: number;
  /** `fatal`: what ended the program. */
  level: LogLevel | "fatal";
  message: string;
  fields: LogFields;
}

/** Without the line feed. */
export type LineFormat = (entry: LogEntry) => string;

/** Writes lines at or above `level`, which may change, each with its line feed. */
export function textLog(
  write: (line: string) => void,
  level: LogLevel | (() => LogLevel),
  clock: Clock,
  format: LineFormat = keyValueLine,
): Log {
  const logAt = (at: LogLevel) => (message: string, fields: LogFields = {}) => {
    const from = typeof level === "string" ? level : level();
    if (LEVELS.indexOf(at) < LEVELS.indexOf(from)) return;
    write(format({ timeMs: clock.wallMs(), level: at, message, fields }) + "\n");
  };
  return {
    debug: logAt("debug"),
    info: logAt("info"),
    warn: logAt("warn"),
    error: logAt("error"),
  };
}

/** `key=value` with the time in UTC. */
export function keyValueLine({ timeMs, level, message, fields }: LogEntry): string {
  return `time=${isoTime(timeMs)} level=${level} msg=${quoted(message)}${words(fields)}`;
}

/** For people at a terminal, with the host's time of day. */
export function terminalLine({ timeMs, level, message, fields }: LogEntry): string {
  const date = new Date(timeMs);
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((number) => String(number).padStart(2, "0")).join(":");
  const mark = level === "info" ? "" : `${level === "warn" ? "warning" : level}: `;
  return `${time} ${mark}${escaped(message)}${words(fields)}`;
}

/** One JSON object. */
export function jsonLine({ timeMs, level, message, fields }: LogEntry): string {
  const entry = { time: isoTime(timeMs), level, msg: message, ...fields };
  return escaped(JSON.stringify(entry));
}

/** Of syslog(3). */
const PRIORITIES = { debug: 7, info: 6, warn: 4, error: 3, fatal: 2 } as const;

/** With the priority that systemd's journal takes off again, as sd-daemon(3) has it. */
export function journalLine(format: LineFormat): LineFormat {
  return (entry) => `<${PRIORITIES[entry.level]}>${format(entry)}`;
}

/** Since when something lasts, as the log tells times. */
export function sinceText(clock: Clock, sinceMs: number): string {
  return isoTime(clock.wallMs() - (clock.nowMs() - sinceMs));
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

function words(fields: LogFields): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}=${quoted(String(value))}`).join("");
}

/** What others sent must not look like another field or line. */
function quoted(text: string): string {
  return /^[\w.:/@,+-]+$/.test(text) ? text : escaped(JSON.stringify(text));
}

/** Nor may it reach the terminal as an escape sequence, or turn its text around. */
function escaped(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) =>
    [...Array(character.length).keys()]
      .map((i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`).join(""));
}

/** The fields of a {@link keyValueLine}, the time, level and message among them. */
export function parseLogLine(line: string): Record<string, string> {
  const fields: Record<string, string> = {};
  for (const [, key, value] of line.matchAll(/(\w+)=("(?:[^"\\]|\\.)*"|\S*)/g)) {
    fields[key!] = value!.startsWith('"') ? JSON.parse(value!) : value!;
  }
  return fields;
}
