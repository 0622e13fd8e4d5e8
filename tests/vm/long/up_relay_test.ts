/** `gretun up` through a relay, on the kernel plane. */
import { SYMMETRIC } from "../../lab/mod.ts";
import { Overlay, type OverlayNode } from "../../overlay.ts";
import { pingWithoutLoss } from "../../pings.ts";
import { relayed, testRelays } from "../../relay_scenarios.ts";

testRelays("fou");

Deno.test("fou: relayed packets pass no process: they flow while all are stopped", async () => {
  await using overlay = await Overlay.start();
  const [alice, bob] = ["alice", "bob"].map((name) =>
    overlay.node(name, overlay.lab.nat(`nat-${name}`, SYMMETRIC), ["--data-plane", "fou"])
  ) as [OverlayNode, OverlayNode];
  for (const node of [alice, bob]) await relayed(node, "relay-udp");
  await alice.ping(bob);
  const ip = await bob.tunnelIp();
  const processes = [alice.process, bob.process, overlay.coordinator];
  for (const process of processes) process.kill("SIGSTOP");
  const args = ["-s", "1400", "-M", "do"];
  await pingWithoutLoss(alice.host, ip, { count: 50, gapS: 0.05, args });
  for (const process of processes) process.kill("SIGCONT");
});
