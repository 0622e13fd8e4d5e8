/** Addresses that others name, and that this host does not try. */
import { deepStrictEqual } from "node:assert/strict";
import { isUsableEndpoint, parseCidr, parseIp } from "../../../lib/addr.ts";
import { PrivateNetworks } from "../../../lib/daemon/own/private_networks.ts";
import type { RtNetlink } from "../../../lib/netlink.ts";

/** Of a host with one address and one route. */
function networks(address: string, route: string): PrivateNetworks {
  const own = { local: parseIp(address), ifindex: 2 };
  const way = { destination: parseCidr(route), device: 2 };
  const rtnl = { links: () => [], addresses: () => [own], routes: () => [way] };
  return new PrivateNetworks(rtnl as unknown as RtNetlink);
}

const CASES: [ip: string, isUsable: boolean, isReached: boolean][] = [
  ["203.0.113.7", true, true],
  ["192.168.7.1", true, true],
  ["10.1.2.3", true, false],
  ["10.9.0.3", true, true],
  ["127.0.0.1", false, true],
  ["fd00::1", true, false],
  // What an address of IPv6 ends at.
  ["::ffff:10.1.2.3", true, false],
  ["64:ff9b::cb00:7107", true, true],
  ["64:ff9b::a01:203", true, false],
  ["64:ff9b::7f00:1", false, true],
  ["64:ff9b::e000:1", false, true],
  ["2002:a01:203::1", true, false],
  ["2002:a9fe:1::1", false, true],
  ["64:ff9b:1::a01:203", true, false],
  // Given up.
  ["::a01:203", false, true],
  ["::ffff:0:a01:203", false, true],
  ["fec0::1", false, true],
];

Deno.test("addresses that mean nothing here are not tried, whatever family they are written in", () => {
  const here = networks("192.168.0.5", "10.9.0.0/24");
  const found = CASES.map(([text]) => {
    const ip = parseIp(text);
    return [text, isUsableEndpoint({ ip, port: 7 }), here.reach(ip)];
  });
  deepStrictEqual(found, CASES);
});
