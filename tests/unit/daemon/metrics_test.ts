/** Series of peers: what a name may do to the text, and how many there are. */
import { match, ok, strictEqual } from "node:assert/strict";
import { parseIp } from "../../../lib/addr.ts";
import type { DaemonReport } from "../../../lib/daemon/control.ts";
import { DaemonMetrics, MAX_PEERS_SHOWN } from "../../../lib/daemon/metrics.ts";
import type { PeerReport } from "../../../lib/daemon/peer_report.ts";
import type { NodeKey } from "../../../lib/keys.ts";

const peer = (i: number, more: Partial<PeerReport> = {}): PeerReport => ({
  name: `peer${i}`,
  node_key: i.toString(16).padStart(8, "0").padEnd(64, "0") as NodeKey,
  tunnel_ip: parseIp("100.64.0.2"),
  state: "direct",
  ...more,
});

function textOf(peers: PeerReport[], more: Partial<DaemonReport> = {}): Promise<string> {
  const metrics = new DaemonMetrics();
  metrics.watchReport(() => ({
    ...{ node_key: "00", node_name: "own", coordinator: "http://c", state: "running", peers },
    ...more,
  } as DaemonReport));
  return metrics.text();
}

const lines = (text: string, name: string) =>
  text.split("\n").filter((line) => line.startsWith(name));

Deno.test("a peer's series have its name, key, path, round-trip time and bytes", async () => {
  const text = await textOf([
    peer(1, { path: "relay-udp", rtt_ms: 20, rx_bytes: 5, tx_bytes: 6, path_since_s: 7 }),
    peer(2, { state: "punching" }),
    peer(3, { state: "punching", offline: true }),
  ]);
  const labels = '{peer="peer1",key="00000001"';
  match(text, new RegExp(`^gretun_peer_path${labels},path="relay-udp"} 1$`, "m"));
  match(text, new RegExp(`^gretun_peer_rtt_seconds${labels}} 0.02$`, "m"));
  match(text, new RegExp(`^gretun_peer_received_bytes_total${labels}} 5$`, "m"));
  match(text, new RegExp(`^gretun_peer_sent_bytes_total${labels}} 6$`, "m"));
  match(text, new RegExp(`^gretun_peer_path_age_seconds${labels}} 7$`, "m"));
  match(text, /^gretun_peer_path\{peer="peer2",key="00000002",path="connecting"\} 1$/m);
  match(text, /^gretun_peer_path\{peer="peer3",key="00000003",path="offline"\} 1$/m);
});

Deno.test("a hostile name stays inside of its label", async () => {
  const text = await textOf([peer(1, { name: 'x"} 1\ngretun_peers{state="y\\' })]);
  strictEqual(lines(text, "gretun_peer_path{").length, 1);
  ok(text.includes('{peer="x\\"} 1\\ngretun_peers{state=\\"y\\\\",key="00000001"'), text);
});

Deno.test("of many peers so many have series, those with a path first", async () => {
  const silent = Array.from({ length: MAX_PEERS_SHOWN }, (_, i) => peer(i));
  const text = await textOf([...silent, peer(999, { path: "direct" })]);
  strictEqual(lines(text, "gretun_peer_path{").length, MAX_PEERS_SHOWN);
  match(text, /^gretun_peer_path\{peer="peer999"/m);
  match(text, /^gretun_peers_without_series 1$/m);
});

Deno.test("the coordinator is up only while it answers", async () => {
  match(await textOf([]), /^gretun_coordinator_up 1$/m);
  match(await textOf([], { coordinator_error: "refused" }), /^gretun_coordinator_up 0$/m);
  match(await new DaemonMetrics().text(), /^gretun_coordinator_up 0$/m);
});

Deno.test("a finding that the tunnel copes with is none to be alarmed by", async () => {
  const narrow = { text: "the path is narrow", remedy: "None is needed", harmless: true } as const;
  const clock = { text: "clocks differ", remedy: "Set this host's" };
  match(await textOf([], { findings: [narrow, clock] }), /^gretun_findings 1$/m);
});
