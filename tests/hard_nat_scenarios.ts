/** Hosts behind NATs that give each remote another port find each other directly, on either plane. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type NatBehaviour, SYMMETRIC } from "./lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { GUESSING_MS, Overlay, type OverlayNode, sleep, until } from "./overlay.ts";
import { lossIn, pingUntilAnswered } from "./pings.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

type Plane = "fou" | "tun";

const SEQUENTIAL: NatBehaviour = { ...SYMMETRIC, ports: "sequential" };
const AGGRESSIVE = "--aggressive-punch";

/** Alice behind the first NAT, bob behind the second one. */
function pair(
  overlay: Overlay,
  plane: Plane,
  nats: readonly [NatBehaviour, NatBehaviour],
  args: readonly [string[], string[]] = [[], []],
): [OverlayNode, OverlayNode] {
  const [alice, bob] = (["alice", "bob"] as const).map((name, i) =>
    overlay.node(name, overlay.lab.nat(`nat-${name}`, nats[i]!), [
      ...["--data-plane", plane],
      ...args[i]!,
    ])
  );
  return [alice!, bob!];
}

async function ownNat(node: OverlayNode): Promise<unknown> {
  return await until(
    `${node.host.name} to know its NAT`,
    async () => (await node.report().catch(() => undefined))?.nat,
    () => node.log,
  );
}

/** The extra port that the node's only path uses. */
export async function localPort(node: OverlayNode): Promise<number | undefined> {
  return (await node.report()).peers[0]!.local_port;
}

/** UDP ports of IPv4 that are open on the host, with one or two by which source addresses are asked. */
async function udpPorts(node: OverlayNode): Promise<number> {
  const { stdout } = await node.host.run("cat", ["/proc/net/udp"]);
  return stdout.trim().split("\n").length - 1;
}

/** Of its kernel's FOU, IPv4. */
export async function fouPorts(node: OverlayNode): Promise<string[]> {
  const { stdout } = await node.host.run("ip", ["fou", "show"]);
  return [...stdout.matchAll(/port (\d+) ipproto 47(?! -6)/g)].map(([, port]) => port!).sort();
}

/** The largest packets, once paths that were found at the same time are sorted out. */
export async function pingBothWays(alice: OverlayNode, bob: OverlayNode): Promise<void> {
  await alice.reaches(bob);
  await bob.reaches(alice);
  await alice.ping(bob, { sizeBytes: 1464 - 28 });
  await bob.ping(alice, { sizeBytes: 1464 - 28 });
  await alice.transfers(bob);
}

/** A pair whose one side has a port of its own for the other. */
export function predictable(overlay: Overlay, plane: Plane): [OverlayNode, OverlayNode] {
  return pair(overlay, plane, [SEQUENTIAL, {}]);
}

export function testHardNats(plane: Plane): void {
  Deno.test(`${plane}: a NAT that takes ports in order, and one with one port`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = predictable(overlay, plane);
    deepStrictEqual(await ownNat(alice), { mapping: "hard", port_delta: 1 });
    deepStrictEqual(await ownNat(bob), { mapping: "easy" });
    await overlay.allDirect();
    await pingBothWays(alice, bob);
    ok(await localPort(alice));
    strictEqual(await localPort(bob), undefined);
    for (const node of [alice, bob]) strictEqual(await node.stop("SIGTERM"), 0, node.log);
    for (const node of [alice, bob]) deepStrictEqual(await node.linkNames(), ["eth0"]);
    strictEqual(await udpPorts(alice), 0);
  });

  Deno.test(`${plane}: two NATs that take ports in order`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = pair(overlay, plane, [SEQUENTIAL, SEQUENTIAL]);
    await overlay.allDirect();
    await pingBothWays(alice, bob);
    for (const node of [alice, bob]) ok(await localPort(node), alice.log + "\n\n" + bob.log);
  });

  Deno.test(`${plane}: a NAT with random ports, and one with one port`, async () => {
    await using overlay = await Overlay.start();
    const nats = [SYMMETRIC, {}] as const;
    const [alice, bob] = pair(overlay, plane, nats, [[AGGRESSIVE], [AGGRESSIVE]]);
    deepStrictEqual(await ownNat(alice), { mapping: "hard" });
    const ip = await bob.tunnelIp();
    await until("a path", async () => (await alice.report()).peers[0]?.state === "relay");
    const pings = pingUntilAnswered(alice.host, ip, { count: 75 });
    await overlay.allDirect(overlay.nodes, GUESSING_MS);
    const { text, answered } = await pings;
    ok(
      answered.length === 75 && lossIn(answered) < 0.2,
      `the relay carries data meanwhile: ${text}`,
    );
    const port = await localPort(alice);
    ok(port);
    await pingBothWays(alice, bob);
    await until("other ports to be closed", async () => await udpPorts(alice) <= 5);
    match(alice.log, /msg="relay opened"/);
  });

  Deno.test(`${plane}: random ports are not guessed where one side does not want it`, async () => {
    await using overlay = await Overlay.start();
    const nats = [SYMMETRIC, {}] as const;
    const [alice, bob] = pair(overlay, plane, nats, [[], [AGGRESSIVE]]);
    for (const node of [alice, bob]) {
      await until("the relay", async () => {
        return (await node.report().catch(() => undefined))?.peers[0]?.state === "relay";
      }, () => node.log);
    }
    await sleep(5_000);
    strictEqual((await bob.report()).peers[0]!.state, "relay");
    ok(await udpPorts(alice) <= 5);
  });
}
