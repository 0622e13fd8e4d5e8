/** A sample of pairs of networks on the kernel plane, every kind among them. */
import { deepStrictEqual } from "node:assert/strict";
import { RtNetlink } from "../../../lib/netlink.ts";
import { formatMatrix, KINDS, Matrix, problems, SAMPLE } from "../../matrix.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

/** Long for an emulated machine that is busy besides; only a path that is not found takes it. */
const SETTLE_MS = 100_000;

Deno.test("fou: pairs of networks find the best path that there is", async () => {
  await using matrix = await Matrix.start({ plane: "fou", kinds: KINDS, settleMs: SETTLE_MS });
  const results = await matrix.runPairs(SAMPLE);
  console.log(formatMatrix(results));
  deepStrictEqual(problems(results), []);
});
