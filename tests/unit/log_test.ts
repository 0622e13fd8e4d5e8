import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import {
  journalLine,
  jsonLine,
  keyValueLine,
  parseLogLine,
  terminalLine,
  textLog,
} from "../../lib/log.ts";
import { systemClock } from "../../lib/edges.ts";

Deno.test("textLog() keeps what others sent inside its field, and parseLogLine() gives it back", () => {
  const lines: string[] = [];
  const clock = { ...systemClock, wallMs: () => 0 };
  const log = textLog((line) => lines.push(line), "info", clock);
  const hostile = 'x level=error\nmsg="y" \\ \u001b[31m';
  log.warn("peer state change", {
    peer: hostile,
    port: 7777,
    endpoint: "[2001:db8::1]:7",
    no: undefined,
  });
  log.debug("not written");
  strictEqual(lines.length, 1);
  strictEqual(lines[0]!.trimEnd().split("\n").length, 1);
  deepStrictEqual(parseLogLine(lines[0]!), {
    time: "1970-01-01T00:00:00.000Z",
    level: "warn",
    msg: "peer state change",
    peer: hostile,
    port: "7777",
    endpoint: "[2001:db8::1]:7",
  });
});

const NAME = 'a "b"\u001b[31m\u202e\u{e0001}\u2028';
const ENTRY = {
  timeMs: 0,
  level: "warn",
  message: "peer still away",
  fields: { peer: NAME, key: "0a1b2c3d", port: 7777, none: undefined },
} as const;

Deno.test("every format keeps a hostile name in one line, without control characters", () => {
  for (const format of [keyValueLine, terminalLine, jsonLine, journalLine(jsonLine)]) {
    const line = format(ENTRY);
    ok(!/[\p{C}\p{Zl}\p{Zp}]/u.test(line), line);
  }
  strictEqual(parseLogLine(keyValueLine(ENTRY)).peer, NAME);
  deepStrictEqual(JSON.parse(jsonLine(ENTRY)), {
    time: "1970-01-01T00:00:00.000Z",
    level: "warn",
    msg: "peer still away",
    peer: NAME,
    key: "0a1b2c3d",
    port: 7777,
  });
});

Deno.test("a line for the journal begins with its priority", () => {
  const levels = ["debug", "info", "warn", "error", "fatal"] as const;
  const line = journalLine(({ message }) => message);
  deepStrictEqual(
    levels.map((level) => line({ timeMs: 0, level, message: "x", fields: {} })),
    ["<7>x", "<6>x", "<4>x", "<3>x", "<2>x"],
  );
});

Deno.test("a terminal gets the time of day and the message first", () => {
  const line = (level: "info" | "warn") =>
    terminalLine({ timeMs: 0, level, message: "registered", fields: { coord: "http://a" } });
  match(line("info"), /^\d\d:\d\d:\d\d registered coord=http:\/\/a$/);
  match(line("warn"), /^\d\d:\d\d:\d\d warning: registered /);
});
