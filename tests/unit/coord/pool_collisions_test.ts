/** Pools that hide networks, and those that do not. */
import { deepStrictEqual } from "node:assert/strict";
import { type Ip, parseCidr } from "../../../lib/addr.ts";
import { poolCollisions } from "../../../lib/coord/pool_collisions.ts";

const HERE = {
  networks: [
    { ifname: "eth0", network: parseCidr("10.1.2.0/24") },
    { ifname: "eth1", network: parseCidr("2001:db8::/64") },
  ],
  needed: [{ ip: "100.100.100.100" as Ip, what: "the DNS server" }],
};
const POOLS: [name: string, pool: string, found: string[]][] = [
  ["elsewhere", "100.64.0.0/24", []],
  ["inside a network", "10.1.2.128/25", ["10.1.2.0/24 of eth0"]],
  ["around a network", "10.0.0.0/8", ["10.1.2.0/24 of eth0"]],
  ["beside a network", "10.1.3.0/24", []],
  ["with the DNS server in it", "100.100.0.0/16", ["the DNS server 100.100.100.100"]],
];
for (const [name, pool, found] of POOLS) {
  Deno.test(`a pool ${name} collides with ${found.length} of what there is`, () => {
    deepStrictEqual(poolCollisions(parseCidr(pool), HERE), found);
  });
}
