/**
 * Strangers on the network, one of them behind the same NAT, see every packet and send what can be
 * made of them to every port: nothing changes, on either plane.
 */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import type { Endpoint } from "../lib/addr.ts";
import { readKernelFile } from "../lib/linux/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import {
  Attacker,
  Capture,
  type Captured,
  discoKeysIn,
  forgeries,
  isDisco,
  variants,
} from "./hostile.ts";
import { Overlay, type OverlayNode, sleep, until } from "./overlay.ts";
import { lossIn, pingUntilAnswered } from "./pings.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const PORT = 7777;
const ATTACK_PORTS = [40_001, 40_002, 40_003, 40_004];
/** Lets everybody in, so that the strangers get as far as the nodes. */
const OPEN = { filtering: "endpoint-independent" } as const;
/** What a garbage-collected heap may gain in seconds. */
const RSS_GAIN_MB = 16;

function rssMb({ process: { pid } }: OverlayNode): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB/m.exec(readKernelFile(`/proc/${pid}/status`))!;
  return Number(kilobytes) / 1024;
}

/** What nobody but the nodes themselves may change. */
async function standing(nodes: readonly OverlayNode[]): Promise<unknown> {
  return await Promise.all(nodes.map(async (node) => {
    const { endpoints, peers } = await node.report();
    return {
      endpoints,
      peers: peers.map(({ name, state, path, endpoint, ifname }) =>
        [name, state, path, endpoint, ifname].join(" ")
      ).sort(),
    };
  }));
}

/** How often paths changed: never, unless an emulated machine has too much to do to answer pings. */
function changes(nodes: readonly OverlayNode[]): number[] {
  return nodes.map(({ log }) => log.match(/msg="(tunnel up|path lost|relay lost)/g)!.length);
}

/** `floodPerSecond`: packets that a stranger sends for a while, as many as this machine can. */
export function testStrangers(plane: "fou" | "tun", floodPerSecond: number): void {
  Deno.test(`${plane}: strangers who see and send everything change nothing`, async (t) => {
    await using overlay = await Overlay.start();
    const { lab, coord } = overlay;
    const [natA, natB] = [lab.nat("nat-a", OPEN), lab.nat("nat-b", OPEN)];
    using mallory = new Attacker(lab.publicHost("mallory"), ATTACK_PORTS.slice(0, 2));
    using eve = new Attacker(lab.host("eve", { behind: natA }), ATTACK_PORTS.slice(2));
    using forger = new Attacker(lab.publicHost("forger"), [PORT]);
    const attackers = [mallory, eve];

    let isLive = true;
    const attack = async (packet: Captured, discoKeys: readonly Uint8Array[]) => {
      for (const { to, payload } of variants(packet, discoKeys, [packet.to])) {
        await Promise.all(attackers.map((attacker) => attacker.send(payload, to)));
      }
    };
    const live: Promise<void>[] = [];
    const capture: Capture = await Capture.start(lab.internet, "internet", (packet) => {
      const isAttack = [packet.from.port, packet.to.port].some((port) =>
        ATTACK_PORTS.includes(port)
      );
      if (isAttack || !isLive) return;
      live.push(attack(packet, discoKeysIn(capture.packets)));
    });
    const args = ["--data-plane", plane];
    const alice = overlay.node("alice", natA, args);
    const [bob, carol] = ["bob", "carol"].map((name) => overlay.node(name, natB, args));
    const nodes = [alice, bob!, carol!];

    await t.step("while the nodes meet", async () => {
      await overlay.allDirect();
      await sleep(1_000);
      isLive = false;
      await Promise.all(live);
      // A flood from the same address uses up what a STUN server answers to that address.
      const isSeen = async () => (await alice.report()).endpoints!.includes(`${natA.ip}:${PORT}`);
      await until("alice to know her public address", isSeen, () => alice.log);
      await alice.pathTo("bob", new RegExp(`^${natB.ip}:`));
      await bob!.pathTo("alice", new RegExp(`^${natA.ip}:${PORT}$`));
      await alice.ping(bob!);
    });

    const before = await standing(nodes);
    const changesBefore = changes(nodes);
    const nothingHasChanged = async () => {
      const isAsBefore = async () => isDeepStrictEqual(await standing(nodes), before);
      if (plane === "tun") deepStrictEqual(changes(nodes), changesBefore);
      else await until("paths to be as before", isAsBefore);
      deepStrictEqual(await standing(nodes), before);
      for (const { log } of nodes) {
        for (const { host } of attackers) ok(!log.includes(`endpoint=${host.ip}:`), log);
      }
    };
    const seen = capture.packets.filter(({ from, to }) =>
      ![from.port, to.port].some((port) => ATTACK_PORTS.includes(port))
    );
    // Those of the nodes first: on a slow machine many others come before them.
    const recorded = [...seen.filter(isDisco).slice(0, 60), ...seen.slice(0, 40)];
    ok(recorded.some(isDisco), `${recorded.length} packets recorded`);
    const discoKeys = discoKeysIn(recorded);
    const ports = [PORT, 3478, 3479, 8443];
    const places: Endpoint[] = [
      ...[natA.ip, natB.ip, alice.host.ip, bob!.host.ip].map((ip) => ({ ip, port: PORT })),
      ...ports.slice(1).map((port) => ({ ip: coord.ip, port })),
    ];

    await t.step(
      "when all is recorded and sent again, changed, cut, reflected, forged",
      async () => {
        // Under the address and port of bob: what comes back goes to him.
        const spoof = `table ip spoof { chain post { type nat hook postrouting priority 100; ` +
          `meta l4proto udp snat to ${natB.ip}:${PORT}; }; }`;
        ok((await forger.host.run("nft", [spoof])).code === 0);
        for (const packet of recorded) await attack(packet, discoKeys);
        for (const payload of forgeries(discoKeys)) {
          for (const place of places) {
            for (const attacker of [...attackers, forger]) await attacker.send(payload, place);
          }
        }
        for (const { payload } of recorded.slice(0, 50)) {
          await forger.send(payload, { ip: natA.ip, port: PORT });
        }
        await sleep(500);
        await nothingHasChanged();
      },
    );

    await t.step(`under ${floodPerSecond} packets a second`, async () => {
      const flood = discoKeys.flatMap((key) => forgeries([key])).slice(-1)[0]!;
      const rssBefore = nodes.map(rssMb);
      const startMs = performance.now();
      let sent = 0;
      // The flood goes on until so many are answered.
      let isAnswered = false;
      const pings = pingUntilAnswered(alice.host, await bob!.tunnelIp(), { count: 40, gapS: 0.05 })
        .finally(() => isAnswered = true);
      while (!isAnswered) {
        const due = Math.floor((performance.now() - startMs) * floodPerSecond / 1000);
        const batch = Math.min(due - sent, 400);
        await Promise.all(
          Array.from(
            { length: Math.ceil(batch / 2) },
            () => mallory.send(flood, { ip: natA.ip, port: PORT }),
          ),
        );
        sent += 2 * Math.ceil(batch / 2);
        await sleep(1);
      }
      const rate = Math.round(1000 * sent / (performance.now() - startMs));
      const { text, answered } = await pings;
      const loss = Math.round(100 * lossIn(answered));
      console.log(`${loss} % of the pings through the tunnel were lost meanwhile`);
      strictEqual(answered.length, 40, text);
      await sleep(1_000);
      const gains = nodes.map((node, i) => rssMb(node) - rssBefore[i]!);
      console.log(
        `${rate} packets/s; memory grew by ${gains.map((mb) => mb.toFixed(1)).join(", ")} MB`,
      );
      for (const gain of gains) ok(gain < RSS_GAIN_MB, `${gain} MB`);
      await nothingHasChanged();
      await alice.ping(bob!);
    });

    for (const { host, sentBytes, receivedBytes, answeredBy } of attackers) {
      const by = [...answeredBy].join(" ");
      console.log(`${host.name}: ${sentBytes} bytes sent, ${receivedBytes} came back from ${by}`);
      ok(receivedBytes < sentBytes / 10, "answers are few and small");
    }
    capture.stop();
    await capture.ended;
  });
}
