/** The gretun-coord program. */
import { main } from "./lib/cli/coord/program.ts";
import { runProgram } from "./lib/cli/program.ts";

await runProgram((io) => main(Deno.args, io));
