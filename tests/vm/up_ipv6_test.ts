/** `gretun up` over IPv6 on the kernel plane: needs a kernel with FOU and GRE, see boot.sh. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { testIpv6 } from "../ipv6_scenarios.ts";
import { Overlay, until } from "../overlay.ts";

testIpv6("fou");

const OVER_IPV6 = /^\[2001:db8:/;

/** Two hosts with IPv6, on these planes. */
async function twoNodes(overlay: Overlay, planes: readonly [string, string]) {
  const { lab } = overlay;
  const nodes = planes.map((plane, i) => {
    const name = ["alice", "bob"][i]!;
    const nat = lab.nat(`nat-${i}`, { ipv6: true });
    return overlay.node(name, nat, ["--data-plane", plane], "dual");
  });
  const [alice, bob] = [nodes[0]!, nodes[1]!];
  await alice.pathTo("bob", OVER_IPV6);
  await bob.pathTo("alice", OVER_IPV6);
  return [alice, bob] as const;
}

for (const planes of [["fou", "tun"], ["tun", "fou"]] as const) {
  Deno.test(`${planes.join(" and ")}: a kernel and a user-space node talk over IPv6`, async () => {
    await using overlay = await Overlay.start({ ipv6: true });
    const [alice, bob] = await twoNodes(overlay, planes);
    await alice.ping(bob, { sizeBytes: 1400 });
    await bob.ping(alice, { sizeBytes: 1444 - 28 });
  });
}

Deno.test("fou: a link over IPv6 outlives SIGKILL and is adopted, SIGTERM removes link and ports", async () => {
  await using overlay = await Overlay.start({ ipv6: true });
  const [alice, bob] = await twoNodes(overlay, ["fou", "fou"]);
  const ports = async () => {
    const { stdout } = await alice.host.run("ip", ["fou", "show"]);
    return stdout.trim().split("\n").sort();
  };
  deepStrictEqual(await ports(), ["port 7777 ipproto 47", "port 7777 ipproto 47 -6"]);
  const [link] = await alice.linkCounters();
  strictEqual(link!.kind, "ip6gre");
  const ip = await bob.tunnelIp();
  const ifindex = await alice.ifindex("gretun0");
  await alice.stop("SIGKILL");
  strictEqual((await alice.host.run("ping", ["-c", "3", "-i", "0.1", ip])).code, 0);
  alice.start();
  await alice.pathTo("bob", OVER_IPV6);
  strictEqual(await alice.ifindex("gretun0"), ifindex, "the link is adopted, not rebuilt");
  await alice.ping(bob);
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  deepStrictEqual(await ports(), [""]);
  deepStrictEqual(await alice.linkNames(), ["eth0"]);
});

Deno.test("fou: links over IPv6 of peers that are gone are removed at the next start", async () => {
  await using overlay = await Overlay.start({ ipv6: true });
  const [alice, bob] = await twoNodes(overlay, ["fou", "fou"]);
  await alice.stop("SIGKILL");
  strictEqual(await bob.stop("SIGTERM"), 0, bob.log);
  alice.start();
  const onlyEth0 = async () => (await alice.linkNames()).join() === "eth0";
  await until("bob's link to go", onlyEth0, () => alice.log);
});
