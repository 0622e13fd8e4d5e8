/** The kernel plane over a machine in memory. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { ipBytes, parseCidr, parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { toHex, Writer } from "../../../lib/bytes.ts";
import {
  type DataPlane,
  type KernelPlaneKind,
  openPlane,
  type PlaneOptions,
  type WantedLink,
} from "../../../lib/dataplane/mod.ts";
import { silentLog } from "../../../lib/edges.ts";
import { GretunError } from "../../../lib/errors.ts";
import { formatMark, pairAddress } from "../../../lib/links/mod.ts";
import { FakeHost } from "../../fakes/host.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const PORT = 7777;
const PEER = "ab".repeat(32);
const OTHER = "cd".repeat(32);
const NOTHING = { kind: "patterns", any: [] } as const;

function open(host: FakeHost, change: Partial<PlaneOptions> = {}, kind: KernelPlaneKind = "fou") {
  return openPlane(
    {
      wanted: kind,
      codec: () => {
        throw new Error("not in the kernel");
      },
    },
    {
      ...{ role: "up", port: PORT, portFlag: "--fou-port", ifnamePattern: "gretun%d" },
      ...{ encapCsum: "off", signalling: NOTHING },
      onDatagram: () => {},
      onFault: (_what, error) => {
        throw error;
      },
      ...change,
    },
    { host, clock: new VirtualClock(), log: silentLog },
  );
}

/** As after kill -9: nothing is taken down. */
function kill(host: FakeHost): void {
  for (const socket of [...host.udp, ...host.raw]) socket[Symbol.dispose]();
  host.kernel.programs.clear();
}

const link = (change: Partial<WantedLink> = {}): WantedLink => ({
  id: PEER,
  remote: parseEndpoint("198.51.100.1:7777"),
  addresses: [pairAddress(parseIp("10.0.0.1"), parseIp("10.0.0.2"))],
  routes: [],
  ...change,
});
const remote = (text: string) => ({ remote: parseEndpoint(text) });
const keys = (ikey: number) => ({ keys: { kind: "gre", ikey, okey: ikey + 1 } as const });

function linkOf(host: FakeHost, name: string) {
  using rtnl = host.openRtNetlink();
  return rtnl.link(name);
}

function addressesOf(host: FakeHost, name: string): string[] {
  using rtnl = host.openRtNetlink();
  const ifindex = rtnl.link(name)?.ifindex;
  return rtnl.addresses().filter((a) => a.ifindex === ifindex).map((a) => `${a.local} ${a.peer}`);
}

function ports(host: FakeHost): string[] {
  host.kernel.modules.add("fou");
  using fou = host.openFou();
  return fou.ports().map(({ port, family }) => `${family} ${port}`);
}

Deno.test("kernel plane: a link is made, changed in place and removed; nothing is left", async () => {
  const host = new FakeHost();
  await using plane: DataPlane = open(host);
  deepStrictEqual(plane.families, [4, 6]);
  deepStrictEqual(plane.setLink(link(keys(7))), { ifname: "gretun0", mtu: 1464 });
  const before = linkOf(host, "gretun0")!;
  strictEqual(before.kind, "gre");
  strictEqual(before.alias, formatMark({ by: "up", port: PORT, id: PEER }));
  strictEqual(before.tunnel?.ikey, 7);
  strictEqual(before.tunnel?.local, undefined);
  deepStrictEqual(addressesOf(host, "gretun0"), ["10.0.0.1 10.0.0.2"]);

  plane.setLink(link({ ...keys(7), ...remote("198.51.100.2:999") }));
  const after = linkOf(host, "gretun0")!;
  strictEqual(after.ifindex, before.ifindex);
  deepStrictEqual(after.tunnel?.encap, { type: "fou", sport: PORT, dport: 999, csum: false });

  plane.removeLink(PEER);
  strictEqual(linkOf(host, "gretun0"), undefined);
  plane.removeLink(PEER);
  await plane[Symbol.asyncDispose]();
  deepStrictEqual(ports(host), []);
  ok(host.raw.every(({ isClosed }) => isClosed));
});

Deno.test("kernel plane: from IPv4 to IPv6 and back a link keeps its name and addresses", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  plane.setLink(link());
  plane.setLink(link(remote("[2001:db8::99]:7777")));
  const found = linkOf(host, "gretun0")!;
  strictEqual(found.kind, "ip6gre");
  strictEqual(found.tunnel?.local, parseIp("2001:db8::10"));
  deepStrictEqual(addressesOf(host, "gretun0"), ["10.0.0.1 10.0.0.2"]);
  host.setSource(parseIp("2001:db8::11"));
  plane.networkChanged();
  strictEqual(linkOf(host, "gretun0")!.tunnel?.local, parseIp("2001:db8::11"));
  plane.setLink(link());
  strictEqual(linkOf(host, "gretun0")!.kind, "gre");
});

Deno.test("kernel plane: an extra port survives the change from IPv6 to IPv4 that it is for", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  plane.setLink(link(remote("[2001:db8::99]:7777")));
  using extra = plane.openPort();
  plane.setLink(link({ localPort: extra.port }));
  ok(ports(host).includes(`4 ${extra.port}`));
  strictEqual(linkOf(host, "gretun0")!.tunnel?.encap?.sport, extra.port);
});

Deno.test("kernel plane: an extra port that is closed before its link has moved or is gone is not left open", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  const [first, second] = [plane.openPort(), plane.openPort()];
  plane.setLink(link({ localPort: first.port }));
  plane.setLink(link({ localPort: second.port }));
  ok(!ports(host).includes(`4 ${first.port}`), "the link has moved to another extra port");
  second[Symbol.dispose]();
  ok(ports(host).includes(`4 ${second.port}`), "the link's packets still come there");
  plane.removeLink(PEER);
  ok(!ports(host).includes(`4 ${second.port}`));
});

Deno.test("kernel plane: after kill -9 the next run adopts links, their extra ports and names", async () => {
  const host = new FakeHost();
  const killed = open(host);
  const extra = killed.openPort();
  killed.setLink(link({ ...keys(1), localPort: extra.port }));
  killed.setLink(link({ id: OTHER, ...keys(3), ...remote("198.51.100.2:999") }));
  kill(host);

  await using plane = open(host);
  const [first, second] = plane.adopted();
  strictEqual(first!.extraPort?.port, extra.port);
  deepStrictEqual({ ...first, extraPort: undefined }, {
    ...{ id: PEER, ...remote("198.51.100.1:7777"), ifname: "gretun0", mtu: 1464, pathMtu: 1500 },
    extraPort: undefined,
  });
  deepStrictEqual(second, {
    ...{ id: OTHER, ...remote("198.51.100.2:999"), ifname: "gretun1", mtu: 1464, pathMtu: 1500 },
  });
  const ifindex = linkOf(host, "gretun0")!.ifindex;
  const moved = [pairAddress(parseIp("10.0.0.7"), parseIp("10.0.0.2"))];
  plane.setLink(link({ ...keys(1), localPort: extra.port, addresses: moved }));
  strictEqual(linkOf(host, "gretun0")!.ifindex, ifindex);
  deepStrictEqual(addressesOf(host, "gretun0"), ["10.0.0.7 10.0.0.2"]);
  deepStrictEqual(plane.adopted().map(({ id }) => id), [OTHER]);
  plane.removeLink(OTHER);
  deepStrictEqual(plane.adopted(), []);
});

Deno.test("kernel plane: links of others and of other ports are left alone", async () => {
  const host = new FakeHost();
  await using other = open(host, { port: 8888, ifnamePattern: "other%d" });
  other.setLink(link());
  {
    await using plane = open(host);
    deepStrictEqual(plane.adopted(), []);
    plane.setLink(link({ id: OTHER, ...keys(5) }));
  }
  ok(linkOf(host, "other0"));
  strictEqual(linkOf(host, "gretun0"), undefined);
});

Deno.test("kernel plane: a link that is refused leaves nothing, and says why", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  plane.setLink(link());
  const isRefused = (error: unknown) =>
    error instanceof GretunError && /another tunnel/.test(error.message);
  throws(() => plane.setLink(link({ id: OTHER })), isRefused);
  strictEqual(linkOf(host, "gretun1"), undefined);
  host.kernel.hasRoute = false;
  throws(() => plane.setLink(link({ id: OTHER, ...keys(9) })), GretunError);
});

Deno.test("kernel plane: a link that somebody removes is missed, and made again under its name", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  plane.setLink(link());
  host.kernel.removeLink("gretun0");
  deepStrictEqual(plane.missingLinks(), [PEER]);
  strictEqual(plane.setLink(link()).ifname, "gretun0");
  deepStrictEqual(plane.missingLinks(), []);
  deepStrictEqual([...plane.counters().keys()], [PEER]);
});

Deno.test("kernel plane: signalling goes out of the raw socket of its family", async () => {
  const host = new FakeHost();
  const got: (number | undefined)[] = [];
  await using plane = open(host, { onDatagram: (_, localPort) => got.push(localPort) });
  plane.send(Uint8Array.of(1), parseEndpoint("198.51.100.1:1"));
  plane.send(Uint8Array.of(2), parseEndpoint("[2001:db8::1]:1"), 3);
  deepStrictEqual(host.raw.map(({ sent }) => sent.map(({ bytes, ttl }) => [bytes[0], ttl])), [
    [[1, undefined]],
    [[2, 3]],
  ]);
  host.socketsOf(PORT).raw!.receive(Uint8Array.of(3), parseEndpoint("198.51.100.1:1"));
  const extra = plane.openPort();
  host.socketsOf(extra.port).udp!.receive(Uint8Array.of(3), parseEndpoint("198.51.100.1:1"));
  plane.setLink(link({ localPort: extra.port }));
  host.socketsOf(extra.port).raw!.receive(Uint8Array.of(3), parseEndpoint("198.51.100.1:1"));
  deepStrictEqual(got, [undefined, extra.port, extra.port]);
  extra[Symbol.dispose]();
  strictEqual(host.socketsOf(extra.port).raw, undefined);
});

Deno.test("kernel plane: a kernel without IPv6 outside has IPv4; one without FOU none", async () => {
  const host = new FakeHost();
  host.kernel.loadable.delete("ip6_gre");
  await using plane = open(host);
  deepStrictEqual(plane.families, [4]);
  throws(() => plane.setLink(link(remote("[2001:db8::99]:7777"))), /no IPv6 outside/);
  const bare = new FakeHost();
  bare.kernel.loadable.delete("fou");
  throws(() => open(bare), /no module fou/);
  const taken = new FakeHost();
  taken.kernel.programs.set(PORT, "dnsmasq");
  throws(() => open(taken), /another program has it/);
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

const TABLE = `gretun-up-${PORT}`;
/** As sets have them. */
const hex = (ip: string) => toHex(ipBytes(parseIp(ip)));
const port = (number: number) => `${number.toString(16).padStart(4, "0")}0000`;

Deno.test("kernel plane: its guard follows the links, is put right, and leaves with the plane", async () => {
  const host = new FakeHost();
  {
    await using plane = open(host);
    const limits = { sources: [parseCidr("10.0.0.2/32"), parseCidr("192.168.7.9/24")] };
    plane.setLink(link({ ...keys(1), ...limits, destinations: [parseCidr("10.0.0.1/32")] }));
    const { ifindex } = linkOf(host, "gretun0")!;
    const own = toHex(new Writer("host").u32(ifindex).finish());
    const elements = () =>
      ["remotes", "bound", "limited", "sources_32", "sources_24", "reach_32"].map((set) =>
        host.nft.elements(`ip ${TABLE}`, set)
      );
    const expected = [
      [hex("198.51.100.1") + port(7777) + port(PORT)],
      [own],
      [own],
      [own + hex("10.0.0.2")],
      [own + hex("192.168.7.0")],
      [own + hex("10.0.0.1")],
    ];
    deepStrictEqual(elements(), expected);
    deepStrictEqual(host.nft.elements(`ip6 ${TABLE}`, "bound"), [own]);
    deepStrictEqual(host.nft.elements(`ip6 ${TABLE}`, "remotes"), []);

    host.nft.flush();
    deepStrictEqual(elements(), expected);

    // A second link behind the same NAT mapping: what both have stays with either.
    plane.setLink(link({ id: OTHER, ...keys(3) }));
    plane.setLink(link({ ...keys(1), ...limits, ...remote("198.51.100.9:1") }));
    deepStrictEqual(host.nft.elements(`ip ${TABLE}`, "remotes"), [
      hex("198.51.100.1") + port(7777) + port(PORT),
      hex("198.51.100.9") + port(1) + port(PORT),
    ]);
    using extra = plane.openPort();
    plane.setLink(link({ id: OTHER, ...keys(3), localPort: extra.port }));
    ok(host.nft.elements(`ip ${TABLE}`, "ports").includes(extra.port.toString(16)));
    plane.removeLink(PEER);
    deepStrictEqual(host.nft.elements(`ip ${TABLE}`, "sources_24"), []);
  }
  deepStrictEqual([...host.nft.tables], []);
});

Deno.test("kernel plane: each link has a chain of its own for what goes in; older kernels have one for all", async () => {
  const host = new FakeHost();
  const sources = [parseCidr("10.0.0.2/32")];
  const faults: string[] = [];
  const options = { onFault: (what: string) => faults.push(what) };
  const chains = (family: string) => [...new Set(host.nft.tables.get(`${family} ${TABLE}`)?.rules)];
  {
    await using plane = open(host, options);
    const ids = [PEER, OTHER].map((id, i) => {
      plane.setLink(link({ id, ...keys(2 * i + 1), sources }));
      return `out-${linkOf(host, `gretun${i}`)!.ifindex}`;
    });
    deepStrictEqual(chains("netdev"), ids);
    deepStrictEqual(chains("ip"), ["in"]);
    host.nft.flush();
    deepStrictEqual(chains("netdev"), ids);
    plane.removeLink(PEER);
    deepStrictEqual(chains("netdev"), [ids[1]]);
    // Somebody has taken the device away between two steps of ours.
    host.nft.missingDevices.add("gretun1");
    host.nft.flush();
    deepStrictEqual(chains("netdev"), []);
    host.nft.missingDevices.clear();
    plane.setLink(link({ id: OTHER, ...keys(3), sources }));
    deepStrictEqual(chains("netdev"), [ids[1]]);
  }
  deepStrictEqual([...host.nft.tables], []);
  host.nft.hasEgress = false;
  await using plane = open(host, options);
  plane.setLink(link({ ...keys(1), sources }));
  deepStrictEqual(chains("netdev"), []);
  deepStrictEqual(chains("ip"), ["in", "out"]);
  deepStrictEqual(faults, []);
});

Deno.test("kernel plane: an adopted link is confined before it is set", async () => {
  const host = new FakeHost();
  open(host).setLink(link(keys(1)));
  kill(host);
  await using plane = open(host);
  deepStrictEqual(host.nft.elements(`ip ${TABLE}`, "bound"), []);
  plane.confine(PEER, { sources: [parseCidr("10.0.0.2/32")] });
  strictEqual(host.nft.elements(`ip ${TABLE}`, "bound").length, 1);
  strictEqual(host.files.get("/proc/sys/net/ipv6/conf/gretun0/accept_ra"), "0");
});

Deno.test("kernel plane: a link takes nothing from routers, and has no link-local address without IPv6", async () => {
  const host = new FakeHost();
  const faults: string[] = [];
  await using plane = open(host, { onFault: (what, error) => faults.push(`${what}: ${error}`) });
  plane.setLink(link({ ...keys(1), sources: [parseCidr("10.0.0.2/32")] }));
  const of = (path: string) => host.files.get(`/proc/sys/net/${path}`);
  const names = ["ipv6/conf/gretun0/accept_ra", "ipv6/conf/gretun0/accept_redirects"];
  const routes = ["ipv4/conf/gretun0/accept_source_route", "ipv6/conf/gretun0/seg6_enabled"];
  deepStrictEqual([...names, ...routes].map(of), ["0", "0", "0", "0"]);
  strictEqual(of("ipv6/conf/gretun0/addr_gen_mode"), "1");
  plane.setLink(link({ id: OTHER, ...keys(3), sources: [parseCidr("fd00::2/128")] }));
  strictEqual(of("ipv6/conf/gretun1/addr_gen_mode"), undefined);
  deepStrictEqual(faults, []);
  host.writeFile = () => {};
  plane.setLink(link({ id: "third", ...keys(5), ...remote("198.51.100.3:1") }));
  strictEqual(faults.length, 0, "nothing there: no such family");
  host.files.set("/proc/sys/net/ipv6/conf/gretun3/accept_ra", "1\n");
  plane.setLink(link({ id: "fourth", ...keys(7), ...remote("198.51.100.4:1") }));
  ok(/cannot set .*accept_ra/.test(faults[0]!), faults[0]);
});

Deno.test("kernel plane: there is none without nf_tables, and nothing is left of it", async () => {
  const host = new FakeHost();
  host.nft.isThere = false;
  throws(() => open(host), /^NoKernelPlaneError: links of the kernel cannot be guarded: /);
  host.nft.isThere = true;
  await using plane = open(host);
  plane.setLink(link());
});

Deno.test("kernel plane: IPIP links to one address have local addresses of their own", async () => {
  const host = new FakeHost();
  const options = { role: "hub", signalling: { kind: "not-ipv4" } } as const;
  await using plane = open(host, options, "ipip-fou");
  deepStrictEqual(plane.families, [4]);
  plane.setLink(link({ id: "a" }));
  plane.setLink(link({ id: "b", ...remote("198.51.100.1:40001") }));
  const locals = () => ["gretun0", "gretun1"].map((name) => linkOf(host, name)?.tunnel?.local);
  deepStrictEqual(locals(), [undefined, parseIp("172.29.0.1")]);
  plane.setLink(link({ id: "a" }));
  deepStrictEqual(locals(), [undefined, parseIp("172.29.0.1")], "it keeps what it has");
  const key = hex("198.51.100.1") + port(40001) + port(PORT);
  deepStrictEqual(host.nft.elements(`ip gretun-hub-${PORT}`, "alternatives"), [key]);
  plane.setLink(link({ id: "b", ...remote("198.51.100.2:40001") }));
  plane.removeLink("a");
  deepStrictEqual(addressesOf(host, "lo").length, 1, "kept as long as the link has it");
  plane.removeLink("b");
  deepStrictEqual(addressesOf(host, "lo"), []);
});

Deno.test("kernel plane: checksums are filled in before a socket on the same machine gets them", async () => {
  const host = new FakeHost();
  await using plane = open(host);
  const summing = (wanted: WantedLink) => {
    plane.setLink(wanted);
    return [...host.summing];
  };
  deepStrictEqual(summing(link()), []);
  deepStrictEqual(summing(link({ ...remote("127.64.1.2:999"), meetsSocket: true })), []);
  deepStrictEqual(summing(link({ ...remote("198.51.100.9:999"), meetsSocket: true })), ["gretun0"]);
  deepStrictEqual(summing(link(remote("198.51.100.2:999"))), []);
  // A card at the end of the way fills them in for whoever gets them.
  using rtnl = host.openRtNetlink();
  const { name } = rtnl.link(rtnl.routeTo(parseIp("198.51.100.3")).device!)!;
  host.fileLinks.set(`/sys/class/net/${name}/device/driver`, "../../bus/pci/drivers/ixgbe");
  deepStrictEqual(summing(link({ ...remote("198.51.100.3:999"), meetsSocket: true })), []);
});

Deno.test("kernel plane: what an earlier run set of a link's checksums does not stay", async () => {
  const host = new FakeHost();
  open(host).setLink(link({ ...remote("198.51.100.3:999"), meetsSocket: true }));
  deepStrictEqual([...host.summing], ["gretun0"]);
  kill(host);
  await using plane = open(host);
  plane.setLink(link());
  deepStrictEqual([...host.summing], []);
});
