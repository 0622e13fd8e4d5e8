/** A policy between real hosts: what it opens is reached, what it hides is not there. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { keyBase64, type NodeKey } from "../lib/keys.ts";
import type { Host } from "./lab/mod.ts";
import { Overlay, type OverlayNode, transfer, until } from "./overlay.ts";

/** For what is not to come. */
const REFUSED_S = 1;
const PATIENCE_S = 60;

function listen(host: Host, hostname: string, port: number): Deno.Listener {
  return host.within(() => ({ listener: Deno.listen({ hostname, port }) })).listener;
}

async function connects(from: Host, ip: string, port: number, expected: boolean) {
  const { stdout } = await from.run("timeout", [
    ...[`${expected ? PATIENCE_S : REFUSED_S}`, "bash", "-c"],
    `exec 3<>/dev/tcp/${ip}/${port} && echo yes`,
  ]);
  return stdout.includes("yes");
}

/** UDP to that port, as text, from an address of the host. */
class Mailbox implements Disposable {
  readonly received: string[] = [];
  readonly #socket: Deno.DatagramConn;

  constructor(host: Host, hostname: string, port: number) {
    const open = () => Deno.listenDatagram({ transport: "udp", hostname, port });
    this.#socket = host.within(() => ({ socket: open() })).socket;
    void this.#read();
  }

  async #read(): Promise<void> {
    try {
      while (true) this.received.push(new TextDecoder().decode((await this.#socket.receive())[0]));
    } catch {
      // closed
    }
  }

  async send(text: string, hostname: string, port: number): Promise<void> {
    await this.#socket.send(new TextEncoder().encode(text), { transport: "udp", hostname, port });
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

export function testPolicy(plane: "fou" | "tun"): void {
  Deno.test(`${plane}: a policy opens ports and hides peers, changes at once, cuts nothing`, async () => {
    await using overlay = await Overlay.start();
    const path = `${overlay.directory}/policy.jsonc`;
    const write = (rules: unknown[]) =>
      Deno.writeTextFileSync(path, `// by this test\n${JSON.stringify({ rules })}`);
    write([{ from: "*", to: "*", allow: "any" }]);
    await overlay.killCoordinator();
    await overlay.startCoordinator("--policy", path);
    const [alice, bob, carol] = ["alice", "bob", "carol"].map((name) =>
      overlay.join(overlay.lab.publicHost(name), ["--data-plane", plane])
    ) as [OverlayNode, OverlayNode, OverlayNode];
    await overlay.allDirect();
    const [a, b] = [await alice.tunnelIp(), await bob.tunnelIp()];
    using _web = listen(bob.host, b, 443);
    using ssh = listen(bob.host, b, 22);
    strictEqual(await connects(alice.host, b, 22, true), true);
    strictEqual(await connects(carol.host, b, 443, true), true);

    // A connection to what is closed below: it goes on.
    const { connecting } = alice.host.within(() => ({
      connecting: Deno.connect({ hostname: b, port: 22 }),
    }));
    using old = await connecting;
    const keys = await Promise.all(
      [alice, bob, carol].map(async (node) =>
        `key:${keyBase64((await node.report()).node_key as NodeKey)}`
      ),
    );
    write([{ from: keys[0], to: keys[1], allow: ["tcp:443", "icmp"] }]);
    overlay.coordinator.kill("SIGHUP");
    await until("carol to be alone", async () => (await carol.report()).peers.length === 0);
    for (
      const [node, peer, inbound] of [[alice, "bob", []], [bob, "alice", [
        "tcp:443",
        "icmp",
      ]]] as const
    ) {
      await until(`${node.host.name} to see ${peer} alone`, async () => {
        const { peers } = await node.report();
        return peers.length === 1 && peers[0]!.name === peer;
      });
      deepStrictEqual((await node.report()).peers[0]!.inbound, inbound);
    }
    strictEqual(await connects(alice.host, b, 443, true), true);
    strictEqual(await connects(alice.host, b, 22, false), false);
    await alice.ping(bob);
    // Hidden is not there: no link, whatever it sends.
    strictEqual(await connects(carol.host, b, 443, false), false);
    const { refused } = await bob.report();
    ok(refused!["against-policy"]! >= 1);
    // What was open goes on, in both directions.
    const accepted = [await ssh.accept(), await ssh.accept()];
    using far = accepted.find((one) =>
      (one.remoteAddr as Deno.NetAddr).port === (old.localAddr as Deno.NetAddr).port
    )!;
    const bytes = new Uint8Array(4);
    await far.write(new TextEncoder().encode("push"));
    strictEqual(await old.read(bytes), 4);
    for (const one of accepted) if (one !== far) one.close();

    // Bob may not open anything at alice, who goes on to reach him.
    using _own = listen(alice.host, a, 443);
    strictEqual(await connects(bob.host, a, 443, false), false);
    write([{ from: "*", to: "*", allow: "any" }]);
    overlay.coordinator.kill("SIGHUP");
    await overlay.allDirect();
    await transfer("all is open again", { from: carol.host, to: alice.host, ip: a });
  });

  Deno.test(`${plane}: who sends from another's address has none of its rights`, async () => {
    await using overlay = await Overlay.start();
    const path = `${overlay.directory}/policy.jsonc`;
    const write = (rules: unknown[]) => Deno.writeTextFileSync(path, JSON.stringify({ rules }));
    write([{ from: "*", to: "*", allow: "any" }]);
    await overlay.killCoordinator();
    await overlay.startCoordinator("--policy", path);
    const [alice, bob, carol] = ["alice", "bob", "carol"].map((name) =>
      overlay.join(overlay.lab.publicHost(name), ["--data-plane", plane])
    ) as [OverlayNode, OverlayNode, OverlayNode];
    await overlay.allDirect();
    const [a, b, c] = [await alice.tunnelIp(), await bob.tunnelIp(), await carol.tunnelIp()];
    const keys = await Promise.all(
      [alice, bob, carol].map(async (node) =>
        `key:${keyBase64((await node.report()).node_key as NodeKey)}`
      ),
    );
    write([
      { from: keys[0], to: keys[1], allow: "udp:5000" },
      { from: keys[2], to: keys[1], allow: "udp:6000" },
    ]);
    overlay.coordinator.kill("SIGHUP");
    await until("carol to see bob alone", async () => (await carol.report()).peers.length === 1);
    await until("bob to close ports", async () => {
      const { peers } = await bob.report();
      return peers.length === 2 && peers.every(({ inbound }) => inbound!.length === 1);
    });
    await carol.host.run("ip", ["address", "add", `${a}/32`, "dev", "lo"]);
    const refused = async () => (await bob.report()).refused ?? {};
    const before = await refused();
    using five = new Mailbox(bob.host, b, 5000);
    using six = new Mailbox(bob.host, b, 6000);
    using own = new Mailbox(carol.host, c, 4000);
    using stolen = new Mailbox(carol.host, a, 4000);
    await own.send("own", b, 5000);
    await stolen.send("stolen", b, 5000);
    await stolen.send("stolen", b, 6000);
    await own.send("last", b, 6000);
    await until("what is allowed to come", async () => six.received.includes("last"));
    deepStrictEqual([five.received, six.received], [[], ["last"]]);
    using right = new Mailbox(alice.host, a, 4000);
    await right.send("right", b, 5000);
    await until("alice's to come", async () => five.received.includes("right"));
    const after = await refused();
    const more = (reason: string) => (after[reason] ?? 0) - (before[reason] ?? 0);
    deepStrictEqual([more("wrong-inner-address"), more("against-policy")], [2, 1]);
  });
}
