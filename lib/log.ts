/** The log as text: one `key=value` line an event, with its time in UTC. */
import type { Clock, Log, LogFields } from "./edges.ts";

const LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = typeof LEVELS[number];

/** Writes lines at or above `level`, which may change, each with its line feed. */
export function textLog(
  write: (line: string) => void,
  level: LogLevel | (() => LogLevel),
  clock: Clock,
): Log {
  const logAt = (at: LogLevel) => (message: string, fields: LogFields = {}) => {
    const from = typeof level === "string" ? level : level();
    if (LEVELS.indexOf(at) < LEVELS.indexOf(from)) return;
    const time = new Date(clock.wallMs()).toISOString();
    const words = Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => ` ${key}=${quoted(String(value))}`);
    write(`time=${time} level=${at} msg=${quoted(message)}${words.join("")}\n`);
  };
  return {
    debug: logAt("debug"),
    info: logAt("info"),
    warn: logAt("warn"),
    error: logAt("error"),
  };
}

/** What others sent must not look like another field or line. */
function quoted(text: string): string {
  return /^[\w.:/@,+-]+$/.test(text) ? text : JSON.stringify(text);
}

/** The fields of a line of {@link textLog}, the time, level and message among them. */
export function parseLogLine(line: string): Record<string, string> {
  const fields: Record<string, string> = {};
  for (const [, key, value] of line.matchAll(/(\w+)=("(?:[^"\\]|\\.)*"|\S*)/g)) {
    fields[key!] = value!.startsWith('"') ? JSON.parse(value!) : value!;
  }
  return fields;
}
