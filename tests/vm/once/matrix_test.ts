/** A sample of pairs of networks on the kernel plane, every kind among them. */
import { deepStrictEqual } from "node:assert/strict";
import { RtNetlink } from "../../../lib/netlink.ts";
import { formatMatrix, KINDS, Matrix, problems } from "../../matrix.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const PAIRS = [
  ["public", "udp-443"],
  ["cone", "hard"],
  ["restricted", "hard-seq"],
  ["easy", "easy"],
  ["adm", "cgn-cone"],
  ["cgn-easy", "open-input"],
  ["cgn-hard", "far"],
  ["same-nat", "same-nat"],
  ["same-cgn", "same-cgn"],
  ["hairpin", "hairpin"],
  ["tcp-443", "mtu-1280"],
  ["dual", "mtu-1492"],
  ["ipv6", "dual"],
] as const;

Deno.test("fou: pairs of networks find the best path that there is", async () => {
  await using matrix = await Matrix.start({ plane: "fou", kinds: KINDS });
  const results = await matrix.runPairs(PAIRS);
  console.log(formatMatrix(results));
  deepStrictEqual(problems(results), []);
});
