/** Links that others change are put right, over a kernel that holds links, addresses and routes. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { formatCidr, parseCidr, parseIp } from "../../../lib/addr.ts";
import type { Log, LogFields } from "../../../lib/edges.ts";
import {
  type Inner,
  type KeptState,
  LinkKeeper,
  NO_INNER,
  pairAddress,
  setInner,
} from "../../../lib/links/mod.ts";
import { differences, differencesText } from "../../../lib/links/differences.ts";
import { FIRST_MEND_PAUSE_MS, MEND_BURST } from "../../../lib/links/mend_policy.ts";
import { network } from "../../../lib/links/inner.ts";
import { TunnelKernel } from "../../fakes/tunnel_kernel.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const ALIAS = `gretun up port 7777 peer ${"ab".repeat(32)}`;
const INNER: Inner = {
  addresses: [pairAddress(parseIp("100.64.0.1"), parseIp("100.64.0.2"))],
  routes: [parseCidr("10.7.0.0/16")],
};
const STATE: KeptState = { name: "gretun0", alias: ALIAS, mtu: 1464, ...INNER };

class Machine implements Disposable {
  readonly kernel = new TunnelKernel();
  readonly rtnl = this.kernel.openRtNetlink();
  readonly clock = new VirtualClock();
  readonly lines: [string, string, LogFields | undefined][] = [];
  readonly ifindex: number;
  readonly keeper: LinkKeeper;
  state = STATE;

  constructor() {
    this.kernel.modules.add("ip_gre");
    this.ifindex = this.rtnl.createLink({
      ...{ name: "gretun0", alias: ALIAS, mtu: 1464, up: true, kind: "gre" },
      tunnel: { remote: parseIp("192.0.2.2"), ttl: 64, pmtudisc: true },
    });
    setInner(this.rtnl, this.ifindex, INNER, NO_INNER);
    const log = (level: string) => (message: string, fields?: LogFields) => {
      this.lines.push([level, message, fields]);
    };
    this.keeper = new LinkKeeper({
      rtnl: this.rtnl,
      clock: this.clock,
      log: {
        debug: log("debug"),
        info: log("info"),
        warn: log("warn"),
        error: log("error"),
      } as Log,
      wanted: () => [{ ifindex: this.ifindex, state: this.state }],
    });
  }

  /** What is of interest of the link. */
  get seen() {
    const { name, alias, mtu, up } = this.rtnl.link(this.ifindex)!;
    const addresses = this.rtnl.addresses().map(({ local, peer }) => `${local} ${peer}`).sort();
    const routes = this.rtnl.routes().map(({ destination, source }) =>
      `${formatCidr(network(destination))} ${source ?? ""}`.trim()
    ).sort();
    return { name, alias, mtu, up, addresses, routes };
  }

  flush(): void {
    for (const address of this.rtnl.addresses()) this.rtnl.deleteAddress(address);
  }

  change(change: { up?: boolean; mtu?: number; name?: string; alias?: string }): void {
    this.rtnl.changeLink(this.ifindex, change);
  }

  [Symbol.dispose](): void {
    this.keeper[Symbol.dispose]();
    this.rtnl[Symbol.dispose]();
  }
}

const CHANGES: [string, (machine: Machine) => void, RegExp][] = [
  ["addresses flushed", (m) => m.flush(), /^without address 100\.64\.0\.1 peer 100\.64\.0\.2\/32/],
  [
    "a route removed",
    ({ rtnl, ifindex }) =>
      rtnl.deleteRoute({ destination: parseCidr("10.7.0.0/16"), device: ifindex }),
    /^without route to 10\.7\.0\.0\/16$/,
  ],
  [
    "the route to the peer removed",
    ({ rtnl, ifindex }) =>
      rtnl.deleteRoute({ destination: parseCidr("100.64.0.2/32"), device: ifindex }),
    /^without route to 100\.64\.0\.2\/32$/,
  ],
  ["set down", (m) => m.change({ up: false }), /^down, without route to 100\.64\.0\.2\/32 and /],
  ["down and up", (m) => {
    m.change({ up: false });
    m.change({ up: true });
  }, /^without route to 10\.7\.0\.0\/16$/],
  ["another MTU", (m) => m.change({ mtu: 1300 }), /^MTU 1300$/],
  ["another name", (m) => m.change({ name: "lan7" }), /^renamed to lan7$/],
  ["another alias", (m) => m.change({ alias: "uplink" }), /^another alias$/],
];

for (const [name, change, what] of CHANGES) {
  Deno.test(`LinkKeeper puts right: ${name}, and says so once`, () => {
    using machine = new Machine();
    const before = machine.seen;
    change(machine);
    machine.keeper.look();
    deepStrictEqual(machine.seen, before);
    const [[level, message, fields] = [], ...more] = machine.lines;
    deepStrictEqual([level, message, fields?.ifname, more], [
      "warn",
      "link was not as it should be, put right",
      "gretun0",
      [],
    ]);
    match(String(fields?.what), what);
    change(machine);
    machine.keeper.look();
    deepStrictEqual(machine.seen, before);
    deepStrictEqual(machine.lines.map(([level]) => level), ["warn", "debug"]);
  });
}

Deno.test("LinkKeeper leaves what is as it should be, and what others added", () => {
  using machine = new Machine();
  const { rtnl, ifindex } = machine;
  rtnl.addAddress({ ifindex, local: parseIp("10.99.0.1"), prefixLength: 24 });
  rtnl.addRoute({ destination: parseCidr("10.98.0.0/16"), device: ifindex });
  const before = machine.seen;
  const { requests } = machine.kernel;
  machine.keeper.look();
  strictEqual(machine.kernel.requests - requests, 3);
  deepStrictEqual([machine.seen, machine.lines], [before, []]);
});

Deno.test("LinkKeeper gives up what somebody keeps undoing, says so, and tries again later", async () => {
  using machine = new Machine();
  for (let i = 0; i <= MEND_BURST + 5; i++) {
    machine.change({ mtu: 1300 });
    machine.keeper.look();
  }
  strictEqual(machine.seen.mtu, 1300);
  const errors = machine.lines.filter(([level]) => level === "error");
  deepStrictEqual(errors.map(([, message, fields]) => [message, fields?.what]), [
    ["another program keeps changing a link of ours, leaving it so", "MTU 1300"],
  ]);
  // Other facets are not given up with it.
  machine.flush();
  machine.keeper.look();
  strictEqual(machine.seen.addresses.length, 1);
  // It left off without news for us.
  await machine.clock.until(machine.clock.sleep(FIRST_MEND_PAUSE_MS + 1));
  strictEqual(machine.seen.mtu, 1464);
});

Deno.test("LinkKeeper tries again what fails, without news", async () => {
  using machine = new Machine();
  machine.change({ up: false });
  machine.kernel.failAt = { request: machine.kernel.requests + 4, errno: 105 };
  machine.keeper.look();
  strictEqual(machine.seen.up, false);
  match(JSON.stringify(machine.lines), /cannot be put right/);
  await machine.clock.until(machine.clock.sleep(2_001));
  ok(machine.seen.up);
});

Deno.test("LinkKeeper says once what cannot be put right, and does so when it can", async () => {
  using machine = new Machine();
  const { rtnl, kernel, clock } = machine;
  const other = rtnl.createLink({
    ...{ name: "other", mtu: 1500, up: true, kind: "gre" },
    tunnel: { remote: parseIp("192.0.2.9"), ttl: 64, pmtudisc: true },
  });
  const destination = parseCidr("100.64.0.2/32");
  rtnl.deleteRoute({ destination, device: machine.ifindex });
  rtnl.addRoute({ destination, device: other });
  machine.keeper.look();
  await clock.until(clock.sleep(60_000));
  const told = machine.lines.filter(([level]) => level !== "debug");
  deepStrictEqual(told.map(([level, message]) => [level, message]), [
    ["warn", "link is not as it should be, cannot be put right"],
  ]);
  kernel.removeLink("other");
  await clock.until(clock.sleep(2_001));
  ok(machine.seen.routes.some((route) => route.startsWith("100.64.0.2/32")));
});

Deno.test("LinkKeeper follows what is wanted now, and leaves a link that is gone", () => {
  using machine = new Machine();
  machine.state = { ...STATE, mtu: 1364 };
  machine.keeper.look();
  strictEqual(machine.seen.mtu, 1364);
  const { mtu: _, ...unknown } = STATE;
  machine.state = unknown;
  machine.keeper.look();
  strictEqual(machine.seen.mtu, 1364);
  machine.kernel.removeLink("gretun0");
  machine.keeper.look();
  strictEqual(machine.lines.length, 1);
});

Deno.test("differences() and their words", () => {
  using machine = new Machine();
  const link = machine.rtnl.link(machine.ifindex)!;
  const present = { link: { ...link, name: "x", mtu: 9, up: false }, addresses: [], routes: [] };
  strictEqual(
    differencesText(differences(STATE, present)),
    "renamed to x, MTU 9, without address 100.64.0.1 peer 100.64.0.2/32, down, " +
      "without route to 100.64.0.2/32 and 10.7.0.0/16",
  );
  deepStrictEqual(
    differences(STATE, present).map(({ facet }) => facet),
    ["name", "mtu", "addresses", "up", "routes"],
  );
});
