/** The hub's table against the real kernel: what nft reads back, and what comes through. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseEndpoint, parseIp } from "../../lib/addr.ts";
import { concatBytes, equalBytes } from "../../lib/bytes.ts";
import { Fence, type FenceOptions } from "../../lib/hub/fence.ts";
import { HUB_SIGNALLING } from "../../lib/hub/protocol/gretun/wire.ts";
import { IPIPOU_SIGNALLING } from "../../lib/hub/protocol/ipipou/wire.ts";
import { SourceFence } from "../../lib/hub/source_fence.ts";
import { type Host, Lab } from "../../lib/lab/mod.ts";
import { Poller, UdpSocket } from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { sleep } from "../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const text = (value: string) => new TextEncoder().encode(value);
/** IPv4 that says its own length. */
const data = (length: number) => {
  const bytes = new Uint8Array(length);
  bytes.set([0x45, 0, length >> 8, length & 0xff]);
  return bytes;
};
const MAGIC = Uint8Array.of(0xe7, 0x67, 0x72, 0x74);
const TOKEN = text("Elephant-of-a-token-that-is-long");

const CASES: [string, FenceOptions["signalling"], Uint8Array, boolean][] = [
  ["our signalling", HUB_SIGNALLING, concatBytes(MAGIC, new Uint8Array(60)), true],
  ["GRE", HUB_SIGNALLING, concatBytes(Uint8Array.of(0x20, 0, 8, 0), data(60)), false],
  ["bare IPv4", HUB_SIGNALLING, data(60), false],
  ["nothing", HUB_SIGNALLING, new Uint8Array(), false],
  ["ipipou: data", IPIPOU_SIGNALLING, data(60), false],
  ["ipipou: data as long as a signature", IPIPOU_SIGNALLING, data(73), false],
  ["ipipou: a signature", IPIPOU_SIGNALLING, new Uint8Array(73).fill(0x91), true],
  [
    "ipipou: a signature that begins as data does",
    IPIPOU_SIGNALLING,
    new Uint8Array(73).fill(0x45),
    true,
  ],
  ["ipipou: an empty packet", IPIPOU_SIGNALLING, new Uint8Array(), true],
  ["ipipou: a short token", IPIPOU_SIGNALLING, text("Eleph"), true],
  ["ipipou: the token", IPIPOU_SIGNALLING, TOKEN, true],
  ["ipipou: another token", IPIPOU_SIGNALLING, text("Elephants-of-a-token-that-is-long"), false],
];

Deno.test("fence: what strangers get in, and clients; nothing is left", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  const hub = lab.publicHost("hub");
  const peer = lab.publicHost("peer");
  await using poller = new Poller();
  const received: Uint8Array[] = [];
  using receiver = hub.within(() =>
    UdpSocket.open({ port: 7788 }, poller, (bytes) => received.push(bytes.slice()))
  );
  const { socket } = peer.within(() => ({
    socket: Deno.listenDatagram({ transport: "udp", hostname: peer.ip, port: 4000 }),
  }));
  const LAST = text("last");
  const to = { transport: "udp", hostname: hub.ip, port: receiver.port } as const;
  /** Whether it comes before a packet that comes for sure, as the table lets it in. */
  const comes = async (bytes: Uint8Array, last: Uint8Array) => {
    received.length = 0;
    await socket.send(bytes, to);
    await socket.send(last, to);
    for (let i = 0; i < 200 && !received.some((r) => equalBytes(r, last)); i++) await sleep(5);
    ok(received.some((r) => equalBytes(r, last)));
    return received.length === 2;
  };
  for (const [name, signalling, bytes, passes] of CASES) {
    const last = signalling === HUB_SIGNALLING ? concatBytes(MAGIC, LAST) : LAST;
    const options = { port: 7788, signalling, tokens: () => [TOKEN] };
    using fence = hub.within(() => new Fence(options));
    strictEqual(await comes(bytes, last), passes, name);
    fence.set("peer", { endpoint: parseEndpoint(`${peer.ip}:4000`) });
    strictEqual(await comes(bytes, last), true, `${name}, of a client`);
    fence.set("peer", { endpoint: parseEndpoint(`${peer.ip}:4001`) });
    strictEqual(await comes(bytes, last), passes, `${name}, from another port of a client`);
  }
  socket.close();
  strictEqual((await hub.run("nft", ["list", "ruleset"])).stdout, "");
});

Deno.test("fence: alternative addresses are rewritten both ways, as nft reads it", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  const hub = lab.publicHost("hub");
  const peer = lab.publicHost("peer");
  await hub.run("ip", ["address", "add", "172.29.0.1/32", "dev", "lo"]);
  using fence = hub.within(() => new Fence({ port: 7788, signalling: HUB_SIGNALLING }));
  const alternative = parseIp("172.29.0.1");
  fence.set("first", { endpoint: parseEndpoint(`${peer.ip}:4000`), alternative, own: hub.ip });
  fence.set("second", { endpoint: parseEndpoint(`${peer.ip}:4001`) });
  const { stdout } = await hub.run("nft", ["list", "table", "ip", "gretun-hub-7788"]);
  const lines = stdout.split("\n").map((line) => line.trim());
  deepStrictEqual(lines.filter((line) => /daddr set|saddr set/.test(line)), [
    "udp dport 7788 ip daddr set ip saddr . udp sport map @alternatives accept",
    "udp sport 7788 ip saddr set ip saddr map @own",
  ]);
  // A socket on the alternative address alone: packets of the one client come to it, answers go back.
  await using poller = new Poller();
  const received: string[] = [];
  using socket = hub.within(() =>
    UdpSocket.open({ port: 7788, bind: alternative }, poller, (bytes, source) => {
      received.push(new TextDecoder().decode(bytes));
      socket.send(bytes, source.slice());
    })
  );
  const to = { transport: "udp", hostname: hub.ip, port: 7788 } as const;
  for (const port of [4000, 4001]) {
    const { conn } = peer.within(() => ({
      conn: Deno.listenDatagram({ transport: "udp", hostname: peer.ip, port }),
    }));
    await conn.send(text(`from ${port}`), to);
    if (port === 4000) {
      const [answer, from] = await conn.receive();
      strictEqual(new TextDecoder().decode(answer), "from 4000");
      deepStrictEqual({ ...from }, { transport: "udp", hostname: hub.ip, port: 7788 });
    } else await sleep(100);
    conn.close();
  }
  deepStrictEqual(received, ["from 4000"]);
  const conntrack = await hub.run("sh", ["-c", "cat /proc/net/nf_conntrack 2>/dev/null"]);
  ok(!conntrack.stdout.includes("172.29"), conntrack.stdout);
});

Deno.test("fence: links come, move and go one by one; a table that somebody removed is made again", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  const hub = lab.publicHost("hub");
  const place = (at: string, alternative?: string) => ({
    endpoint: parseEndpoint(at),
    ...(alternative ? { alternative: parseIp(alternative), own: hub.ip } : {}),
  });
  using fence = hub.within(() =>
    new Fence({ port: 7788, signalling: HUB_SIGNALLING }, [["old", place("192.0.2.1:1")]])
  );
  const sets = async () => {
    const { stdout } = await hub.run("nft", ["list", "table", "ip", "gretun-hub-7788"]);
    const elements = [...stdout.matchAll(/elements = \{([^}]*)\}/g)];
    return elements.map(([, text]) => text!.split(",").map((each) => each.trim()).sort());
  };
  deepStrictEqual(await sets(), [["192.0.2.1 . 1"]]);
  fence.set("old", place("192.0.2.1:2"));
  fence.set("second", place("192.0.2.1:3", "172.29.0.1"));
  fence.set("third", place("192.0.2.1:4", "172.29.0.2"));
  const three = ["192.0.2.1 . 2", "192.0.2.1 . 3", "192.0.2.1 . 4"];
  deepStrictEqual(await sets(), [
    three,
    ["192.0.2.1 . 3 : 172.29.0.1", "192.0.2.1 . 4 : 172.29.0.2"],
    [`172.29.0.1 : ${hub.ip}`, `172.29.0.2 : ${hub.ip}`],
  ]);
  fence.set("second", place("192.0.2.9:3"));
  fence.set("third", place("192.0.2.1:4", "172.29.0.1"));
  fence.set("old", undefined);
  const expected = [
    ["192.0.2.1 . 4", "192.0.2.9 . 3"],
    ["192.0.2.1 . 4 : 172.29.0.1"],
    [`172.29.0.1 : ${hub.ip}`],
  ];
  deepStrictEqual(await sets(), expected);
  strictEqual((await hub.run("nft", ["flush", "ruleset"])).code, 0);
  fence.set("new", place("192.0.2.5:5"));
  fence.set("new", undefined);
  deepStrictEqual(await sets(), expected);
});

Deno.test("source fence: IPv6 of a link comes in only if it is routed back into it", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  const hub = lab.publicHost("hub");
  const peer = lab.publicHost("peer");
  const shell = (host: Host, command: string) => host.run("sh", ["-c", command]);
  await shell(
    hub,
    "ip -6 address add fd00::1/64 dev eth0 nodad; ip -6 route add fd00:9::/64 dev lo",
  );
  await shell(peer, "ip -6 address add fd00::2/64 dev eth0 nodad");
  await shell(peer, "ip -6 address add fd00:9::2/64 dev eth0 nodad");
  const arrived = async (source: string) => {
    const before = await received(hub);
    await peer.run("ping", ["-n", "-c", "1", "-W", "1", "-I", source, "fd00::1"]);
    return await received(hub) > before;
  };
  strictEqual(await arrived("fd00:9::2"), true);
  const fence = hub.within(() => new SourceFence(7788));
  const [, ifindex] = /"ifindex":(\d+)/.exec(
    (await hub.run("ip", ["-j", "link", "show", "eth0"])).stdout,
  )!;
  fence.set("peer", Number(ifindex));
  strictEqual(await arrived("fd00:9::2"), false);
  strictEqual(await arrived("fd00::2"), true);
  const table = (await hub.run("nft", ["list", "table", "ip6", "gretun-hub-7788"])).stdout;
  ok(/iif @links fib saddr \. iif oif missing counter packets 1 .* drop/.test(table), table);
  fence[Symbol.dispose]();
  strictEqual((await hub.run("nft", ["list", "ruleset"])).stdout, "");
});

/** Echo requests that the host's ICMPv6 has seen. */
async function received(host: Host): Promise<number> {
  const { stdout } = await host.run("grep", ["Icmp6InEchos ", "/proc/net/snmp6"]);
  return Number(stdout.split(/\s+/)[1]);
}
