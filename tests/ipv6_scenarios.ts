/** IPv6 between hosts, on either plane: what is inside the tunnels stays IPv4. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type NatBehaviour, NO_UDP, SYMMETRIC } from "./lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { iperfServer, Overlay, type OverlayNode, until } from "./overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

export const OVER_IPV6 = /^\[2001:db8:/;
export const OVER_IPV4 = /^203\./;
/** Of 1500 bytes, what IP, UDP and GRE with a key leave. */
const MTU_OVER = { 4: 1464, 6: 1444 };
const PING_HEADERS = 28;

/** Alice and Bob, dual stack, each behind a router of its own. */
export function dualStack(
  overlay: Overlay,
  planes: readonly [string, string],
  nat: NatBehaviour = {},
): [OverlayNode, OverlayNode] {
  const { lab } = overlay;
  const node = (name: string, plane: string) => {
    const behind = lab.nat(`nat-${name}`, { ...nat, ipv6: true });
    return overlay.node(name, behind, ["--data-plane", plane, "-v"], "dual");
  };
  return [node("alice", planes[0]), node("bob", planes[1])];
}

export async function bothOver(
  alice: OverlayNode,
  bob: OverlayNode,
  endpoint: RegExp,
): Promise<void> {
  await alice.pathTo("bob", endpoint);
  await bob.pathTo("alice", endpoint);
}

/** As large as fits, without fragments, both ways; one byte more does not. */
async function pingFull(alice: OverlayNode, bob: OverlayNode, mtu: number): Promise<void> {
  for (const [from, to] of [[alice, bob], [bob, alice]] as const) {
    strictEqual((await from.report()).peers[0]!.mtu, mtu);
    await from.ping(to, { sizeBytes: mtu - PING_HEADERS });
    const size = String(mtu - PING_HEADERS + 1);
    const { stderr } = await from.host
      .run("ping", ["-c", "1", "-W", "1", "-M", "do", "-s", size, await to.tunnelIp()]);
    match(stderr, new RegExp(`mtu.?=${mtu}`));
  }
  await alice.transfers(bob);
}

async function untilDataFlows(alice: OverlayNode, bob: OverlayNode): Promise<void> {
  await until("data to flow", async () => {
    const { code } = await alice.host.run("ping", ["-c", "1", "-W", "1", await bob.tunnelIp()]);
    return code === 0;
  }, () => alice.log + bob.log);
}

async function ip(node: OverlayNode, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await node.host.run("ip", args);
  strictEqual(code, 0, `ip ${args.join(" ")}: ${stderr}`);
  return stdout;
}

/** What every kernel has to show. */
export function testIpv6Meeting(plane: "fou" | "tun"): void {
  Deno.test(`${plane}: two hosts behind symmetric NATs meet over IPv6, through firewalls`, async () => {
    await using overlay = await Overlay.start({ ipv6: true });
    const [alice, bob] = dualStack(overlay, [plane, plane], SYMMETRIC);
    await bothOver(alice, bob, OVER_IPV6);
    await pingFull(alice, bob, MTU_OVER[6]);
    await alice.ping(bob, { count: 20 });

    const server = await iperfServer(alice.host);
    const client = ["-c", await alice.tunnelIp(), "-t", "3", "-J"];
    const iperf = await bob.host.run("iperf3", client);
    strictEqual(iperf.code, 0, iperf.stdout);
    ok(JSON.parse(iperf.stdout).end.sum_received.bytes > 0, iperf.stdout);
    await server.status;
    for (const node of [alice, bob]) {
      strictEqual(await node.stop("SIGTERM"), 0, node.log);
      deepStrictEqual(await node.linkNames(), ["eth0"]);
    }
  });
}

export function testIpv6(plane: "fou" | "tun"): void {
  const args = ["--data-plane", plane];

  Deno.test(`${plane}: an open host of IPv6 alone and one behind NAT and firewall`, async () => {
    await using overlay = await Overlay.start({ ipv6: true });
    const { lab } = overlay;
    const nat = lab.nat("nat-b", { ...SYMMETRIC, ipv6: true });
    const alice = overlay.join(lab.publicHost("alice", { families: "ipv6" }), args);
    const bob = overlay.node("bob", nat, args, "dual");
    await bothOver(alice, bob, OVER_IPV6);
    await pingFull(alice, bob, MTU_OVER[6]);
    deepStrictEqual((await alice.report()).endpoints, [`[${alice.host.ip}]:7777`]);
  });

  for (const [path, firewall] of [["relay-udp", {}], ["relay-tcp", NO_UDP]] as const) {
    Deno.test(`${plane}: a host of IPv6 alone meets one of IPv4 alone, ${path}`, async () => {
      await using overlay = await Overlay.start({ ipv6: true });
      const { lab } = overlay;
      const nat = lab.nat("nat-a", { ipv6: true, firewall });
      const alice = overlay.node("alice", nat, args, "ipv6");
      const bob = overlay.node("bob", lab.nat("nat-b"), args);
      for (const [node, kind] of [[alice, path], [bob, "relay-udp"]] as const) {
        await until(`${node.host.name} to be relayed`, async () => {
          const peer = (await node.report().catch(() => undefined))?.peers[0];
          return peer?.state === "relay" && peer.path === kind;
        }, () => node.log);
      }
      await alice.ping(bob);
      // The relay sends on to IPv6 what has come by IPv4 in one piece.
      await bob.ping(alice, { sizeBytes: MTU_OVER[4] - PING_HEADERS });
    });
  }

  Deno.test(`${plane}: a path goes from IPv6 to IPv4 and back with the host's addresses`, async () => {
    await using overlay = await Overlay.start({ ipv6: true });
    const [alice, bob] = dualStack(overlay, [plane, plane]);
    await bothOver(alice, bob, OVER_IPV6);
    await alice.ping(bob);
    await ip(alice, "-6", "addr", "flush", "dev", "eth0", "scope", "global");
    await untilDataFlows(alice, bob);
    await bothOver(alice, bob, OVER_IPV4);
    await pingFull(alice, bob, MTU_OVER[4]);
    deepStrictEqual(await alice.linkNames(), ["eth0", "gretun0"]);
    await ip(alice, "-6", "addr", "add", `${alice.host.ip6}/64`, "dev", "eth0", "nodad");
    await bothOver(alice, bob, OVER_IPV6);
    await untilDataFlows(alice, bob);
    await pingFull(alice, bob, MTU_OVER[6]);
    deepStrictEqual(await bob.linkNames(), ["eth0", "gretun0"]);
  });

  Deno.test(`${plane}: a path goes to IPv4 when routers carry IPv6 no more`, async () => {
    await using overlay = await Overlay.start({ ipv6: true });
    const [alice, bob] = dualStack(overlay, [plane, plane]);
    await bothOver(alice, bob, OVER_IPV6);
    const startMs = performance.now();
    const filter =
      "add table ip6 stop; add chain ip6 stop forward { type filter hook forward priority 1; policy drop; }";
    strictEqual((await overlay.lab.internet.run("nft", [filter])).code, 0);
    await bothOver(alice, bob, OVER_IPV4);
    console.log(`${plane}: IPv4 after ${Math.round(performance.now() - startMs)} ms`);
    await untilDataFlows(alice, bob);
    await alice.ping(bob);
  });

  Deno.test(`${plane}: a host whose IPv6 address changes is followed, the link stays`, async () => {
    await using overlay = await Overlay.start({ ipv6: true });
    const [alice, bob] = dualStack(overlay, [plane, plane], SYMMETRIC);
    await bothOver(alice, bob, OVER_IPV6);
    const links = [await alice.ifindex("gretun0"), await bob.ifindex("gretun0")];
    const other = alice.host.ip6!.replace(/[^:]*$/, "99");
    await ip(alice, "-6", "addr", "add", `${other}/64`, "dev", "eth0", "nodad");
    await ip(alice, "-6", "addr", "del", `${alice.host.ip6}/64`, "dev", "eth0");
    await bob.pathTo("alice", new RegExp(`^\\[${other}\\]`));
    await untilDataFlows(alice, bob);
    await bob.ping(alice);
    deepStrictEqual([await alice.ifindex("gretun0"), await bob.ifindex("gretun0")], links);
  });
}
