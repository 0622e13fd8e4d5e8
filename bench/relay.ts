/** What a relay forwards in a second, and how long an allocation takes. See README.md here. */
import { type NatOptions, NO_UDP } from "../lib/lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { parseFlags } from "../lib/cli/flags.ts";
import { RelayLab, type RelayNode } from "../tests/relay_overlay.ts";

const FLAGS = {
  seconds: { type: "integer", min: 1, max: 60, default: 3, help: "how long each blast takes" },
  bytes: { type: "integer", min: 200, max: 1472, default: 1400, help: "payload of a datagram" },
  "relay-mode": {
    type: "choice",
    choices: ["auto", "kernel", "user"],
    default: "auto",
    help: "as of gretun-coord",
  },
} as const;

const flags = parseFlags(Deno.args, FLAGS);
RtNetlink.open()[Symbol.dispose]();

/** Datagrams that arrived, and in what time. */
async function blast(from: RelayNode, to: RelayNode, perMs?: number) {
  const ms = flags.seconds * 1000;
  await from.command({ do: "blast", bytes: flags.bytes, ms, ...(perMs ? { perMs } : {}) });
  const { packets: sent } = await from.event("blasted");
  const { packets, bytes, ms: tookMs } = await to.event("counted");
  return { sent, packets, bytes, ms: tookMs };
}

async function measure(name: string, nat: NatOptions): Promise<void> {
  await using overlay = new RelayLab();
  await overlay.startCoordinator("--relay-rate", "0", "--relay-mode", flags["relay-mode"]);
  const [a, b] = await overlay.pair([nat, nat]);
  if (nat.firewall) {
    for (const node of [a, b]) {
      await node.command({ do: "measure" });
      await node.event("measured");
    }
  }
  const allocatedMs = [(await a.allocate(b)).ms, (await b.allocate(a)).ms];
  console.log(`${name}: allocated in ${allocatedMs.join(" and ")} ms`);
  const { sent, packets, bytes, ms } = await blast(a, b);
  const mbits = bytes * 8 / ms / 1000;
  const perSecond = Math.round(packets / ms * 1000);
  console.log(
    `${name}: ${sent} sent, ${packets} arrived in ${Math.round(ms)} ms: ` +
      `${perSecond} datagrams/s, ${Math.round(mbits)} Mbit/s of payload`,
  );
}

await measure("UDP", {});
await measure("WebSocket", { firewall: NO_UDP });
