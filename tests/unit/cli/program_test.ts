/** What a program does about errors that nobody caught. */
import { match, strictEqual } from "node:assert/strict";
import { DENO_RUN } from "../../deno_run.ts";

async function service(bugs: number) {
  const program = new URL("../../fakes/service_process.ts", import.meta.url).pathname;
  const args = [...DENO_RUN, program, String(bugs)];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), lines: text(stderr).trim().split("\n") };
}

Deno.test("a service tells a bug on one line and goes on", async () => {
  const { code, stdout, lines } = await service(2);
  strictEqual(stdout, "served\n");
  strictEqual(code, 0);
  strictEqual(lines.length, 2);
  for (const line of lines) {
    match(line, /level=error msg="internal error, going on" error="in a (timer|promise)" where=/);
    match(line, /where="at .*service_process\.ts:\d+:\d+\)?" hint="This is a bug/);
  }
});

Deno.test("a service with one bug after the other ends, so that it can be started anew", async () => {
  const { code, stdout, lines } = await service(7);
  strictEqual(stdout, "");
  strictEqual(code, 1);
  strictEqual(lines.length, 6);
  match(lines.at(-1)!, /^Error: internal: in a (timer|promise)\. This is a bug: please report it/);
});
