/** What a daemon does about addresses that this host cannot spare. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseCidr, parseIp } from "../../../lib/addr.ts";
import { Collisions } from "../../../lib/daemon/collisions.ts";
import { type LogFields, silentLog } from "../../../lib/edges.ts";
import type { NodeKey } from "../../../lib/keys.ts";
import { type NeededAddress, pairAddress } from "../../../lib/links/mod.ts";
import type { InterfaceAddress, Link } from "../../../lib/netlink.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const BOB = "ab".repeat(32) as NodeKey;
const WANTED = {
  addresses: [pairAddress(parseIp("10.0.1.1"), parseIp("10.0.1.2"))],
  routes: [parseCidr("10.7.0.0/16")],
};
const FOUND = [{ wanted: "10.0.1.1 peer 10.0.1.2/32", found: "10.0.1.0/24 of eth0" }];

/** A host with one card. */
function host() {
  const said: [string, LogFields | undefined][] = [];
  const counts: number[] = [];
  let addresses: InterfaceAddress[] = [];
  let needed: NeededAddress[] = [];
  let looks = 0;
  const collisions = new Collisions({
    rtnl: {
      links: () => {
        looks++;
        return [{ ifindex: 2, name: "eth0", up: true } as Link];
      },
      addresses: () => addresses,
      routes: () => [],
    },
    readFile: () => "",
    daemon: { role: "up", port: 7777 },
    needed: () => needed,
    clock: new VirtualClock(),
    log: {
      ...silentLog,
      warn: (message, fields) => said.push([message, fields]),
      info: (message, fields) => said.push([message, fields]),
    },
    onChange: (count) => counts.push(count),
  });
  return {
    ...{ collisions, said, counts },
    get looks() {
      return looks;
    },
    joins(address: string) {
      const { ip: local, prefixLength } = parseCidr(address);
      addresses = [{ ifindex: 2, local, prefixLength }];
    },
    leaves() {
      addresses = [];
    },
    needs(ip: string, what: string) {
      needed = [{ ip: parseIp(ip), what }];
    },
  };
}

Deno.test("what collides is not set, and told once with what to do", () => {
  const at = host();
  at.joins("10.0.1.77/24");
  for (let i = 0; i < 3; i++) {
    deepStrictEqual(at.collisions.admit({ name: "bob", nodeKey: BOB }, WANTED), {
      ...WANTED,
      addresses: [],
    });
  }
  deepStrictEqual(at.said, [["address collides, not set", {
    peer: "bob",
    key: "abababab",
    address: "10.0.1.1 peer 10.0.1.2/32",
    with: "10.0.1.0/24 of eth0",
    hint: "Choose another --pool at the coordinator, or change that network",
  }]]);
  deepStrictEqual(at.collisions.of(BOB), FOUND);
  strictEqual(at.counts.at(-1), 1);
  strictEqual(at.looks, 1);
});

Deno.test("a host that comes into a network, or leaves one, sets less or more", () => {
  const at = host();
  deepStrictEqual(at.collisions.admit({ name: "bob", nodeKey: BOB }, WANTED), WANTED);
  deepStrictEqual(at.collisions.changed(), []);
  at.joins("10.0.1.77/24");
  deepStrictEqual(at.collisions.changed(), [BOB]);
  deepStrictEqual(at.collisions.admit({ name: "bob", nodeKey: BOB }, WANTED).addresses, []);
  deepStrictEqual(at.collisions.changed(), []);
  at.leaves();
  deepStrictEqual(at.collisions.changed(), [BOB]);
  deepStrictEqual(at.collisions.admit({ name: "bob", nodeKey: BOB }, WANTED), WANTED);
  deepStrictEqual(at.said.map(([message]) => message), [
    "address collides, not set",
    "address collides no more",
  ]);
  deepStrictEqual(at.collisions.of(BOB), []);
});

Deno.test("what the daemon itself has to reach is not routed into a link", () => {
  const at = host();
  at.needs("10.7.0.9", "the coordinator");
  deepStrictEqual(at.collisions.admit({ name: "bob", nodeKey: BOB }, WANTED), {
    ...WANTED,
    routes: [],
  });
  deepStrictEqual(at.collisions.of(BOB), [
    { wanted: "10.7.0.0/16", found: "the coordinator 10.7.0.9" },
  ]);
  at.collisions.forget(BOB);
  deepStrictEqual([at.collisions.of(BOB), at.counts.at(-1)], [[], 0]);
});
