/** The list of endpoints that a node tells. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import {
  type Endpoint,
  formatEndpoint,
  type Ip,
  parseCidr,
  parseEndpoint,
  parseIp,
} from "../../../lib/addr.ts";
import { advertise, localEndpoints } from "../../../lib/daemon/own/endpoints.ts";

const endpoints = (...texts: string[]) => texts.map(parseEndpoint);
const many = (count: number): Endpoint[] =>
  Array.from({ length: count }, (_, i) => parseEndpoint(`[2001:db8::${i + 1}]:7777`));

Deno.test("advertise() tells each endpoint once, by its first source", () => {
  const list = advertise({
    given: endpoints("198.51.100.1:4000"),
    local: endpoints("[2001:db8::1]:7777", "10.0.0.2:7777"),
    portmap: endpoints("203.0.113.1:5000"),
    stun: endpoints("203.0.113.1:5000", "203.0.113.1:7777", "[2001:db8::1]:7777"),
  });
  deepStrictEqual(list.map(({ endpoint, source }) => `${source} ${formatEndpoint(endpoint)}`), [
    "given 198.51.100.1:4000",
    "local [2001:db8::1]:7777",
    "local 10.0.0.2:7777",
    "portmap 203.0.113.1:5000",
    "stun 203.0.113.1:7777",
  ]);
});

Deno.test("advertise() leaves out local endpoints, not others, where there are too many", () => {
  const stun = endpoints("203.0.113.1:7777", "203.0.113.2:7777");
  const list = advertise({ given: [], local: many(40), portmap: [], stun });
  strictEqual(list.length, 32);
  deepStrictEqual(list.slice(-2).map(({ endpoint }) => endpoint), stun);
  strictEqual(advertise({ given: many(40), local: many(3), portmap: [], stun }).length, 32);
});

/** Device 1 leads to the internet. */
function told(
  devices: { name: string; kind?: string; ip: string; alias?: string; master?: number }[],
  interfaces: Partial<Parameters<typeof localEndpoints>[1]["interfaces"]> = {},
): Ip[] {
  const stats = {} as never;
  const rtnl = {
    links: () =>
      devices.map((device, i) => ({
        ...device,
        ifindex: i + 1,
        mtu: 1500,
        up: true,
        running: true,
        stats,
      })),
    addresses: () =>
      devices.flatMap(({ ip }, i) =>
        ip ? [{ ifindex: i + 1, local: parseIp(ip), prefixLength: 24 }] : []
      ),
    tryRouteTo: () => ({ destination: parseCidr("0.0.0.0/0"), device: 1 }),
  };
  return localEndpoints(rtnl, {
    port: 7777,
    families: [4],
    overlay: parseCidr("100.64.0.1/24"),
    interfaces: { advertise: [], exclude: [], ...interfaces },
  }).map(({ ip }) => ip);
}

Deno.test("localEndpoints(): the way to the internet first, then cards, then what is made of them", () => {
  const bridges = Array.from({ length: 40 }, (_, i) => //
  ({ name: `net${i}`, kind: "bridge", ip: `172.20.${i}.1` }));
  const uplink = { name: "br0", kind: "bridge", ip: "192.168.1.2" };
  const card = { name: "eth1", ip: "10.0.0.2" };
  const ports = bridges.map((_, i) => ({ name: `port${i}`, kind: "veth", ip: "", master: i + 2 }));
  const made = { name: "vlan7", kind: "vlan", ip: "10.7.0.2" };
  const list = told([uplink, ...bridges, card, made, ...ports]);
  deepStrictEqual(list.slice(0, 4), ["192.168.1.2", "10.0.0.2", "10.7.0.2", "172.20.0.1"]);
});

Deno.test("localEndpoints() leaves out tunnels, and bridges that each host has alike, unless told", () => {
  const devices = [
    { name: "eth0", ip: "192.168.1.2" },
    { name: "docker0", kind: "bridge", ip: "172.17.0.1" },
    { name: "br-0123456789ab", kind: "bridge", ip: "172.18.0.1" },
    { name: "nobody", kind: "bridge", ip: "172.19.0.1" },
    { name: "wg0", kind: "wireguard", ip: "10.77.0.1" },
    { name: "gretun0", kind: "gre", alias: "gretun hub port 7777 client x", ip: "10.78.0.1" },
  ];
  deepStrictEqual(told(devices), ["192.168.1.2"]);
  deepStrictEqual(told(devices, { advertise: ["wg*", "gretun0"] }), ["192.168.1.2", "10.77.0.1"]);
  deepStrictEqual(
    told(devices, { exclude: ["e*0"], advertise: ["*"] }).includes(parseIp("192.168.1.2")),
    false,
  );
});
