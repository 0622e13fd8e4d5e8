/**
 * Wrong calls of create, list, status and delete, on a real kernel in a namespace of its own: exit
 * code, one line on standard error that names flag, value and rule, and nothing changed.
 */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { errorLine, exitCode } from "../../lib/cli/command.ts";
import { command as create } from "../../lib/cli/gretun/create.ts";
import { command as remove } from "../../lib/cli/gretun/delete.ts";
import { command as list } from "../../lib/cli/gretun/list.ts";
import { command as status } from "../../lib/cli/gretun/status.ts";
import { tryLockTunnels } from "../../lib/cli/gretun/tunnel_lock.ts";
import { formatMark, lockPort } from "../../lib/links/mod.ts";
import {
  createNamedNetns,
  deleteNamedNetns,
  type Fd,
  fileLocks,
  Poller,
  withNetns,
} from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { GRETUN } from "../overlay.ts";
import { TunDevice } from "../lab/tun_device.ts";

RtNetlink.open()[Symbol.dispose]();

const COMMANDS = { create, delete: remove, list, status };
const NAME = "gretun-wrong";

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** As main.ts runs it. All of a command but reading a batch is done before its first wait. */
async function run(netns: Fd, line: string[]): Promise<Outcome> {
  const outcome = { code: 0, stdout: "", stderr: "" };
  const [name, ...args] = line;
  const io = {
    stdout: (text: string) => outcome.stdout += text,
    stderr: (text: string) => outcome.stderr += text,
    signal: new AbortController().signal,
  };
  try {
    outcome.code = await withNetns(
      netns,
      () => COMMANDS[name as keyof typeof COMMANDS].run(args, io),
    );
  } catch (error) {
    io.stderr(errorLine(error) + "\n");
    outcome.code = exitCode(error);
  }
  return outcome;
}

/** A namespace with a bridge, which is no tunnel. */
function namespace() {
  const netns = createNamedNetns(NAME);
  const rtnl = withNetns(netns, () => RtNetlink.open());
  rtnl.createLink({ name: "bridge7", kind: "bridge", up: true });
  return {
    netns,
    rtnl,
    snapshot: () => {
      // the bridge's own counters move while IPv6 starts
      const links = rtnl.links().map(({ stats: _, running: __, ...link }) => link);
      return { links, addresses: rtnl.addresses().filter((a) => !a.isAutomatic) };
    },
    [Symbol.dispose]() {
      rtnl[Symbol.dispose]();
      netns[Symbol.dispose]();
      deleteNamedNetns(NAME);
    },
  };
}

/** A call that is right but for what follows, which stands instead of the same flag here. */
const CREATE = "create --name t0 --local 192.0.2.1 --remote 192.0.2.2";
const CREATE6 = "create --name t0 --local 2001:db8::1 --remote 2001:db8::2 --type ip6gre";
const FOU = "--encap fou --encap-dport 7777";

/** Words, exit code, what the line on standard error has. */
const WRONG: [call: string, code: number, ...parts: string[]][] = [
  // usage of all commands
  ["create --ttl 1 --ttl 2", 2, "--ttl", "given twice"],
  [`${CREATE} extra`, 2, '"extra"', "unexpected argument"],
  [`${CREATE} --colour red`, 2, "--colour", "unknown flag"],
  ["list --name t0", 2, "--name", "unknown flag"],
  ["list t0", 2, '"t0"', "unexpected argument"],
  ["list --json=maybe", 2, "--json", '"maybe"', "true nor false"],
  ["status --state-dir /nope", 3, "no daemon answers", "gretun up"],
  ["status --name", 2, "--name", "no value"],
  ["status --name a/b", 2, "--name", '"a/b"', "1 to 15 bytes"],
  ["status --name a.b", 1, "no tunnel and no peer is called a.b"],
  ["status --name nope", 1, "no tunnel and no peer is called nope"],
  ["status --name lo", 1, "lo", "no tunnel"],
  ["status --name bridge7", 1, "bridge7", "no tunnel but of type bridge"],
  ["delete", 2, "no tunnel is named", "--all"],
  ["delete --name", 2, "no tunnel is named"],
  ["delete --name nope", 1, "nope", "not found"],
  ["delete nope", 1, "nope", "not found"],
  ["delete --name bridge7", 1, "bridge7", "type bridge"],
  ["delete --name lo", 1, "lo", "no tunnel"],
  ["delete --name t0 --all", 2, "--all", "--name t0", "exclude"],
  ["delete --name t0,t0", 2, "--name t0", "twice"],
  ["delete --name averyveryverylongname", 2, "--name", "averyveryverylongname", "1 to 15"],
  ["delete --all --yes=perhaps", 2, "--yes", '"perhaps"'],
  // required flags
  ["create", 2, "--name", "missing"],
  ["create --name t0", 2, "--local", "missing"],
  ["create --name t0 --local 192.0.2.1", 2, "--remote", "missing"],
  // outer addresses
  [`${CREATE} --local nonsense`, 2, "--local", '"nonsense"', "not an IP address"],
  [`${CREATE} --local 192.0.2.256`, 2, "--local", '"192.0.2.256"', "not an IP address"],
  [`${CREATE} --local 192.0.2.01`, 2, "--local", '"192.0.2.01"', "not an IP address"],
  [`${CREATE} --local 192.0.2.1/24`, 2, "--local", '"192.0.2.1/24"', "not an IP address"],
  [`${CREATE} --local fe80::1%eth0`, 2, "--local", '"fe80::1%eth0"', "not an IP address"],
  [`${CREATE} --remote example.com`, 2, "--remote", '"example.com"', "not an IP address"],
  [`${CREATE} --local 0.0.0.0`, 2, "--local", "0.0.0.0", "unspecified"],
  [`${CREATE} --local 127.0.0.1`, 2, "--local", "127.0.0.1", "loopback"],
  [`${CREATE} --local 224.0.0.1`, 2, "--local", "224.0.0.1", "multicast"],
  [`${CREATE} --remote 0.0.0.0`, 2, "--remote", "0.0.0.0", "unspecified"],
  [`${CREATE} --remote 127.1.2.3`, 2, "--remote", "127.1.2.3", "loopback"],
  [`${CREATE} --remote 239.1.1.1`, 2, "--remote", "239.1.1.1", "multicast"],
  [`${CREATE} --remote 192.0.2.1`, 2, "--remote", "192.0.2.1", "same as --local"],
  [`${CREATE} --remote ::ffff:192.0.2.1`, 2, "--remote", "192.0.2.1", "same as --local"],
  [`${CREATE} --remote 2001:db8::2`, 2, "--remote", "2001:db8::2", "IPv6"],
  [`${CREATE6} --type gre`, 2, "--local", "2001:db8::1", "--type ip6gre"],
  [`${CREATE} --type ip6tnl`, 2, "--local", "192.0.2.1", "--type ipip or sit"],
  [`${CREATE6} --local ::1`, 2, "--local", "::1", "loopback"],
  [`${CREATE6} --remote ff02::1`, 2, "--remote", "ff02::1", "multicast"],
  [`${CREATE6} --remote fe80::2`, 2, "--remote", "fe80::2", "--dev"],
  // names
  [`${CREATE} --name sixteen-letters1`, 2, "--name", '"sixteen-letters1"', "1 to 15"],
  ["create --local 192.0.2.1", 2, "NAME is missing"],
  ["create t0 t1 --local 192.0.2.1", 2, '"t1"', "unexpected argument"],
  [`${CREATE} --name a:b`, 2, "--name", '"a:b"', "A-Z"],
  [`${CREATE} --name töst`, 2, "--name", '"töst"', "A-Z"],
  [`${CREATE} --name lo`, 2, "--name", '"lo"', "kernel's own"],
  [`${CREATE} --name gre0`, 2, "--name", '"gre0"', "kernel's own"],
  [`${CREATE} --name bridge7`, 1, "bridge7", "exists already", "type bridge"],
  // kind and GRE's own
  [`${CREATE} --type vxlan`, 2, "--type", '"vxlan"', "gretap"],
  [`${CREATE} --key -1`, 2, "--key -1 is out of range (0-4294967295)", "0 to 4294967295"],
  [`${CREATE} --key 4294967296`, 2, "--key 4294967296 is out of range (0-4294967295)"],
  [`${CREATE} --key secret`, 2, '--key "secret" is not a whole number', "0 to 4294967295"],
  [`${CREATE} --ikey 4294967296`, 2, "--ikey 4294967296 is out of range (0-4294967295)"],
  [`${CREATE} --okey 1.5`, 2, '--okey "1.5" is not a whole number', "0 to 4294967295"],
  [`${CREATE} --key 1 --okey 2`, 2, "--okey 2", "--key 1", "exclude"],
  [`${CREATE} --type ipip --key 1`, 2, "--key 1", "GRE", "--type ipip"],
  [`${CREATE} --type sit --csum`, 2, "--csum", "GRE", "--type sit"],
  [`${CREATE} --type ipip --seq`, 2, "--seq", "GRE", "--type ipip"],
  // TTL, TOS, fragments, device
  [`${CREATE} --ttl 256`, 2, '--ttl "256" is no TTL', "1 to 255"],
  [`${CREATE} --ttl -1`, 2, '--ttl "-1" is no TTL', "1 to 255"],
  [`${CREATE} --ttl forever`, 2, '--ttl "forever" is no TTL', "inherit"],
  [`${CREATE} --tos 256`, 2, '--tos "256" is no type of service', "0 to 255"],
  [`${CREATE} --tos 1`, 2, '--tos "1" is no type of service', "not 1"],
  [`${CREATE} --pmtudisc=no`, 2, "--pmtudisc", '"no"', "true nor false"],
  [`${CREATE6} --pmtudisc=false`, 2, "--pmtudisc=false", "IPv6"],
  [`${CREATE} --type ipip --pmtudisc=false`, 2, "--pmtudisc=false", "--ttl 64", "inherit"],
  [`${CREATE} --dev a/b`, 2, "--dev", '"a/b"', "1 to 15"],
  [`${CREATE} --dev nope`, 1, "--dev", '"nope"', "no such device"],
  // MTU
  [`${CREATE} --mtu 575`, 2, "--mtu 575 is out of range", "576 to 9000"],
  [`${CREATE} --mtu 9001`, 2, "--mtu 9001 is out of range", "576 to 9000"],
  [`${CREATE} --mtu big`, 2, '--mtu "big" is not a whole number'],
  [`${CREATE} --mtu 1279 --tunnel-ip fd00::1/64`, 2, "--mtu 1279 is too small", "1280"],
  [`${CREATE} --type sit --mtu 1000`, 2, "--mtu 1000 is too small for IPv6", "at least 1280"],
  // encapsulation
  [`${CREATE} --encap vxlan`, 2, "--encap", '"vxlan"', "gue"],
  [`${CREATE} --encap fou`, 2, "--encap-dport", "missing", "--encap fou"],
  [`${CREATE} --encap gue --encap-dport 0`, 2, "--encap-dport 0 is no port", "--encap gue"],
  [`${CREATE} --encap fou --encap-dport 65536`, 2, "--encap-dport 65536 is out of range (0-65535)"],
  [`${CREATE} ${FOU} --encap-sport 70000`, 2, "--encap-sport 70000 is out of range (0-65535)"],
  [`${CREATE} ${FOU} --fou-port 0`, 2, "--fou-port 0 is out of range (1-65535)", "1 to 65535"],
  [`${CREATE} ${FOU} --encap-csum=off`, 2, "--encap-csum", '"off"', "true nor false"],
  [`${CREATE} --encap-dport 7777`, 2, "--encap-dport 7777", "needs an encapsulation"],
  [`${CREATE} --encap-sport 7777`, 2, "--encap-sport 7777", "needs an encapsulation"],
  [`${CREATE} --fou-port 7777`, 2, "--fou-port 7777", "needs an encapsulation"],
  // inner addresses
  [`${CREATE} --tunnel-ip 10.0.0.1`, 2, "--tunnel-ip", '"10.0.0.1"', "prefix length"],
  [`${CREATE} --tunnel-ip 10.0.0.1/33`, 2, "--tunnel-ip", '"10.0.0.1/33"', "prefix length"],
  [`${CREATE} --tunnel-ip 10.0.0.0/30`, 2, "--tunnel-ip", "10.0.0.0/30", "network's own"],
  [`${CREATE} --tunnel-ip 10.0.0.3/30`, 2, "--tunnel-ip", "10.0.0.3/30", "broadcast"],
  [`${CREATE} --tunnel-ip 0.0.0.0/8`, 2, "--tunnel-ip", "0.0.0.0/8", "unspecified"],
  [`${CREATE} --tunnel-ip 127.0.0.1/8`, 2, "--tunnel-ip", "127.0.0.1/8", "loopback"],
  [`${CREATE} --tunnel-ip 224.0.0.1/8`, 2, "--tunnel-ip", "224.0.0.1/8", "multicast"],
  [`${CREATE} --tunnel-ip 10.0.0.1/0`, 2, "--tunnel-ip", "10.0.0.1/0", "all addresses"],
  [`${CREATE} --tunnel-ip fd00::/64`, 2, "--tunnel-ip", "fd00::/64", "network's own"],
  [`${CREATE} --tunnel-ip 10.0.0.1/30,10.0.0.1/24`, 2, "--tunnel-ip 10.0.0.1", "twice"],
  [`${CREATE} --type ipip --tunnel-ip fd00::1/64`, 2, "--tunnel-ip", "fd00::1/64", "not IPv4"],
  [`${CREATE} --type sit --tunnel-ip 10.0.0.1/30`, 2, "--tunnel-ip", "10.0.0.1/30", "not IPv6"],
  [
    `${CREATE6} --type ip6tnl ${FOU} --tunnel-ip 10.0.0.1/30,fd00::1/64`,
    ...[2, "--encap fou", "fd00::1/64", "one IP version"] as const,
  ],
  // routes
  [`${CREATE} --route 10.9.0.0`, 2, "--route", '"10.9.0.0"', "prefix length"],
  [`${CREATE} --route 10.9.0.1/16`, 2, "--route 10.9.0.1/16", "behind its prefix", "10.9.0.0/16"],
  [`${CREATE} --route 192.0.2.0/24`, 2, "--route 192.0.2.0/24", "--remote 192.0.2.2", "itself"],
  [`${CREATE} --route 0.0.0.0/0`, 2, "--route 0.0.0.0/0", "--remote 192.0.2.2"],
  [`${CREATE} --route 224.0.0.0/4`, 2, "--route 224.0.0.0/4", "unicast"],
  [`${CREATE} --route 10.9.0.0/16,10.9.0.0/16`, 2, "--route 10.9.0.0/16", "twice"],
  [`${CREATE} --type ipip --route fd09::/64`, 2, "--route", "fd09::/64", "not IPv4"],
  // batches
  ["create --batch", 2, "--batch", "no value"],
  ["create --batch /nope.jsonl", 2, "--batch", '"/nope.jsonl"', "cannot be read"],
  ["create --batch /dev/null", 2, "--batch", '"/dev/null"', "no tunnels"],
  [`${CREATE} --batch /dev/null`, 2, "--name", "--batch"],
];

/** Lines of a file, with what is said of them. */
const WRONG_LINES: [line: string, ...parts: string[]][] = [
  ["nonsense", "line 2", '"nonsense"', "no JSON object"],
  ["[1,2]", "line 2", '"[1,2]"', "no JSON object"],
  ["null", "line 2", '"null"', "no JSON object"],
  ['{"name":"t1"}', "line 2", "--local", "missing"],
  [
    '{"name":"t1","local":"192.0.2.1","remote":"192.0.2.2","mtu":1}',
    ...["line 2: --mtu 1 is out of range", "576 to 9000"],
  ],
  [
    '{"name":"t1","local":"192.0.2.1","remote":"192.0.2.2","colour":"red"}',
    ...["line 2", "--colour", "unknown flag"],
  ],
  [
    '{"name":"t1","local":"192.0.2.1","remote":"192.0.2.2","route":{}}',
    ...["line 2", "--route", "{}", "no value"],
  ],
  [
    '{"name":"t1","local":"192.0.2.1","remote":"192.0.2.2","json":true}',
    ...["line 2", "--json", "unknown flag"],
  ],
];

function wordsOf(call: string): string[] {
  const words = call.split(" ");
  for (const flag of ["--name", "--local", "--remote", "--type"]) {
    const at = words.indexOf(flag);
    if (words.indexOf(flag, at + 1) > at) words.splice(at, 2);
  }
  return words;
}

function checkRefusal(outcome: Outcome, code: number, parts: readonly string[], call: string) {
  const about = `${call}\n${outcome.stderr}`;
  strictEqual(outcome.code, code, about);
  strictEqual(outcome.stdout, "", about);
  ok(/^Error: [^\n]+\. [A-Z][^\n]+\.\n$/.test(outcome.stderr), about);
  for (const part of parts) ok(outcome.stderr.includes(part), `${about}has no ${part}`);
}

Deno.test(`${WRONG.length + WRONG_LINES.length} wrong calls: code, one line, nothing changed`, async () => {
  using space = namespace();
  const before = space.snapshot();
  for (const [call, code, ...parts] of WRONG) {
    checkRefusal(await run(space.netns, wordsOf(call)), code, parts, call);
    deepStrictEqual(space.snapshot(), before, call);
  }
  const file = await Deno.makeTempFile();
  try {
    for (const [line, ...parts] of WRONG_LINES) {
      const good = {
        name: "t0",
        local: "192.0.2.1",
        remote: "192.0.2.2",
        tunnel_ip: "10.0.0.1/30",
      };
      await Deno.writeTextFile(file, `${JSON.stringify(good)}\n${line}\n`);
      checkRefusal(await run(space.netns, ["create", "--batch", file]), 2, parts, line);
      deepStrictEqual(space.snapshot(), before, line);
    }
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("list, status and delete --all where there are no tunnels", async () => {
  using space = namespace();
  const calls: [string, string][] = [
    ["list", "No tunnels.\n"],
    ["list --json", "[]\n"],
    ["delete --all", "No tunnels.\n"],
    ["delete --all --json", '{\n  "deleted": []\n}\n'],
  ];
  for (const [call, stdout] of calls) {
    deepStrictEqual(await run(space.netns, call.split(" ")), { code: 0, stdout, stderr: "" }, call);
  }
});

Deno.test("a dry run prints commands, or JSON with the steps, and changes nothing", async () => {
  using space = namespace();
  const before = space.snapshot();
  const call = `${CREATE} --mtu 1400 --tunnel-ip 10.0.0.1/30 --dry-run`;
  const { code, stdout } = await run(space.netns, call.split(" "));
  strictEqual(code, 0);
  const commands = [
    "modprobe ip_gre",
    "ip link add name t0 mtu 1400 type gre local 192.0.2.1 remote 192.0.2.2 ttl 64 pmtudisc",
    "ip address add 10.0.0.1/30 dev t0",
    "ip link set dev t0 up",
  ];
  const withoutModules = (lines: string[]) => lines.filter((line) => !line.startsWith("modprobe"));
  deepStrictEqual(withoutModules(stdout.trim().split("\n")), withoutModules(commands));
  const json = JSON.parse((await run(space.netns, `${call} --json`.split(" "))).stdout);
  deepStrictEqual(withoutModules(json.commands), withoutModules(commands));
  strictEqual(json.steps.length, json.commands.length);
  deepStrictEqual(space.snapshot(), before);
});

Deno.test("create waits for another gretun that changes tunnels here", async () => {
  using space = namespace();
  const lock = withNetns(space.netns, tryLockTunnels)!;
  try {
    const controller = new AbortController();
    const io = { stdout() {}, stderr() {}, signal: controller.signal };
    const waiting = withNetns(space.netns, () => create.run(CREATE.split(" ").slice(1), io));
    controller.abort();
    await rejects(waiting, /another gretun is changing tunnels/);
    strictEqual(withNetns(space.netns, tryLockTunnels), undefined);
  } finally {
    lock[Symbol.dispose]();
  }
});

/** The whole program: as root without the capability, or as another user with it. */
async function program(uid: number, ...args: string[]): Promise<Outcome> {
  const capabilities = uid === 0
    ? ["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    : ["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"];
  const { code, stdout, stderr } = await new Deno.Command("setpriv", {
    args: ["--reuid", String(uid), "--clear-groups", ...capabilities, GRETUN, ...args],
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

Deno.test("without CAP_NET_ADMIN root is refused too, after wrong usage, before the kernel is asked", async () => {
  const calls: [string, number, string][] = [
    [CREATE, 1, "permission denied: gretun create needs root or CAP_NET_ADMIN"],
    ["delete --name t0", 1, "permission denied: gretun delete needs root or CAP_NET_ADMIN"],
    [`${CREATE} --mtu 1`, 2, "--mtu 1 is out of range"],
    ["create --help", 0, ""],
    ["list", 0, ""],
    ["status --name nope", 1, "no tunnel and no peer is called nope"],
    ["delete --name nope --dry-run", 1, "tunnel nope not found"],
    [`${CREATE} --dry-run`, 0, ""],
  ];
  for (const [call, code, text] of calls) {
    const outcome = await program(0, ...call.split(" "));
    strictEqual(outcome.code, code, outcome.stderr);
    ok(outcome.stderr.includes(text), outcome.stderr);
    if (text.startsWith("permission")) {
      ok(/sudo.*setcap cap_net_admin/.test(outcome.stderr), outcome.stderr);
    }
  }
});

Deno.test("with CAP_NET_ADMIN another user than root may, too", async () => {
  const { code, stdout, stderr } = await program(65534, "list", "--json");
  deepStrictEqual([code, stderr], [0, ""]);
  ok(Array.isArray(JSON.parse(stdout)), stdout);
});

Deno.test("links of daemons in user space are shown, and deleted by force alone", async () => {
  using space = namespace();
  await using poller = new Poller();
  using _tun = withNetns(space.netns, () => TunDevice.open("gretun0", poller, () => {}));
  const rtnl = space.rtnl;
  const alias = formatMark({ by: "hub", port: 7788, id: "alice" });
  rtnl.changeLink(rtnl.link("gretun0")!.ifindex, { alias, up: true });
  const call = (line: string) => run(space.netns, line.split(" "));
  ok(/^gretun0 +- +- +- +- +up +tun /m.test((await call("list")).stdout));
  ok(
    /Made by: +gretun hub on port 7788, for alice\n/.test(
      (await call("status --name gretun0")).stdout,
    ),
  );
  {
    using _daemon = withNetns(
      space.netns,
      () => lockPort(fileLocks(), { port: 7788, role: "hub", flag: "--port" }),
    );
    const refused = await call("delete --name gretun0");
    strictEqual(refused.code, 1);
    ok(refused.stderr.includes(`tunnel gretun0 belongs to gretun hub (pid ${Deno.pid})`));
    const all = await call("delete --all --yes");
    ok(all.stderr.includes(`Left: gretun0 belongs to gretun hub (pid ${Deno.pid}).`), all.stderr);
    ok(rtnl.link("gretun0"));
    strictEqual((await call("delete --name gretun0 --force")).code, 0);
  }
  strictEqual(rtnl.link("gretun0"), undefined);
});

Deno.test("create --batch - reads standard input", async () => {
  const line = JSON.stringify({ name: "london", local: "192.0.2.1", remote: "192.0.2.2" });
  const child = new Deno.Command(GRETUN, {
    args: ["create", "--batch", "-", "--dry-run"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(`${line}\n`));
  await writer.close();
  const { code, stdout } = await child.output();
  strictEqual(code, 0);
  ok(/ip link add name london .*type gre/.test(new TextDecoder().decode(stdout)));
});
