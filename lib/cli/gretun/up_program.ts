/** The program as `gretun up` alone, which tools/start.js runs with a code cache: what is smaller starts sooner. */
import { runCommand, runProgram } from "../program.ts";
import { command } from "./up.ts";

void runProgram((io) => runCommand(command, Deno.args.slice(1), io));
