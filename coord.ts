/** The gretun-coord program. */
import { main } from "./lib/cli/coord/program.ts";

Deno.exit(await main(Deno.args));
