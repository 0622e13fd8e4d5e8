/** What of a tunnel's addresses and routes this host cannot spare. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { formatCidr, parseCidr, parseIp } from "../../../lib/addr.ts";
import {
  formatMark,
  type HostView,
  type LinkAddress,
  pairAddress,
  readHostView,
  withoutCollisions,
} from "../../../lib/links/mod.ts";
import { resolversOf } from "../../../lib/links/host_view.ts";
import { SystemError } from "../../../lib/linux/mod.ts";
import type { InterfaceAddress, Link, Route } from "../../../lib/netlink.ts";

const networkOf = (ifname: string, local: string, network: string) => ({
  ifname,
  local: parseIp(local),
  network: parseCidr(network),
});

/** At home, with a VPN, behind a router that is the resolver too. */
const HOME: HostView = {
  networks: [
    networkOf("eth0", "10.0.1.77", "10.0.1.0/24"),
    networkOf("wg0", "10.9.0.2", "10.9.0.0/16"),
    networkOf("gretun0", "100.64.0.2", "100.64.0.1/32"),
    networkOf("eth0", "2001:db8:1::7", "2001:db8:1::/64"),
  ],
  needed: [
    { ip: parseIp("10.0.1.1"), what: "the gateway" },
    { ip: parseIp("9.9.9.9"), what: "the DNS server" },
    { ip: parseIp("203.0.113.1"), what: "the coordinator" },
  ],
};

const pair = (local: string, peer: string) => pairAddress(parseIp(local), parseIp(peer));

Deno.test("withoutCollisions() sets no address that somebody else has or needs", () => {
  const cases: [string, LinkAddress, string | undefined][] = [
    ["free", pair("100.64.0.3", "100.64.0.4"), undefined],
    ["a neighbour's", pair("100.64.0.3", "10.0.1.2"), "10.0.1.0/24 of eth0"],
    ["our own among neighbours", pair("10.0.1.9", "100.64.0.4"), "10.0.1.0/24 of eth0"],
    ["of another VPN", pair("100.64.0.3", "10.9.7.7"), "10.9.0.0/16 of wg0"],
    ["another overlay's peer", pair("100.64.0.3", "100.64.0.1"), "100.64.0.1/32 of gretun0"],
    [
      "our own in another overlay",
      pair("100.64.0.2", "100.64.0.9"),
      "this host's address on gretun0",
    ],
    ["the resolver's", pair("9.9.9.8", "9.9.9.9"), "the DNS server 9.9.9.9"],
    ["the coordinator's", pair("203.0.113.9", "203.0.113.1"), "the coordinator 203.0.113.1"],
    ["IPv6, free", pair("fd00::1", "fd00::2"), undefined],
    ["IPv6, a neighbour's", pair("fd00::1", "2001:db8:1::9"), "2001:db8:1::/64 of eth0"],
    [
      "a whole network with the coordinator",
      { local: parseIp("203.0.113.9"), prefixLength: 24 },
      "the coordinator 203.0.113.1",
    ],
  ];
  for (const [name, address, found] of cases) {
    const { inner, collisions } = withoutCollisions({ addresses: [address], routes: [] }, HOME);
    deepStrictEqual(collisions.map((c) => c.found), found === undefined ? [] : [found], name);
    strictEqual(inner.addresses.length, found === undefined ? 1 : 0, name);
  }
});

Deno.test("withoutCollisions() sets no route into which traffic of this host would vanish", () => {
  const cases: [string, string | undefined][] = [
    ["10.7.0.0/16", undefined],
    ["10.0.1.0/24", "10.0.1.0/24 of eth0"],
    ["10.0.1.128/25", "10.0.1.0/24 of eth0"],
    ["10.0.0.0/8", undefined], // the connected network is smaller, and wins
    ["203.0.113.0/24", "the coordinator 203.0.113.1"],
    ["203.0.113.128/25", undefined],
    ["0.0.0.0/0", "the DNS server 9.9.9.9"],
    ["2001:db8::/32", undefined],
    ["2001:db8:1::9/128", "2001:db8:1::/64 of eth0"],
  ];
  for (const [route, found] of cases) {
    const wanted = { addresses: [], routes: [parseCidr(route)] };
    const { inner, collisions } = withoutCollisions(wanted, HOME);
    deepStrictEqual(collisions, found === undefined ? [] : [{ wanted: route, found }], route);
    deepStrictEqual(inner.routes.map(formatCidr), found === undefined ? [route] : [], route);
  }
});

Deno.test("withoutCollisions() of a host that has nothing lets all be set", () => {
  const wanted = { addresses: [pair("10.0.0.1", "10.0.0.2")], routes: [parseCidr("0.0.0.0/0")] };
  const { inner, collisions } = withoutCollisions(wanted, { networks: [], needed: [] });
  deepStrictEqual([inner, collisions], [wanted, []]);
});

Deno.test("readHostView() knows networks, gateways and resolvers, and looks past our own links", () => {
  const link = (ifindex: number, name: string, change: Partial<Link> = {}) =>
    ({ ifindex, name, up: true, ...change }) as Link;
  const address = (ifindex: number, text: string, peer?: string): InterfaceAddress => {
    const { ip: local, prefixLength } = parseCidr(text);
    return { ifindex, local, prefixLength, ...(peer ? { peer: parseIp(peer) } : {}) };
  };
  const mark = (port: number) => formatMark({ by: "up", port, id: "ab".repeat(32) });
  const links = [
    link(1, "lo"),
    link(2, "eth0"),
    link(3, "down0", { up: false }),
    link(4, "gretun0", { alias: mark(7777) }),
    link(5, "gretun1", { alias: mark(7778) }),
  ];
  const addresses = [
    address(1, "127.0.0.1/8"),
    address(2, "192.168.1.7/24"),
    address(2, "fe80::1/64"),
    address(3, "172.17.0.1/16"),
    address(4, "100.64.0.1/32", "100.64.0.2"),
    address(5, "100.64.0.5/32", "100.64.0.6"),
  ];
  const routes: Route[] = [
    { destination: parseCidr("0.0.0.0/0"), gateway: parseIp("192.168.1.1"), device: 2 },
    { destination: parseCidr("10.8.0.0/16"), gateway: parseIp("100.64.0.2"), device: 4 },
    { destination: parseCidr("::/0"), gateway: parseIp("fe80::9"), device: 2 },
  ];
  const read = (readFile: () => string) =>
    readHostView({
      rtnl: { links: () => links, addresses: () => addresses, routes: () => routes },
      readFile,
      daemon: { role: "up", port: 7777 },
    });
  const view = read(() => "nameserver 9.9.9.9\n");
  deepStrictEqual(view.networks, [
    networkOf("eth0", "192.168.1.7", "192.168.1.0/24"),
    networkOf("gretun1", "100.64.0.5", "100.64.0.6/32"),
  ]);
  deepStrictEqual(view.needed, [
    { ip: parseIp("192.168.1.1"), what: "the gateway" },
    { ip: parseIp("9.9.9.9"), what: "the DNS server" },
  ]);
  const ENOENT = 2;
  strictEqual(
    read(() => {
      throw new SystemError("open /etc/resolv.conf", ENOENT);
    }).needed.length,
    1,
  );
});

Deno.test("resolversOf() reads resolv.conf as it is found", () => {
  const text =
    "# made by hand\nsearch example.org\nnameserver 127.0.0.53\nnameserver  10.0.1.1 # home\n" +
    "nameserver fe80::1%eth0\nnameserver 2001:db8::53\nnameserver nonsense\noptions edns0\nnameserver";
  deepStrictEqual(resolversOf(text).map(({ ip }) => ip), ["10.0.1.1", "2001:db8::53"]);
});
