/**
 * `gretun health` over real tunnels between two namespaces, made by `ip` so that nothing but their
 * addresses and routes is known: needs a kernel with GRE and IPIP, see boot.sh.
 */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { createNamedNetns, deleteNamedNetns, type Fd, withNetns } from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { GRETUN } from "../overlay.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

const NEAR = "gretun-vm-near";
const FAR = "gretun-vm-far";

async function run(netns: Fd, command: string, args: string[]) {
  const child = withNetns(
    netns,
    () =>
      new Deno.Command(command, { args, stdin: "null", stdout: "piped", stderr: "piped" }).spawn(),
  );
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

async function ip(netns: Fd, ...lines: string[]): Promise<void> {
  const script = Deno.makeTempFileSync();
  Deno.writeTextFileSync(script, lines.join("\n") + "\n");
  const { code, stderr } = await run(netns, "ip", ["-batch", script]);
  Deno.removeSync(script);
  strictEqual(code, 0, stderr);
}

const health = (netns: Fd, ...args: string[]) => run(netns, GRETUN, ["health", ...args]);

Deno.test("gretun health pings the far end of every kind of tunnel", async () => {
  await using stack = new AsyncDisposableStack();
  const make = (name: string) => {
    const netns = stack.use(createNamedNetns(name));
    stack.defer(() => deleteNamedNetns(name));
    return netns;
  };
  const [near, far] = [make(NEAR), make(FAR)];
  await ip(near, `link add v0 type veth peer name v0 netns ${FAR}`);
  for (const [netns, self, other] of [[near, 1, 2], [far, 2, 1]] as const) {
    const outer = `local 192.0.2.${self} remote 192.0.2.${other}`;
    const outer6 = `local 2001:db8::${self} remote 2001:db8::${other}`;
    await ip(
      netns,
      ...["lo", "v0"].map((name) => `link set ${name} up`),
      `address add 192.0.2.${self}/24 dev v0`,
      `address add 2001:db8::${self}/64 dev v0 nodad`,
      `link add t-gre type gre ${outer} ttl 64`,
      `address add 10.1.0.${self}/30 dev t-gre`,
      `link add t-key type gre ${outer} key 7 ttl 64`,
      `address add 10.2.0.${self} peer 10.2.0.${other} dev t-key`,
      `link add t-ipip type ipip ${outer} ttl 64`,
      `address add 10.3.0.${self}/32 dev t-ipip`,
      `link add t-ip6gre type ip6gre ${outer6}`,
      `address add fd00:4::${self}/126 dev t-ip6gre nodad`,
      `link add t-blind type gre ${outer} key 8 ttl 64`,
      `address add 10.5.0.${self}/24 dev t-blind`,
      ...["gre", "key", "ipip", "ip6gre", "blind"].map((name) => `link set t-${name} up`),
      `route add 10.3.0.${other}/32 dev t-ipip`,
    );
  }
  const target = ["--target", "t-blind=10.5.0.2"];
  const all = await health(near, "--json", "--timeout", "5s", ...target);
  const found = JSON.parse(all.stdout);
  deepStrictEqual(
    found.map(({ rtt_ms, ...rest }: { rtt_ms: number }) => ({ ...rest, has_rtt: rtt_ms > 0 })),
    [
      ["t-gre", "192.0.2.2", "10.1.0.2"],
      ["t-key", "192.0.2.2", "10.2.0.2"],
      ["t-ipip", "192.0.2.2", "10.3.0.2"],
      ["t-ip6gre", "2001:db8::2", "fd00:4::2"],
      ["t-blind", "192.0.2.2", "10.5.0.2"],
    ].map(([name, remote, target]) => ({ name, remote, target, healthy: true, has_rtt: true })),
  );
  strictEqual(all.code, 0, all.stderr);

  await ip(far, "link set t-key down");
  await ip(near, "link set t-ipip down");
  const some = await health(near, "--timeout", "2s");
  strictEqual(some.code, 1);
  const lines = some.stdout.trim().split("\n").map((line) => line.split(/\s{2,}/));
  deepStrictEqual(lines.map((cells) => [cells[0], cells[3], cells[5]]), [
    ["NAME", "STATUS", "REASON"],
    ["t-gre", "healthy", "-"],
    ["t-key", "unhealthy", "no answer in 2s"],
    ["t-ipip", "unhealthy", "the link is down"],
    ["t-ip6gre", "healthy", "-"],
    ["t-blind", "unhealthy", "the far address is not known: give it with --target"],
  ]);
  ok(lines[1]![4]!.endsWith("ms"));
  match(some.stderr, /^Error: 3 of 5 tunnels down: t-key, t-ipip, t-blind\. .*\n$/);
});
