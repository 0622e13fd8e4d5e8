/** Routers that let only small packets on and tell nobody, with either data plane. */
import { deepStrictEqual, match, ok } from "node:assert/strict";
import type { Nat } from "./lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { OVER_IPV6 } from "./ipv6_scenarios.ts";
import { GRETUN, Overlay, type OverlayNode, until } from "./overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

/** A key of GRE, GRE, UDP, and IPv4 or IPv6. */
const OVERHEAD = 36;
const OVERHEAD_6 = 56;
/** A port of a bridge lets through four bytes more than its MTU, for a tag of a VLAN. */
const CABLE_CARRIES = 1404;
/** What routers say of packets that are too large for them, and of all else that does not arrive. */
const DEAF = `table ip deaf {
  chain out {
    type filter hook output priority 0;
    icmp type destination-unreachable drop
  }
}`;

/** A cable alone would let through what the sender's kernel leaves to a network card to cut. */
export async function narrow(nat: Nat, mtu: number): Promise<void> {
  for (const command of [`ip link set dev out mtu ${mtu}`, `nft '${DEAF}'`]) {
    const { code, stderr } = await nat.run("sh", ["-c", command]);
    ok(code === 0, stderr);
  }
}

async function linkMtu(node: OverlayNode): Promise<number> {
  const { stdout } = await node.host.run("ip", ["link", "show", "dev", "gretun0"]);
  return Number(/ mtu (\d+) /.exec(stdout)?.[1]);
}

async function untilMtu(nodes: readonly OverlayNode[], mtu: number): Promise<void> {
  await until(`links of ${mtu} bytes`, async () => {
    const found = await Promise.all(nodes.map(linkMtu));
    return found.every((one) => one === mtu);
  }, () => nodes.map(({ log }) => log).join("\n"));
}

type Plane = "fou" | "tun";

/** `planes` of either end. */
export function testSilentRouters(...planes: readonly [Plane, Plane]): void {
  const names = [...new Set(planes)].join(" and ");
  Deno.test(`${names}: TCP passes routers of 1280 and then 1100 bytes that drop in silence`, async () => {
    await using overlay = await Overlay.start();
    const nats = [overlay.lab.nat("nat-a"), overlay.lab.nat("nat-b")] as const;
    for (const nat of nats) await narrow(nat, 1280);
    const nodes = ["alice", "bob"].map((name, i) =>
      overlay.node(name, nats[i]!, ["--data-plane", planes[i]!])
    );
    const [alice, bob] = nodes as [OverlayNode, OverlayNode];
    await overlay.allDirect();
    await alice.transfers(bob);
    await untilMtu(nodes, 1280 - OVERHEAD);
    await alice.ping(bob, { sizeBytes: 1280 - OVERHEAD - 28 });
    const [peer] = (await alice.report()).peers;
    deepStrictEqual([peer!.path_mtu, peer!.mtu], [1280, 1280 - OVERHEAD]);
    const { stdout } = await alice.host.run(GRETUN, ["peers", "--state-dir", alice.stateDir]);
    match(stdout, /bob: the path carries packets of 1280 bytes, though its route says 1500\./);
    for (const nat of nats) await narrow(nat, 1100);
    await alice.transfers(bob);
    await untilMtu(nodes, 1100 - OVERHEAD);
    await bob.transfers(alice);
    await bob.ping(alice, { sizeBytes: 1100 - OVERHEAD - 28 });
  });
}

export function testPathMtu(plane: Plane): void {
  testSilentRouters(plane, plane);

  Deno.test(`${plane}: a path over IPv6 that carries ${CABLE_CARRIES} bytes is found`, async () => {
    await using overlay = await Overlay.start({ ipv6: true });
    const { lab } = overlay;
    const nodes = ["alice", "bob"].map((name) => {
      const behind = lab.nat(`nat-${name}`, { ipv6: true, uplink: { mtu: CABLE_CARRIES - 4 } });
      return overlay.node(name, behind, ["--data-plane", plane], "dual");
    });
    const [alice, bob] = nodes as [OverlayNode, OverlayNode];
    await alice.pathTo("bob", OVER_IPV6);
    await bob.pathTo("alice", OVER_IPV6);
    await untilMtu(nodes, CABLE_CARRIES - OVERHEAD_6);
    await alice.ping(bob, { sizeBytes: CABLE_CARRIES - OVERHEAD_6 - 28 });
  });
}
