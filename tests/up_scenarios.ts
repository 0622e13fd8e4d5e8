/** The main job, on either data plane: hosts behind NATs find each other and data flows. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { RtNetlink } from "../lib/netlink.ts";
import { iperfServer, Overlay, type OverlayNode, sleep, until } from "./overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

/** Two hosts behind two port-restricted NATs, direct to each other. */
export async function twoNodes(
  overlay: Overlay,
  planes: readonly [string, string],
  args: string[] = [],
): Promise<[OverlayNode, OverlayNode]> {
  const { lab } = overlay;
  const alice = overlay.node("alice", lab.nat("nat-a"), ["--data-plane", planes[0], ...args]);
  const bob = overlay.node("bob", lab.nat("nat-b"), ["--data-plane", planes[1], ...args]);
  await overlay.allDirect();
  return [alice, bob];
}

/** The main job itself: all of it once, and `more` before both daemons end. */
export function testMeeting(
  plane: "fou" | "tun",
  more?: (overlay: Overlay, alice: OverlayNode) => Promise<void>,
): void {
  const planes = [plane, plane] as const;

  Deno.test(`${plane}: two hosts behind two port-restricted NATs`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = await twoNodes(overlay, planes);
    await alice.ping(bob);
    await bob.ping(alice, { sizeBytes: 1400 });
    await alice.transfers(bob);
    const report = await alice.directTo(1);
    strictEqual(report.data_plane, plane);
    strictEqual(report.peers[0]!.mtu, 1464);
    await alice.ping(bob, { sizeBytes: 1464 - 28 });

    const server = await iperfServer(alice.host);
    // Bytes, not seconds: an emulator pays for each of them.
    const client = ["-c", await alice.tunnelIp(), "-n", "64M", "-J"];
    const { code, stdout: measured } = await bob.host.run("iperf3", client);
    strictEqual(code, 0, measured);
    ok(JSON.parse(measured).end.sum_received.bytes > 32 * 2 ** 20, measured);
    await server.status;
    await more?.(overlay, alice);
    strictEqual(await bob.stop("SIGTERM"), 0, bob.log);
    strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
    for (const node of [alice, bob]) deepStrictEqual(await node.linkNames(), ["eth0"]);
  });
}

/** More hosts, other settings, and what a daemon lives through. */
export function testOverlays(plane: "fou" | "tun"): void {
  const planes = [plane, plane] as const;

  Deno.test(`${plane}: four hosts behind three NATs, two of them behind the same`, async () => {
    await using overlay = await Overlay.start();
    const { lab } = overlay;
    const shared = lab.nat("nat-s");
    const nats = [shared, shared, lab.nat("nat-c"), lab.nat("nat-d")];
    for (const [i, name] of ["ann", "ben", "cat", "dan"].entries()) {
      overlay.node(name, nats[i]!, ["--data-plane", plane]);
    }
    await overlay.allDirect();
    for (const from of overlay.nodes) {
      for (const to of overlay.nodes) if (from !== to) await from.ping(to);
    }
    const [first, ...others] = overlay.nodes;
    for (const to of others) await first!.transfers(to);
    const ann = await overlay.nodes[0]!.report();
    const ben = ann.peers.find(({ name }) => name === "ben")!;
    match(ben.endpoint!, /^10\./, "neighbours talk over their own network");
  });

  Deno.test(`${plane}: without GRE keys four more bytes fit`, async () => {
    await using overlay = await Overlay.start();
    const args = ["--data-plane", plane, "--gre-key", "off"];
    const natB = overlay.lab.nat("nat-b");
    const alice = overlay.node("alice", overlay.lab.nat("nat-a"), args);
    const bob = overlay.node("bob", natB, args);
    await overlay.allDirect();
    strictEqual((await alice.report()).peers[0]!.mtu, 1468);
    await alice.ping(bob, { sizeBytes: 1468 - 28 });
    await alice.transfers(bob);
    overlay.node("carol", natB, args);
    const isRefused = async () =>
      alice.log.includes(`error="another tunnel goes to ${natB.ip}, and without GRE keys`);
    await until("carol's tunnel to be refused", isRefused, () => alice.log);
    await alice.ping(bob);
  });

  Deno.test(`${plane}: a daemon that was killed is back with the same address`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = await twoNodes(overlay, planes);
    const before = await alice.tunnelIp();
    await alice.stop("SIGKILL");
    alice.start();
    await overlay.allDirect();
    strictEqual(await alice.tunnelIp(), before);
    await alice.ping(bob);
    await bob.ping(alice);
    deepStrictEqual(await alice.linkNames(), ["eth0", "gretun0"]);
    strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
    deepStrictEqual(await alice.linkNames(), ["eth0"]);
  });

  Deno.test(`${plane}: tunnels outlive the coordinator, which has lost nothing when it is back`, async () => {
    await using overlay = await Overlay.start({ keepState: true });
    const [alice, bob] = await twoNodes(overlay, planes);
    const addresses = [await alice.tunnelIp(), await bob.tunnelIp()];
    await overlay.killCoordinator();
    await sleep(2_000);
    await alice.ping(bob);
    strictEqual(alice.log.match(/level=warn.*coordinator/g)?.length, 1, alice.log);
    await overlay.startCoordinator();
    await until(
      "the coordinator to be back",
      async () => alice.log.includes("coordinator is back"),
      () => alice.log,
    );
    const carol = overlay.node("carol", overlay.lab.nat("nat-c"), ["--data-plane", plane]);
    await overlay.allDirect();
    await carol.ping(alice);
    deepStrictEqual([await alice.tunnelIp(), await bob.tunnelIp()], addresses);
  });

  Deno.test(`${plane}: a NAT whose public address changes is followed, the link stays`, async () => {
    await using overlay = await Overlay.start();
    const { lab } = overlay;
    const natA = lab.nat("nat-a");
    const alice = overlay.node("alice", natA, ["--data-plane", plane]);
    const bob = overlay.node("bob", lab.nat("nat-b"), ["--data-plane", plane]);
    await overlay.allDirect();
    const ifindex = await bob.ifindex("gretun0");
    // What an access provider does at night. Masquerading forgets its mappings with the address.
    for (const change of [["del", natA.ip], ["add", "203.0.113.200"]] as const) {
      strictEqual(
        (await natA.run("ip", ["addr", change[0], `${change[1]}/24`, "dev", "out"])).code,
        0,
      );
    }
    await bob.pathTo("alice", /^203\.0\.113\.200:/);
    await alice.ping(bob);
    await bob.ping(alice);
    strictEqual(await bob.ifindex("gretun0"), ifindex);
  });

  Deno.test(`${plane}: a host whose own address changes is followed, the link stays`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = await twoNodes(overlay, planes);
    const ifindex = await alice.ifindex("gretun0");
    await alice.moveTo("10.0.1.99");
    await until(
      "the new address to be told",
      async () => (await alice.report()).endpoints!.includes("10.0.1.99:7777"),
      () => alice.log,
    );
    await overlay.allDirect();
    await alice.reaches(bob);
    await bob.ping(alice);
    strictEqual(await alice.ifindex("gretun0"), ifindex);
  });

  Deno.test(`${plane}: what another program changes of a link is put right, the link stays`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = await twoNodes(overlay, planes);
    const [before, bobsIp] = [await alice.ifindex("gretun0"), await bob.tunnelIp()];
    const changes = [
      "ip addr flush dev gretun0",
      `ip route del ${bobsIp} dev gretun0`,
      "ip link set gretun0 down",
      "ip link set gretun0 down && ip link set gretun0 up",
      "ip link set gretun0 down && ip link set gretun0 name lan7",
      "ip link set gretun0 alias uplink",
    ];
    for (const change of changes) {
      const { code, stderr } = await alice.host.run("sh", ["-c", change]);
      strictEqual(code, 0, `${change}: ${stderr}`);
      await alice.reaches(bob);
    }
    await until("its name and mark", async () => {
      const { stdout } = await alice.host.run("ip", ["link", "show", "dev", "gretun0"]);
      return / alias gretun up port 7777 peer /.test(stdout);
    });
    strictEqual(await alice.ifindex("gretun0"), before);
    match(alice.log, /level=warn msg="link was not as it should be, put right" ifname=gretun0/);
    await alice.host.run("ip", ["link", "set", "eth0", "mtu", "1400"]);
    await until("the MTU to follow", async () => {
      const { stdout } = await alice.host.run("ip", ["link", "show", "dev", "gretun0"]);
      return / mtu 1364 /.test(stdout);
    });
  });

  Deno.test(`${plane}: a link that somebody removes comes back`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = await twoNodes(overlay, planes);
    await alice.ping(bob);
    for (let round = 0; round < 2; round++) {
      const ifindex = await alice.ifindex("gretun0");
      strictEqual((await alice.host.run("ip", ["link", "del", "gretun0"])).code, 0);
      await until("the link to be back", async () => {
        const now = await alice.ifindex("gretun0");
        return !Number.isNaN(now) && now !== ifindex;
      }, () => alice.log);
      await alice.directTo(1);
      await bob.ping(alice, { sizeBytes: 1464 - 28 });
      deepStrictEqual(await alice.linkNames(), ["eth0", "gretun0"]);
    }
    strictEqual(alice.log.match(/link is gone, making it again/g)?.length, 2, alice.log);
    strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
    deepStrictEqual(await alice.linkNames(), ["eth0"]);
  });
}

/** What a member may not do to another, whatever rp_filter says. */
export function testTrust(plane: "fou" | "tun"): void {
  Deno.test(`${plane}: a peer has its own address inside and reaches no other of this host's`, async () => {
    await using overlay = await Overlay.start();
    await checkTrust(...await twoNodes(overlay, [plane, plane]), "gretun0");
  });
}

/** The same of two nodes that are direct to each other. */
export async function checkTrust(
  alice: OverlayNode,
  bob: OverlayNode,
  ifname: string,
): Promise<void> {
  const shell = (node: OverlayNode, command: string) => node.host.run("sh", ["-c", command]);
  const [here, there] = [await alice.tunnelIp(), await bob.tunnelIp()];
  await shell(alice, "sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.ip_forward=1");
  await shell(bob, "ip address add 10.99.0.9/32 dev lo");
  await shell(alice, `ip route add 10.99.0.9 dev ${ifname}; ip address add 10.98.0.1/32 dev lo`);
  const pings = async (node: OverlayNode, to: string, from: string) =>
    (await node.host.run("ping", ["-n", "-c", "2", "-i", "0.1", "-W", "1", "-I", from, to]))
      .code === 0;
  await bob.ping(alice);
  strictEqual(await pings(bob, here, "10.99.0.9"), false, "another's address");
  await shell(bob, `ip route add 10.98.0.1 dev ${ifname}`);
  strictEqual(await pings(bob, "10.98.0.1", there), false, "another address of the host");
  ok((await alice.report()).refused!["wrong-inner-address"]! >= 2);
  ok((await bob.report()).refused!["not-for-peer"]! >= 2);
  // Nothing is taken from routers, and nobody needs to be told of a link-local address.
  const { stdout } = await shell(
    alice,
    `cat /proc/sys/net/ipv6/conf/${ifname}/accept_ra; ip -6 address show dev ${ifname}`,
  );
  strictEqual(stdout.trim(), "0");
}

/** Routes to a peer's own address that lead into the tunnel to it, and into another tunnel of ours. */
export function testOwnWays(plane: "fou" | "tun"): void {
  Deno.test(`${plane}: outer packets that routes lead into a tunnel of ours stop there, and it is told`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = await twoNodes(overlay, [plane, plane]);
    overlay.join(overlay.lab.publicHost("carol"), ["--data-plane", plane]);
    await overlay.allDirect();
    const { peers } = await bob.report();
    const endpoint = peers.find(({ name }) => name === "alice")!.endpoint!;
    for (const { ifname } of peers) {
      const before = await stopped(bob);
      const route = [endpoint.split(":")[0]!, "dev", ifname!];
      strictEqual((await bob.host.run("ip", ["route", "add", ...route])).code, 0);
      const ping = bob.host.spawn("ping", ["-n", "-i", "0.05", await alice.tunnelIp()]);
      const words = new RegExp(`packets of a tunnel cannot go out.*leads through ${ifname}`);
      await until("bob to tell of it", async () => words.test(bob.log), () => bob.log);
      const isStopped = async () => await stopped(bob) > before;
      await until(`packets to stop at ${ifname}`, isStopped, () => bob.log);
      ping.kill();
      await ping.status;
      strictEqual((await bob.host.run("ip", ["route", "del", ...route])).code, 0);
      await bob.reaches(alice);
      await overlay.allDirect();
    }
  });
}

/**
 * Outer packets that did not go into a tunnel. What would go into the one that it comes from is
 * stopped by the kernel, before the guard, and counted as a collision.
 */
async function stopped(node: OverlayNode): Promise<number> {
  const { refused = {} } = await node.report();
  const { stdout } = await node.host.run("ip", ["-s", "-j", "link"]);
  const links = JSON.parse(stdout) as { stats64: { tx: { collisions?: number } } }[];
  const collisions = links.map(({ stats64 }) => stats64.tx.collisions ?? 0);
  return collisions.reduce(
    (sum, count) => sum + count,
    (refused["own-tunnel"] ?? 0) + (refused["not-for-peer"] ?? 0),
  );
}
