/** Of IPv6, what lasts too long to be tried on every kernel. */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { bothOver, dualStack, OVER_IPV4, OVER_IPV6, testIpv6 } from "../../ipv6_scenarios.ts";
import { Overlay, until } from "../../overlay.ts";

testIpv6("fou");

for (const planes of [["fou", "tun"], ["tun", "fou"]] as const) {
  Deno.test(`${planes.join(" and ")}: a kernel and a user-space node talk over IPv6`, async () => {
    await using overlay = await Overlay.start({ ipv6: true });
    const [alice, bob] = dualStack(overlay, planes);
    await bothOver(alice, bob, OVER_IPV6);
    await alice.ping(bob, { sizeBytes: 1400 });
    await bob.ping(alice, { sizeBytes: 1444 - 28 });
  });
}

Deno.test("fou: links over IPv6 of peers that are gone are removed at the next start", async () => {
  await using overlay = await Overlay.start({ ipv6: true });
  const [alice, bob] = dualStack(overlay, ["fou", "fou"]);
  await bothOver(alice, bob, OVER_IPV6);
  await alice.stop("SIGKILL");
  strictEqual(await bob.stop("SIGTERM"), 0, bob.log);
  alice.start();
  const onlyEth0 = async () => (await alice.linkNames()).join() === "eth0";
  await until("bob's link to go", onlyEth0, () => alice.log);
});

Deno.test("fou: where the kernel has no fou6, hosts meet over IPv4", async () => {
  const CONFIGURATION = "/etc/modprobe.d/no-fou6.conf";
  await using stack = new AsyncDisposableStack();
  await Deno.mkdir("/etc/modprobe.d", { recursive: true });
  await Deno.writeTextFile(CONFIGURATION, "install fou6 /bin/false\n");
  stack.defer(() => Deno.remove(CONFIGURATION));
  const remove = new Deno.Command("modprobe", { args: ["-r", "fou6"] });
  strictEqual((await remove.output()).success, true);
  const overlay = stack.use(await Overlay.start({ ipv6: true }));
  const [alice, bob] = dualStack(overlay, ["fou", "fou"]);
  await bothOver(alice, bob, OVER_IPV4);
  await alice.ping(bob);
  deepStrictEqual((await alice.report()).endpoints!.filter((text) => text.startsWith("[")), []);
  match(alice.log, /level=debug msg="no IPv6 outside" reason=.*fou6/);
});
