/** What standard error is, and what a program says at its end. */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { fatalLine, stderrKind } from "../../../lib/cli/log.ts";
import { UsageError } from "../../../lib/errors.ts";

const ERROR = new UsageError("--port 0 is out of range (1-65535)", "Give a port");

Deno.test("standard error is the journal only if it is that very stream", () => {
  const kind = (journal: string | undefined, isTerminal = false) =>
    stderrKind(journal, { isTerminal: () => isTerminal, stat: () => ({ dev: 8, ino: 42 }) });
  deepStrictEqual(
    [kind("8:42"), kind("8:43"), kind(undefined), kind("8:42", true)],
    ["journal", "other", "other", "terminal"],
  );
});

Deno.test("the fatal line has the format of the others", () => {
  const text = "Error: --port 0 is out of range (1-65535). Give a port.";
  strictEqual(fatalLine(ERROR, "text", "other"), text);
  strictEqual(fatalLine(ERROR, "text", "journal"), `<2>${text}`);
  const { time: _, ...fields } = JSON.parse(fatalLine(ERROR, "json", "terminal"));
  deepStrictEqual(fields, { level: "fatal", msg: ERROR.message, hint: ERROR.hint });
  match(fatalLine(new TypeError("x"), "json", "other"), /"msg":"x","bug":true/);
});
