/** A pair without traffic sends at most two packets a second in any minute, from the first one on. */
import { ok, strictEqual } from "node:assert/strict";
import { isLoopback, parseIp } from "../../lib/addr.ts";
import { isDisco } from "../../lib/disco/mod.ts";
import { isStun } from "../../lib/stun/mod.ts";
import {
  type NatBehaviour,
  NO_UDP,
  PORT_RESTRICTED,
  type SimHost,
  SYMMETRIC,
  World,
} from "./world/mod.ts";

const MINUTE_MS = 60_000;
const RUN_MS = 400_000;
const LIMIT = 120;
/** Of each host, beside the one that its NAT maps. */
const LOCAL_ADDRESSES = [1, 4, 6, 8] as const;

const RANDOM = { ...PORT_RESTRICTED, ports: "random" } as const;
const SEQUENTIAL = { ...SYMMETRIC, ports: "sequential" } as const;

/** When it sent what is no data, by UDP. */
function watch(world: World, { kernel }: SimHost): number[] {
  const sentMs: number[] = [];
  kernel.firewall = (packet, direction) => {
    if (packet.kind !== "udp" || direction === "in" || isLoopback(packet.to.ip)) return false;
    if (isDisco(packet.bytes) || isStun(packet.bytes)) sentMs.push(world.time.nowMs);
    return false;
  };
  return sentMs;
}

function busiestMinute(sentMs: readonly number[]): number {
  const within = (first: number) => sentMs.filter((ms) => ms >= first && ms < first + MINUTE_MS);
  return Math.max(...sentMs.map((first) => within(first).length));
}

interface Case {
  name: string;
  nats: [NatBehaviour, NatBehaviour];
  /** Whether ports that seem to be taken in order are in fact taken at random: no guess is right. */
  misleads?: boolean;
}

const CASES: readonly Case[] = [
  { name: "a relay", nats: [RANDOM, SYMMETRIC] },
  { name: "a relay by TCP", nats: [NO_UDP, RANDOM] },
  { name: "relays by TCP on both sides", nats: [NO_UDP, NO_UDP] },
  { name: "one side's ports guessed in vain", nats: [RANDOM, SEQUENTIAL], misleads: true },
  { name: "both sides' ports guessed in vain", nats: [SEQUENTIAL, SEQUENTIAL], misleads: true },
];

async function isQuiet({ nats, misleads }: Case, addresses: number): Promise<void> {
  await using world = new World();
  const coordinator = await world.coordinator();
  const sites = nats.map((behaviour) => world.site(behaviour));
  const hosts = sites.map((site, i) => {
    // In order, the way in is also the order at the NAT.
    site.lan.weather = { ...site.lan.weather, jitterMs: 0 };
    const host = world.hostBehind(`n${i}`, site);
    for (let n = 1; n < addresses; n++) {
      host.kernel.addAddress(
        host.kernel.ifindex("eth0"),
        parseIp(`${site.prefix}.${100 + n}`),
        24,
      );
    }
    return host;
  });
  const sent = hosts.map((host) => watch(world, host));
  const nodes = [];
  for (const host of hosts) {
    nodes.push(await world.up(host, coordinator));
    await world.run(750);
  }
  if (misleads) {
    for (const { nat } of sites) {
      if (nat.behaviour.ports === "sequential") {
        nat.behaviour = { ...nat.behaviour, ports: "random" };
      }
    }
  }
  await world.run(RUN_MS);
  const [a, b] = nodes;
  strictEqual(a!.state(b!), "relay");
  strictEqual(a!.said(/guessed ports/).length + b!.said(/guessed ports/).length > 3, !!misleads);
  for (const [i, sentMs] of sent.entries()) {
    const packets = busiestMinute(sentMs);
    ok(packets <= LIMIT, `n${i} with ${addresses} addresses: ${packets} packets`);
  }
  ok(await world.connects(a!, b!, 1_000));
}

for (const each of CASES) {
  Deno.test(`at most two packets a second in any minute: ${each.name}`, async () => {
    for (const addresses of LOCAL_ADDRESSES) await isQuiet(each, addresses);
  });
}
