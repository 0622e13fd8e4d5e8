/** A service with bugs: so many promises are rejected that nobody looks at, and one timer throws. */
import { runProgram } from "../../lib/cli/program.ts";

await runProgram(async (io) => {
  await io.serve();
  setTimeout(() => {
    throw new TypeError("in a timer");
  });
  for (let i = 1; i < Number(Deno.args[0]); i++) void Promise.reject(new TypeError("in a promise"));
  await new Promise((resolve) => setTimeout(resolve, 100));
  if (!io.signal.aborted) io.stdout("served\n");
  return 0;
});
