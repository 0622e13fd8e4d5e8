/** The user-space plane over a machine in memory. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { parseCidr, parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { toHex } from "../../../lib/bytes.ts";
import {
  GreCodec,
  openPlane,
  type PlaneOptions,
  type WantedLink,
} from "../../../lib/dataplane/mod.ts";
import { silentLog } from "../../../lib/edges.ts";
import { pairAddress } from "../../../lib/links/mod.ts";
import { FakeHost } from "../../fakes/host.ts";
import { packet } from "../../fakes/packets.ts";
import { encodeGre } from "../../gre.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const PORT = 7777;
const SIGNAL = Uint8Array.of(0x99, 1, 2, 3);

function open(host: FakeHost, change: Partial<PlaneOptions> = {}) {
  return openPlane(
    { wanted: "tun", codec: () => new GreCodec() },
    {
      ...{ role: "up", port: PORT, portFlag: "--fou-port", ifnamePattern: "gretun%d" },
      encapCsum: "off",
      signalling: { kind: "patterns", any: [{ offset: 0, bytes: Uint8Array.of(0x99) }] },
      onDatagram: () => {},
      onFault: (_what, error) => {
        throw error;
      },
      ...change,
    },
    { host, clock: new VirtualClock(), log: silentLog },
  );
}

const REMOTE = parseEndpoint("198.51.100.1:7777");
const link = (change: Partial<WantedLink> = {}): WantedLink => ({
  id: "a",
  remote: REMOTE,
  addresses: [pairAddress(parseIp("10.0.0.1"), parseIp("10.0.0.2"))],
  routes: [],
  ...change,
});
const keys = (ikey: number) => ({ keys: { kind: "gre", ikey, okey: ikey + 1 } as const });

const inner = (source: string) => packet(source, "10.0.0.2");

Deno.test("user plane: packets go out with the link's key, and come in by theirs", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  deepStrictEqual(plane.families, [4, 6]);
  deepStrictEqual(plane.setLink(link(keys(7))), { ifname: "gretun0", mtu: 1464 });
  const tun = host.tun("gretun0")!;
  tun.receive(inner("10.0.0.1"));
  const { udp } = host.socketsOf(PORT);
  deepStrictEqual(udp!.sent.map(({ to }) => to), [REMOTE]);
  strictEqual(toHex(udp!.sent[0]!.bytes.subarray(0, 8)), "2000080000000008");

  udp!.receive(encodeGre(inner("10.0.0.2"), 7)!, REMOTE);
  strictEqual(tun.written.length, 1);
  udp!.receive(encodeGre(inner("10.0.0.2"), 8)!, REMOTE);
  udp!.receive(encodeGre(inner("10.0.0.2"))!, REMOTE);
  udp!.receive(encodeGre(inner("10.0.0.2"), 7)!, parseEndpoint("198.51.100.2:7777"));
  strictEqual(tun.written.length, 1);
});

Deno.test("user plane: over IPv6, with 20 bytes less", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  const remote = parseEndpoint("[2001:db8::99]:7777");
  strictEqual(plane.setLink(link({ remote })).mtu, 1448);
  host.tun("gretun0")!.receive(inner("10.0.0.1"));
  const ipv6 = host.udp.find(({ options }) => options.family === 6)!;
  deepStrictEqual(ipv6.sent.map(({ to }) => to), [remote]);
  ipv6.receive(encodeGre(inner("10.0.0.2"))!, remote);
  strictEqual(host.tun("gretun0")!.written.length, 1);
});

Deno.test("user plane: signalling beside data is told, of an extra port with that port", async () => {
  const host = new FakeHost();
  const got: (number | undefined)[] = [];
  await using plane = open(host, { onDatagram: (_, localPort) => got.push(localPort) });
  plane.send(SIGNAL, REMOTE, 4);
  const main = host.socketsOf(PORT).udp!;
  deepStrictEqual(main.sent, [{ bytes: SIGNAL, to: REMOTE, ttl: 4 }]);
  main.receive(SIGNAL, REMOTE);
  const extra = plane.openPort();
  plane.setLink(link({ localPort: extra.port }));
  const { udp } = host.socketsOf(extra.port);
  udp!.receive(SIGNAL, REMOTE);
  udp!.receive(encodeGre(inner("10.0.0.2"))!, REMOTE);
  deepStrictEqual(got, [undefined, extra.port]);
  const tun = host.tun("gretun0")!;
  strictEqual(tun.written.length, 1);
  tun.receive(inner("10.0.0.1"));
  strictEqual(udp!.sent.length, 1);
  extra[Symbol.dispose]();
  tun.receive(inner("10.0.0.1"));
  strictEqual(udp!.sent.length, 1);
});

Deno.test("user plane: inner sources that a link may not have are refused", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  plane.setLink(link({ sources: [parseCidr("10.0.0.2/32"), parseCidr("172.16.0.0/24")] }));
  const { udp } = host.socketsOf(PORT);
  for (const source of ["10.0.0.2", "172.16.0.9", "10.0.0.3"]) {
    udp!.receive(encodeGre(inner(source))!, REMOTE);
  }
  strictEqual(host.tun("gretun0")!.written.length, 2);
  udp!.receive(encodeGre(packet("10.0.0.2", "10.0.0.1"))!, parseEndpoint("198.51.100.1:7778"));
  udp!.receive(Uint8Array.of(0x80, 1), REMOTE);
  host.tun("gretun0")!.receive(packet("10.0.0.1", "10.0.0.9"));
  deepStrictEqual(
    plane.refused(),
    new Map([
      ...[["wrong-inner-address", 1], ["wrong-address", 1], ["malformed", 1]] as const,
      ["not-for-peer", 1],
    ]),
  );
});

Deno.test("user plane: an outer packet that is routed into a link stops there, and it is told", async () => {
  const host = new FakeHost();
  const faults: string[] = [];
  await using plane = open(host, { onFault: (_what, error) => faults.push(String(error)) });
  plane.setLink(link());
  const tun = host.tun("gretun0")!;
  const udp = [PORT >> 8, PORT & 255, REMOTE.port >> 8, REMOTE.port & 255, 0, 8, 0, 0];
  tun.receive(packet("192.0.2.10", REMOTE.ip, { protocol: 17, body: udp }));
  strictEqual(host.socketsOf(PORT).udp!.sent.length, 0);
  deepStrictEqual([...plane.refused()], [["own-tunnel", 1]]);
  host.kernel.uplink = host.kernel.links.size; // the last one made
  for (let i = 0; i < 2; i++) plane.networkChanged();
  strictEqual(faults.length, 1);
  ok(/leads through gretun0/.test(faults[0]!), faults[0]);
});

Deno.test("user plane: two links to one address need keys; a refused one leaves nothing", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  plane.setLink(link());
  throws(() => plane.setLink(link({ id: "b" })), /another tunnel goes to/);
  strictEqual(host.tuns.length, 1);
  plane.setLink(link({ id: "b", ...keys(3) }));
  plane.removeLink("a");
  plane.setLink(link({ id: "b" }));
});

Deno.test("user plane: a device that somebody removes is missed and made again; all goes at the end", async () => {
  const host = new FakeHost();
  {
    await using plane = open(host);
    plane.setLink(link());
    host.kernel.removeLink("gretun0");
    deepStrictEqual(plane.missingLinks(), ["a"]);
    strictEqual(plane.setLink(link()).ifname, "gretun0");
    deepStrictEqual(plane.missingLinks(), []);
    deepStrictEqual(plane.adopted(), []);
  }
  strictEqual(host.kernel.links.size, 2);
  ok([...host.udp, ...host.raw].every(({ isClosed }) => isClosed));
});

Deno.test("user plane: a port that is taken, and a kernel without TUN, are told", () => {
  const host = new FakeHost();
  host.kernel.programs.set(PORT, "dnsmasq");
  throws(() => open(host), /cannot open UDP port 7777/);
  const bare = new FakeHost();
  bare.hasTun = false;
  throws(() => open(bare), /no user-space tunnels here/);
});

Deno.test("auto takes user space where the kernel has no plane, and says so", async () => {
  const host = new FakeHost();
  host.kernel.loadable.delete("fou");
  const said: string[] = [];
  await using plane = openPlane(
    { wanted: "auto", kernel: "fou", codec: () => new GreCodec() },
    {
      ...{ role: "up", port: PORT, portFlag: "--fou-port", ifnamePattern: "gretun%d" },
      ...{ encapCsum: "auto", signalling: { kind: "not-ipv4" } },
      onDatagram: () => {},
      onFault: () => {},
    },
    {
      host,
      clock: new VirtualClock(),
      log: { ...silentLog, info: (message) => said.push(message) },
    },
  );
  strictEqual(plane.kind, "tun");
  deepStrictEqual(said, ["no kernel plane here, using user space"]);
});

Deno.test("what others change of a link is put right, and its MTU follows the way's", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  const { ifname, mtu } = plane.setLink(link());
  using rtnl = host.openRtNetlink();
  const { ifindex } = rtnl.link(ifname)!;
  const seen = () => {
    const { name, alias, mtu, up } = rtnl.link(ifindex)!;
    return { name, alias, mtu, up, addresses: rtnl.addresses(), routes: rtnl.routes() };
  };
  const before = seen();
  for (const address of rtnl.addresses()) rtnl.deleteAddress(address);
  rtnl.changeLink(ifindex, { up: false, mtu: 1300, name: "lan7", alias: "lan" });
  plane.networkChanged();
  deepStrictEqual(seen(), before);
  rtnl.changeLink(rtnl.link("eth0")!.ifindex, { mtu: 1400 });
  plane.networkChanged();
  deepStrictEqual(seen(), { ...before, mtu: mtu - 100 });
  host.kernel.hasRoute = false;
  plane.networkChanged();
  strictEqual(seen().mtu, mtu - 100);
  host.kernel.hasRoute = true;
  rtnl.changeLink(rtnl.link("eth0")!.ifindex, { mtu: 576 });
  plane.networkChanged();
  strictEqual(seen().mtu, mtu - 924, "of the narrowest way that there may be");
});
