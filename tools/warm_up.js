/** Runs the script of start.js without a code cache, and at its end writes one to $CODE_CACHE. */
import { createRequire } from "node:module";
import { Script } from "node:vm";

const source = Deno.readTextFileSync(new URL("up.txt", import.meta.url));
const script = new Script(source, { filename: "gretun" });
const { exit } = Deno;
Deno.exit = (code) => {
  Deno.writeFileSync(Deno.env.get("CODE_CACHE"), script.createCachedData());
  exit(code);
};
globalThis.require = createRequire(import.meta.url);
script.runInThisContext();
