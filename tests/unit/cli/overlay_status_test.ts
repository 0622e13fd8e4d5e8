/** What `gretun status` prints in the situations that people look at it in; 80 columns wide. */
import { ok, strictEqual } from "node:assert/strict";
import { errorLine, exitCode } from "../../../lib/cli/command.ts";
import { command } from "../../../lib/cli/gretun/status.ts";
import { isHealthy, isNamed, overlayStatus } from "../../../lib/cli/gretun/overlay_status.ts";
import type { DaemonReport, PeerReport } from "../../../lib/daemon/control.ts";
import type { Ip } from "../../../lib/addr.ts";
import type { NodeKey } from "../../../lib/keys.ts";

const KEY = "236915e6".repeat(8) as NodeKey;

const peer = (change: Partial<PeerReport>): PeerReport => ({
  ...{ name: "bob", node_key: KEY, tunnel_ip: "100.64.0.2" as Ip, state: "direct" },
  ...{ rx_bytes: 1_234_567, tx_bytes: 890 },
  ...change,
});

const DIRECT = peer({ path: "direct", endpoint: "203.0.113.4:7777", rtt_ms: 20.4 });

const report = (change: Partial<DaemonReport>): DaemonReport => ({
  ...{ node_key: KEY, node_name: "alice", coordinator: "http://203.0.113.1:8443/" },
  ...{ state: "running", tunnel_ip: "100.64.0.1/24", data_plane: "fou", port: 7777 },
  endpoints: ["203.0.113.3:7777", "10.0.1.2:7777"],
  nat: { mapping: "easy" },
  coordinator_since_s: 7500,
  peers: [DIRECT],
  ...change,
});

const CASES: [name: string, DaemonReport, isWell: boolean, text: string][] = [
  [
    "all is well",
    report({}),
    true,
    `Node:         alice, 100.64.0.1/24
Key:          236915e6236915e6
Coordinator:  http://203.0.113.1:8443/
              connected for 2 h
Data plane:   kernel (fou), UDP port 7777
Endpoints:    203.0.113.3:7777, 10.0.1.2:7777
NAT:          endpoint-independent mapping, or none

PEER  ADDRESS     PATH                     RTT    RECEIVED / SENT
bob   100.64.0.2  direct 203.0.113.4:7777  20 ms  1.2 MB / 890 B
`,
  ],
  [
    "one path is idle, and another does not answer",
    report({
      peers: [
        { ...DIRECT, path_heard_s: 14 },
        { ...DIRECT, name: "eve", path_heard_s: 4, path_unanswered_s: 1 },
      ],
    }),
    true,
    `Node:         alice, 100.64.0.1/24
Key:          236915e6236915e6
Coordinator:  http://203.0.113.1:8443/
              connected for 2 h
Data plane:   kernel (fou), UDP port 7777
Endpoints:    203.0.113.3:7777, 10.0.1.2:7777
NAT:          endpoint-independent mapping, or none

PEER  ADDRESS     PATH                     RTT, HEARD   RECEIVED / SENT
bob   100.64.0.2  direct 203.0.113.4:7777  20 ms, 14 s  1.2 MB / 890 B
eve   100.64.0.2  direct 203.0.113.4:7777  20 ms        1.2 MB / 890 B
  pings not answered for 1 s
`,
  ],
  [
    "the coordinator is away, and a tunnel works on",
    report({
      coordinator_error: "no answer within 10 s",
      coordinator_since_s: 200,
      findings: [{
        text: "the coordinator does not answer",
        remedy: "Check that gretun-coord runs, and that TCP port 8443 gets there",
      }],
    }),
    false,
    `Node:         alice, 100.64.0.1/24
Key:          236915e6236915e6
Coordinator:  http://203.0.113.1:8443/
              no answer within 10 s, for 3 min
Data plane:   kernel (fou), UDP port 7777
Endpoints:    203.0.113.3:7777, 10.0.1.2:7777
NAT:          endpoint-independent mapping, or none

PEER  ADDRESS     PATH                     RTT    RECEIVED / SENT
bob   100.64.0.2  direct 203.0.113.4:7777  20 ms  1.2 MB / 890 B

Findings:
- the coordinator does not answer. Check that gretun-coord runs, and that TCP
  port 8443 gets there.
`,
  ],
  [
    "a path carries less than its route says, which the tunnel copes with",
    report({
      endpoints: [],
      findings: [{ text: "bob: the path is narrow", remedy: "None is needed", harmless: true }],
    }),
    true,
    `Node:         alice, 100.64.0.1/24
Key:          236915e6236915e6
Coordinator:  http://203.0.113.1:8443/
              connected for 2 h
Data plane:   kernel (fou), UDP port 7777
Endpoints:    none found yet
NAT:          endpoint-independent mapping, or none

PEER  ADDRESS     PATH                     RTT    RECEIVED / SENT
bob   100.64.0.2  direct 203.0.113.4:7777  20 ms  1.2 MB / 890 B

Findings:
- bob: the path is narrow. None is needed.
`,
  ],
  [
    "UDP is blocked, one peer is relayed, one connecting, one away",
    report({
      data_plane: "tun",
      endpoints: [],
      nat: { mapping: "hard", port_delta: 2 },
      peers: [
        peer({ path: "relay-tcp", endpoint: "127.0.0.1:40001", why_not_direct: "UDP is blocked" }),
        peer({ name: "carol\u001b[31m", path: "relay-udp", endpoint: "203.0.113.1:50001" }),
        peer({ name: "dave", state: "punching", rx_bytes: 0, tx_bytes: 0 }),
        peer({ name: "a-rather-long-host-name", state: "punching", offline: true }),
        peer({ name: "eve", state: "punching", offline: true, last_seen_s: 3 * 3600 }),
      ],
    }),
    false,
    `Node:         alice, 100.64.0.1/24
Key:          236915e6236915e6
Coordinator:  http://203.0.113.1:8443/
              connected for 2 h
Data plane:   user space (tun), UDP port 7777
Endpoints:    none found yet
NAT:          address- or port-dependent mapping, ports in steps of 2

PEER                  ADDRESS     PATH                      RTT  RECEIVED / SENT
bob                   100.64.0.2  relay by WebSocket        -    1.2 MB / 890 B
  not direct: UDP is blocked
carol�[31m            100.64.0.2  relay 203.0.113.1:50001   -    1.2 MB / 890 B
dave                  100.64.0.2  connecting                -    0 B / 0 B
a-rather-long-host-…  100.64.0.2  offline                   -    1.2 MB / 890 B
eve                   100.64.0.2  offline                   -    1.2 MB / 890 B
  offline: last seen 3 h ago
`,
  ],
  [
    "before the first answer of the coordinator",
    {
      ...{ node_key: KEY, node_name: "alice", coordinator: "http://203.0.113.1:8443/" },
      ...{ state: "waiting for the coordinator", peers: [] },
    },
    false,
    `Node:         alice, no address yet
Key:          236915e6236915e6
Coordinator:  http://203.0.113.1:8443/
              waiting for the coordinator
Data plane:   none, UDP port -
Endpoints:    none found yet
NAT:          not known yet

No peers.
`,
  ],
];

for (const [name, daemon, isWell, text] of CASES) {
  Deno.test(`gretun status: ${name}`, () => {
    strictEqual(overlayStatus(daemon), text);
    strictEqual(isHealthy(daemon), isWell);
  });
}

Deno.test("gretun status of 50 peers stays within 80 columns", () => {
  const peers = Array.from({ length: 50 }, (_, i) =>
    peer({
      name: `host-with-a-name-${i}`,
      tunnel_ip: `100.64.255.${100 + i}` as Ip,
      path: "direct",
      endpoint: "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535",
      rtt_ms: 1234.5,
      rx_bytes: 999_999_999_999,
      tx_bytes: 1e15,
    }));
  const lines = overlayStatus(report({ peers })).split("\n");
  ok(lines.every((line) => line.length <= 80), lines.find((line) => line.length > 80));
  strictEqual(lines.filter((line) => line.startsWith("host-")).length, 50);
  // An address that does not fit is not cut, for it is what somebody looks for.
  const endpoint = /^ {2}direct: \[2001:db8:1234:5678:9abc:def0:1234:5678\]:65535$/;
  strictEqual(lines.filter((line) => endpoint.test(line)).length, 50);
  strictEqual(
    lines[8],
    "PEER                 ADDRESS         PATH               RTT      RECEIVED / SENT",
  );
});

Deno.test("gretun status without a daemon: one line, and exit code 3", async () => {
  const io = { stdout: () => {}, stderr: () => {}, signal: new AbortController().signal };
  const error = await command.run(["--state-dir", "/nowhere"], io).catch((e) => e);
  strictEqual(exitCode(error), 3);
  strictEqual(
    errorLine(error),
    "Error: no daemon answers at /nowhere/control.sock. Start one with gretun up, or name its " +
      "directory with --state-dir.",
  );
});

Deno.test("a peer is named by name, address or the beginning of its key", () => {
  const names = ["bob", "100.64.0.2", "236915e6", "236915E6236915"];
  ok(names.every((name) => isNamed(DIRECT, name)));
  ok(!["bo", "100.64.0.20", "2369"].some((name) => isNamed(DIRECT, name)));
});
