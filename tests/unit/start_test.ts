/** The first module of the compiled program: which code `up` runs. */
import { equal } from "node:assert/strict";

const TOOLS = new URL("../../tools/", import.meta.url);
const SCRIPT = `console.log("script"); Deno.exit(0);`;

async function run(directory: string, entry: string, args: string[] = []): Promise<string> {
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--no-config", "--no-lock", `${directory}/${entry}`, ...args],
    env: { CODE_CACHE: `${directory}/up.cache` },
  }).output();
  return (new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr)).trim();
}

Deno.test("start: up runs from its code cache where V8 takes that, else from the modules", async () => {
  const directory = await Deno.makeTempDir();
  try {
    for (const name of ["start.js", "warm_up.js"]) {
      await Deno.copyFile(new URL(name, TOOLS), `${directory}/${name}`);
    }
    await Deno.writeTextFile(`${directory}/main.js`, `console.log("modules");`);
    await Deno.writeTextFile(`${directory}/up.txt`, SCRIPT);
    await Deno.writeTextFile(`${directory}/up.cache`, "");
    equal(await run(directory, "start.js", ["up"]), "modules", "none was made");

    equal(await run(directory, "warm_up.js"), "script");
    equal(await run(directory, "start.js", ["up"]), "script");
    equal(await run(directory, "start.js", ["list"]), "modules", "of another command");

    await Deno.writeTextFile(`${directory}/up.txt`, SCRIPT + " ");
    equal(await run(directory, "start.js", ["up"]), "modules", "of another script");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
