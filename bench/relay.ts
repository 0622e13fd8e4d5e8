/** What a relay forwards in a second, and how long an allocation takes. See README.md here. */
import { type NatOptions, NO_UDP } from "../tests/lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { parseFlags } from "../lib/cli/flags.ts";
import { RelayLab } from "../tests/relay_overlay.ts";

const FLAGS = {
  seconds: { type: "integer", min: 1, max: 60, default: 3, help: "how long each run takes" },
  bytes: { type: "integer", min: 200, max: 1472, default: 1400, help: "payload of a datagram" },
  "per-ms": { type: "integer", min: 1, max: 1000, help: "datagrams sent in 1 ms (default: all)" },
  "relay-mode": {
    type: "choice",
    choices: ["auto", "kernel", "user"],
    default: "auto",
    help: "as of gretun-coord",
  },
} as const;
/** Sender and stand-in are one process: a sender without pause would leave the other no time. */
const WEB_SOCKET_PER_MS = 4;
const METRICS_PORT = 9100;

const flags = parseFlags(Deno.args, FLAGS);
RtNetlink.open()[Symbol.dispose]();

async function run(name: string, nat: NatOptions, perMs: number | undefined): Promise<void> {
  await using overlay = new RelayLab();
  const { coord } = overlay;
  await overlay.startCoordinator(
    ...["--relay-rate", "0", "--relay-mode", flags["relay-mode"]],
    ...["--metrics-addr", `${coord.ip}:${METRICS_PORT}`],
  );
  const [a, b] = await overlay.pair([nat, nat]);
  if (nat.firewall) {
    for (const node of [a, b]) {
      await node.command({ do: "measure" });
      await node.event("measured");
    }
  }
  const allocatedMs = [(await a.allocate(b)).ms, (await b.allocate(a)).ms];
  const ms = flags.seconds * 1000;
  await a.command({ do: "blast", bytes: flags.bytes, ms, ...(perMs ? { perMs } : {}) });
  const { packets: sent } = await a.event("blasted");
  const { packets: arrived } = await b.event("counted");
  const forwarded = await forwardedBy(overlay);
  const rate = (packets: number) => {
    const mbits = packets * flags.bytes * 8 / ms / 1000;
    return `${Math.round(packets / flags.seconds)}/s (${Math.round(mbits)} Mbit/s)`;
  };
  console.log(`${name}: allocated in ${allocatedMs.join(" and ")} ms`);
  console.log(`  sent ${rate(sent)}, forwarded ${
    forwarded.map(
      ([transport, packets]) => `by ${transport} ${rate(packets)}`,
    ).join(", ")
  }, arrived ${rate(arrived)}`);
}

/** Datagrams by what they went out by. */
async function forwardedBy(overlay: RelayLab): Promise<[string, number][]> {
  const metrics = await overlay.metrics(overlay.coord, METRICS_PORT);
  return ["udp", "kernel", "ws"].map((transport): [string, number] => [
    transport,
    metrics.get(`gretun_relay_packets_total{transport="${transport}"}`) ?? 0,
  ]).filter(([, packets]) => packets > 0);
}

await run("UDP", {}, flags["per-ms"]);
await run("WebSocket", { firewall: NO_UDP }, flags["per-ms"] ?? WEB_SOCKET_PER_MS);
