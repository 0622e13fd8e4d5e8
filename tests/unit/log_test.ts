import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseLogLine, textLog } from "../../lib/log.ts";
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
