/** The kernel's counter of what its reverse path filter dropped. */
import { strictEqual } from "node:assert/strict";
import { ReversePath, reversePathDrops } from "../../../lib/daemon/own/reverse_path.ts";

const netstat = (count: number) =>
  `TcpExt: SyncookiesSent IPReversePathFilter TCPTimeouts\nTcpExt: 7 ${count} 8\n` +
  "IpExt: InNoRoutes InTruncatedPkts\nIpExt: 1 2\n";

Deno.test("reversePathDrops() is the number below its name", () => {
  strictEqual(reversePathDrops(netstat(42)), 42);
  strictEqual(reversePathDrops("IpExt: InNoRoutes\nIpExt: 1\n"), 0);
  strictEqual(reversePathDrops(""), 0);
});

Deno.test("ReversePath tells what is new", () => {
  let count = 3;
  const path = new ReversePath(() => netstat(count));
  strictEqual(path.look(), 0);
  count = 5;
  strictEqual(path.look(), 2);
  strictEqual(path.look(), 0);
});
