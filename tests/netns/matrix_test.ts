/** A sample of pairs of networks on the user-space plane, every kind among them. */
import { deepStrictEqual, ok } from "node:assert/strict";
import { RtNetlink } from "../../lib/netlink.ts";
import { formatMatrix, KINDS, Matrix, problems, SAMPLE } from "../matrix.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

Deno.test("tun: pairs of networks find the best path that there is, whatever strangers send", async () => {
  await using matrix = await Matrix.start({ plane: "tun", kinds: KINDS });
  await using attack = await matrix.attack();
  const results = await matrix.runPairs(SAMPLE);
  console.log(formatMatrix(results));
  for (const { host, sentPackets, sentBytes, receivedBytes } of attack.attackers) {
    console.log(`${host.name}: ${sentPackets} packets sent, ${receivedBytes} bytes came back`);
    ok(receivedBytes < sentBytes / 5, "answers are few and small");
  }
  deepStrictEqual(problems(results), []);
});
