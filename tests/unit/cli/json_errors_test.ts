/** With --json an error is JSON on standard output, besides its line on standard error. */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { errorJson, wantsJson } from "../../../lib/cli/command.ts";
import { GretunError, InterruptedError, NoDaemonError, UsageError } from "../../../lib/errors.ts";
import { DENO_RUN } from "../../deno_run.ts";

const CASES: [Error, code: string, exitCode: number][] = [
  [new GretunError("it broke", "Mend it"), "failed", 1],
  [new UsageError("it broke", "Mend it"), "usage", 2],
  [new NoDaemonError("it broke", "Mend it"), "no-daemon", 3],
  [new InterruptedError("it broke", "Mend it"), "interrupted", 130],
];

for (const [error, code, exitCode] of CASES) {
  Deno.test(`an error with code ${code} as JSON`, () => {
    deepStrictEqual(JSON.parse(errorJson(error)), {
      error: { code, exit_code: exitCode, message: "it broke", hint: "Mend it" },
    });
  });
}

Deno.test("--json is asked for in any place but behind --", () => {
  const lines: [string, boolean][] = [
    ["status --json", true],
    ["--json=true list", true],
    ["list --json=false", false],
    ["hub -- run --json", false],
  ];
  for (const [line, isAsked] of lines) strictEqual(wantsJson(line.split(" ")), isAsked, line);
});

const run = async (...words: string[]) => {
  const args = [...DENO_RUN, "main.ts", ...words];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
};

Deno.test("the program says an error on both, and no second result after a first", async () => {
  const { code, stdout, stderr } = await run("status", "--json", "--state-dir", "/nowhere");
  strictEqual(code, 3);
  match(stderr, /^Error: no daemon answers at \/nowhere\/control\.sock\. /);
  deepStrictEqual(JSON.parse(stdout).error.code, "no-daemon");
  const probe = ["probe", "--target", "127.0.0.1", "--tcp", "1", "--count", "1", "--json"];
  const refused = await run(...probe);
  strictEqual(refused.code, 1);
  strictEqual(JSON.parse(refused.stdout).error, undefined); // the report, whole and alone
});
