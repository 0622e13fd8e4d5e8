/**
 * Plain tunnels on a stock kernel: every kind, encapsulation and inner IP version is made at both
 * ends, pinged through with packets of its full MTU, read back by us and by `ip`, made again by
 * the commands of a dry run, and deleted. Needs FOU, GRE, IPIP and SIT: see boot.sh.
 */
import { deepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { formatCidr, parseCidr, parseIp } from "../../lib/addr.ts";
import type { Command } from "../../lib/cli/command.ts";
import { command as remove } from "../../lib/cli/gretun/delete.ts";
import { command as list } from "../../lib/cli/gretun/list.ts";
import { command as status } from "../../lib/cli/gretun/status.ts";
import { createNamedNetns, deleteNamedNetns, type Fd, withNetns } from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import {
  createTunnels,
  formatStep,
  listTunnels,
  openHost,
  planTunnels,
  type TunnelHost,
  type TunnelInfo,
  type TunnelOptions,
  type TunnelSpec,
  tunnelStatus,
} from "../../lib/tunnel/mod.ts";
import { overheadBytes } from "../../lib/links/mod.ts";
import { openFou } from "../../lib/tunnel/host.ts";
import { GRETUN } from "../overlay.ts";
import { deleteTunnels, spec, type Variant, VARIANTS, variantSpec } from "../tunnel_specs.ts";

RtNetlink.open()[Symbol.dispose]();

const PATH_MTU = 1500;
const ETHERNET_BYTES = 14;

// --- two hosts on one cable

class Computer implements Disposable {
  readonly netns: Fd;
  readonly host: TunnelHost;
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
    this.netns = createNamedNetns(name);
    this.host = this.within(openHost);
  }

  within<T>(body: () => T): T {
    return withNetns(this.netns, body);
  }

  async run(program: string, ...args: string[]): Promise<{ code: number; text: string }> {
    const command = new Deno.Command(program, { args, stdout: "piped", stderr: "piped" });
    const { code, stdout, stderr } = await this.within(() => command.spawn()).output();
    const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, text: decode(stdout) + decode(stderr) };
  }

  /** What tunnels could leave behind, but for the fallback devices of modules. */
  snapshot(): unknown {
    const links = this.host.rtnl.links().filter(({ tunnel }) => !tunnel?.local)
      .map(({ name }) => name).filter((name) => !/0$/.test(name));
    const addresses = this.host.rtnl.addresses().filter(({ isAutomatic }) => !isAutomatic)
      .map(({ local }) => local);
    const routes = this.host.rtnl.routes().map(({ destination }) => destination.ip)
      .filter((ip) => !ip.startsWith("fe80:"));
    return { links, addresses, routes, ports: this.ports() };
  }

  /** Inside, as FOU is opened when it is needed. */
  create(...specs: TunnelSpec[]): void {
    this.within(() => createTunnels(this.host, specs));
  }

  delete(...names: string[]): void {
    this.within(() => deleteTunnels(this.host, names.length > 0 ? names : "all"));
  }

  list(): TunnelInfo[] {
    return listTunnels(this.host);
  }

  ports(): number[] {
    return this.within(() => openFou()?.ports() ?? []).map(({ port }) => port);
  }

  [Symbol.dispose](): void {
    this.host[Symbol.dispose]();
    this.netns[Symbol.dispose]();
    deleteNamedNetns(this.#name);
  }
}

function twoComputers() {
  const [a, b] = [new Computer("tunnel-a"), new Computer("tunnel-b")];
  const { rtnl } = a.host;
  rtnl.createLink({ name: "cable", kind: "veth", peerName: "cable", peerNetnsFd: b.netns.fd });
  for (const [n, { host }] of [[1, a], [2, b]] as const) {
    const { ifindex } = host.rtnl.link("cable")!;
    host.rtnl.addAddress({ ifindex, local: parseIp(`192.0.2.${n}`), prefixLength: 24 });
    host.rtnl.addAddress({ ifindex, local: parseIp(`2001:db8::${n}`), prefixLength: 64 });
    for (const device of ["lo", "cable"]) {
      host.rtnl.changeLink(host.rtnl.link(device)!.ifindex, { up: true });
    }
  }
  return {
    a,
    b,
    [Symbol.dispose]() {
      a[Symbol.dispose]();
      b[Symbol.dispose]();
    },
  };
}

// --- what a tunnel is to `ip`

interface IpLink {
  mtu: number;
  flags: string[];
  linkinfo: { info_kind: string; info_data: Record<string, unknown> };
}

async function ipLink(computer: Computer, name: string): Promise<IpLink> {
  const { text } = await computer.run("ip", "-d", "-j", "link", "show", "dev", name);
  return JSON.parse(text)[0];
}

/** The fields that gretun shows, as `ip` tells them. */
function fieldsOfIp({ mtu, flags, linkinfo }: IpLink): Record<string, unknown> {
  const data = linkinfo.info_data;
  const number = (key: unknown) =>
    String(key).split(".").reduce((sum, byte) => sum * 256 + Number(byte), 0);
  const address = (text: unknown) => text === "any" ? undefined : text;
  const encap = data.encap as Record<string, unknown> | undefined;
  const isV6 = linkinfo.info_kind.startsWith("ip6");
  const [ikey, okey] = [data.ikey, data.okey].map((key) => key === undefined ? 0 : number(key));
  const isTosInner = data.ip6_tnl_f_use_orig_tclass === true;
  const tos = isTosInner ? 1 : Number((isV6 ? data.tclass : data.tos) ?? 0);
  const direction = (name: string) =>
    data[`i${name}`] && data[`o${name}`]
      ? "both"
      : data[`i${name}`]
      ? "in"
      : data[`o${name}`]
      ? "out"
      : undefined;
  return {
    type: linkinfo.info_kind,
    local_ip: address(data.local),
    remote_ip: address(data.remote),
    key: ikey === okey && ikey ? ikey : undefined,
    ikey: ikey !== okey && ikey ? ikey : undefined,
    okey: ikey !== okey && okey ? okey : undefined,
    csum: direction("csum"),
    seq: direction("seq"),
    ttl: data.ttl,
    tos: tos === 1 ? "inherit" : tos || undefined,
    pmtudisc: isV6 ? undefined : data.pmtudisc,
    dev: (data.link as string | undefined) ?? undefined,
    encap: encap?.type,
    encap_sport: encap?.sport || undefined,
    encap_dport: encap?.dport,
    encap_csum: encap && (isV6 ? encap.csum6 : encap.csum),
    payload: { ipip: "ipv4", ip6ip: "ipv6", ipip6: "ipv4", ip6ip6: "ipv6" }[
      String(data.proto)
    ],
    mtu,
    up: flags.includes("UP"),
  };
}

function checkFields(ip: IpLink, computer: Computer, name: string): void {
  const info = computer.list().find((tunnel) => tunnel.name === name)!;
  const expected = fieldsOfIp(ip);
  const ours = info as unknown as Record<string, unknown>;
  for (const [key, value] of Object.entries(expected)) {
    deepStrictEqual(ours[key], value, `${key} of ${JSON.stringify(info)}\n${JSON.stringify(ip)}`);
  }
}

/** Without what is by chance. */
function comparable({ mtu, flags, linkinfo }: IpLink): unknown {
  return { mtu, flags: flags.filter((flag) => !/LOWER_UP|CARRIER/.test(flag)), linkinfo };
}

// --- every variant

const innerBytes = (variant: Variant, mtu: number) => mtu - (variant.inner === 4 ? 28 : 48);
const farIp = ({ inner }: Variant) => inner === 4 ? "10.0.0.2" : "fd00::2";

async function pingFull(a: Computer, variant: Variant, mtu: number): Promise<boolean> {
  const size = String(innerBytes(variant, mtu));
  const args = ["-c", "1", "-W", "2", "-M", "do", "-s", size, farIp(variant)];
  return (await a.run("ping", ...args)).code === 0;
}

/** Bytes of the outer IP packet of one full packet: nothing is wasted when that is the path's MTU. */
async function outerBytes(a: Computer, variant: Variant, mtu: number): Promise<number> {
  const counters = () => a.host.rtnl.link("cable")!.stats;
  for (let i = 0; i < 5; i++) {
    const before = counters();
    ok(await pingFull(a, variant, mtu), `${variant.name}: ping of ${mtu} bytes`);
    const after = counters();
    if (after.txPackets - before.txPackets !== 1) continue; // neighbour discovery in between
    return after.txBytes - before.txBytes - ETHERNET_BYTES;
  }
  return -1;
}

/** What one tunnel carries: both IP versions, but for FOU with ip6tnl, whose port has one. */
const GROUPS = [
  ...Map.groupBy(
    VARIANTS,
    ({ kind, encap, inner }) =>
      kind === "ip6tnl" && encap === "fou" ? `${kind} ${encap} ${inner}` : `${kind} ${encap}`,
  ).values(),
];

/** Rows of the table. */
async function tryGroup(a: Computer, b: Computer, group: Variant[]): Promise<string[][]> {
  const { kind, encap } = group[0]!;
  const before = [a.snapshot(), b.snapshot()];
  const specOf = (host: 1 | 2) => {
    const addresses = group.map((variant) => variantSpec(variant, host).addresses[0]!);
    return variantSpec(group[0]!, host, { "tunnel-ip": addresses.map(formatCidr) });
  };
  a.create(specOf(1));
  b.create(specOf(2));
  const [info] = a.list();
  const mtu = PATH_MTU - overheadBytes({ kind, ...(encap === "none" ? {} : { encap }) });
  strictEqual(info!.mtu, mtu);
  for (const variant of group) {
    strictEqual(await outerBytes(a, variant, mtu), PATH_MTU, `${variant.name}: outer packet`);
  }
  const ours = await ipLink(a, "t0");
  checkFields(ours, a, "t0");
  a.delete("t0");
  deepStrictEqual(a.snapshot(), before[0]);
  deepStrictEqual(comparable(await makeByIp(a, specOf(1))), comparable(ours));
  deepStrictEqual(a.list(), [info]);
  a.delete("t0");
  b.delete("t0");
  deepStrictEqual([a.snapshot(), b.snapshot()], before);
  return group.map(({ name }) => [name, String(mtu), "yes", "yes", "yes", "yes"]);
}

/** Runs the commands of the dry run, as few processes as can be. */
async function makeByIp(a: Computer, wanted: TunnelSpec): Promise<IpLink> {
  const commands = a.within(() => planTunnels(a.host, [wanted])).steps.map(formatStep);
  const isBatch = (line: string) => /^ip [a-z]/.test(line);
  const alone = commands.filter((line) => !isBatch(line)).map((line) => `${line};`).join(" ");
  const batch = commands.filter(isBatch).map((line) => line.replace(/^ip /, "")).join("\n");
  const { code, text } = await a.run("bash", "-ec", `${alone} exec ip -batch - <<<"${batch}"`);
  strictEqual(code, 0, `${text}\n${commands.join("\n")}`);
  return await ipLink(a, wanted.name);
}

Deno.test("every kind x encapsulation x inner IP version: made, pinged through, listed, deleted", async () => {
  using computers = twoComputers();
  const { a, b } = computers;
  // modules' fallback devices come with the first tunnel
  const rows: string[][] = [];
  for (const group of GROUPS) rows.push(...await tryGroup(a, b, group));
  const heading = ["tunnel", "MTU", "created", "pinged, full MTU, DF", "listed, as ip", "deleted"];
  const line = (row: string[]) => row.map((cell, i) => cell.padEnd([34, 6, 9, 22, 15, 7][i]!));
  console.log([heading, ...rows].map((row) => line(row).join("")).join("\n"));
  strictEqual(rows.length, VARIANTS.length);
});

// --- settings, field by field

const FOU = { encap: "fou", "encap-dport": 7777 } as const;
const V6 = { local: "2001:db8::1", remote: "2001:db8::2" };

const SETTINGS: [string, Partial<TunnelOptions>][] = [
  ["key", { key: 0xdeadbeef }],
  ["two keys", { ikey: 1, okey: 2 }],
  ["one key", { okey: 2 }],
  ["checksums and sequence numbers", { csum: true, seq: true }],
  ["TTL and TOS of the inner packet", { ttl: "inherit", tos: "inherit" }],
  ["TTL, TOS", { ttl: "7", tos: "0x10" }],
  ["outer fragments", { pmtudisc: false }],
  ["device, MTU", { dev: "cable", mtu: 1400 }],
  ["ports, no checksum", { ...FOU, "encap-sport": 5, "encap-csum": false, "fou-port": 6 }],
  ["gretap with key in GUE", { ...FOU, encap: "gue", type: "gretap", key: 1 }],
  ["ipip, inherit", { type: "ipip", ttl: "inherit", pmtudisc: false }],
  ["sit, TOS", { type: "sit", tos: "0x20", dev: "cable" }],
  ["ip6gre, everything", {
    ...V6,
    ...{ type: "ip6gre", key: 5, csum: true, seq: true, tos: "0x20", ttl: "9", dev: "cable" },
  }],
  ["ip6gretap, inherit", { ...V6, type: "ip6gretap", tos: "inherit", ttl: "inherit" }],
  ["ip6tnl in FOU without checksum", { ...V6, ...FOU, type: "ip6tnl", "encap-csum": false }],
];

Deno.test("settings: ours are shown by ip, and those of ip by us, field by field", async () => {
  using computers = twoComputers();
  const { a } = computers;
  for (const [name, options] of SETTINGS) {
    const wanted = spec({ name: "t1", ...options });
    a.create(wanted);
    const ours = await ipLink(a, "t1");
    checkFields(ours, a, "t1");
    const [info] = a.list();
    a.delete("t1");
    const byIp = await makeByIp(a, wanted);
    deepStrictEqual(comparable(byIp), comparable(ours));
    deepStrictEqual(a.list(), [info]);
    a.delete();
    deepStrictEqual(a.ports(), [], name);
  }
});

Deno.test("tunnels made by ip with what gretun has no flags for are shown, too", async () => {
  using computers = twoComputers();
  const { a } = computers;
  const commands = [
    "ip link add i1 type gre remote 192.0.2.9 icsum oseq",
    "ip link add i2 type ip6gre remote 2001:db8::9 encaplimit 3 flowlabel 0x12345",
    "ip link add i3 type ip6tnl mode ipip6 remote 2001:db8::9",
    "ip link add i4 type ipip external",
  ];
  const { code, text } = await a.run("bash", "-ec", commands.join("\n"));
  strictEqual(code, 0, text);
  const tunnels = new Map(a.list().map((tunnel) => [tunnel.name, tunnel]));
  for (const name of ["i1", "i3"]) checkFields(await ipLink(a, name), a, name);
  const [i1, i2, i3, i4] = ["i1", "i2", "i3", "i4"].map((name) => tunnels.get(name)!);
  deepStrictEqual([i1!.csum, i1!.seq, i1!.local_ip], ["in", "out", undefined]);
  deepStrictEqual([i2!.encap_limit, i2!.flow_label], [3, 0x12345]);
  deepStrictEqual([i3!.encap_limit, i3!.payload], [4, "ipv4"]);
  deepStrictEqual([i4!.remote_ip, i4!.local_ip], [undefined, undefined]);
  a.delete();
  deepStrictEqual(a.list(), []);
});

// --- failures of a real kernel

Deno.test("a step that this kernel refuses takes all others back", () => {
  using computers = twoComputers();
  const { a } = computers;
  const { rtnl } = a.host;
  const device = rtnl.link("cable")!.ifindex;
  rtnl.addRoute({ destination: parseCidr("10.9.0.0/16"), device });
  a.create(spec({ name: "other", remote: "192.0.2.7" }));
  const listen = () => Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 99 });
  const socket = a.within(listen);
  const before = a.snapshot();
  const inner = { "tunnel-ip": ["10.0.0.1/30"], route: ["10.8.0.0/16"] };
  const cases: [Partial<TunnelOptions>, RegExp][] = [
    [{ ...FOU, ...inner, route: ["10.8.0.0/16", "10.9.0.0/16"] }, /add route 10.9.0.0\/16.*exists/],
    [
      { ...FOU, "encap-dport": 99 },
      new RegExp(`UDP port 99 is in use by \\S+ \\(pid ${Deno.pid}\\)`),
    ],
    [{ ...inner, dev: "lo", remote: "192.0.2.7", name: "other" }, /tunnel other exists already/],
    [{ remote: "192.0.2.7" }, /other has type gre, local 192.0.2.1, remote 192.0.2.7 already/],
  ];
  try {
    for (const [options, pattern] of cases) {
      throws(
        () => a.create(spec({ name: "t1", ...options })),
        pattern,
      );
      deepStrictEqual(a.snapshot(), before, String(pattern));
    }
  } finally {
    socket.close();
  }
});

Deno.test("FOU ports on this kernel: shared, counted, those of others kept", async () => {
  using computers = twoComputers();
  const { a } = computers;
  const peer = (n: number) => spec({ ...FOU, name: `t${n}`, remote: `192.0.2.${n + 1}` });
  a.create(peer(1));
  a.create(peer(2));
  deepStrictEqual(a.ports(), [7777]);
  a.delete("t1");
  deepStrictEqual(a.ports(), [7777]);
  a.delete("t2");
  deepStrictEqual(a.ports(), []);
  strictEqual((await a.run("ip", "fou", "add", "port", "7777", "ipproto", "47")).code, 0);
  a.create(peer(1));
  a.delete("t1");
  deepStrictEqual(a.ports(), [7777]);
  throws(() => a.create(spec({ ...FOU, encap: "gue" })), /is a FOU port already/);
  deepStrictEqual(a.ports(), [7777]);
});

// --- what is printed

/** In this process, as all of these commands is done before they first wait. */
async function printed(a: Computer, command: Command, line: string): Promise<string> {
  let text = "";
  const write = (more: string) => void (text += more);
  const io = { stdout: write, stderr: write, signal: new AbortController().signal };
  await a.within(() => command.run(line.split(" ").filter((word) => word), io));
  return text;
}

Deno.test("list, status and delete --all as text", async () => {
  using computers = twoComputers();
  const { a } = computers;
  a.create(spec({ ...FOU, key: 7, "tunnel-ip": ["10.0.0.1/30"] }));
  a.create(spec({ name: "t22", remote: "192.0.2.22", type: "ipip" }));
  strictEqual(
    await printed(a, list, ""),
    "NAME  LOCAL      REMOTE      KEY  TUNNEL IP    STATUS  TYPE  ENCAP\n" +
      "t0    192.0.2.1  192.0.2.2   7    10.0.0.1/30  up      gre   fou:7777\n" +
      "t22   192.0.2.1  192.0.2.22  -    -            up      ipip  -\n",
  );
  strictEqual(
    (await printed(a, status, "--name t0")).replace(/\d+ packets.*/g, "..."),
    `Tunnel t0
  Status:    up
  Type:      gre
  Local:     192.0.2.1
  Remote:    192.0.2.2
  Key:       7 (0.0.0.7)
  TTL:       64
  Tunnel IP: 10.0.0.1/30
  Encap:     fou, ports auto -> 7777, receive port 7777, checksum on
  MTU:       1464
  Path MTU:  1500
  Received:  ...
  Sent:      ...
`,
  );
  await rejects(
    printed(a, remove, "--all"),
    /--all would delete 2 tunnels, and standard input is no terminal/,
  );
  strictEqual(a.list().length, 2);
  strictEqual(
    await printed(a, remove, "--all --yes"),
    "deleted tunnel t0\ndeleted tunnel t22\nclosed FOU port 7777\n",
  );
  deepStrictEqual([a.list(), a.ports()], [[], []]);
});

// --- the program itself

Deno.test("create, list and delete, by the program", async () => {
  using computers = twoComputers();
  const { a } = computers;
  const gretun = async (...args: string[]) => {
    const { code, text } = await a.run(GRETUN, ...args);
    strictEqual(code, 0, text);
    return text;
  };
  const line = "create --name t1 --local 192.0.2.1 --remote 192.0.2.2 --key 7 --encap fou " +
    "--encap-dport 7777 --tunnel-ip 10.0.0.1/30 --route 10.9.0.0/16";
  strictEqual(
    await gretun(...line.split(" ")),
    "created gre tunnel t1: 192.0.2.1 -> 192.0.2.2 mtu=1464 encap=fou dport=7777\n" +
      "assigned 10.0.0.1/30 to t1\nrouted 10.9.0.0/16 through t1\n",
  );
  const [info] = JSON.parse(await gretun("list", "--json"));
  deepStrictEqual([info.name, info.key, info.tunnel_ip], ["t1", 7, "10.0.0.1/30"]);
  deepStrictEqual([info.encap, info.fou_port, info.mtu], ["fou", 7777, 1464]);
  strictEqual(tunnelStatus(a.host, "t1").path_mtu, PATH_MTU);
  strictEqual(
    await gretun("delete", "--name", "t1"),
    "deleted tunnel t1\nclosed FOU port 7777\n",
  );
  deepStrictEqual([a.list(), a.ports()], [[], []]);
});

Deno.test("modules go when their tunnels have gone", async () => {
  // Their fallback devices would be in the namespaces of other tests.
  const modules = ["sit", "ipip", "fou6", "ip6_gre", "ip6_tunnel"];
  const { code, stderr } = await new Deno.Command("modprobe", { args: ["-r", ...modules] })
    .output();
  strictEqual(code, 0, new TextDecoder().decode(stderr));
});
