/** The engine checks inner packets as the slow way does. */
import { strictEqual } from "node:assert/strict";
import { type Cidr, formatCidr, ipBytes, parseCidr, parseEndpoint } from "../../../lib/addr.ts";
import { InnerGuard } from "../../inner_guard.ts";
import { Arena } from "../../../lib/engine/arena.ts";
import { InnerCheck } from "../../../lib/engine/inner_check.ts";
import { WorkerTables } from "../../../lib/engine/links.ts";
import { sockAddrOf } from "../../../lib/linux/mod.ts";
import { packet } from "../../fakes/packets.ts";
import { seededRandom } from "../../ip_packets.ts";

const ADDRESSES = [
  ...["10.0.1.2", "10.0.1.255", "10.0.2.0", "192.0.2.7", "224.0.0.5", "0.0.0.0", "127.0.0.1"],
  ...["fd00::2", "fd00::ff", "fd00::1ff", "fe80::1", "ff02::1", "::"],
];
const NETWORKS = ["10.0.1.0/24", "192.0.2.7/32", "fd00::/120", "fe80::/10", "224.0.0.0/4"]
  .map(parseCidr);
const networkOf = ({ ip, prefixLength }: Cidr) => ({ bytes: ipBytes(ip), prefixLength });

Deno.test("InnerCheck decides as InnerGuard does", () => {
  const random = seededRandom(5);
  const some = () => random(4) === 0 ? undefined : NETWORKS.filter(() => random(2) === 0);
  const arena = new Arena(new ArrayBuffer(4096));
  for (let i = 0; i < 200; i++) {
    const limits = { sources: some(), destinations: some() };
    const given = Object.fromEntries(Object.entries(limits).filter(([, list]) => list));
    const guard = new InnerGuard(given);
    const check = new InnerCheck(Object.fromEntries(
      Object.entries(given).map(([name, list]) => [name, list!.map(networkOf)]),
    ));
    for (let k = 0; k < 20; k++) {
      const from = ADDRESSES[random(ADDRESSES.length)]!;
      const family = ADDRESSES.filter((ip) => ip.includes(":") === from.includes(":"));
      const to = family[random(family.length)]!;
      const protocol = [1, 6, 17, 58, 0, 44, 51, 60][random(8)]!;
      const body = Array.from({ length: random(40) }, () => [0, 3, 5, 8, 58, 134, 137][random(7)]!);
      if (random(2) === 0) body.splice(8, Infinity, ...packet(to, family[random(family.length)]!));
      const bytes = packet(from, to, { protocol, body, fragmentOffset: random(3) === 0 ? 9 : 0 });
      arena.bytes.set(bytes, 64);
      const version = from.includes(":") ? 6 : 4;
      const what = `${from} to ${to} within ${limits.sources?.map(formatCidr)}`;
      strictEqual(check.refusesIn(arena, 64, bytes.length, version), guard.refusesIn(bytes), what);
      strictEqual(check.refusesOut(arena, 64, version), guard.refusesOut(bytes), what);
    }
  }
});

Deno.test("an outer packet is known by our port and a remote", () => {
  const arena = new Arena(new ArrayBuffer(1 << 20));
  const tables = new WorkerTables(arena, "gre");
  const remotes = ["198.51.100.1:8080", "[2001:db8::9]:8080"].map(parseEndpoint);
  tables.apply({
    kind: "socket",
    socket: { id: 0, fd: -1, family: 4, port: 7777, segments: false },
  });
  for (const [id, remote] of remotes.entries()) {
    const path = { socket: 0, to: sockAddrOf(remote) };
    tables.apply({ kind: "link", link: { id, device: -1, cutsUdp: false, mtu: 1400, path } });
  }
  const udp = (from: number, to: number) => [from >> 8, from & 255, to >> 8, to & 255, 0, 8, 0, 0];
  const cases: [to: string, ports: [number, number], protocol: number, isOuter: boolean][] = [
    ["198.51.100.1", [7777, 8080], 17, true],
    ["2001:db8::9", [7777, 8080], 17, true],
    ["198.51.100.1", [7777, 8081], 17, false],
    ["198.51.100.2", [7777, 8080], 17, false],
    ["198.51.100.1", [7778, 8080], 17, false],
    ["198.51.100.1", [7777, 8080], 6, false],
  ];
  for (const [to, [from, port], protocol, isOuter] of cases) {
    const own = to.includes(":") ? "fd00::1" : "10.0.0.1";
    const bytes = packet(own, to, { protocol, body: udp(from, port) });
    arena.bytes.set(bytes, arena.bytes.length - 256);
    const version = to.includes(":") ? 6 : 4;
    strictEqual(tables.isOuter(arena.bytes.length - 256, bytes.length, version), isOuter, to);
  }
});
