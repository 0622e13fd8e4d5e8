/** Hosts between which no hole can be punched meet through the coordinator's relay, on either plane. */
import { match, strictEqual } from "node:assert/strict";
import { NO_UDP, SYMMETRIC } from "./lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { Overlay, type OverlayNode, until } from "./overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

export async function relayed(node: OverlayNode, kind: "relay-udp" | "relay-tcp"): Promise<void> {
  await until(`${node.host.name} to be relayed`, async () => {
    const peer = (await node.report().catch(() => undefined))?.peers[0];
    return peer?.state === "relay" && peer.path === kind;
  }, () => node.log);
}

/** Relays whose program forwards: packets of the kernel plane meet its sockets. */
export function testForwardingPrograms(plane: "fou" | "tun"): void {
  const args = ["--data-plane", plane];

  Deno.test(`${plane}: two hosts meet through a relay that forwards by itself`, async () => {
    await using overlay = await Overlay.start({ coordArgs: ["--relay-mode", "user"] });
    const { lab } = overlay;
    const alice = overlay.node("alice", lab.nat("nat-a", SYMMETRIC), args);
    const bob = overlay.node("bob", lab.nat("nat-b", SYMMETRIC), args);
    for (const node of [alice, bob]) await relayed(node, "relay-udp");
    await alice.ping(bob, { sizeBytes: 1400 });
    await alice.transfers(bob);
  });

  Deno.test(`${plane}: two hosts without UDP meet through the relay by TCP`, async () => {
    await using overlay = await Overlay.start();
    const { lab } = overlay;
    const alice = overlay.node("alice", lab.nat("nat-a", { firewall: NO_UDP }), args);
    const bob = overlay.node("bob", lab.nat("nat-b", { firewall: NO_UDP }), args);
    for (const node of [alice, bob]) await relayed(node, "relay-tcp");
    await alice.ping(bob, { sizeBytes: 1400 });
    await alice.transfers(bob);
  });
}

export function testRelays(plane: "fou" | "tun"): void {
  const args = ["--data-plane", plane];

  Deno.test(`${plane}: two hosts behind symmetric NATs meet through the relay`, async () => {
    await using overlay = await Overlay.start();
    const { lab } = overlay;
    const alice = overlay.node("alice", lab.nat("nat-a", SYMMETRIC), args);
    const bob = overlay.node("bob", lab.nat("nat-b", SYMMETRIC), args);
    for (const node of [alice, bob]) await relayed(node, "relay-udp");
    await alice.ping(bob, { sizeBytes: 1400 });
    await bob.ping(alice);
    await alice.transfers(bob);
  });

  Deno.test(`${plane}: a host without UDP is reached through the relay by TCP`, async () => {
    await using overlay = await Overlay.start();
    const { lab } = overlay;
    const alice = overlay.node("alice", lab.nat("nat-a", { firewall: NO_UDP }), args);
    const bob = overlay.node("bob", lab.nat("nat-b"), args);
    await relayed(alice, "relay-tcp");
    await relayed(bob, "relay-udp");
    await alice.ping(bob, { sizeBytes: 1400 });
    await bob.ping(alice);
    await alice.transfers(bob);
    strictEqual((await alice.report()).peers[0]!.mtu, 1464);
  });

  Deno.test(`${plane}: a relay that was away is gone through again`, async () => {
    await using overlay = await Overlay.start({ keepState: true });
    const { lab } = overlay;
    const alice = overlay.node("alice", lab.nat("nat-a", SYMMETRIC), args);
    const bob = overlay.node("bob", lab.nat("nat-b", SYMMETRIC), args);
    for (const node of [alice, bob]) await relayed(node, "relay-udp");
    await overlay.killCoordinator();
    await until(
      "alice to notice",
      async () => (await alice.report()).peers[0]!.state === "punching",
    );
    await overlay.startCoordinator();
    for (const node of [alice, bob]) await relayed(node, "relay-udp");
    await alice.ping(bob);
    await alice.transfers(bob);
    match(alice.log, /msg="relay opened"/);
  });
}
