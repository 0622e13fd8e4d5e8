/** The netlink room against the real kernel, in namespaces that each test makes and removes. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { cpuUsage } from "node:process";
import { type Ip, parseCidr, parseEndpoint, parseIp } from "../../lib/addr.ts";
import { concatBytes, fromHex } from "../../lib/bytes.ts";
import { onesComplementSum } from "../../lib/checksum.ts";
import { DISCO_PATTERN } from "../../lib/disco/mod.ts";
import type { Datagram } from "../../lib/edges.ts";
import {
  createNamedNetns,
  deleteNamedNetns,
  type Fd,
  fileLocks,
  Poller,
  RawUdpSender,
  RawUdpSocket,
  withNetns,
} from "../../lib/linux/mod.ts";
import { BINDING_PATTERN } from "../../lib/stun/mod.ts";
import { LinkMonitor, NetlinkError, RtNetlink } from "../../lib/netlink.ts";
import { TunDevice } from "../lab/tun_device.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

/** Runs `body` with as many fresh namespaces as it takes arguments. */
async function inNamespaces(count: number, body: (...netns: Fd[]) => Promise<void> | void) {
  const names = Array.from({ length: count }, (_, i) => `gretun-test-${Deno.pid}-${i}`);
  await using stack = new AsyncDisposableStack();
  const fds = names.map((name) => {
    const fd = stack.use(createNamedNetns(name));
    stack.defer(() => deleteNamedNetns(name));
    return fd;
  });
  await body(...fds);
}

const openIn = (netns: Fd) => withNetns(netns, () => RtNetlink.open());

/** Of the two ends of {@link joined}. */
const IPS = { 4: ["10.9.0.1", "10.9.0.2"], 6: ["2001:db8::1", "2001:db8::2"] } as const;

/** Two namespaces joined by a veth pair, with loopback up. */
async function joined(a: RtNetlink, b: RtNetlink, b_netns: Fd): Promise<void> {
  a.createLink({ name: "v0", kind: "veth", peerName: "v0", peerNetnsFd: b_netns.fd });
  for (const [i, rtnl] of [a, b].entries()) {
    const { ifindex } = rtnl.link("v0")!;
    rtnl.addAddress({ ifindex, local: parseIp(IPS[4][i]!), prefixLength: 24 });
    rtnl.changeLink(ifindex, { up: true });
    rtnl.addAddress({ ifindex, local: parseIp(IPS[6][i]!), prefixLength: 64 });
    rtnl.changeLink(rtnl.link("lo")!.ifindex, { up: true });
  }
  await until("carrier", () => a.link("v0")!.running && b.link("v0")!.running);
}

/** An ordinary UDP socket that is closed with its scope. */
function listen(netns: Fd | undefined, hostname: string, port: number) {
  const open = () => Deno.listenDatagram({ transport: "udp", hostname, port });
  const socket = netns ? withNetns(netns, open) : open();
  return { socket, [Symbol.dispose]: () => socket.close() };
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (let i = 0; i < 6_000; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`waited a minute in vain: ${what}`);
}

Deno.test("RtNetlink makes, reads, changes and deletes a link", () =>
  inNamespaces(1, (netns) => {
    using rtnl = openIn(netns);
    const ifindex = rtnl.createLink({ name: "t0", kind: "bridge", mtu: 1400, alias: "mine" });
    const link = rtnl.link("t0")!;
    deepStrictEqual(
      { ...link, stats: undefined },
      {
        ...link,
        ifindex,
        name: "t0",
        kind: "bridge",
        mtu: 1400,
        alias: "mine",
        up: false,
        stats: undefined,
      },
    );
    rtnl.changeLink(ifindex, { mtu: 1300, up: true });
    strictEqual(rtnl.link(ifindex)!.mtu, 1300);
    strictEqual(rtnl.link(ifindex)!.up, true);
    strictEqual(rtnl.link(ifindex)!.alias, "mine");
    rtnl.deleteLink(ifindex);
    strictEqual(rtnl.link("t0"), undefined);
    strictEqual(rtnl.link(ifindex), undefined);
  }));

Deno.test("RtNetlink says what the kernel says", () =>
  inNamespaces(1, (netns) => {
    using rtnl = openIn(netns);
    rtnl.createLink({ name: "t0", kind: "bridge" });
    const cases: [string, () => void, string][] = [
      ["name taken", () => rtnl.createLink({ name: "t0", kind: "bridge" }), "EEXIST"],
      ["no such link", () => rtnl.deleteLink(4711), "ENODEV"],
      [
        "MTU too large",
        () => rtnl.changeLink(rtnl.link("t0")!.ifindex, { mtu: 20 }),
        "EINVAL",
      ],
      ["no route", () => rtnl.routeTo(parseIp("192.0.2.1")), "ENETUNREACH"],
    ];
    for (const [name, call, code] of cases) {
      throws(call, (error) => error instanceof NetlinkError && error.code === code, name);
    }
  }));

Deno.test("RtNetlink adds and removes addresses and routes", () =>
  inNamespaces(1, (netns) => {
    using rtnl = openIn(netns);
    const ifindex = rtnl.createLink({ name: "t0", kind: "bridge", up: true });
    const pair = {
      ifindex,
      local: parseIp("100.64.0.1"),
      peer: parseIp("100.64.0.2"),
      prefixLength: 32,
    };
    rtnl.addAddress(pair);
    const mine = () =>
      rtnl.addresses().filter((a) => a.ifindex === ifindex && a.local.includes("."));
    deepStrictEqual(mine(), [pair]);
    strictEqual(rtnl.routeTo(pair.peer).device, ifindex);
    const route = {
      destination: parseCidr("198.51.100.0/24"),
      gateway: pair.peer,
      device: ifindex,
    };
    rtnl.addRoute(route);
    ok(rtnl.routes().some((r) => r.gateway === pair.peer && r.destination.prefixLength === 24));
    strictEqual(rtnl.routeTo(parseIp("198.51.100.7")).gateway, pair.peer);
    rtnl.deleteRoute(route);
    rtnl.deleteAddress(pair);
    deepStrictEqual(mine(), []);
    deepStrictEqual(rtnl.routes().filter(({ destination }) => destination.ip.includes(".")), []);
  }));

Deno.test("RtNetlink knows whose packets rules lead elsewhere", () =>
  inNamespaces(1, (netns) => {
    using rtnl = openIn(netns);
    const ifindex = rtnl.createLink({ name: "t0", kind: "bridge", up: true });
    rtnl.addRoute({ destination: parseCidr("192.0.2.0/24"), device: ifindex });
    const ip = parseIp("192.0.2.1");
    const commands = [
      "ip rule add not fwmark 0x9 lookup 254",
      "ip rule add fwmark 0x7 unreachable",
      "ip rule add uidrange 1000-1010 unreachable",
    ].join(" && ");
    const made = withNetns(
      netns,
      () => new Deno.Command("sh", { args: ["-c", commands], stderr: "piped" }).outputSync(),
    );
    strictEqual(new TextDecoder().decode(made.stderr), "");
    deepStrictEqual(rtnl.rules().filter(({ mark, uid }) => mark ?? uid).reverse(), [
      { isInverted: true, mark: 9 },
      { isInverted: false, mark: 7 },
      { isInverted: false, uid: 1000 },
    ]);
    strictEqual(rtnl.tryRouteTo(ip)?.device, ifindex);
    for (const sender of [{ mark: 7 }, { uid: 1000 }]) {
      strictEqual(rtnl.tryRouteTo(ip, sender), undefined);
    }
  }));

Deno.test("RtNetlink lists a dump of many parts", () =>
  inNamespaces(1, (netns) => {
    using rtnl = openIn(netns);
    for (let i = 0; i < 200; i++) rtnl.createLink({ name: `d${i}`, kind: "bridge" });
    const names = new Set(rtnl.links().map(({ name }) => name));
    for (let i = 0; i < 200; i++) ok(names.has(`d${i}`), `d${i}`);
  }));

Deno.test("withNetns() puts sockets and processes into the namespace, and comes back", () =>
  inNamespaces(1, async (netns) => {
    const inode = async (process: Deno.Command) =>
      new TextDecoder().decode((await process.output()).stdout).trim();
    const command = new Deno.Command("readlink", { args: ["/proc/self/ns/net"], stdout: "piped" });
    const home = await inode(command);
    const child = withNetns(netns, () => command.spawn());
    const inside = new TextDecoder().decode((await child.output()).stdout).trim();
    ok(inside.startsWith("net:[") && inside !== home);
    strictEqual(await inode(command), home);
    using rtnl = openIn(netns);
    rtnl.changeLink(rtnl.link("lo")!.ifindex, { up: true });
    using _inside = listen(netns, "127.0.0.1", 7777);
    using _outside = listen(undefined, "127.0.0.1", 7777);
  }));

for (const family of [4, 6] as const) {
  const [near, far] = IPS[family].map((ip) => parseIp(ip)) as [Ip, Ip];

  Deno.test(`RawUdpSocket of IPv${family} gets STUN and disco of its port, and nothing else`, () =>
    inNamespaces(2, async (a, b) => {
      using rtnlA = openIn(a);
      using rtnlB = openIn(b);
      await joined(rtnlA, rtnlB, b);
      await using poller = new Poller();
      const got: Datagram[] = [];
      const take = (datagram: Datagram) => got.push(datagram);
      const signalling = { kind: "patterns", any: [DISCO_PATTERN, BINDING_PATTERN] } as const;
      using receiver = withNetns(
        b,
        () => RawUdpSocket.open(7777, poller, take, { family, signalling }),
      );
      using sender = withNetns(a, () => RawUdpSocket.open(8888, poller, () => {}, { family }));
      const disco = fromHex("5453f09f92ac" + "11".repeat(60));
      const stun = fromHex("000100002112a442" + "22".repeat(12));
      const to = { ip: far, port: 7777 };
      await until("the first datagram", () => {
        sender.send(disco, to);
        return got.length > 0;
      });
      // Behind all repeats, and longer.
      const last = Uint8Array.from([...disco, 0]);
      sender.send(last, to);
      await until("the repeats", () => got.at(-1)!.bytes.length === last.length);
      got.length = 0;
      sender.send(fromHex("20000800deadbeef4500" + "00".repeat(40)), to); // GRE
      sender.send(disco, { ip: far, port: 7778 });
      sender.send(disco.subarray(0, 5), to);
      sender.send(stun, to);
      await until("STUN", () => got.length > 0);
      deepStrictEqual(got, [{ bytes: stun, from: { ip: near, port: 8888 } }]);
      got.length = 0;
      // An ordinary socket leaves the checksum to the network card, and here there is none.
      using ordinary = listen(a, near, 9999);
      await ordinary.socket.send(disco, { transport: "udp", hostname: far, port: 7777 });
      await until("disco", () => got.length > 0);
      deepStrictEqual(got, [{ bytes: disco, from: { ip: near, port: 9999 } }]);
      // No route, or the other family: lost, not an error.
      receiver.send(disco, parseEndpoint("192.0.2.1:1"));
      receiver.send(disco, parseEndpoint("[2001:db8:1::1]:1"));
    }));

  Deno.test(`RawUdpSocket of IPv${family} sends datagrams that an ordinary socket takes`, () =>
    inNamespaces(2, async (a, b) => {
      using rtnlA = openIn(a);
      using rtnlB = openIn(b);
      await joined(rtnlA, rtnlB, b);
      await using poller = new Poller();
      using ordinary = listen(b, far, 9999);
      using sender = withNetns(a, () => RawUdpSocket.open(7777, poller, () => {}, { family }));
      // Too large for the device, and not cut up: lost.
      sender.send(new Uint8Array(2000), { ip: far, port: 9999 });
      for (const length of [0, 1, 2, 333, 1400]) {
        const payload = crypto.getRandomValues(new Uint8Array(length));
        sender.send(payload, { ip: far, port: 9999 });
        const [bytes, from] = await ordinary.socket.receive();
        deepStrictEqual(bytes, payload);
        strictEqual((from as Deno.NetAddr).port, 7777);
      }
    }));
}

Deno.test("RawUdpSocket of IPv6 drops what has a wrong checksum or none, and goes on", () =>
  inNamespaces(2, async (a, b) => {
    using rtnlA = openIn(a);
    using rtnlB = openIn(b);
    await joined(rtnlA, rtnlB, b);
    await using poller = new Poller();
    const got: Datagram[] = [];
    const take = (datagram: Datagram) => got.push(datagram);
    using _receiver = withNetns(b, () => RawUdpSocket.open(7777, poller, take, { family: 6 }));
    await using tun = new AsyncDisposableStack();
    // Packets made by hand come in by a TUN device.
    const device = tun.use(withNetns(b, () => TunDevice.open("tun7", poller, () => {})));
    const { ifindex } = rtnlB.link("tun7")!;
    rtnlB.changeLink(ifindex, { up: true });
    rtnlB.addAddress({ ifindex, local: parseIp("2001:db8:7::2"), prefixLength: 64 });
    const header = "60000000004c1140" + "20010db8000700000000000000000001" +
      "20010db8000700000000000000000002";
    const disco = "5453f09f92ac" + "11".repeat(62);
    // What comes with another checksum has another last byte.
    const packet = (checksum: string, last = "12") =>
      fromHex(`${header}22b81e61004c${checksum}${disco}`.replace(/..$/, last));
    const udp = packet("0000", "11").subarray(40);
    const pseudoHeader = fromHex(header.slice(16) + "0000004c" + "00000011");
    const sum = ~onesComplementSum(concatBytes(pseudoHeader, udp)) & 0xffff;
    const right = sum.toString(16).padStart(4, "0");
    // The kernel takes up a new address a moment later.
    await until("the one that is right", () => {
      for (const checksum of ["0000", "1234"]) device.write(packet(checksum));
      device.write(packet(right, "11"));
      return got.length > 2;
    });
    const expected = { bytes: fromHex(disco), from: parseEndpoint("[2001:db8:7::1]:8888") };
    deepStrictEqual(got, got.map(() => expected));
  }));

Deno.test("RawUdpSender sets the TTL or hop limit of one datagram", () =>
  inNamespaces(1, async (netns) => {
    using rtnl = openIn(netns);
    await using poller = new Poller();
    const got: Uint8Array[] = [];
    using _device = withNetns(
      netns,
      () => TunDevice.open("tun7", poller, (packet) => got.push(packet.slice())),
    );
    const { ifindex } = rtnl.link("tun7")!;
    rtnl.changeLink(ifindex, { up: true });
    for (const [i, prefixLength] of [24, 64].entries()) {
      const local = parseIp(IPS[i === 0 ? 4 : 6][0]);
      rtnl.addAddress({ ifindex, local, prefixLength });
    }
    for (const [family, at] of [[4, 8], [6, 7]] as const) {
      using sender = withNetns(netns, () => RawUdpSender.open(7777, family));
      const to = { ip: parseIp(IPS[family][1]), port: 9 };
      for (const ttl of [3, undefined]) {
        got.length = 0;
        sender.send(new Uint8Array(4), to, ttl);
        const isOurs = (packet: Uint8Array) => packet[0]! >> 4 === family && packet.at(-12) === 30;
        await until("the packet", () => got.some(isOurs));
        strictEqual(got.find(isOurs)![at], ttl ?? 64);
      }
    }
  }));

Deno.test("TunDevice passes packets both ways", () =>
  inNamespaces(1, async (netns) => {
    using rtnl = openIn(netns);
    await using poller = new Poller();
    const got: Uint8Array[] = [];
    using device = withNetns(
      netns,
      () => TunDevice.open("tun7", poller, (packet) => got.push(packet.slice())),
    );
    const { ifindex } = rtnl.link("tun7")!;
    strictEqual(device.write(fromHex("45000014")), false, "while the link is down");
    rtnl.changeLink(ifindex, { up: true });
    const [local, peer] = [parseIp("100.64.0.1"), parseIp("100.64.0.2")];
    rtnl.addAddress({ ifindex, local, peer, prefixLength: 32 });
    using inner = listen(netns, local, 5555);
    await inner.socket.send(fromHex("abcd"), { transport: "udp", hostname: peer, port: 6666 });
    const isUdp = (packet: Uint8Array) => packet[0] === 0x45 && packet[9] === 17;
    await until("the packet", () => got.some(isUdp));
    // The same packet turned round: addresses and ports change places, checksums stay right.
    const packet = got.find(isUdp)!;
    const swap = (x: number, y: number, n: number) => {
      const held = packet.slice(x, x + n);
      packet.copyWithin(x, y, y + n);
      packet.set(held, y);
    };
    swap(12, 16, 4);
    swap(20, 22, 2);
    strictEqual(device.write(packet), true);
    const [bytes] = await inner.socket.receive();
    deepStrictEqual(bytes, fromHex("abcd"));
    strictEqual(rtnl.link(ifindex)!.stats.txPackets >= 1, true);
  }));

Deno.test("TunDevice that somebody deletes is not polled for ever", () =>
  inNamespaces(1, async (netns) => {
    using rtnl = openIn(netns);
    await using poller = new Poller();
    using device = withNetns(netns, () => TunDevice.open("tun7", poller, () => {}));
    rtnl.deleteLink(rtnl.link("tun7")!.ifindex);
    const before = cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { user, system } = cpuUsage(before);
    ok(user + system < 200_000, `${user + system} us of 500 ms`);
    strictEqual(device.write(new Uint8Array(20)), false);
  }));

Deno.test("LinkMonitor hears of a new link", () =>
  inNamespaces(1, async (netns) => {
    using rtnl = openIn(netns);
    await using poller = new Poller();
    let changes = 0;
    using _monitor = withNetns(netns, () => LinkMonitor.open(poller, () => changes++));
    rtnl.createLink({ name: "t0", kind: "bridge" });
    await until("news", () => changes > 0);
  }));

Deno.test("fileLocks() hold a name until it is let go, per namespace", () =>
  inNamespaces(1, (netns) => {
    const take = () => fileLocks().tryLock("test", "test");
    const lock = withNetns(netns, take);
    ok(lock);
    strictEqual(withNetns(netns, take), undefined);
    using elsewhere = take();
    ok(elsewhere);
    lock[Symbol.dispose]();
    using again = withNetns(netns, take);
    ok(again);
  }));
