/** Forwarding by nf_tables rules against the real kernel, in namespaces that each test makes. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { type Endpoint, formatEndpoint, ipBytes, parseIp } from "../../lib/addr.ts";
import { Writer } from "../../lib/bytes.ts";
import { type Host, Lab } from "../lab/mod.ts";
import { sourceAddress } from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import * as nft from "../lab/nft.ts";
import { AF_INET, libc, openSocket, SOCK_RAW, sockaddrIn } from "../../lib/linux/libc.ts";
import { encodeUdp } from "../../lib/linux/raw_udp.ts";
import { KernelForwarding } from "../../lib/relay/kernel.ts";
import { encodeHello } from "../../lib/relay/messages.ts";
import { until } from "../overlay.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

const IPPROTO_UDP = 17;
const NODE_PORT = 7777;
const PORTS = [50_000, 50_001] as const;
/** For what must come, on a host that is busy with other tests. */
const PATIENCE_MS = 60_000;
/** For what must not come. */
const SILENCE_MS = 300;

/** Two hosts, a relay between them that does not forward packets, and the pair's rules in it. */
async function inNet(
  bytesPerSecond: number,
  body: (
    net: { lab: Lab; a: Host; b: Host; relay: Host; kernel: KernelForwarding },
  ) => Promise<void>,
): Promise<void> {
  await using lab = Lab.create({ prefix: `gretun-rk-${Deno.pid}-` });
  const [a, b, relay] = ["a", "b", "relay"].map((name) => lab.publicHost(name));
  const name = "gretun-relay-test";
  using kernel = relay!.within(() =>
    new KernelForwarding({ name, bytesPerSecond, sourceOf: () => relay!.ip })
  );
  await body({ lab, a: a!, b: b!, relay: relay!, kernel });
}

const end = (host: Host, port: number) => ({ node: { ip: host.ip, port: NODE_PORT }, port });
const pair = (a: Host, b: Host) => [end(a, PORTS[0]), end(b, PORTS[1])] as const;

/** A UDP socket of a host. */
class Socket implements Disposable {
  readonly #socket: Deno.DatagramConn;

  constructor(host: Host, port = NODE_PORT) {
    const hostname = host.ip;
    this.#socket = host.within(() => Deno.listenDatagram({ transport: "udp", hostname, port }));
  }

  async send(data: Uint8Array | string, { ip: hostname, port }: Endpoint): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    await this.#socket.send(bytes, { transport: "udp", hostname, port });
  }

  /** The next datagram, or undefined when none comes. */
  async receive(patienceMs = PATIENCE_MS): Promise<{ text: string; from: string } | undefined> {
    const late = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => late.resolve(undefined), patienceMs);
    const received = this.#socket.receive(new Uint8Array(2000)).catch(() => undefined);
    const datagram = await Promise.race([received, late.promise]);
    clearTimeout(timer);
    if (!datagram) return undefined;
    const [bytes, address] = datagram;
    const { hostname, port } = address as Deno.NetAddr;
    const from = formatEndpoint({ ip: parseIp(hostname), port });
    return { text: new TextDecoder().decode(bytes), from };
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

/** With the checksum left out. */
function sendUnsummed(from: Host, text: string, to: Endpoint): void {
  using socket = from.within(() => openSocket(AF_INET, SOCK_RAW, IPPROTO_UDP));
  const source = { ip: ipBytes(from.ip), port: NODE_PORT };
  const packet = encodeUdp(new TextEncoder().encode(text), source, { ...to, ip: ipBytes(to.ip) });
  packet.set(new Writer("network", 2).u16(0).finish(), 6);
  const address = sockaddrIn(ipBytes(to.ip), 0);
  libc().sendto(socket.fd, packet, BigInt(packet.length), 0, address, 16);
}

Deno.test("the kernel forwards both ways, with and without UDP checksum", () =>
  inNet(0, async ({ a, b, relay, kernel }) => {
    kernel.set(relay, pair(a, b));
    using atA = new Socket(a);
    using atB = new Socket(b);
    await atA.send("from a to b", { ip: relay.ip, port: PORTS[0] });
    deepStrictEqual(await atB.receive(), { text: "from a to b", from: `${relay.ip}:${PORTS[1]}` });
    await atB.send("from b to a", { ip: relay.ip, port: PORTS[1] });
    deepStrictEqual(await atA.receive(), { text: "from b to a", from: `${relay.ip}:${PORTS[0]}` });
    sendUnsummed(a, "no checksum", { ip: relay.ip, port: PORTS[0] });
    deepStrictEqual(await atB.receive(), { text: "no checksum", from: `${relay.ip}:${PORTS[1]}` });
    const { forwarded, dropped } = kernel.counters();
    deepStrictEqual([forwarded.packets, dropped.packets], [3, 0]);
    strictEqual(forwarded.bytes, 3 * (28 + 11));
  }));

Deno.test("STUN, strangers and other ports are left to the relay's sockets", () =>
  inNet(0, async ({ lab, a, b, relay, kernel }) => {
    kernel.set(relay, pair(a, b));
    const stranger = lab.publicHost("stranger");
    using atA = new Socket(a);
    using atStranger = new Socket(stranger);
    using first = new Socket(relay, PORTS[0]);
    using second = new Socket(relay, PORTS[1]);
    await atA.send(encodeHello(new Uint8Array(12)), { ip: relay.ip, port: PORTS[0] });
    strictEqual((await first.receive())?.from, `${a.ip}:${NODE_PORT}`);
    await atStranger.send("a stranger's", { ip: relay.ip, port: PORTS[0] });
    deepStrictEqual(await first.receive(), {
      text: "a stranger's",
      from: `${stranger.ip}:${NODE_PORT}`,
    });
    await atA.send("another port", { ip: relay.ip, port: PORTS[1] });
    deepStrictEqual(await second.receive(), { text: "another port", from: `${a.ip}:${NODE_PORT}` });
    strictEqual(kernel.counters().forwarded.packets, 0);
  }));

Deno.test("a side that moved, and one that is gone", () =>
  inNet(0, async ({ lab, a, b, relay, kernel }) => {
    const other = lab.publicHost("other");
    kernel.set(relay, pair(a, b));
    kernel.set(relay, pair(a, b)); // as it was
    kernel.set(relay, pair(other, b));
    using atA = new Socket(a);
    using atB = new Socket(b);
    using atOther = new Socket(other);
    await atB.send("where are you?", { ip: relay.ip, port: PORTS[1] });
    strictEqual((await atOther.receive())?.text, "where are you?");
    await atOther.send("here I am", { ip: relay.ip, port: PORTS[0] });
    strictEqual((await atB.receive())?.text, "here I am");
    kernel.set(relay, undefined);
    kernel.set(relay, undefined);
    await atB.send("to nobody", { ip: relay.ip, port: PORTS[1] });
    strictEqual(kernel.counters().forwarded.packets, 2);
    // What was there can be there again, also for another allocation.
    kernel.set(other, pair(other, b));
    await atB.send("again", { ip: relay.ip, port: PORTS[1] });
    await atB.send("again, long enough", { ip: relay.ip, port: PORTS[1] });
    ok((await atOther.receive())?.text.startsWith("again"));
    strictEqual(await atA.receive(SILENCE_MS), undefined);
  }));

Deno.test("what comes above the rate is dropped and counted", () =>
  inNet(100, async ({ a, b, relay, kernel }) => {
    kernel.set(relay, pair(a, b));
    using atA = new Socket(a);
    // Once neighbours know each other, nothing waits for that in a queue that is too short.
    ok((await a.run("ping", ["-c", "1", "-W", "60", relay.ip])).code === 0);
    for (let i = 0; i < 100; i++) {
      await atA.send(new Uint8Array(1372).fill(1), { ip: relay.ip, port: PORTS[0] });
    }
    const counted = () => {
      const { forwarded, dropped } = kernel.counters();
      return { forwarded: forwarded.packets, all: forwarded.packets + dropped.packets };
    };
    await until("all to be counted", () => Promise.resolve(counted().all === 100));
    const { forwarded, all } = counted();
    strictEqual(all, 100);
    // 64 KiB at once
    ok(Math.abs(forwarded - 47) <= 1, `${forwarded} forwarded`);
  }));

Deno.test("pairs with IPv6 are not for this table", () =>
  inNet(0, async ({ a, relay, kernel }) => {
    const v6 = { node: { ip: parseIp("2001:db8::1"), port: NODE_PORT }, port: PORTS[1] };
    kernel.set(relay, [end(a, PORTS[0]), v6]);
    const { stdout } = await relay.run("nft", ["list", "ruleset"]);
    ok(stdout.includes("gretun-relay-test") && !stdout.includes("elements"), stdout);
  }));

Deno.test("the table is its owner's alone, and goes with it", () =>
  inNet(0, async ({ relay, kernel }) => {
    const tables = async () => (await relay.run("nft", ["list", "tables"])).stdout.trim();
    strictEqual(await tables(), "table ip gretun-relay-test");
    const options = { name: "gretun-relay-test", bytesPerSecond: 0 };
    throws(() => relay.within(() => new KernelForwarding(options)), nft.NftError);
    kernel[Symbol.dispose]();
    strictEqual(await tables(), "");
  }));

Deno.test("sourceAddress() is the address towards a place, undefined without a route", async () => {
  await using lab = Lab.create({ prefix: `gretun-rk-${Deno.pid}-` });
  const host = lab.publicHost("host");
  strictEqual(host.within(() => sourceAddress(parseIp("203.0.113.200"))), host.ip);
  strictEqual(host.within(() => sourceAddress(parseIp("127.70.1.2"))), "127.0.0.1");
  const { code } = await host.run("ip", ["route", "flush", "all"]);
  strictEqual(code, 0);
  strictEqual(host.within(() => sourceAddress(parseIp("192.0.2.1"))), undefined);
});

Deno.test("what a firewall holds back is noticed, and nothing else", () =>
  inNet(0, async ({ a, b, relay, kernel }) => {
    kernel.set(relay, pair(a, b));
    using atA = new Socket(a);
    using atB = new Socket(b);
    const send = async (count: number) => {
      for (let i = 0; i < count; i++) {
        await atA.send("from a to b", { ip: relay.ip, port: PORTS[0] });
      }
    };
    await send(10);
    for (let i = 0; i < 10; i++) strictEqual((await atB.receive())?.text, "from a to b");
    strictEqual(kernel.isHeldBack(), false);
    const rules = "table inet o { chain o { type filter hook output priority 0; policy drop; " +
      "meta skuid 0 accept; }; }";
    strictEqual((await relay.run("nft", [rules])).code, 0);
    await send(3);
    const forwarded = async () => kernel.counters().forwarded.packets;
    await until("three more", async () => await forwarded() === 13);
    strictEqual(kernel.isHeldBack(), false);
    await send(1);
    await until("a fourth", async () => await forwarded() === 14);
    strictEqual(kernel.isHeldBack(), true);
    strictEqual((await relay.run("nft", ["delete table inet o"])).code, 0);
    await send(1);
    strictEqual((await atB.receive())?.text, "from a to b");
    strictEqual(kernel.isHeldBack(), false);
  }));
