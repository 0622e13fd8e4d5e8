/** Addresses and routes of a link as sets. */
import { deepStrictEqual } from "node:assert/strict";
import { parseCidr, parseIp } from "../../../lib/addr.ts";
import { type Inner, innerChanges, NO_INNER, pairAddress } from "../../../lib/links/mod.ts";

const pair = (peer: number) => pairAddress(parseIp("100.64.0.1"), parseIp(`100.64.0.${peer}`));
const inner = (peers: number[], routes: string[] = []): Inner => ({
  addresses: peers.map(pair),
  routes: routes.map(parseCidr),
});
const NOTHING = { addAddresses: [], addRoutes: [], removeAddresses: [], removeRoutes: [] };

Deno.test("innerChanges() of what is there already are none, in whatever order it is", () => {
  deepStrictEqual(innerChanges(NO_INNER, NO_INNER), NOTHING);
  const wanted = inner([2, 3], ["10.1.0.0/16", "fd00::/64"]);
  const present = inner([3, 2], ["fd00::/64", "10.1.0.0/16"]);
  deepStrictEqual(innerChanges(wanted, present), NOTHING);
});

Deno.test("innerChanges() ignores host bits of routes, as the kernel refuses them", () => {
  deepStrictEqual(innerChanges(inner([], ["10.1.2.3/16"]), inner([], ["10.1.0.0/16"])), NOTHING);
  deepStrictEqual(innerChanges(inner([], ["10.1.2.3/16"]), NO_INNER).addRoutes, [
    parseCidr("10.1.0.0/16"),
  ]);
});

Deno.test("innerChanges() tells what comes and what goes", () => {
  const changes = innerChanges(inner([2, 4], ["10.2.0.0/16"]), inner([3, 2], ["10.1.0.0/16"]));
  deepStrictEqual(changes, {
    addAddresses: [pair(4)],
    removeAddresses: [pair(3)],
    addRoutes: [parseCidr("10.2.0.0/16")],
    removeRoutes: [parseCidr("10.1.0.0/16")],
  });
});

Deno.test("innerChanges() tells an address from a pair, and one prefix from another", () => {
  const local = parseIp("10.0.0.1");
  const addresses = [{ local, prefixLength: 24 }, { local, prefixLength: 32 }];
  const present = [{ local, peer: parseIp("10.0.0.2"), prefixLength: 32 }];
  const changes = innerChanges({ addresses, routes: [] }, { addresses: present, routes: [] });
  deepStrictEqual([changes.addAddresses, changes.removeAddresses], [addresses, present]);
});
