/** `gretun up` over IPv6 on the kernel plane: needs a kernel with FOU and GRE, see boot.sh. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { bothOver, dualStack, OVER_IPV6, testIpv6Meeting } from "../../ipv6_scenarios.ts";
import { Overlay } from "../../overlay.ts";
import { pingWithoutLoss } from "../../pings.ts";

testIpv6Meeting("fou");

Deno.test("fou: a link over IPv6 outlives SIGKILL and is adopted, SIGTERM removes link and ports", async () => {
  await using overlay = await Overlay.start({ ipv6: true });
  const [alice, bob] = dualStack(overlay, ["fou", "fou"]);
  await bothOver(alice, bob, OVER_IPV6);
  const ports = async () => {
    const { stdout } = await alice.host.run("ip", ["fou", "show"]);
    return stdout.trim().split("\n").sort();
  };
  deepStrictEqual(await ports(), ["port 7777 ipproto 47", "port 7777 ipproto 47 -6"]);
  const [link] = await alice.linkCounters();
  strictEqual(link!.kind, "ip6gre");
  const ip = await bob.tunnelIp();
  const ifindex = await alice.ifindex("gretun0");
  await alice.stop("SIGKILL");
  await pingWithoutLoss(alice.host, ip, { count: 3 });
  alice.start();
  await alice.pathTo("bob", OVER_IPV6);
  const logs = `--- alice\n${alice.log}\n--- bob\n${bob.log}`;
  strictEqual(await alice.ifindex("gretun0"), ifindex, `the link is rebuilt\n${logs}`);
  deepStrictEqual(await alice.linkNames(), ["eth0", "gretun0"]);
  await alice.ping(bob);
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  deepStrictEqual(await ports(), [""]);
  deepStrictEqual(await alice.linkNames(), ["eth0"]);
});
