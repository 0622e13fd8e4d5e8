/** Nodes that reach each other through real relays, in namespaces that each test makes. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { NO_UDP, SYMMETRIC } from "../../lib/lab/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { exchange, RelayLab } from "../relay_overlay.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

Deno.test("two hosts behind symmetric NATs exchange datagrams over UDP", async () => {
  await using overlay = new RelayLab();
  const { coord } = overlay;
  await overlay.startCoordinator("--metrics-addr", `${coord.ip}:9100`);
  const [a, b] = await overlay.pair([SYMMETRIC, SYMMETRIC]);
  const atA = await a.allocate(b);
  const atB = await b.allocate(a);
  console.log("allocated in", atA.ms, atB.ms, "ms");
  deepStrictEqual([atA.kind, atB.kind], ["relay-udp", "relay-udp"]);
  match(atA.endpoint, new RegExp(`^${coord.ip}:49152$`));
  match(atB.endpoint, new RegExp(`^${coord.ip}:49152$`), "nodes share a port");
  await exchange([a, atA.endpoint], [b, atB.endpoint]);
  const metrics = await overlay.metrics(coord, `${coord.ip}:9100`);
  strictEqual(metrics.get("gretun_relay_allocations"), 1);
  strictEqual(metrics.get("gretun_relay_ports"), 1);
  strictEqual(metrics.get('gretun_relay_packets_total{transport="udp"}'), 2);
  strictEqual(metrics.get('gretun_relay_requests_total{result="allocated"}'), 2);
  strictEqual(metrics.get('gretun_relay_requests_total{result="bound"}'), 2);
});

Deno.test("a host without UDP and one with it exchange datagrams", async () => {
  await using overlay = new RelayLab();
  await overlay.startCoordinator();
  const [a, b] = await overlay.pair([{ firewall: NO_UDP }, SYMMETRIC]);
  const atA = await a.allocate(b);
  const atB = await b.allocate(a);
  console.log("allocated in", atA.ms, atB.ms, "ms");
  deepStrictEqual([atA.kind, atB.kind], ["relay-tcp", "relay-udp"]);
  ok(atA.endpoint.startsWith("127."));
  await exchange([a, atA.endpoint], [b, atB.endpoint]);
});

Deno.test("two hosts without UDP exchange datagrams; a measurement spares them the wait", async () => {
  await using overlay = new RelayLab();
  await overlay.startCoordinator();
  const [a, b] = await overlay.pair([{ firewall: NO_UDP }, { firewall: NO_UDP }]);
  for (const node of [a, b]) {
    await node.command({ do: "measure" });
    const { latencies, udpWorks } = await node.event("measured");
    deepStrictEqual([latencies, udpWorks], [{}, false]);
  }
  const atA = await a.allocate(b);
  const atB = await b.allocate(a);
  console.log("allocated in", atA.ms, atB.ms, "ms");
  ok(atA.ms < 1000, `${atA.ms} ms`);
  deepStrictEqual([atA.kind, atB.kind], ["relay-tcp", "relay-tcp"]);
  await exchange([a, atA.endpoint], [b, atB.endpoint]);
  await overlay.stopCoordinator();
  for (const node of [a, b]) await node.event("lost");
});
