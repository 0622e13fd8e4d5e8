/** Creating and deleting tunnels over a kernel that holds state: steps, undo, FOU ports. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { GretunError } from "../../../lib/errors.ts";
import {
  type DaemonRole,
  formatMark,
  isFouPortOfOthers,
  lockPort,
  usesFouPort,
} from "../../../lib/links/mod.ts";
import { udpPortOwner } from "../../../lib/linux/mod.ts";
import { socketInodes } from "../../../lib/linux/udp_owner.ts";
import { RtNetlink } from "../../../lib/netlink.ts";
import { explain } from "../../../lib/tunnel/explain.ts";
import {
  applySteps,
  checkLinkName,
  createTunnels,
  formatStep,
  listTunnels,
  planRemoval,
  planTunnels,
  tunnelStatus,
} from "../../../lib/tunnel/mod.ts";
import { ERRNO, TunnelKernel } from "../../fakes/tunnel_kernel.ts";
import { deleteTunnels, spec, VARIANTS, variantSpec } from "../../tunnel_specs.ts";

RtNetlink.open()[Symbol.dispose]();

const EIO = 5;
const FOU = { encap: "fou", "encap-dport": 7777 } as const;

const inner = (ipv: 4 | 6) => ({
  "tunnel-ip": ipv === 4 ? ["10.0.0.1/30", "10.1.0.1/30"] : ["fd00::1/64", "fd01::1/64"],
  route: ipv === 4 ? ["10.9.0.0/16", "10.8.0.0/16"] : ["fd09::/64", "fd08::/64"],
});

/** In words of the plan, for messages. */
const commands = (kernel: TunnelKernel, specs = [spec()]) => {
  using host = kernel.open();
  return planTunnels(host, specs).steps.map(formatStep);
};

// --- every step of every kind fails once

for (const variant of VARIANTS) {
  Deno.test(`createTunnels() takes everything back, whichever request fails: ${variant.name}`, () => {
    const wanted = variantSpec(variant, 1, inner(variant.inner));
    let failures = 0;
    for (let n = 1;; n++) {
      const kernel = new TunnelKernel();
      const before = kernel.snapshot();
      kernel.failAt = { request: n, errno: EIO };
      using host = kernel.open();
      try {
        createTunnels(host, [wanted]);
        break; // fewer than n requests
      } catch (error) {
        ok(error instanceof GretunError, String(error));
        ok(!/internal/.test(error.message) && error.hint.length > 0, error.message);
      }
      failures++;
      deepStrictEqual(kernel.snapshot(), before, `request ${n}`);
    }
    ok(failures >= (variant.encap === "none" ? 9 : 13), `${failures} requests failed`);
  });
}

Deno.test("createTunnels() takes a whole batch back", () => {
  const specs = [1, 2, 3].map((n) =>
    spec({ ...FOU, name: `t${n}`, remote: `192.0.2.${n + 1}`, ...inner(4) })
  ).map((one, i) => ({ ...one, routes: i === 0 ? one.routes : [] }));
  let count = 0;
  for (let n = 1;; n++, count++) {
    const kernel = new TunnelKernel();
    const before = kernel.snapshot();
    kernel.failAt = { request: n, errno: EIO };
    using host = kernel.open();
    try {
      createTunnels(host, specs);
      kernel.failAt = undefined;
      strictEqual(listTunnels(host).length, 3);
      break;
    } catch {
      deepStrictEqual(kernel.snapshot(), before, `request ${n}`);
    }
  }
  ok(count > 20, String(count));
});

Deno.test("createTunnels() names what it could not take back", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  const failing = {
    ...host,
    rtnl: new Proxy(host.rtnl, {
      get(rtnl, name) {
        if (name === "deleteLink") {
          return () => {
            throw new Error("no");
          };
        }
        if (name === "addRoute") {
          return () => {
            throw new Error("no route");
          };
        }
        const member = Reflect.get(rtnl, name);
        return typeof member === "function" ? member.bind(rtnl) : member;
      },
    }),
  };
  throws(
    () => createTunnels(failing, [spec({ ...FOU, ...inner(4) })]),
    (error: GretunError) => {
      strictEqual(error.message, "no route; and it could not all be taken back");
      strictEqual(error.hint, "Remove what is left with: ip link delete dev t0");
      return true;
    },
  );
});

// --- plans

Deno.test("planTunnels() gives the commands that do the same", () => {
  const kernel = new TunnelKernel();
  deepStrictEqual(
    commands(kernel, [
      spec({ ...FOU, key: 5, "tunnel-ip": ["10.0.0.1/30"], route: ["10.9.0.0/16"] }),
    ]),
    [
      "modprobe ip_gre",
      "modprobe fou",
      "ip fou add port 7777 ipproto 47",
      "ip link add name t0 mtu 1464 type gre local 192.0.2.1 remote 192.0.2.2 ttl 64 pmtudisc " +
      "key 5 encap fou encap-sport auto encap-dport 7777 encap-csum",
      "ip link set dev t0 alias 'gretun create fou-port 7777 opened'",
      "ip address add 10.0.0.1/30 dev t0",
      "ip link set dev t0 up",
      "ip route add 10.9.0.0/16 dev t0 proto static",
    ],
  );
  for (const module of ["ip_gre", "fou", "fou6", "ip6_tunnel"]) kernel.modules.add(module);
  const v6 = { local: "2001:db8::1", remote: "2001:db8::2", type: "ip6tnl" } as const;
  deepStrictEqual(
    commands(kernel, [
      spec({ ...v6, encap: "gue", "encap-dport": 1, "fou-port": 2, tos: "0x20", ttl: "inherit" }),
    ]),
    [
      "ip -6 fou add port 2 gue",
      "ip link add name t0 mtu 1448 type ip6tnl mode any local 2001:db8::1 remote 2001:db8::2 " +
      "hoplimit 0 tclass 0x20 encaplimit none encap gue encap-sport auto encap-dport 1 encap-udp6-csum",
      "ip link set dev t0 alias 'gretun create fou-port 2 opened'",
      "ip link set dev t0 up",
    ],
  );
});

Deno.test("planTunnels() changes nothing", () => {
  const kernel = new TunnelKernel();
  const before = kernel.snapshot();
  commands(kernel, [spec({ ...FOU, ...inner(4) })]);
  deepStrictEqual([kernel.snapshot(), kernel.modules.size], [before, 0]);
});

Deno.test("MTU: of the way less what is added, as asked for, or assumed", () => {
  const mtuOf = (kernel: TunnelKernel, options: Parameters<typeof spec>[0]) => {
    using host = kernel.open();
    const { steps, warnings } = planTunnels(host, [spec(options)]);
    const link = steps.find((step) => step.do === "add-link")!;
    return [link.mtu, warnings.length];
  };
  const way = (mtu: number) => new TunnelKernel({ mtu });
  deepStrictEqual(mtuOf(way(1500), {}), [1476, 0]);
  deepStrictEqual(mtuOf(way(1500), FOU), [1468, 0]);
  deepStrictEqual(mtuOf(way(1492), { ...FOU, key: 1 }), [1456, 0]);
  deepStrictEqual(mtuOf(way(9000), { key: 1 }), [8972, 0]);
  deepStrictEqual(mtuOf(way(65536), {}), [9000, 0]);
  deepStrictEqual(mtuOf(way(500), {}), [576, 0]);
  deepStrictEqual(mtuOf(way(1500), { mtu: 1400 }), [1400, 0]);
  deepStrictEqual(mtuOf(way(1500), { mtu: 1477 }), [1477, 1]);
  deepStrictEqual(mtuOf(way(1400), { dev: "lo" }), [9000, 0]);
  const lost = way(1400);
  lost.hasRoute = false;
  deepStrictEqual(mtuOf(lost, {}), [1476, 1]);
  throws(() => mtuOf(way(1300), { "tunnel-ip": ["fd00::1/64"] }), /leaves 1276 bytes.*needs 1280/);
  deepStrictEqual(mtuOf(way(1304), { "tunnel-ip": ["fd00::1/64"] }), [1280, 0]);
});

Deno.test("ports that others use are worth a warning", () => {
  using host = new TunnelKernel().open();
  for (const port of [53, 67, 68, 123, 443, 500, 4500]) {
    const { warnings } = planTunnels(host, [spec({ ...FOU, "encap-dport": port })]);
    ok(warnings.some((warning) => warning.includes(`UDP port ${port}`)), String(port));
  }
});

// --- refusals by the host's state

Deno.test("a host that cannot have the tunnel is not touched", () => {
  const existing = spec({ name: "old", ...FOU, key: 7 });
  const remote = "192.0.2.9";
  const cases: [string, Parameters<typeof spec>[0], RegExp][] = [
    ["name of a tunnel", { name: "old", remote }, /tunnel old exists already: a link of type gre/],
    ["name of a device", { name: "up0", remote }, /tunnel up0 exists already: .* type device/],
    ["same endpoints and key", { key: 7 }, /old has type gre.*key 7 already/],
    ["same, other ports", { key: 7, ...FOU, "encap-dport": 1 }, /UDP ports do not tell/],
    ["device", { dev: "nope", remote }, /--dev "nope": there is no such device/],
    [
      "FOU port of GUE",
      { ...FOU, encap: "gue", remote },
      /is a FOU port already, for fou.*needs gue/,
    ],
    ["FOU port of IPIP", { ...FOU, type: "ipip", remote }, /for fou of protocol 47.*protocol 4$/],
    [
      "a program's port",
      { ...FOU, "fou-port": 99, remote },
      /UDP port 99 is in use by nc \(pid 1\)/,
    ],
  ];
  for (const [name, options, pattern] of cases) {
    const kernel = new TunnelKernel();
    kernel.programs.set(99, "nc (pid 1)");
    using host = kernel.open();
    createTunnels(host, [existing]);
    kernel.links.get(2)!.attrs.set(3, new TextEncoder().encode("up0\0"));
    const before = kernel.snapshot();
    throws(() => createTunnels(host, [spec(options)]), (error: GretunError) => {
      ok(pattern.test(error.message), `${name}: ${error.message}`);
      return error.hint.length > 0;
    });
    deepStrictEqual(kernel.snapshot(), before, name);
  }
});

Deno.test("tunnels of one batch that exclude each other are refused before any is made", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  const before = kernel.snapshot();
  throws(() => createTunnels(host, [spec(), spec()]), /tunnel t0 exists already/);
  throws(() => createTunnels(host, [spec(), spec({ name: "t1" })]), /t0 has type gre/);
  deepStrictEqual(kernel.snapshot(), before);
});

Deno.test("a module that is missing is named", () => {
  const cases: [string, Parameters<typeof spec>[0], string][] = [
    ["ip_gre", {}, "ip_gre"],
    ["fou", FOU, "fou"],
    ["sit", { type: "sit" }, "sit"],
    ["ip6_gre", { type: "ip6gre", local: "2001:db8::1", remote: "2001:db8::2" }, "ip6_gre"],
  ];
  for (const [missing, options, named] of cases) {
    const kernel = new TunnelKernel();
    kernel.loadable.delete(missing);
    const before = kernel.snapshot();
    using host = kernel.open();
    throws(() => createTunnels(host, [spec(options)]), (error: GretunError) => {
      ok(error.hint.startsWith(`Run as root: modprobe ${named};`), error.hint);
      return error.name === "MissingModuleError";
    });
    deepStrictEqual(kernel.snapshot(), before, missing);
  }
});

Deno.test("EINVAL of a tunnel behind UDP over IPv6 without fou6 names fou6", () => {
  const kernel = new TunnelKernel();
  kernel.loadable.delete("fou6");
  using host = kernel.open();
  const wanted = spec({ ...FOU, type: "ip6gre", local: "2001:db8::1", remote: "2001:db8::2" });
  const { steps } = planTunnels(host, [wanted]);
  const link = steps.find((step) => step.do === "add-link")!;
  kernel.modules.add("fou");
  kernel.failAt = { request: kernel.requests + 1, errno: ERRNO.EINVAL };
  try {
    host.rtnl.createLink({ ...link });
  } catch (error) {
    ok(String(explain(error, link, host)).includes("no fou6"), String(error));
  }
});

Deno.test("each refusal of the kernel is told by its meaning, with what to do", () => {
  const cases: [errno: number, meaning: string, hint: RegExp][] = [
    [1, "permission denied: EPERM", /CAP_NET_ADMIN.*sudo.*setcap/],
    [13, "permission denied: EACCES", /CAP_NET_ADMIN/],
    [16, "the device is busy: EBUSY", /./],
    [17, "it exists already: EEXIST", /choose another/],
    [19, "the interface is not there: ENODEV", /gretun list/],
    [22, "the kernel refuses these settings: EINVAL", /addresses, key, TTL/],
    [98, "the address is in use: EADDRINUSE", /./],
    [100, "the network is down: ENETDOWN", /ip link set/],
    [105, "the kernel has no memory left for it: ENOBUFS", /./],
    [77, "operation failed: errno 77", /dmesg/],
  ];
  const ADD_LINK = 3; // behind links and route
  for (const [errno, meaning, hint] of cases) {
    const kernel = new TunnelKernel();
    kernel.failAt = { request: ADD_LINK, errno };
    using host = kernel.open();
    throws(() => createTunnels(host, [spec()]), (error: GretunError) => {
      strictEqual(error.message, `cannot create tunnel t0: ${meaning}`);
      return hint.test(error.hint);
    });
  }
});

// --- FOU ports

const ports = (kernel: TunnelKernel) => kernel.ports.length;
const peer = (n: number, options = {}) =>
  spec({ ...FOU, name: `t${n}`, remote: `192.0.2.${n + 1}`, ...options });

Deno.test("a FOU port is shared, and goes with the last tunnel that uses it", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  createTunnels(host, [peer(1)]);
  createTunnels(host, [peer(2)]);
  createTunnels(host, [peer(3, { "fou-port": 7777, "encap-dport": 9 })]);
  strictEqual(ports(kernel), 1);
  deepStrictEqual(listTunnels(host).map((t) => t.fou_port), [7777, 7777, 7777]);
  deleteTunnels(host, ["t1"]); // the one that opened it
  deleteTunnels(host, ["t3"]);
  strictEqual(ports(kernel), 1);
  deleteTunnels(host, ["t2"]);
  strictEqual(ports(kernel), 0);
});

Deno.test("a FOU port of others stays open", () => {
  const kernel = new TunnelKernel();
  kernel.modules.add("fou");
  using host = kernel.open();
  host.fou()!.add({ port: 7777, family: 4, type: "direct", ipproto: 47 });
  createTunnels(host, [peer(1), peer(2)]);
  deleteTunnels(host, "all");
  strictEqual(ports(kernel), 1);
});

Deno.test("a FOU port stays while a tunnel of somebody else uses it", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  createTunnels(host, [peer(1)]);
  const encap = { type: "fou", sport: 0, dport: 7777, csum: true } as const;
  const { remote } = peer(5);
  host.rtnl.createLink({
    name: "theirs",
    kind: "gre",
    tunnel: { remote, ttl: 0, pmtudisc: true, encap },
  });
  deleteTunnels(host, ["t1"]);
  strictEqual(ports(kernel), 1);
});

function runDaemon({ locks }: TunnelKernel, role: DaemonRole): Disposable {
  return lockPort(locks, { port: 7777, role, flag: "--port" });
}

Deno.test("a FOU port stays while a daemon uses it, and goes with the last tunnel once it ended", () => {
  const kernel = new TunnelKernel();
  kernel.modules.add("fou");
  using host = kernel.open();
  host.fou()!.add({ port: 7777, family: 4, type: "direct", ipproto: 47 });
  const daemon = runDaemon(kernel, "up");
  createTunnels(host, [peer(1), peer(2)]);
  deleteTunnels(host, ["t1", "t2"]);
  strictEqual(ports(kernel), 1);
  createTunnels(host, [peer(1)]);
  daemon[Symbol.dispose](); // it has left the port to the tunnel
  deleteTunnels(host, ["t1"]);
  strictEqual(ports(kernel), 0);
});

Deno.test("a FOU port of a daemon that was killed is left to it while its links are there", () => {
  const kernel = new TunnelKernel();
  for (const name of ["fou", "ip_gre"]) kernel.modules.add(name);
  using host = kernel.open();
  host.fou()!.add({ port: 7777, family: 4, type: "direct", ipproto: 47 });
  const encap = { type: "fou", sport: 7777, dport: 9, csum: true } as const;
  const { remote } = peer(5);
  const alias = `gretun up port 7777 peer ${"ab".repeat(32)}`;
  const tunnel = { remote, ttl: 0, pmtudisc: true, encap };
  const ifindex = host.rtnl.createLink({ name: "gretun0", kind: "gre", alias, tunnel });
  createTunnels(host, [peer(1)]);
  deleteTunnels(host, ["t1"]);
  strictEqual(ports(kernel), 1);
  createTunnels(host, [peer(1)]);
  host.rtnl.deleteLink(ifindex);
  deleteTunnels(host, ["t1"]);
  strictEqual(ports(kernel), 0);
});

Deno.test("isFouPortOfOthers() goes by tunnels that say so, or that others made", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  const isOfOthers = () => isFouPortOfOthers(host.rtnl.links(), 7777, 4);
  strictEqual(isOfOthers(), false, "no tunnel");
  createTunnels(host, [peer(1)]);
  strictEqual(isOfOthers(), false, "opened by gretun create");
  const { ifindex } = host.rtnl.link("t1")!;
  host.rtnl.changeLink(ifindex, { alias: formatMark({ by: "create", port: 7777, opened: false }) });
  strictEqual(isOfOthers(), true, "shared by gretun create");
  host.rtnl.changeLink(ifindex, { alias: "theirs" });
  strictEqual(isOfOthers(), true, "without a mark");
  host.rtnl.changeLink(ifindex, { alias: `gretun up port 7777 peer ${"ab".repeat(32)}` });
  strictEqual(isOfOthers(), false, "of a daemon");
});

Deno.test("a FOU port that others opened anew for another protocol stays", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  createTunnels(host, [peer(1)]);
  host.fou()!.delete({ port: 7777, family: 4 });
  host.fou()!.add({ port: 7777, family: 4, type: "gue" });
  deleteTunnels(host, ["t1"]);
  deepStrictEqual(host.fou()!.ports().map(({ type }) => type), ["gue"]);
});

Deno.test("ports of IPv4 and IPv6 are two", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  const v6 = { type: "ip6gre", local: "2001:db8::1", remote: "2001:db8::2", name: "t6" } as const;
  createTunnels(host, [peer(1), spec({ ...FOU, ...v6 })]);
  strictEqual(ports(kernel), 2);
  deleteTunnels(host, ["t1"]);
  deepStrictEqual(host.fou()!.ports().map(({ family }) => family), [6]);
  deleteTunnels(host, ["t6"]);
  strictEqual(ports(kernel), 0);
});

Deno.test("a port that is closed already does not hold up a delete", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  createTunnels(host, [peer(1)]);
  const plan = planRemoval(host, ["t1"]);
  strictEqual(plan.steps.length, 2);
  host.fou()!.delete({ port: 7777, family: 4 });
  deleteTunnels(host, ["t1"]);
  deepStrictEqual(listTunnels(host), []);
});

Deno.test("usesFouPort() looks at mark, ports, kind and IP version", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  createTunnels(host, [peer(1, { "fou-port": 5 })]);
  const link = host.rtnl.link("t1")!;
  deepStrictEqual(
    [usesFouPort(link, 5, 4), usesFouPort(link, 7777, 4), usesFouPort(link, 5, 6)],
    [true, false, false],
  );
  const { alias: _, ...unmarked } = link;
  strictEqual(usesFouPort(unmarked, 7777, 4), true);
  strictEqual(usesFouPort({ ...unmarked, kind: "veth" }, 7777, 4), false);
});

// --- delete

Deno.test("deleteTunnels() takes addresses and routes along, and refuses what is no tunnel", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  const before = kernel.snapshot();
  createTunnels(host, [spec({ ...FOU, ...inner(4) })]);
  const made = kernel.snapshot();
  throws(() => deleteTunnels(host, ["t0", "nope"]), /tunnel nope not found/);
  throws(() => deleteTunnels(host, ["t0", "eth0"]), /eth0 is no tunnel but of type device/);
  deepStrictEqual(kernel.snapshot(), made);
  deepStrictEqual(deleteTunnels(host, ["t0"]), ["t0"]);
  deepStrictEqual(kernel.snapshot(), before);
});

Deno.test("deleteTunnels() of several goes on one by one where the kernel takes no group", () => {
  const many = [1, 2, 3].map((n) => peer(n));
  for (let n = 1; n < 12; n++) {
    const kernel = new TunnelKernel();
    using host = kernel.open();
    const before = kernel.snapshot();
    createTunnels(host, many);
    const { steps } = planRemoval(host, "all");
    kernel.failAt = { request: kernel.requests + n, errno: ERRNO.EOPNOTSUPP };
    try {
      applySteps(host, steps);
      deepStrictEqual(kernel.snapshot(), before);
    } catch {
      ok(n > 4, `request ${n}`); // that of the port
    }
  }
});

Deno.test("tunnels of others have whatever names the kernel takes", () => {
  for (const name of ["a.b", "q@x.5", 'größe"&<', "-x"]) {
    checkLinkName("name", name);
    const kernel = new TunnelKernel();
    kernel.modules.add("ip_gre");
    using host = kernel.open();
    const remote = "192.0.2.9" as ReturnType<typeof spec>["remote"];
    host.rtnl.createLink({ name, kind: "gre", tunnel: { remote, ttl: 0, pmtudisc: false } });
    strictEqual(tunnelStatus(host, name).remote_ip, "192.0.2.9");
    deepStrictEqual(deleteTunnels(host, [name]), [name]);
  }
  for (const name of ["", ".", "..", "a b", "a/b", "a:b", "a\nb", "größer als alle"]) {
    throws(() => checkLinkName("name", name), /is no interface name/, name);
  }
});

Deno.test("names that merely begin as others' do are taken; collisions and the kernel's are not", () => {
  const kernel = new TunnelKernel();
  using host = kernel.open();
  for (const name of ["london", "eth7", "docker1", "br-lan"]) {
    createTunnels(host, [peer(1, { name })]);
    deleteTunnels(host, [name]);
  }
  throws(() => createTunnels(host, [peer(1, { name: "eth0" })]), /tunnel eth0 exists already/);
  for (const name of ["lo", "gre0", "all"]) throws(() => peer(1, { name }), /the kernel's own/);
});

Deno.test("the kernel's fallback devices are not listed and not deleted", () => {
  const kernel = new TunnelKernel();
  kernel.modules.add("ip_gre");
  using host = kernel.open();
  const remote = "0.0.0.0" as ReturnType<typeof spec>["remote"];
  host.rtnl.createLink({ name: "gre0", kind: "gre", tunnel: { remote, ttl: 0, pmtudisc: false } });
  deepStrictEqual(listTunnels(host), []);
  throws(() => deleteTunnels(host, ["gre0"]), /gre0 is the kernel's own fallback device/);
  deepStrictEqual(deleteTunnels(host, "all"), []);
});

/** "t2" is a link of the daemon on port 7777. */
function withDaemon(host: ReturnType<TunnelKernel["open"]>, by: DaemonRole): void {
  createTunnels(host, [peer(1), peer(2)]);
  const alias = formatMark({ by, port: 7777, id: "ab".repeat(32) });
  host.rtnl.changeLink(host.rtnl.link("t2")!.ifindex, { alias });
}

Deno.test("a running daemon's links are not deleted, unless forced; the daemon is named", () => {
  for (const role of ["up", "hub", "spoke"] as const) {
    const kernel = new TunnelKernel();
    using host = kernel.open();
    withDaemon(host, role);
    using _daemon = runDaemon(kernel, role);
    const before = kernel.snapshot();
    throws(() => deleteTunnels(host, ["t1", "t2"]), {
      message: `tunnel t2 belongs to gretun ${role} (pid 4711), which would make it again`,
      hint: "Stop that program instead, or add --force",
    });
    deepStrictEqual(kernel.snapshot(), before);
    const all = planRemoval(host, "all");
    deepStrictEqual(all.names, ["t1"]);
    deepStrictEqual(all.left, [`t2 belongs to gretun ${role} (pid 4711)`]);
    deepStrictEqual(planRemoval(host, "all", { force: true }).names, ["t1", "t2"]);
    deepStrictEqual(planRemoval(host, ["t2"], { force: true }).names, ["t2"]);
  }
});

Deno.test("what a killed daemon left goes by name, not with all", () => {
  for (const [role, other] of [["up", undefined], ["hub", "up"]] as const) {
    const kernel = new TunnelKernel();
    using host = kernel.open();
    withDaemon(host, role);
    using _other = other && runDaemon(kernel, other); // took over the port
    deepStrictEqual(planRemoval(host, ["t2"]).names, ["t2"]);
    const { names, left } = planRemoval(host, "all");
    deepStrictEqual(names, ["t1"]);
    deepStrictEqual(left, [`t2 belongs to gretun ${role} on port 7777, which does not run`]);
  }
});

// --- what is shown

Deno.test("listTunnels() shows what was asked for", () => {
  const cases: [Parameters<typeof spec>[0], Record<string, unknown>][] = [
    [{}, { type: "gre", local_ip: "192.0.2.1", remote_ip: "192.0.2.2", ttl: 64, mtu: 1476 }],
    [{ key: 9 }, { key: 9, mtu: 1472 }],
    [{ ikey: 1, okey: 2, csum: true, seq: true }, { ikey: 1, okey: 2, csum: "both", seq: "both" }],
    [{ ttl: "inherit", tos: "inherit", dev: "eth0" }, { ttl: 0, tos: "inherit", dev: "eth0" }],
    [{ pmtudisc: false, tos: "8" }, { pmtudisc: false, tos: 8 }],
    [{ "tunnel-ip": ["10.0.0.1/31"] }, { tunnel_ip: "10.0.0.1/31", up: true }],
    [inner(4), { tunnel_ip: "10.0.0.1/30", tunnel_ips: ["10.0.0.1/30", "10.1.0.1/30"] }],
    [{ ...FOU, "encap-csum": false }, { encap: "fou", encap_dport: 7777, encap_csum: false }],
    [{ type: "ipip", ...FOU, "encap-sport": 5 }, { type: "ipip", encap_sport: 5, payload: "ipv4" }],
  ];
  for (const [options, expected] of cases) {
    using host = new TunnelKernel().open();
    createTunnels(host, [spec(options)]);
    const [info] = listTunnels(host) as unknown as [Record<string, unknown>];
    deepStrictEqual(
      Object.fromEntries(Object.keys(expected).map((key) => [key, info[key]])),
      expected,
    );
  }
});

Deno.test("tunnelStatus() has counters and the path's MTU, and refuses what is not there", () => {
  using host = new TunnelKernel({ mtu: 1400 }).open();
  createTunnels(host, [spec()]);
  const status = tunnelStatus(host, "t0");
  deepStrictEqual([status.stats.rx_packets, status.path_mtu, status.mtu], [0, 1400, 1376]);
  throws(() => tunnelStatus(host, "nope"), /tunnel nope not found/);
  throws(() => tunnelStatus(host, "eth0"), /eth0 is no tunnel/);
});

// --- who has a UDP port

const PROC_NET_UDP =
  `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  341: 0100007F:1E61 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5150 2 0000000000000000 0
  342: 00000000:1E61 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0000000000000000 0
  343: 00000000:1E62 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5151 2 0000000000000000 0
`;

Deno.test("socketInodes() finds sockets by port, but the kernel's own", () => {
  deepStrictEqual(socketInodes(PROC_NET_UDP, 7777), ["5150"]);
  deepStrictEqual(socketInodes(PROC_NET_UDP, 7778), ["5151"]);
  deepStrictEqual(socketInodes("", 7777), []);
});

Deno.test("udpPortOwner() names this process for its own socket", () => {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  try {
    const { port } = socket.addr as Deno.NetAddr;
    ok(udpPortOwner(port, 4)?.endsWith(`(pid ${Deno.pid})`), String(udpPortOwner(port, 4)));
    strictEqual(udpPortOwner(port, 6), undefined);
  } finally {
    socket.close();
  }
});
