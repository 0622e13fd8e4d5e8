/** `gretun up` over IPv6, on the user-space plane. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { testIpv6, testIpv6Meeting } from "../ipv6_scenarios.ts";
import { Overlay } from "../overlay.ts";

testIpv6Meeting("tun");
testIpv6("tun");

const TUN = ["--data-plane", "tun"];

async function set(host: Overlay["coord"], name: string, value: string): Promise<void> {
  const { code, stderr } = await host.run("sysctl", ["-q", "-w", `net.ipv6.${name}=${value}`]);
  strictEqual(code, 0, stderr);
}

Deno.test("tun: a host that keeps sockets of IPv4 and IPv6 apart has peers of either", async () => {
  await using overlay = await Overlay.start({ ipv6: true });
  const { lab } = overlay;
  const host = lab.publicHost("alice", { families: "dual" });
  await set(host, "bindv6only", "1");
  const alice = overlay.join(host, TUN);
  const bob = overlay.join(lab.publicHost("bob", { families: "ipv6" }), TUN);
  const carol = overlay.node("carol", lab.nat("nat-c"), TUN);
  await alice.pathTo("bob", /^\[2001:db8:/);
  await alice.pathTo("carol", /^203\./);
  for (const node of [bob, carol]) {
    await alice.ping(node);
    await node.ping(alice);
  }
});

Deno.test("tun: a host whose IPv6 is turned off has IPv4", async () => {
  await using overlay = await Overlay.start({ ipv6: true });
  const { lab } = overlay;
  const host = lab.publicHost("alice");
  await set(host, "conf.all.disable_ipv6", "1");
  const alice = overlay.join(host, TUN);
  const bob = overlay.node("bob", lab.nat("nat-b", { ipv6: true }), TUN, "dual");
  await overlay.allDirect();
  await alice.ping(bob);
  await bob.ping(alice);
  deepStrictEqual((await alice.report()).endpoints, [`${host.ip}:7777`]);
});
