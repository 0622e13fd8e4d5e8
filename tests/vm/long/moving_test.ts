/** Hosts that move, paths that die and lines that lose, on the kernel plane. */
import { ok } from "node:assert/strict";
import { loadModule } from "../../../lib/linux/mod.ts";
import { testLossyLine, testMoving } from "../../moving_scenarios.ts";

testMoving("fou");

testLossyLine("fou", async (lab) => {
  const nat = lab.nat("nat-a");
  ok(loadModule("sch_netem"));
  const netem = ["qdisc", "add", "dev", "out", "root", "netem", "delay", "200ms", "loss", "20%"];
  const { code, stderr } = await nat.run("tc", netem);
  ok(code === 0, stderr);
  return nat;
});
