/** `gretun up` on the kernel plane: needs a kernel with FOU and GRE, see boot.sh. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { Overlay } from "../overlay.ts";
import { pingWithoutLoss } from "../pings.ts";
import { checkTrust, testMeeting, twoNodes } from "../up_scenarios.ts";

// Programs start slowly in an emulator: these live through as much as they can.

testMeeting("fou", async (overlay, alice) => {
  console.log("a user-space node joins the two of the kernel plane");
  const carol = overlay.node("carol", overlay.lab.nat("nat-c"), ["--data-plane", "tun"]);
  await overlay.allDirect();
  deepStrictEqual([(await alice.report()).data_plane, (await carol.report()).data_plane], [
    ...["fou", "tun"],
  ]);
  for (const sizeBytes of [1400, 1464 - 28]) {
    await alice.ping(carol, { sizeBytes });
    await carol.ping(alice, { sizeBytes });
  }
  strictEqual(await carol.stop("SIGTERM"), 0, carol.log);
});

Deno.test("fou: what the kernel does with and without the daemons", async (t) => {
  await using overlay = await Overlay.start();
  // Without %d there is no other name to try this kernel with.
  const args = ["--iface", "overlay0"];
  const [alice, bob] = await twoNodes(overlay, ["fou", "fou"], args);

  await t.step(
    "a peer has its own address inside and reaches no other of this host's",
    async () => {
      await checkTrust(alice, bob, "overlay0");
    },
  );

  await t.step("packets go through the GRE links while both daemons are stopped", async () => {
    const before = await alice.linkCounters("overlay");
    const ip = await alice.tunnelIp();
    for (const node of [alice, bob]) node.process.kill("SIGSTOP");
    const args = ["-s", "1400", "-M", "do"];
    await pingWithoutLoss(bob.host, ip, { count: 20, gapS: 0.05, args });
    const after = await alice.linkCounters("overlay");
    for (const node of [alice, bob]) node.process.kill("SIGCONT");
    strictEqual(after[0]!.kind, "gre");
    ok(after[0]!.rxPackets >= before[0]!.rxPackets + 20, JSON.stringify({ before, after }));
    ok(after[0]!.txPackets >= before[0]!.txPackets + 20, JSON.stringify({ before, after }));
  });

  await t.step("SIGTERM removes links and the FOU port, SIGKILL leaves data flowing", async () => {
    const ports = async () => (await alice.host.run("ip", ["fou", "show"])).stdout.trim();
    match(await ports(), /^port 7777 ipproto 47$/m);
    const ip = await bob.tunnelIp();
    const ifindex = await alice.ifindex("overlay0");
    await alice.stop("SIGKILL");
    await pingWithoutLoss(alice.host, ip, { count: 3 });
    alice.start();
    await alice.directTo(1);
    strictEqual(await alice.ifindex("overlay0"), ifindex, "the link is adopted, not rebuilt");
    strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
    strictEqual(await ports(), "");
    deepStrictEqual(await alice.linkNames(), ["eth0"]);
  });
});
