/** `gretun up` through a relay, on the user-space plane. */
import { strictEqual } from "node:assert/strict";
import { SYMMETRIC } from "../lab/mod.ts";
import { Overlay } from "../overlay.ts";
import { relayed, testForwardingPrograms, testRelays } from "../relay_scenarios.ts";

testForwardingPrograms("tun");
testRelays("tun");

Deno.test("tun: of two relays the nearer one is taken", async () => {
  await using overlay = await Overlay.start();
  // More than a busy machine adds to the way to the near one.
  const relays = await overlay.startRelays({ name: "far", delayMs: 500 }, "near");
  const [, near] = [...relays.keys()];
  const args = ["--data-plane", "tun"];
  const nodes = ["alice", "bob"].map((name) =>
    overlay.node(name, overlay.lab.nat(`nat-${name}`, SYMMETRIC), args)
  );
  for (const node of nodes) {
    await relayed(node, "relay-udp");
    strictEqual((await node.report()).peers[0]!.endpoint!.split(":")[0], near, node.log);
  }
});
