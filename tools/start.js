/**
 * The first module of the compiled gretun. `up` runs as one script whose functions V8 need not compile:
 * its code cache comes with the program, see compile.sh. Where V8 takes none (it compares its version, its
 * flags and the script), and for all other commands, it is the modules as ever.
 */
const textOf = (name) => Deno.readTextFileSync(new URL(name, import.meta.url));

async function runCached() {
  const cachedData = Deno.readFileSync(new URL("up.cache", import.meta.url));
  if (cachedData.length === 0) return false;
  const [{ Script }, { createRequire }] = await Promise.all([
    import("node:vm"),
    import("node:module"),
  ]);
  const script = new Script(textOf("up.txt"), { filename: "gretun", cachedData });
  if (script.cachedDataRejected) return false;
  globalThis.require = createRequire(import.meta.url);
  script.runInThisContext();
  return true;
}

if (Deno.args[0] !== "up" || !await runCached()) await import("./main.js");
