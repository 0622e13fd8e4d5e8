/** Every kind of network against every other, on the user-space plane. */
import { deepStrictEqual } from "node:assert/strict";
import { RtNetlink } from "../../lib/netlink.ts";
import { formatMatrix, KINDS, Matrix, problems } from "../matrix.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

Deno.test("every pair of networks finds the best path that there is", async () => {
  await using matrix = await Matrix.start({ plane: "tun", kinds: KINDS });
  const results = await matrix.run();
  console.log(formatMatrix(results));
  deepStrictEqual(problems(results), []);
});
