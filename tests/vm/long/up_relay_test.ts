/** `gretun up` through a relay, on the kernel plane. */
import { strictEqual } from "node:assert/strict";
import { SYMMETRIC } from "../../lab/mod.ts";
import { Overlay, type OverlayNode } from "../../overlay.ts";
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
  const ping = ["-n", "-c", "50", "-i", "0.05", "-s", "1400", "-M", "do", ip];
  const { code, stdout } = await alice.host.run("ping", ping);
  for (const process of processes) process.kill("SIGCONT");
  strictEqual(code, 0, stdout);
  strictEqual(/(\d+) received/.exec(stdout)![1], "50", stdout);
});
