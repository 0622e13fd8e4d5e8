/** What `gretun wait` waits for. */
import { strictEqual } from "node:assert/strict";
import type { Ip } from "../../../lib/addr.ts";
import { missingIn } from "../../../lib/cli/gretun/wait.ts";
import type { DaemonReport } from "../../../lib/daemon/control.ts";
import type { NodeKey } from "../../../lib/keys.ts";

const KEY = "ab".repeat(32) as NodeKey;
const report: DaemonReport = {
  ...{ node_key: KEY, node_name: "alice", coordinator: "http://x/", state: "running" },
  peers: [
    {
      ...{ name: "bob", node_key: KEY, tunnel_ip: "100.64.0.2" as Ip },
      ...{ state: "direct", path: "direct" },
    },
    { name: "carol", node_key: KEY, tunnel_ip: "100.64.0.3" as Ip, state: "punching" },
  ],
};

const CASES: [string, DaemonReport, string | undefined, string | undefined][] = [
  ["a daemon that runs", report, undefined, undefined],
  [
    "a daemon without an answer of its coordinator",
    { ...report, state: "waiting for the coordinator" },
    undefined,
    "waiting for the coordinator",
  ],
  ["a peer with a path", report, "100.64.0.2", undefined],
  ["a peer without one", report, "carol", "carol is connecting"],
  ["a peer that nobody knows", report, "dave", 'no peer "dave" is known'],
];

for (const [name, daemon, peer, missing] of CASES) {
  Deno.test(`gretun wait: ${name}`, () => strictEqual(missingIn(daemon, peer), missing));
}
