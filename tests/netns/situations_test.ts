/**
 * What is wrong around a host is named by `gretun peers`, in its own namespaces, with real firewalls
 * and routes. Others of these situations are tried elsewhere: a port that is taken
 * (up_errors_test.ts), a module that is missing (unit/dataplane/kernel_plane_test.ts), UDP blocked
 * (netcheck_test.ts), clocks that are off (sim/session_test.ts).
 */
import { strictEqual } from "node:assert/strict";
import type { Host } from "../lab/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { GRETUN, Overlay, type OverlayNode, until } from "../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const TUN = ["--data-plane", "tun"];

/** Waits until it is printed, or is printed no more. */
async function says(node: OverlayNode, what: RegExp, isSaid = true): Promise<void> {
  const peers = ["peers", "--state-dir", node.stateDir];
  const isSo = async () => what.test((await node.host.run(GRETUN, peers)).stdout) === isSaid;
  const wanted = `${node.host.name} ${isSaid ? "to say" : "not to say"} ${what}`;
  await until(wanted, isSo, () => node.log);
}

async function shell(host: Host, commands: string): Promise<void> {
  const { code, stderr } = await host.run("sh", ["-ec", commands]);
  strictEqual(code, 0, stderr);
}

Deno.test("peers names what is wrong around a host, one thing at a time", async (t) => {
  await using overlay = await Overlay.start({ keepState: true });
  const { lab } = overlay;
  const natA = lab.nat("nat-a");
  const alice = overlay.node("alice", natA, TUN);
  const bob = overlay.node("bob", lab.nat("nat-b"), TUN);
  await overlay.allDirect();

  await t.step("its own firewall drops what comes to the port", async () => {
    const chain = "chain input { type filter hook input priority 0; udp dport 7777 drop; };";
    await shell(alice.host, `nft 'table ip firewall { ${chain} }'`);
    await says(alice, /^nothing is answered at UDP port 7777, and another port is\. Look for/m);
    await shell(alice.host, "nft delete table ip firewall");
    await says(alice, /nothing is answered/, false);
  });

  await t.step("answers come in where no route leads back, and rp_filter is strict", async () => {
    await overlay.allDirect();
    const gateway = alice.host.ip.replace(/\d+$/, "1");
    // What this host sends goes out as before, by a mark.
    await shell(
      alice.host,
      `ip link add other type bridge; ip addr add 10.77.0.1/24 dev other; ip link set other up
      ip route add default via ${gateway} dev eth0 table 100; ip rule add fwmark 1 lookup 100
      nft 'table ip routes { chain out { type route hook output priority 0; meta mark set 1; }; }'
      ip route replace default via 10.77.0.2 dev other
      sysctl -qw net.ipv4.conf.eth0.rp_filter=1`,
    );
    await says(alice, /^rp_filter of this host drops packets: .* ip route get/m);
    await shell(
      alice.host,
      `sysctl -qw net.ipv4.conf.eth0.rp_filter=0
      ip route replace default via ${gateway} dev eth0; ip link del other
      nft delete table ip routes; ip rule del fwmark 1`,
    );
    await says(alice, /rp_filter/, false);
  });

  await t.step("the router forgets its mappings, and maps the port anew", async () => {
    await overlay.allDirect();
    natA.restart({ ports: "random" });
    const isTold = async () => /msg="the router maps this host's port anew"/.test(alice.log);
    await until("alice to tell of it", isTold, () => alice.log);
    await bob.reaches(alice);
  });

  await t.step("a host with the same keys", async () => {
    const clone = lab.host("clone", { behind: lab.nat("nat-c") });
    const copy = `${overlay.directory}/clone`;
    await Deno.mkdir(copy, { mode: 0o700 });
    await Deno.copyFile(`${alice.stateDir}/keys.json`, `${copy}/keys.json`);
    const twin = overlay.join(clone, TUN);
    const isTold = async () => /another host with the same node key.*hint=/.test(twin.log);
    await until("the younger to tell of it", isTold, () => twin.log);
    await says(twin, /^coordinator: .*same node key/m);
    await twin.stop("SIGTERM");
  });

  await t.step("the coordinator is down", async () => {
    await overlay.killCoordinator();
    await says(alice, /^coordinator: /m);
    await bob.reaches(alice);
    await overlay.startCoordinator();
    await says(alice, /^coordinator: /m, false);
  });
});

/**
 * A Linux router gives a host behind it the router's own port 7777 towards a peer, if that host is the
 * first to send there. The router's own daemon, with the same data port, then has another one towards
 * each peer, which nobody can know. (Where the peer was first, it is the host that has another one.)
 */
Deno.test("a router and a host behind it have one data port: both get direct paths", async () => {
  await using overlay = await Overlay.start({ keepState: true });
  const { lab } = overlay;
  const router = lab.nat("router", { openInput: true });
  const bob = overlay.node("bob", lab.nat("nat-b"), TUN);
  const alice = overlay.node("alice", router, TUN);
  await overlay.allDirect();
  const own = overlay.join(router.itself, TUN);
  await overlay.allDirect();
  for (const node of [alice, bob]) await own.reaches(node);
});
