/** Which address is pinged for a tunnel, which tunnels there are, and how a round goes. */
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { type Ip, parseCidr, parseIp } from "../../../lib/addr.ts";
import { LiveText } from "../../../lib/cli/live_text.ts";
import { farAddress } from "../../../lib/health/far_address.ts";
import { checkTunnels, tunnelTargets } from "../../../lib/health/mod.ts";
import type { TunnelTarget } from "../../../lib/health/tunnels.ts";
import { type DaemonMark, formatMark } from "../../../lib/links/mod.ts";
import { SystemError } from "../../../lib/linux/mod.ts";
import { type InterfaceAddress, type Link, type Route } from "../../../lib/netlink.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const IFINDEX = 7;

/** "10.0.0.1/30", or "10.0.0.1 peer 10.0.0.2/32" as `ip address` writes it. */
function address(text: string, ifindex = IFINDEX): InterfaceAddress {
  const [local, peer] = text.split(" peer ");
  const { ip, prefixLength } = parseCidr(peer ?? local!);
  return {
    ifindex,
    local: parseIp(local!.split("/")[0]!),
    prefixLength,
    ...(peer ? { peer: ip } : {}),
  };
}

/** "10.1.0.0/16", or "10.1.0.0/16 via 10.0.0.2". */
function route(text: string, device = IFINDEX): Route {
  const [destination, gateway] = text.split(" via ");
  return {
    destination: parseCidr(destination!),
    device,
    ...(gateway ? { gateway: parseIp(gateway) } : {}),
  };
}

Deno.test("farAddress() knows the other end by its address or its route", () => {
  const cases: [string, string[], string[], string | undefined][] = [
    ["nothing at all", [], [], undefined],
    ["a peer", ["10.0.0.1 peer 10.0.0.2/32"], [], "10.0.0.2"],
    ["a peer with a network", ["10.0.0.1 peer 10.9.0.1/24"], [], "10.9.0.1"],
    ["a /31, even", ["10.0.0.0/31"], [], "10.0.0.1"],
    ["a /31, odd", ["10.0.0.255/31"], [], "10.0.0.254"],
    ["a /30, first", ["10.0.0.1/30"], [], "10.0.0.2"],
    ["a /30, second", ["10.0.0.6/30"], [], "10.0.0.5"],
    ["a /30 of link-local addresses", ["169.254.10.1/30"], [], "169.254.10.2"],
    ["a /30's network address", ["10.0.0.4/30"], [], undefined],
    ["a /30's broadcast address", ["10.0.0.7/30"], [], undefined],
    ["a /127", ["fd00::/127"], [], "fd00::1"],
    ["a /126, second", ["fd00::2/126"], [], "fd00::1"],
    ["a /126, third", ["fd00::3/126"], [], undefined],
    ["a larger network", ["10.0.0.1/24"], ["10.0.0.0/24"], undefined],
    ["a single address", ["10.0.0.1/32"], [], undefined],
    ["a host route", ["10.0.0.1/32"], ["10.0.0.2/32"], "10.0.0.2"],
    ["a host route of IPv6", ["fd00::1/128"], ["fd00::1/128", "fd00::2/128"], "fd00::2"],
    ["two host routes", ["10.0.0.1/32"], ["10.0.0.2/32", "10.0.0.3/32"], undefined],
    ["one host route of each family", [], ["fd00::2/128", "10.0.0.2/32"], "10.0.0.2"],
    ["a gateway", ["10.0.0.1/24"], ["10.1.0.0/16 via 10.0.0.9"], "10.0.0.9"],
    [
      "one gateway of two networks",
      ["10.0.0.1/24"],
      ["10.1.0.0/16 via 10.0.0.9", "10.2.0.0/16 via 10.0.0.9", "10.3.0.1/32"],
      "10.0.0.9",
    ],
    [
      "two gateways",
      ["10.0.0.1/24"],
      ["10.1.0.0/16 via 10.0.0.9", "10.2.0.0/16 via 10.0.0.8"],
      undefined,
    ],
    ["a host by a gateway", [], ["10.3.0.1/32 via 10.0.0.9"], "10.0.0.9"],
    ["IPv4 before IPv6", ["fd00::1/127", "10.0.0.1/31"], [], "10.0.0.0"],
    ["a peer before a pair", ["10.0.0.1/31", "10.5.0.1 peer 10.5.0.9/32"], [], "10.5.0.9"],
    ["link-local IPv6 besides", ["fe80::1/64", "fd00::/127"], ["fe80::/64"], "fd00::1"],
  ];
  for (const [name, addresses, routes, expected] of cases) {
    const elsewhere = 8;
    const far = farAddress(
      IFINDEX,
      [address("10.7.0.1/31", elsewhere), ...addresses.map((a) => address(a))],
      [route("10.7.0.9/32", elsewhere), ...routes.map((r) => route(r))],
    );
    strictEqual(far, expected, name);
  }
});

function link(name: string, change: Partial<Link> = {}): Link {
  const stats = { rxPackets: 0, txPackets: 0, rxBytes: 0, txBytes: 0 };
  const errors = { rxErrors: 0, txErrors: 0, rxDropped: 0, txDropped: 0 };
  return {
    ifindex: IFINDEX,
    name,
    kind: "gre",
    mtu: 1476,
    up: true,
    running: true,
    stats: { ...stats, ...errors },
    tunnel: { remote: parseIp("192.0.2.2"), ttl: 64, pmtudisc: true },
    ...change,
  };
}

function inUserSpace(name: string, alias: string): Link {
  const { tunnel: _, ...rest } = link(name, { kind: "tun", alias });
  return rest;
}

Deno.test("tunnelTargets() finds tunnels and what to ping for them", () => {
  const ip = parseIp;
  const remote = ip("192.0.2.2");
  const known = [address("10.0.0.1/30")];
  const nowhere = { remote: ip("0.0.0.0"), ttl: 0, pmtudisc: true };
  const nowhere6 = { ...nowhere, remote: ip("::") };
  const noTargets = { named: new Map() };
  const cases: [string, Link[], Parameters<typeof tunnelTargets>[1], TunnelTarget[]][] = [
    ["none", [], noTargets, []],
    ["a tunnel", [link("t0")], noTargets, [{ name: "t0", remote, target: ip("10.0.0.2") }]],
    [
      "other links and fallback devices",
      [
        link("eth0", { kind: "veth" }),
        link("gre0", { tunnel: nowhere }),
        link("tunl0", { kind: "ipip", tunnel: nowhere }),
        link("ip6tnl0", { kind: "ip6tnl", tunnel: nowhere6 }),
      ],
      noTargets,
      [],
    ],
    [
      "every kind",
      ["gre", "gretap", "ipip", "sit", "ip6gre", "ip6gretap", "ip6tnl"]
        .map((kind, i) => link(`t${i}`, { kind, ifindex: 100 + i })),
      noTargets,
      Array.from({ length: 7 }, (_, i) => ({ name: `t${i}`, remote })),
    ],
    [
      "down",
      [link("t0", { up: false })],
      noTargets,
      [{ name: "t0", remote, target: ip("10.0.0.2"), fault: "the link is down" }],
    ],
    [
      "without a remote end",
      [link("t0", { tunnel: { remote: ip("0.0.0.0"), ttl: 0, pmtudisc: true } })],
      noTargets,
      [{ name: "t0", target: ip("10.0.0.2") }],
    ],
    [
      "named target before the known one, the other one after it",
      [link("t0"), link("t1"), link("t2", { ifindex: 8 })],
      { named: new Map([["t1", ip("10.0.0.9")]]), other: ip("10.0.0.8") },
      [
        { name: "t0", remote, target: ip("10.0.0.2") },
        { name: "t1", remote, target: ip("10.0.0.9") },
        { name: "t2", remote, target: ip("10.0.0.8") },
      ],
    ],
    [
      "of daemons, in the kernel and in user space",
      [
        link("g0", { alias: formatMark({ by: "up", port: 7777, id: "ab".repeat(32) }) }),
        inUserSpace("g1", formatMark({ by: "up", port: 7777, id: "cd".repeat(32) })),
        inUserSpace("h0", formatMark({ by: "hub", port: 7777, id: "alice" })),
        inUserSpace("tap0", "a virtual machine's"),
      ],
      noTargets,
      [
        { name: "g0", remote, target: ip("10.0.0.2") },
        { name: "g1", target: ip("10.0.0.2") },
        {
          name: "h0",
          target: ip("10.0.0.2"),
          fault: "gretun hub on port 7777, which made it, does not run",
        },
      ],
    ],
    [
      "named and not there",
      [link("gone", { kind: "veth" })],
      { named: new Map([["gone", ip("10.0.0.9")]]) },
      [{ name: "gone", target: ip("10.0.0.9"), fault: "there is no such tunnel" }],
    ],
  ];
  for (const [name, links, targets, expected] of cases) {
    const isRunning = ({ by, port }: DaemonMark) => by === "up" && port === 7777;
    const state = { links, addresses: known, routes: [], isRunning };
    deepStrictEqual(tunnelTargets(state, targets), expected, name);
  }
});

const TARGET = parseIp("10.0.0.2");
const tunnels = (count: number): TunnelTarget[] =>
  Array.from({ length: count }, (_, i) => ({ name: `t${i}`, target: TARGET }));

Deno.test("checkTunnels() pings only what can be healthy", async () => {
  const pinged: string[] = [];
  const ping = async (_: Ip, device: string) => {
    pinged.push(device);
    if (device === "t3") throw new SystemError("setsockopt", 19);
    const base = { sequence: 1, wallMs: 0 };
    return device === "t1" ? { ...base, error: "no answer in 2s" } : { ...base, rttMs: 1.5 };
  };
  const targets: TunnelTarget[] = [
    ...tunnels(4),
    { name: "down", target: TARGET, fault: "the link is down" },
    { name: "blind" },
  ];
  const target = TARGET;
  deepStrictEqual(await checkTunnels(targets, { concurrency: 10, ping }), [
    { name: "t0", target, rttMs: 1.5 },
    { name: "t1", target, error: "no answer in 2s" },
    { name: "t2", target, rttMs: 1.5 },
    { name: "t3", target, error: "setsockopt failed: ENODEV" },
    { name: "down", target, error: "the link is down" },
    { name: "blind", error: "the far address is not known: give it with --target" },
  ]);
  deepStrictEqual(pinged, ["t0", "t1", "t2", "t3"]);
});

Deno.test("checkTunnels() keeps so many pings under way, no more", async () => {
  const cases: [string, number, number, number][] = [
    ["one at a time", 1, 10, 1000],
    ["three at a time", 3, 10, 400],
    ["as many as there are", 100, 10, 100],
    ["none", 5, 0, 0],
  ];
  for (const [name, concurrency, count, durationMs] of cases) {
    const clock = new VirtualClock();
    let [running, most] = [0, 0];
    const ping = async () => {
      most = Math.max(most, ++running);
      await clock.sleep(100);
      running--;
      return { sequence: 1, wallMs: 0, rttMs: 100 };
    };
    const results = await clock.until(checkTunnels(tunnels(count), { concurrency, ping }));
    strictEqual(most, Math.min(concurrency, count), name);
    strictEqual(clock.nowMs(), durationMs, name);
    deepStrictEqual(results.map((r) => r.name), tunnels(count).map((t) => t.name), name);
  }
});

Deno.test("checkTunnels() fails when no ping is possible at all, and says what is not its own", async () => {
  const ping = () => Promise.reject(new TypeError("a bug"));
  await rejects(checkTunnels(tunnels(2), { concurrency: 2, ping }), /a bug/);
  const [interrupted] = await checkTunnels(tunnels(1), {
    concurrency: 1,
    ping: async () => undefined,
  });
  strictEqual(interrupted!.error, "interrupted");
});

Deno.test("LiveText puts text in the place of the last one", () => {
  const size = { columns: 20, rows: 10 };
  const CLEAR = "\x1b[H\x1b[2J";
  const cases: [string, string, typeof size, string][] = [
    ["nothing", "", size, ""],
    ["one line", "a\n", size, "\x1b[1F\x1b[J"],
    ["three lines, one of them empty", "a\n\nb\n", size, "\x1b[3F\x1b[J"],
    ["a line that is just as wide", "a".repeat(20) + "\n", size, "\x1b[1F\x1b[J"],
    ["a line that is wrapped", "a".repeat(41) + "\nb\n", size, "\x1b[4F\x1b[J"],
    ["as high as can be gone back", "a\n".repeat(9), size, "\x1b[9F\x1b[J"],
    ["higher than the terminal", "a\n".repeat(10), size, CLEAR],
    ["a terminal of unknown size", "a\n".repeat(23), { columns: 0, rows: 0 }, "\x1b[23F\x1b[J"],
  ];
  for (const [name, first, now, expected] of cases) {
    const live = new LiveText();
    strictEqual(live.replace(first, now), first, name);
    strictEqual(live.replace("next\n", now), expected + "next\n", name);
    strictEqual(live.replace("", now), "\x1b[1F\x1b[J", name);
    strictEqual(live.replace("no terminal\n", undefined), "no terminal\n", name);
  }
});
