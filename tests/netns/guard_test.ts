/** The guard's tables against the real kernel: what nft reads back, and what comes through. */
import { deepStrictEqual, fail, ok, strictEqual } from "node:assert/strict";
import { parseCidr, parseEndpoint, parseIp } from "../../lib/addr.ts";
import { concatBytes, equalBytes, fromHex } from "../../lib/bytes.ts";
import { KernelGuard } from "../../lib/dataplane/guard/kernel_guard.ts";
import type { GuardedLink, RuleOptions } from "../../lib/dataplane/guard/rules.ts";
import { DISCO_PATTERN } from "../../lib/disco/mod.ts";
import { type Host, linuxHost } from "../../lib/host/mod.ts";
import { HUB_SIGNALLING } from "../../lib/hub/protocol/gretun/wire.ts";
import { IPIPOU_SIGNALLING } from "../../lib/hub/protocol/ipipou/wire.ts";
import { type Host as LabHost, Lab } from "../lab/mod.ts";
import { Poller, UdpSocket } from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { RELAY_ERROR, RELAY_PATTERN, RELAY_SUCCESS } from "../../lib/relay/messages.ts";
import { BINDING_PATTERN } from "../../lib/stun/mod.ts";
import { sleep, until } from "../overlay.ts";
import { pingWithoutLoss } from "../pings.ts";

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

const CASES: [string, RuleOptions["signalling"], Uint8Array, boolean][] = [
  ["our signalling", HUB_SIGNALLING, concatBytes(MAGIC, new Uint8Array(60)), true],
  ["GRE", HUB_SIGNALLING, concatBytes(Uint8Array.of(0x20, 0, 8, 0), data(60)), false],
  ["bare IPv4", HUB_SIGNALLING, data(60), false],
  ["nothing", HUB_SIGNALLING, new Uint8Array(), false],
  ["ipipou: data", IPIPOU_SIGNALLING, data(60), false],
  ["ipipou: data as long as a signature", IPIPOU_SIGNALLING, data(73), false],
  [
    "ipipou: shorter data, filled up to the length of a signature",
    IPIPOU_SIGNALLING,
    concatBytes(data(60), new Uint8Array(13)),
    false,
  ],
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

const NO_LINK = { ifindex: 999, ifname: "none" };

/** A device as a link that is guarded. */
async function eth0Of(host: LabHost) {
  const { stdout } = await host.run("ip", ["-j", "link", "show", "eth0"]);
  return { ifindex: Number(/"ifindex":(\d+)/.exec(stdout)![1]), ifname: "eth0" };
}
function open(
  host: Host,
  signalling: RuleOptions["signalling"] = HUB_SIGNALLING,
  links: [string, GuardedLink][] = [],
): KernelGuard {
  const lookalikes = { lengths: [73], tokens: () => [TOKEN] };
  const options = { role: "hub", port: 7788, signalling, lookalikes };
  return new KernelGuard(host, options, { links, onFault: fail });
}

Deno.test("fence: what strangers get in, and clients; nothing is left", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
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
    await until("the last", async () => received.some((r) => equalBytes(r, last)));
    return received.length === 2;
  };
  for (const [name, signalling, bytes, passes] of CASES) {
    const last = signalling === HUB_SIGNALLING ? concatBytes(MAGIC, LAST) : LAST;
    using guard = hub.within(() => open(host, signalling));
    strictEqual(await comes(bytes, last), passes, name);
    guard.set("peer", { ...NO_LINK, remote: parseEndpoint(`${peer.ip}:4000`) });
    strictEqual(await comes(bytes, last), true, `${name}, of a client`);
    guard.set("peer", { ...NO_LINK, remote: parseEndpoint(`${peer.ip}:4001`) });
    strictEqual(await comes(bytes, last), passes, `${name}, from another port of a client`);
  }
  socket.close();
  strictEqual((await hub.run("nft", ["list", "ruleset"])).stdout, "");
});

Deno.test("fence: data has the key of its link", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const [hub, peer] = [lab.publicHost("hub"), lab.publicHost("peer")];
  using guard = hub.within(() =>
    new KernelGuard(
      host,
      { role: "up", port: 7788, signalling: HUB_SIGNALLING, isKeyed: true },
      { links: [], onFault: fail },
    )
  );
  guard.set("peer", { ...NO_LINK, ikey: 0x01020304, remote: parseEndpoint(`${peer.ip}:4000`) });
  const { socket } = peer.within(() => ({
    socket: Deno.listenDatagram({ transport: "udp", hostname: peer.ip, port: 4000 }),
  }));
  const refused = () => guard.refused().get("wrong-address");
  const cases: [bytes: number[], refused: number][] = [
    [[0x20, 0, 8, 0, 1, 2, 3, 4, 0x45], 0],
    [[0x20, 0, 8, 0, 1, 2, 3, 5, 0x45], 1],
    [[0, 0, 8, 0, 0x45], 2],
  ];
  for (const [bytes, count] of cases) {
    await socket.send(Uint8Array.from(bytes), { transport: "udp", hostname: hub.ip, port: 7788 });
    strictEqual(refused(), count, `${bytes}`);
  }
  // With --gre-key off data has none: address and port tell.
  guard.set("peer", { ...NO_LINK, remote: parseEndpoint(`${peer.ip}:4000`) });
  const before = refused()!;
  const keyless = Uint8Array.of(0, 0, 8, 0, 0x45);
  await socket.send(keyless, { transport: "udp", hostname: hub.ip, port: 7788 });
  strictEqual(refused(), before);
  guard.set("peer", { ...NO_LINK, remote: parseEndpoint(`${peer.ip}:4001`) });
  await socket.send(keyless, { transport: "udp", hostname: hub.ip, port: 7788 });
  strictEqual(refused(), before + 1);
  socket.close();
});

Deno.test("fence: data that looks like signalling has its way to come, too", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const [hub, peer] = [lab.publicHost("hub"), lab.publicHost("peer")];
  const any = [DISCO_PATTERN, BINDING_PATTERN, RELAY_PATTERN];
  const options = { role: "up", port: 7788, isKeyed: true };
  using guard = hub.within(() =>
    new KernelGuard(host, { ...options, signalling: { kind: "patterns", any } }, {
      links: [],
      onFault: fail,
    })
  );
  guard.set("peer", { ...NO_LINK, ikey: 0x01020304, remote: parseEndpoint(`${peer.ip}:4000`) });
  const { socket } = peer.within(() => ({
    socket: Deno.listenDatagram({ transport: "udp", hostname: peer.ip, port: 4001 }),
  }));
  const cases: [what: string, packet: string, isRefused: boolean][] = [
    ["disco", "5453f09f92ac 45", false],
    ["STUN's request", "00010000 2112a442 45", false],
    ["STUN's answer", "01010000 2112a442 45", false],
    ["a relay's answer", `${RELAY_SUCCESS.toString(16)}0000 2112a442 45`, false],
    ["a relay's error", `${RELAY_ERROR.toString(16)}0000 2112a442 45`, false],
    ["GRE with a checksum like STUN's cookie", "a0000800 2112a442 01020304 45", true],
    ["GRE with that checksum and no key", "80000800 2112a442 45", true],
    ["GRE with such a sequence number", "10000800 2112a442 45", true],
    ["GRE with such a key", "20000800 2112a442 45", true],
    ["GRE around what begins so", "00000800 2112a442 45", true],
  ];
  let refused = 0;
  for (const [what, packet, isRefused] of cases) {
    const bytes = fromHex(packet.replaceAll(" ", ""));
    await socket.send(bytes, { transport: "udp", hostname: hub.ip, port: 7788 });
    refused += isRefused ? 1 : 0;
    strictEqual(guard.refused().get("wrong-address"), refused, what);
  }
  socket.close();
});

Deno.test("fence: data of a link comes in UDP, though the kernel takes it without", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const [hub, peer] = [lab.publicHost("hub"), lab.publicHost("peer")];
  const remote = parseEndpoint(`${peer.ip}:4000`);
  const cases: [
    what: string,
    isKeyed: boolean,
    ikey: number | undefined,
    protocol: number,
    packet: string,
    isRefused: boolean,
  ][] = [
    ["GRE of the link", true, 0x01020304, 47, "2000080001020304 45", true],
    ["GRE with another key", true, 0x01020304, 47, "2000080001020305 45", false],
    ["GRE without a key", true, 0x01020304, 47, "00000800 45", false],
    ["GRE of a link without a key", true, undefined, 47, "00000800 45", true],
    ["GRE with a key", true, undefined, 47, "2000080001020304 45", false],
    ["IPIP", false, undefined, 4, "45", true],
    ["GRE", false, undefined, 47, "00000800 45", false],
  ];
  const send = `use Socket; socket(S, AF_INET, SOCK_RAW, $ARGV[1]) or die $!;` +
    `send(S, pack("H*", $ARGV[2]), 0, pack_sockaddr_in(0, inet_aton($ARGV[0]))) or die $!;`;
  for (const [what, isKeyed, ikey, protocol, packet, isRefused] of cases) {
    const options = { role: "up", port: 7788, signalling: HUB_SIGNALLING, isKeyed };
    using guard = hub.within(() => new KernelGuard(host, options, { links: [], onFault: fail }));
    guard.set("peer", { ...NO_LINK, ...(ikey === undefined ? {} : { ikey }), remote });
    const hex = packet.replace(" ", "");
    const { code, stderr } = await peer.run("perl", ["-e", send, hub.ip, `${protocol}`, hex]);
    strictEqual(code, 0, stderr);
    strictEqual(guard.refused().get("wrong-address"), isRefused ? 1 : 0, what);
  }
});

Deno.test("fence: data between others passes a router, whatever its port", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const router = lab.nat("router");
  const [inside, peer] = [lab.host("inside", { behind: router }), lab.publicHost("peer")];
  using guard = router.within(() => open(host));
  const at = (node: LabHost) => ({ transport: "udp", hostname: node.ip, port: 7788 }) as const;
  const [near, far] = [inside, peer].map((node) =>
    node.within(() => ({ socket: Deno.listenDatagram(at(node)) })).socket
  );
  const patience = setTimeout(() => [near, far].forEach((socket) => socket!.close()), 20_000);
  await near!.send(data(30), at(peer));
  const [bytes, from] = await far!.receive();
  deepStrictEqual(bytes, data(30));
  await far!.send(data(40), from);
  deepStrictEqual((await near!.receive())[0], data(40));
  strictEqual(guard.refused().get("wrong-address"), 0);
  clearTimeout(patience);
  near!.close();
  far!.close();
});

Deno.test("fence: alternative addresses are rewritten both ways, as nft reads it", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const hub = lab.publicHost("hub");
  const peer = lab.publicHost("peer");
  await hub.run("ip", ["address", "add", "172.29.0.1/32", "dev", "lo"]);
  using guard = hub.within(() => open(host));
  const alternative = parseIp("172.29.0.1");
  guard.set("first", {
    ...{ ...NO_LINK, remote: parseEndpoint(`${peer.ip}:4000`) },
    alternative: { local: alternative, own: hub.ip },
  });
  guard.set("second", { ...NO_LINK, remote: parseEndpoint(`${peer.ip}:4001`) });
  const { stdout } = await hub.run("nft", ["list", "table", "ip", "gretun-hub-7788"]);
  const lines = stdout.split("\n").map((line) => line.trim());
  deepStrictEqual(lines.filter((line) => /daddr set|saddr set/.test(line)), [
    "iif != @links ip daddr set ip saddr . udp sport . udp dport map @alternatives accept",
    "udp sport @ports ip saddr set ip saddr map @own",
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
  await using host = linuxHost();
  const hub = lab.publicHost("hub");
  const place = (at: string, alternative?: string) => ({
    ...{ ...NO_LINK, remote: parseEndpoint(at) },
    ...(alternative ? { alternative: { local: parseIp(alternative), own: hub.ip } } : {}),
  });
  using guard = hub.within(() => open(host, HUB_SIGNALLING, [["old", place("192.0.2.1:1")]]));
  const sets = async () => {
    const { stdout } = await hub.run("nft", ["list", "table", "ip", "gretun-hub-7788"]);
    const elements = [
      ...stdout.matchAll(
        /set (\w+) \{[^}]*?elements = \{([^}]*)\}|map (\w+) \{[^}]*?elements = \{([^}]*)\}/g,
      ),
    ];
    return Object.fromEntries(elements.flatMap(([, set, text, map, pairs]) => {
      const name = set ?? map!;
      if (["links", "ports", "peers"].includes(name)) return [];
      return [[name, (text ?? pairs)!.split(",").map((each) => each.trim()).sort()]];
    }));
  };
  deepStrictEqual(await sets(), { remotes: ["192.0.2.1 . 1 . 7788"] });
  guard.set("old", place("192.0.2.1:2"));
  guard.set("second", place("192.0.2.1:3", "172.29.0.1"));
  guard.set("third", place("192.0.2.1:4", "172.29.0.2"));
  const three = ["192.0.2.1 . 2 . 7788", "192.0.2.1 . 3 . 7788", "192.0.2.1 . 4 . 7788"];
  deepStrictEqual(await sets(), {
    remotes: three,
    alternatives: [
      "192.0.2.1 . 3 . 7788 : 172.29.0.1",
      "192.0.2.1 . 4 . 7788 : 172.29.0.2",
    ],
    own: [`172.29.0.1 : ${hub.ip}`, `172.29.0.2 : ${hub.ip}`],
  });
  guard.set("second", place("192.0.2.9:3"));
  guard.set("third", place("192.0.2.1:4", "172.29.0.1"));
  guard.set("old", undefined);
  const expected = {
    remotes: ["192.0.2.1 . 4 . 7788", "192.0.2.9 . 3 . 7788"],
    alternatives: ["192.0.2.1 . 4 . 7788 : 172.29.0.1"],
    own: [`172.29.0.1 : ${hub.ip}`],
  };
  deepStrictEqual(await sets(), expected);
  strictEqual((await hub.run("nft", ["flush", "ruleset"])).code, 0);
  guard.set("new", place("192.0.2.5:5"));
  guard.set("new", undefined);
  deepStrictEqual(await sets(), expected);
});

Deno.test("guard: what comes out of a link is from its far end, for what that may reach", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const hub = lab.publicHost("hub");
  const peer = lab.publicHost("peer");
  const shell = (node: LabHost, command: string) => node.run("sh", ["-c", command]);
  // eth0 stands for the link; the addresses of the lab itself go on.
  await shell(hub, "ip address add 10.9.0.1/24 dev eth0; ip address add 10.8.0.1/32 dev lo");
  await shell(
    hub,
    "ip -6 address add fd00::1/64 dev eth0 nodad; sysctl -qw net.ipv4.conf.all.rp_filter=2",
  );
  await shell(peer, "ip address add 10.9.0.2/24 dev eth0; ip address add 10.9.0.3/24 dev eth0");
  await shell(peer, "ip route add 10.8.0.1 via 10.9.0.1 src 10.9.0.2");
  await shell(
    peer,
    "ip -6 address add fd00::2/64 dev eth0 nodad; ip -6 address add fd00::3/64 dev eth0 nodad",
  );
  const pings = async (node: LabHost, source: string, to: string) =>
    (await node.run("ping", ["-n", "-c", "1", "-W", "1", "-I", source, to])).code === 0;
  const answers = (source: string, to: string) =>
    pingWithoutLoss(peer, to, { count: 1, args: ["-I", source] });
  const eth0 = await eth0Of(hub);
  // Tunnels ask for no neighbours, as eth0 does.
  const macOf = async (node: LabHost) =>
    /"address":"([^"]+)"/.exec((await node.run("ip", ["-j", "link", "show", "eth0"])).stdout)![1];
  const [hubMac, peerMac] = [await macOf(hub), await macOf(peer)];
  for (const ip of ["10.9.0.1", "fd00::1"]) {
    await shell(peer, `ip neigh replace ${ip} lladdr ${hubMac} dev eth0`);
  }
  for (const ip of ["10.9.0.2", "10.9.0.3", "fd00::2", "fd00::3"]) {
    await shell(hub, `ip neigh replace ${ip} lladdr ${peerMac} dev eth0`);
  }
  using guard = hub.within(() => open(host));
  const link = {
    ...eth0,
    remote: parseEndpoint(`${peer.ip}:4000`),
    sources: ["10.9.0.2/32", "fd00::2/128"].map(parseCidr),
    destinations: ["10.9.0.1/32", "fd00::1/128"].map(parseCidr),
  };
  await answers("10.9.0.3", "10.9.0.1");
  guard.set("peer", link);
  await answers("10.9.0.2", "10.9.0.1");
  strictEqual(await pings(peer, "10.9.0.3", "10.9.0.1"), false, "another source");
  strictEqual(await pings(peer, "10.9.0.2", "10.8.0.1"), false, "another address of the host");
  await answers("fd00::2", "fd00::1");
  strictEqual(await pings(peer, "fd00::3", "fd00::1"), false, "another source, IPv6");
  strictEqual(await pings(hub, "10.9.0.1", "10.9.0.3"), false, "out to another");
  const { inner } = peer.within(() => ({
    inner: Deno.listenDatagram({ transport: "udp", hostname: "10.9.0.2", port: 4000 }),
  }));
  const wrong = guard.refused().get("wrong-address") ?? 0;
  await inner.send(data(30), { transport: "udp", hostname: "10.9.0.1", port: 7788 });
  inner.close();
  strictEqual(guard.refused().get("wrong-address"), wrong + 1, "data inside of data");
  const counts = guard.refused();
  for (const reason of ["wrong-inner-address", "out-of-reach", "not-for-peer"] as const) {
    ok(counts.get(reason)! > 0, reason);
  }
  // Others remove it: it is made again at once.
  strictEqual((await hub.run("nft", ["flush", "ruleset"])).code, 0);
  await until("the guard", () => Promise.resolve(guard.refused().get("out-of-reach") === 0));
  strictEqual(await pings(peer, "10.9.0.3", "10.9.0.1"), false);
  guard.set("peer", { ...link, sources: [...link.sources, parseCidr("10.9.0.0/29")] });
  await answers("10.9.0.3", "10.9.0.1");
  guard.set("peer", undefined);
  await answers("10.9.0.2", "10.8.0.1");
});

Deno.test("guard: errors of ICMP come in about packets that went to the far end", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const hub = lab.publicHost("hub");
  const peer = lab.publicHost("peer");
  const eth0 = await eth0Of(hub);
  const shell = async (node: LabHost, command: string) =>
    strictEqual((await node.run("sh", ["-ec", command])).code, 0, command);
  await shell(hub, "ip -6 address add fd00::1/64 dev eth0 nodad");
  await shell(
    peer,
    `nft add table inet lie; nft add chain inet lie out '{ type filter hook output priority 0; }'
    ip -6 address add fd00::2/64 dev eth0 nodad`,
  );
  using guard = hub.within(() => open(host));
  const theirs = [peer.ip, "fd00::2"];
  guard.set("peer", {
    ...{ ...eth0, remote: parseEndpoint(`${peer.ip}:4000`) },
    // Of the others on this network, too: on a link is nobody but the far end.
    sources: [`${peer.ip}/24`, "0.0.0.0/32", "fd00::2/128", "fe80::/10", "::/128"].map(parseCidr),
  });
  const macOf = async (node: LabHost) =>
    /"address":"([^"]+)"/.exec((await node.run("ip", ["-j", "link", "show", "eth0"])).stdout)![1];
  for (
    const [node, other, ips] of [[hub, peer, theirs], [peer, hub, [hub.ip, "fd00::1"]]] as const
  ) {
    const mac = await macOf(other);
    await shell(node, `ip route add ${ips[0]} dev eth0`);
    for (const ip of ips) await shell(node, `ip neigh replace ${ip} lladdr ${mac} dev eth0`);
  }
  const arrived = async () => {
    const { stdout } = await hub.run("cat", ["/proc/net/snmp", "/proc/net/snmp6"]);
    const icmp = stdout.split("\n").filter((line) => line.startsWith("Icmp:"))[1]!.split(" ");
    return Number(icmp[1]) + Number(/^Icmp6InDestUnreachs\s+(\d+)/m.exec(stdout)![1]);
  };
  const refused = () => guard.refused().get("wrong-inner-address") ?? 0;
  for (const [i, to] of theirs.entries()) {
    const { socket } = hub.within(() => ({
      socket: Deno.listenDatagram({
        transport: "udp",
        hostname: i === 0 ? hub.ip : "fd00::1",
        port: 0,
      }),
    }));
    const ask = () => socket.send(text("ask"), { transport: "udp", hostname: to!, port: 9 });
    const [before, refusedBefore] = [await arrived(), refused()];
    await ask();
    await until("an error about it", async () => await arrived() === before + 1);
    strictEqual(refused(), refusedBefore);
    const quoted = i === 0
      ? `icmp type destination-unreachable @th,192,32 set 0x0a090003`
      : `icmpv6 type destination-unreachable @th,256,128 set 0xfd000000000000000000000000000003`;
    await shell(peer, `nft add rule inet lie out ${quoted}`);
    await ask();
    await until(
      "the error about another's to be refused",
      () => Promise.resolve(refused() === refusedBefore + 1),
    );
    socket.close();
  }
});

Deno.test("guard: an outer packet does not go into a link of ours; no router is believed", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const hub = lab.publicHost("hub");
  const peer = lab.publicHost("peer");
  const eth0 = await eth0Of(hub);
  using guard = hub.within(() => open(host));
  guard.set("peer", {
    ...eth0,
    remote: parseEndpoint(`${peer.ip}:4000`),
  });
  const { socket } = hub.within(() => ({
    socket: Deno.listenDatagram({ transport: "udp", hostname: hub.ip, port: 7788 }),
  }));
  const { far } = peer.within(() => ({
    far: Deno.listenDatagram({ transport: "udp", hostname: peer.ip, port: 4000 }),
  }));
  // The kernel says EPERM for what netfilter drops on the way out.
  const send = (port: number) =>
    socket.send(data(30), { transport: "udp", hostname: peer.ip, port }).catch(() => {});
  await send(4001);
  await send(4000);
  strictEqual(guard.refused().get("own-tunnel"), 1);
  socket.close();
  far.close();
  const table = (await hub.run("nft", ["list", "table", "ip6", "gretun-hub-7788"])).stdout;
  ok(/iif @links icmpv6 type nd-router-advert counter/.test(table), table);
});
