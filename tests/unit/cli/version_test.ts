/** `version` says what a bug report needs. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { versionCommand } from "../../../lib/cli/version.ts";

async function version(program: "gretun" | "gretun-coord", ...args: string[]): Promise<string> {
  let text = "";
  const io = {
    stdout: (part: string) => void (text += part),
    stderr: () => {},
    signal: new AbortController().signal,
  };
  await versionCommand(program).run(args, io);
  return text;
}

Deno.test("version: commit, runtime and planes", async () => {
  match(
    await version("gretun"),
    /^gretun \d+\.\d+\.\d+\ncommit {3}\S+\nruntime {2}deno .*\nplanes /,
  );
  const told = JSON.parse(await version("gretun", "--json"));
  match(told.runtime, /^deno \d.*, v8 \d/);
  ok(told.planes.every((plane: string) => ["fou", "tun"].includes(plane)));
  const coordinator = JSON.parse(await version("gretun-coord", "--json"));
  deepStrictEqual([coordinator.program, coordinator.planes], ["gretun-coord", undefined]);
});

Deno.test("the programs run no code that others have put into the directory of temporary files", async () => {
  for (const program of ["gretun", "gretun-coord"]) {
    const directory = await Deno.makeTempDir();
    const path = new URL(`../../../${program}`, import.meta.url).pathname;
    const command = new Deno.Command(path, { args: ["help"], env: { TMPDIR: directory } });
    // Deno would write there what it has compiled, and read it from then on.
    for (let run = 1; run <= 2; run++) strictEqual((await command.output()).code, 0);
    deepStrictEqual([...Deno.readDirSync(directory)], []);
    await Deno.remove(directory);
  }
});
