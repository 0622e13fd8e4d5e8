/** What `gretun peers` prints of what is wrong, whether there are peers or not. */
import { strictEqual } from "node:assert/strict";
import { peersText } from "../../../lib/cli/gretun/peers.ts";
import type { DaemonReport } from "../../../lib/daemon/control.ts";
import type { NodeKey } from "../../../lib/keys.ts";

Deno.test("peers: findings and a silent coordinator are told without peers, too", () => {
  const report: DaemonReport = {
    ...{ node_key: "236915e6".repeat(8) as NodeKey, node_name: "alice" },
    ...{ coordinator: "http://203.0.113.1:8443/", state: "waiting for the coordinator" },
    coordinator_error: "no answer within 10 s",
    findings: [{ text: "clocks differ", remedy: "Set this host's" }],
    peers: [],
  };
  strictEqual(
    peersText(report),
    `No peers yet: waiting for the coordinator.
clocks differ. Set this host's.
coordinator: no answer within 10 s.
`,
  );
});
