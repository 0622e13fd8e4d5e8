/** A guessed path on the kernel plane, and what is left of it; more in tests/vm/long. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { fouPorts, localPort, pingBothWays, predictable } from "../../hard_nat_scenarios.ts";
import { Overlay } from "../../overlay.ts";
import { pingWithoutLoss } from "../../pings.ts";

Deno.test("fou: a daemon that was killed leaves no port of a guessed path behind", async () => {
  await using overlay = await Overlay.start();
  const [alice, bob] = predictable(overlay, "fou");
  await overlay.allDirect();
  await pingBothWays(alice, bob);
  const ports = [`${await localPort(alice)}`, "7777"].sort();
  deepStrictEqual(await fouPorts(alice), ports);
  const ip = await bob.tunnelIp();
  const ifindex = await alice.ifindex("gretun0");
  await alice.stop("SIGKILL");
  deepStrictEqual(await fouPorts(alice), ports);
  await pingWithoutLoss(alice.host, ip, { count: 3 });
  alice.start();
  await overlay.allDirect();
  await pingBothWays(alice, bob);
  strictEqual(await alice.ifindex("gretun0"), ifindex, "the link is adopted, not rebuilt");
  deepStrictEqual(await fouPorts(alice), ports, "its port is, too");
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  deepStrictEqual(await fouPorts(alice), []);
});
