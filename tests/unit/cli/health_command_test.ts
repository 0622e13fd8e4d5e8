/** When health calls an overlay dead. */
import { strictEqual } from "node:assert/strict";
import { overlayFault } from "../../../lib/cli/gretun/health.ts";
import type { DaemonReport, PeerReport } from "../../../lib/daemon/control.ts";

const report = (peers: Partial<PeerReport>[], state: DaemonReport["state"] = "running") =>
  ({ state, peers }) as DaemonReport;

Deno.test("overlayFault() is there when no peer is reached that could be", () => {
  const [reached, lost, away] = [{ path: "direct" } as const, {}, { offline: true }];
  const cases: [DaemonReport, string | undefined][] = [
    [report([]), undefined],
    [report([reached]), undefined],
    [report([reached, lost, away]), undefined],
    [report([away, away]), undefined],
    [report([lost]), "none of 1 peers is reached"],
    [report([lost, away]), "none of 1 peers is reached"],
    [report([], "waiting for the coordinator"), "waiting for the coordinator"],
  ];
  for (const [given, fault] of cases) strictEqual(overlayFault(given), fault);
});
