/// <reference lib="deno.worker" />
/** Sends bad authentication packets of all kinds from a network namespace: see `Flood`. */
import type { Endpoint } from "../lib/addr.ts";
import { openNamedNetns, Poller, sockAddrOf, UdpSocket, withNetns } from "../lib/linux/mod.ts";
import * as wire from "../lib/hub/protocol/gretun/wire.ts";

const TICK_MS = 2;
const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

/** Rubbish; hellos of nobody; hellos of somebody; auths with a cookie, a MAC and a proof made up. */
function packets(): Uint8Array[] {
  const hub = { ip: "203.0.113.2", port: 7788 } as Endpoint;
  const auth = (stamp: bigint) =>
    wire.encodeAuth({
      ...{ name: "alice", nonce: random(16), stamp, cookie: random(16), hub },
      ...{
        ephemeral: random(32),
        framing: "any",
        encrypt: true,
        proof: random(64),
        mac: random(16),
      },
    });
  const rubbish = random(200);
  rubbish.set(wire.MAGIC);
  return [
    rubbish,
    wire.encodeHello({ nonce: random(16), name: "nobody" }),
    wire.encodeHello({ nonce: random(16), name: "alice" }),
    auth(0n),
    auth(BigInt(Date.now()) * 1000n),
    wire.encodeKeepalive({ session: random(8), counter: 1n, bye: true }),
  ];
}

let sent = 0;
let timer: number | undefined;
let socket: UdpSocket | undefined;
const poller = new Poller();

function start({ netns, hub, perSecond }: { netns: string; hub: Endpoint; perSecond: number }) {
  using fd = openNamedNetns(netns);
  socket = withNetns(fd, () => UdpSocket.open({ port: 0 }, poller, () => {}));
  const to = sockAddrOf(hub);
  const messages = packets();
  const startedMs = performance.now();
  timer = setInterval(() => {
    const due = Math.min((performance.now() - startedMs) * perSecond / 1000, sent + 2000);
    for (; sent < due; sent++) socket!.send(messages[sent % messages.length]!, to);
  }, TICK_MS);
}

self.onmessage = async ({ data }) => {
  if (data !== "stop") return start(data);
  clearInterval(timer);
  socket?.[Symbol.dispose]();
  await poller[Symbol.asyncDispose]();
  self.postMessage(sent);
};
