/** The first module of the compiled program: which code `up` runs. */
import { equal } from "node:assert/strict";

const TOOLS = new URL("../../tools/", import.meta.url);
const SCRIPT = `console.log("script"); Deno.exit(0);`;

const NO_PROXIES = Object.fromEntries(
  ["http_proxy", "https_proxy", "all_proxy"].flatMap((
    name,
  ) => [[name, ""], [name.toUpperCase(), ""]]),
);

async function run(
  directory: string,
  entry: string,
  args: string[] = [],
  env: Record<string, string> = {},
): Promise<string> {
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--no-config", "--no-lock", `${directory}/${entry}`, ...args],
    env: { ...NO_PROXIES, CODE_CACHE: `${directory}/up.cache`, ...env },
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

Deno.test("start: up connects early to a coordinator that has an address, unless by a proxy", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const url = `http://127.0.0.1:${port}`;
  const directory = await Deno.makeTempDir();
  try {
    await Deno.copyFile(new URL("start.js", TOOLS), `${directory}/start.js`);
    await Deno.writeTextFile(`${directory}/up.cache`, "");
    const main = `const early = globalThis.earlyConnection;
      console.log(early ? [early.hostname, early.port, !!await early.connection].join() : "none");
      Deno.exit(0);`;
    await Deno.writeTextFile(`${directory}/main.js`, main);
    const there = `127.0.0.1,${port},true`;
    equal(await run(directory, "start.js", ["up", "--coordinator", url]), there);
    equal(await run(directory, "start.js", ["up", `--coordinator=${url}/`]), there);
    const nobody = await run(directory, "start.js", ["up", "http://127.0.0.1:1"]);
    equal(nobody, "127.0.0.1,1,false");
    for (
      const args of [
        ["up", url, "--check-config"],
        ["up", `http://localhost:${port}`],
        ["netcheck", url],
      ]
    ) equal(await run(directory, "start.js", args), "none", args.join(" "));
    const proxied = await run(directory, "start.js", ["up", url], {
      HTTP_PROXY: "http://192.0.2.1",
    });
    equal(proxied, "none");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
