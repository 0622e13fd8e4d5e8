/** Behind routers that take a peer's early datagram for one to themselves. */
import { match } from "node:assert/strict";
import type { Host, NatBehaviour } from "./lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { Overlay, until } from "./overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const PORT = 7777;
export const OPEN_INPUT = { openInput: true } as const;
const ARGS = ["--data-plane", "tun"];

/** As a peer does that was told of the host before the host was told of the peer. */
async function sendEarly(from: Host, to: string): Promise<void> {
  const socket = from.within(() =>
    Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: PORT })
  );
  await socket.send(new Uint8Array(8), { transport: "udp", hostname: to, port: PORT });
  socket.close();
}

/** Both find each other by their addresses: nobody else would find the port. */
export async function testMovedPort(natOfBob: NatBehaviour): Promise<void> {
  await using overlay = await Overlay.start();
  const { lab } = overlay;
  const natA = lab.nat("nat-a", OPEN_INPUT);
  const natB = lab.nat("nat-b", natOfBob);
  const bobsHost = lab.host("bob", { behind: natB });
  await sendEarly(bobsHost, natA.ip);
  const startMs = performance.now();
  const alice = overlay.node("alice", natA, ARGS);
  const bob = overlay.join(bobsHost, ARGS);
  await overlay.allDirect();
  const tookMs = performance.now() - startMs;
  await alice.ping(bob);
  await bob.ping(alice);
  await alice.transfers(bob);
  await until("alice to tell where new peers see her", async () => {
    const { endpoints } = await alice.report();
    return endpoints?.some((text) => text.startsWith(`${natA.ip}:`) && !text.endsWith(`:${PORT}`));
  });
  match(alice.log, /msg="relay opened"/);
  console.log(`direct after ${Math.round(tookMs)} ms`);
}
