/** What hub and spoke agree on about data planes; kernels hold the links, and carry nothing here. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { SpokeReport } from "../../../lib/hub/mod.ts";
import { HubSim } from "./hub_sim.ts";

for (const plane of ["gre-fou", "ipip-fou"] as const) {
  Deno.test(`${plane}: a spoke takes the hub's plane; killed ends adopt their links`, async () => {
    await using sim = new HubSim();
    await sim.startHub({ dataPlane: plane });
    const { file, credential } = sim.keys();
    sim.file("alice", `${file}address 10.90.0.2\n`);
    const alice = sim.spoke("alice", { credential }, sim.site());
    await sim.up(alice);
    strictEqual((await alice.report<SpokeReport>()).data_plane, plane);
    const links = [sim.hub.linkNames, alice.linkNames];
    deepStrictEqual(links, [["hub0"], ["spoke0"]]);

    await sim.clock.runFor(1000);
    sim.hub.kill();
    deepStrictEqual(sim.hub.linkNames, ["hub0"], "the kernel goes on");
    sim.restartHub();
    await sim.clock.runFor(500);
    strictEqual(sim.hub.log.of("link adopted").length, 1);
    const { state, authentications } = (await sim.client("alice"))!;
    deepStrictEqual([state, authentications], ["up", 0]);

    alice.kill();
    sim.startSpoke("alice", alice, { credential });
    await sim.clock.runFor(2000);
    strictEqual((await sim.client("alice"))!.authentications, 1);
    deepStrictEqual([sim.hub.linkNames, alice.linkNames], links);
    await alice.stop();
    await sim.hub.stop();
    deepStrictEqual([sim.hub.linkNames, alice.linkNames], [[], []]);
    deepStrictEqual([sim.hub.host.kernel.ports, alice.host.kernel.ports], [[], []]);
  });
}

Deno.test("planes that do not fit are said so on both ends", async () => {
  await using sim = new HubSim();
  await sim.startHub();
  const { file, credential } = sim.keys();
  sim.file("alice", file);
  const alice = sim.spoke("alice", { credential, dataPlane: "gre-fou" });
  await sim.clock.runFor(5000);
  const [line] = alice.log.of("hub refused");
  deepStrictEqual([line!.reason, line!.hint], [
    ...["framing-mismatch", "start this spoke with --data-plane tun or auto"],
  ]);
  ok((await sim.refused())["framing-mismatch"]! >= 1);
  deepStrictEqual([...sim.hub.linkNames, ...alice.linkNames], []);
});

Deno.test("a spoke whose kernel has no FOU speaks the hub's GRE from user space", async () => {
  await using sim = new HubSim();
  await sim.startHub({ dataPlane: "gre-fou" });
  const { file, credential } = sim.keys();
  sim.file("alice", `${file}address 10.90.0.2\n`);
  const alice = sim.spoke("alice", { credential });
  alice.host.kernel.loadable.clear();
  await sim.up(alice);
  const report = await alice.report<SpokeReport>();
  deepStrictEqual([report.data_plane, report.mtu], ["tun", 1464]);
});
