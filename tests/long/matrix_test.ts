/** Every kind of network against every other, on the user-space plane. */
import { deepStrictEqual, ok } from "node:assert/strict";
import { RtNetlink } from "../../lib/netlink.ts";
import { formatMatrix, KINDS, Matrix, problems } from "../matrix.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

Deno.test("every pair of networks finds the best path that there is, whatever strangers send", async () => {
  await using matrix = await Matrix.start({ plane: "tun", kinds: KINDS });
  await using attack = await matrix.attack();
  const results = await matrix.run();
  console.log(formatMatrix(results));
  for (const { host, sentPackets, sentBytes, receivedBytes } of attack.attackers) {
    console.log(`${host.name}: ${sentPackets} packets sent, ${receivedBytes} bytes came back`);
    ok(receivedBytes < sentBytes / 5, "answers are few and small");
  }
  deepStrictEqual(problems(results), []);
});
