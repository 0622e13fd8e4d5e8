/** Nodes that reach each other through real relays, in namespaces that each test makes. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type NatBehaviour, NO_UDP, SYMMETRIC } from "../lab/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { sleep, until } from "../overlay.ts";
import { exchange, RelayLab } from "../relay_overlay.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

/** Everybody's datagrams come in. */
const OPEN: NatBehaviour = { filtering: "endpoint-independent" };

/** What counts the datagrams that each mode forwards. */
const TRANSPORT_OF = { user: "udp", kernel: "kernel" };

for (const [mode, transport] of Object.entries(TRANSPORT_OF)) {
  Deno.test(`two hosts behind symmetric NATs exchange datagrams over UDP, mode ${mode}`, async () => {
    await using overlay = new RelayLab();
    const { coord } = overlay;
    await overlay.startCoordinator("--metrics-addr", `${coord.ip}:9100`, "--relay-mode", mode);
    const [a, b] = await overlay.pair([SYMMETRIC, SYMMETRIC]);
    const atA = await a.allocate(b);
    const atB = await b.allocate(a);
    deepStrictEqual([atA.kind, atB.kind], ["relay-udp", "relay-udp"]);
    match(atA.endpoint, new RegExp(`^${coord.ip}:49152$`));
    match(atB.endpoint, new RegExp(`^${coord.ip}:49152$`), "nodes share a port");
    await exchange([a, atA.endpoint], [b, atB.endpoint]);
    const metrics = await overlay.metrics(coord, 9100);
    strictEqual(metrics.get("gretun_relay_allocations"), 1);
    strictEqual(metrics.get("gretun_relay_ports"), 1);
    for (const each of ["udp", "kernel", "ws"]) {
      const packets = metrics.get(`gretun_relay_packets_total{transport="${each}"}`);
      strictEqual(packets, each === transport ? 2 : 0, each);
    }
    // More where an answer took so long that it was asked for again.
    for (const result of ["allocated", "bound"]) {
      ok(metrics.get(`gretun_relay_requests_total{result="${result}"}`)! >= 2, result);
    }
    const tables = (await coord.run("nft", ["list", "tables"])).stdout;
    strictEqual(tables.includes("gretun-relay"), mode === "kernel");
    await overlay.stopCoordinator();
    strictEqual((await coord.run("nft", ["list", "tables"])).stdout, "", "gone with its owner");
  });
}

Deno.test("a host without UDP and one with it exchange datagrams", async () => {
  await using overlay = new RelayLab();
  await overlay.startCoordinator();
  const [a, b] = await overlay.pair([{ firewall: NO_UDP }, SYMMETRIC]);
  const atA = await a.allocate(b);
  const atB = await b.allocate(a);
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
  const counter = "table ip tried { chain out { type filter hook output priority 0; " +
    'oifname "eth0" meta l4proto udp counter; }; }';
  strictEqual((await a.host.run("nft", [counter])).code, 0);
  const atA = await a.allocate(b);
  const { stdout: tried } = await a.host.run("nft", ["list", "table", "ip", "tried"]);
  match(tried, /counter packets 0 bytes 0/, "UDP is not tried again");
  const atB = await b.allocate(a);
  deepStrictEqual([atA.kind, atB.kind], ["relay-tcp", "relay-tcp"]);
  await exchange([a, atA.endpoint], [b, atB.endpoint]);
  await overlay.stopCoordinator();
  for (const node of [a, b]) await node.event("lost");
});

Deno.test("a NAT that maps a node anew: the relay knows it again with its next datagram", async () => {
  await using overlay = new RelayLab();
  await overlay.startCoordinator();
  const [a, b] = await overlay.pair([SYMMETRIC, SYMMETRIC]);
  // Whoever is silent for a second gets another port.
  const timeouts = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
  const command = `echo 1 > ${timeouts}; echo 1 > ${timeouts}_stream`;
  strictEqual((await overlay.nats[0]!.run("sh", ["-c", command])).code, 0);
  const [atA, atB] = [await a.allocate(b), await b.allocate(a)];
  await exchange([a, atA.endpoint], [b, atB.endpoint]);
  await sleep(3_000);
  const startMs = performance.now();
  const text = "x".repeat(200);
  await until("a to be heard again", async () => {
    await a.command({ do: "send", text });
    return b.events.some((event) => event.event === "received");
  });
  const tookMs = performance.now() - startMs;
  // The next refresh is after 15 s of silence.
  console.log(`heard again after ${Math.round(tookMs)} ms`);
  ok(tookMs < 10_000, `${tookMs} ms`);
  strictEqual((await b.event("received")).text, text);
});

Deno.test("a relay that is started again: the path is lost, and a new one found", async () => {
  await using overlay = new RelayLab();
  await overlay.startCoordinator();
  const [a, b] = await overlay.pair([SYMMETRIC, {}]);
  await a.allocate(b);
  await b.allocate(a);
  await overlay.stopCoordinator();
  await overlay.startCoordinator();
  for (const node of [a, b]) await node.event("lost");
  const [atA, atB] = [await a.allocate(b), await b.allocate(a)];
  await exchange([a, atA.endpoint], [b, atB.endpoint]);
});

Deno.test("strangers get nothing through, and cost nothing but a counter", async () => {
  await using overlay = new RelayLab();
  const { coord } = overlay;
  await overlay.startCoordinator("--metrics-addr", `${coord.ip}:9100`);
  const stranger = overlay.lab.publicHost("stranger");
  const [a, b] = await overlay.pair([OPEN, OPEN]);
  const [atA, atB] = [await a.allocate(b), await b.allocate(a)];
  const [host, port] = atA.endpoint.split(":");
  const junk = `for i in 1 2 3 4 5; do echo junk > /dev/udp/${host}/${port}; done`;
  strictEqual((await stranger.run("bash", ["-c", junk])).code, 0);
  strictEqual((await stranger.run("bash", ["-c", junk.replaceAll(port!, "3479")])).code, 0);
  await exchange([a, atA.endpoint], [b, atB.endpoint]);
  deepStrictEqual([...a.events, ...b.events], []);
  const metrics = await overlay.metrics(coord, 9100);
  strictEqual(metrics.get('gretun_relay_drops_total{reason="unknown-source"}'), 5);
  strictEqual(metrics.get('gretun_relay_packets_total{transport="kernel"}'), 2);
});

Deno.test("a relay of a role of its own, by UDP and by WebSocket", async () => {
  await using overlay = new RelayLab();
  const { lab } = overlay;
  const host = lab.publicHost("relay");
  const listen = ["--listen", `${host.ip}:8443`, "--state", `${overlay.directory}/relay.db`];
  const start = () =>
    overlay.start(
      host,
      [...listen, "--relay-only", "--coordinator", overlay.url],
      "relay listening",
    );
  let relay = await start();
  const key = /key=(?:"([^"]+)"|(\S+))/.exec(overlay.log);
  await overlay.startCoordinator("--relay-listen", "off", "--relay-key", (key?.[1] ?? key?.[2])!);
  await until("the relay to register", async () => overlay.log.includes('"registered with'));
  const [a, b] = await overlay.pair([SYMMETRIC, { firewall: NO_UDP }]);
  for (const node of [a, b]) await node.command({ do: "measure" });
  deepStrictEqual(Object.keys((await a.event("measured")).latencies).length, 1);
  strictEqual((await b.event("measured")).udpWorks, false);
  const [atA, atB] = [await a.allocate(b), await b.allocate(a)];
  deepStrictEqual([atA.kind, atB.kind], ["relay-udp", "relay-tcp"]);
  ok(atA.endpoint.startsWith(`${host.ip}:`));
  await exchange([a, atA.endpoint], [b, atB.endpoint]);

  // The coordinator is not needed for what is granted, and a relay that comes back is itself.
  await overlay.stopCoordinator();
  await exchange([a, atA.endpoint], [b, atB.endpoint]);
  relay.kill("SIGTERM");
  strictEqual((await relay.status).code, 0);
  await b.event("lost");
  await overlay.startCoordinator("--relay-listen", "off", "--relay-key", (key?.[1] ?? key?.[2])!);
  overlay.log = "";
  relay = await start();
  await until("the relay to register", async () => overlay.log.includes('"registered with'));
  await a.event("lost");
  const again = [await a.allocate(b), await b.allocate(a)] as const;
  await exchange([a, again[0].endpoint], [b, again[1].endpoint]);
});
