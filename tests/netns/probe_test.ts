/**
 * `gretun probe` and the ICMP socket against the real kernel: two namespaces that each test makes,
 * joined by a veth pair, 10.9.0.1 and 10.9.0.2, fd00:9::1 and fd00:9::2.
 */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { familyOf, parseIp } from "../../lib/addr.ts";
import { onesComplementSum } from "../../lib/checksum.ts";
import { systemClock, systemRandom } from "../../lib/edges.ts";
import { icmpSockets, ping, type ProbeResult, statistics } from "../../lib/health/mod.ts";
import {
  createNamedNetns,
  deleteNamedNetns,
  type Fd,
  IcmpSocket,
  Poller,
  withNetns,
  writeKernelFile,
} from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { DENO_RUN } from "../deno_run.ts";
import { TunDevice } from "../lab/tun_device.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

const NEAR = ["10.9.0.1", "fd00:9::1"].map(parseIp);
const FAR = ["10.9.0.2", "fd00:9::2"].map(parseIp);
const [FAR_4, FAR_6] = FAR as [typeof FAR[0], typeof FAR[0]];

/** Far more than a loaded machine takes for what is to come. */
const PATIENCE_MS = 60_000;
/** For what is not to come. */
const SILENCE_MS = 200;

interface Net {
  near: Fd;
  far: Fd;
  poller: Poller;
}

async function inNet(body: (net: Net) => Promise<void>): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const make = (role: string) => {
    const name = `gretun-probe-${Deno.pid}-${role}`;
    const netns = stack.use(createNamedNetns(name));
    stack.defer(() => deleteNamedNetns(name));
    return netns;
  };
  const [near, far] = [make("near"), make("far")];
  const poller = stack.use(new Poller());
  using a = withNetns(near, () => RtNetlink.open());
  using b = withNetns(far, () => RtNetlink.open());
  a.createLink({ name: "v0", kind: "veth", peerName: "v0", peerNetnsFd: far.fd });
  for (const [rtnl, ips] of [[a, NEAR], [b, FAR]] as const) {
    const { ifindex } = rtnl.link("v0")!;
    for (const local of ips) {
      rtnl.addAddress({ ifindex, local, prefixLength: familyOf(local) === 4 ? 24 : 64 });
    }
    for (const name of ["lo", "v0"]) rtnl.changeLink(rtnl.link(name)!.ifindex, { up: true });
  }
  await neighbours({ near, far, poller });
  await body({ near, far, poller });
}

/** IPv6 does not answer its neighbours from the first moment on, and asks again after a second. */
async function neighbours(net: Net): Promise<void> {
  for (let i = 0; i < 300; i++) {
    const [result] = await pingIn(net, FAR_6, { count: 1, timeoutMs: SILENCE_MS });
    if (result!.rttMs !== undefined) return;
  }
  throw new Error("no neighbours after a minute");
}

async function runIn(netns: Fd, command: string, args: string[], stdin?: string) {
  const child = withNetns(
    netns,
    () =>
      new Deno.Command(command, { args, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn(),
  );
  const writer = child.stdin.getWriter();
  if (stdin) await writer.write(new TextEncoder().encode(stdin));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

async function nft(netns: Fd, rules: string): Promise<void> {
  const { code, stderr } = await runIn(netns, "nft", ["-f", "-"], rules);
  strictEqual(code, 0, stderr);
}

const GRETUN = [...DENO_RUN, "main.ts"];
const gretun = (netns: Fd, ...args: string[]) =>
  runIn(netns, Deno.execPath(), [...GRETUN, ...args]);

function pingIn(net: Net, ip: typeof FAR_4, options: Partial<Parameters<typeof ping>[1]> = {}) {
  const open = icmpSockets({ poller: net.poller }, (body) => withNetns(net.near, body));
  const world = { clock: systemClock, random: systemRandom, open };
  return ping(ip, { count: 5, intervalMs: 10, timeoutMs: PATIENCE_MS, ...world, ...options });
}

const answered = (results: ProbeResult[]) =>
  results.flatMap(({ sequence, rttMs }) => rttMs === undefined ? [] : [sequence]);

/** Lets every group use ping sockets. */
function allowPingSockets(netns: Fd): void {
  withNetns(netns, () => writeKernelFile("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"));
}

for (const kind of ["ping", "raw"] as const) {
  Deno.test(`ping() over ${kind} sockets: IPv4 and IPv6, small and large`, () =>
    inNet(async (net) => {
      if (kind === "ping") allowPingSockets(net.near);
      for (const ip of FAR) {
        using socket = withNetns(
          net.near,
          () => IcmpSocket.open({ family: familyOf(ip), poller: net.poller }, () => {}),
        );
        strictEqual(socket.setsIdentifier, kind === "ping", `${ip}`);
        for (const sizeBytes of [8, 56, 1400, 8000, 65_507]) {
          const startMs = performance.now();
          const results = await pingIn(net, ip, { sizeBytes, count: 2 });
          const { received, rtt } = statistics(results);
          strictEqual(received, 2, `${ip} ${sizeBytes}: ${JSON.stringify(results)}`);
          const tookMs = performance.now() - startMs;
          ok(rtt!.maxMs > 0 && rtt!.maxMs < tookMs, `${rtt!.maxMs} of ${tookMs} ms`);
        }
      }
    }));
}

Deno.test("ping() counts what a firewall drops: every second request, or reply", () =>
  inNet(async (net) => {
    const rules = (hook: string, match: string) =>
      `add table inet loss
       add chain inet loss c { type filter hook ${hook} priority 0; }
       flush chain inet loss c
       add rule inet loss c ${match} numgen inc mod 2 1 drop\n`;
    for (const ip of FAR) {
      const protocol = familyOf(ip) === 4 ? "icmp" : "icmpv6";
      for (const [hook, type] of [["input", "echo-request"], ["output", "echo-reply"]] as const) {
        await nft(net.far, rules(hook, `${protocol} type ${type}`));
        const results = await pingIn(net, ip, { count: 10, timeoutMs: 1_000 });
        deepStrictEqual(answered(results), [1, 3, 5, 7, 9], `${ip} ${type}`);
        strictEqual(statistics(results).lossPercent, 50);
        await nft(net.far, "delete table inet loss\n");
      }
    }
  }));

Deno.test("ping() says at once that there is no route, or that a firewall here refuses", () =>
  inNet(async (net) => {
    for (const ip of ["192.0.2.9", "2001:db8::9"].map(parseIp)) {
      const [result] = await pingIn(net, ip, { count: 1 });
      strictEqual(result!.error, "this host has no route to it");
    }
    await nft(
      net.near,
      `add table inet no
       add chain inet no c { type filter hook output priority 0; }
       add rule inet no c icmp type echo-request drop\n`,
    );
    const [result] = await pingIn(net, FAR_4, { count: 1 });
    strictEqual(result!.error, "a firewall of this host refuses to send it");
  }));

for (const kind of ["ping", "raw"] as const) {
  Deno.test(`ping() over ${kind} sockets tells what a router says, at once`, () =>
    inNet(async (net) => {
      if (kind === "ping") allowPingSockets(net.near);
      const ip = async (netns: Fd, command: string) => {
        const { code, stderr } = await runIn(netns, "ip", command.split(" "));
        strictEqual(code, 0, stderr);
      };
      // Its limits of ICMP errors stay as they are, which let five pass at once. With icmp_ratelimit 0 an error may
      // use up all that routes (ip_error() in the kernel's net/ipv4/route.c) may say to the same host for a second.
      for (const path of ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]) {
        withNetns(net.far, () => writeKernelFile(`/proc/sys/net/${path}`, "1"));
      }
      const hosts = ["192.0.2.7", "192.0.2.8", "2001:db8::7", "2001:db8::8"];
      for (const [i, host] of hosts.entries()) {
        await ip(
          net.near,
          `route add ${host} via ${familyOf(parseIp(host)) === 4 ? FAR_4 : FAR_6}`,
        );
        await ip(net.far, `route add ${i % 2 ? "prohibit" : "unreachable"} ${host}`);
      }
      const says = async (host: string) => {
        const [result] = await pingIn(net, parseIp(host), { count: 1 });
        return [result!.error, result!.rttMs];
      };
      deepStrictEqual(await says(hosts[0]!), [`host unreachable, says ${FAR_4}`, undefined]);
      deepStrictEqual(await says(hosts[1]!), [`a firewall prohibits it, says ${FAR_4}`, undefined]);
      deepStrictEqual(await says(hosts[2]!), [`no route to it, says ${FAR_6}`, undefined]);
      deepStrictEqual(await says(hosts[3]!), [`a firewall prohibits it, says ${FAR_6}`, undefined]);
      const [result] = await pingIn(net, FAR_4, { count: 1 });
      ok(result!.rttMs !== undefined, "others are answered");
    }));
}

// --- forged answers

const ICMP_OFFSET = 20;
const DATA_OFFSET = ICMP_OFFSET + 8;

/** The echo reply to an IPv4 packet, addresses exchanged. */
function replyTo(packet: Uint8Array): Uint8Array {
  const reply = packet.slice();
  reply.set(packet.subarray(16, 20), 12);
  reply.set(packet.subarray(12, 16), 16);
  reply[ICMP_OFFSET] = 0;
  return reply;
}

function setSum(bytes: Uint8Array, offset: number): void {
  bytes.set([0, 0], offset);
  const sum = ~onesComplementSum(bytes) & 0xffff;
  bytes.set([sum >> 8, sum & 0xff], offset);
}

function withSums(packet: Uint8Array): Uint8Array {
  setSum(packet.subarray(0, ICMP_OFFSET), 10);
  setSum(packet.subarray(ICMP_OFFSET), 2);
  return packet;
}

Deno.test("ping() takes no forged answer from the network", () =>
  inNet(async (net) => {
    let forge: (reply: Uint8Array) => Uint8Array = (reply) => reply;
    let requests = 0;
    using tun = withNetns(net.near, () =>
      TunDevice.open("t0", net.poller, (packet) => {
        if (packet[0] !== 0x45 || packet[9] !== 1) return;
        requests++;
        tun.write(withSums(forge(replyTo(packet))));
      }));
    using rtnl = withNetns(net.near, () => RtNetlink.open());
    const { ifindex } = rtnl.link("t0")!;
    rtnl.addAddress({ ifindex, local: parseIp("10.8.0.1"), prefixLength: 24 });
    rtnl.changeLink(ifindex, { up: true });
    const change = (offset: number) => (reply: Uint8Array) => {
      reply[offset]! ^= 1;
      return reply;
    };
    const cases: [string, typeof forge, boolean][] = [
      ["the reply", (reply) => reply, true],
      ["wrong data", change(DATA_OFFSET + 3), false],
      ["wrong data at the end", change(DATA_OFFSET + 55), false],
      ["a wrong source", change(15), false],
      ["a wrong identifier", change(ICMP_OFFSET + 4), false],
      ["a wrong sequence number", change(ICMP_OFFSET + 6), false],
      ["a wrong type", change(ICMP_OFFSET), false],
      ["a wrong code", change(ICMP_OFFSET + 1), false],
    ];
    for (const kind of ["raw", "ping"] as const) {
      if (kind === "ping") allowPingSockets(net.near);
      for (const [name, forgery, expected] of cases) {
        forge = forgery;
        requests = 0;
        const timeoutMs = expected ? PATIENCE_MS : SILENCE_MS;
        const results = await pingIn(net, parseIp("10.8.0.2"), { count: 2, timeoutMs });
        strictEqual(requests, 2, name);
        strictEqual(answered(results).length, expected ? 2 : 0, `${kind} socket, ${name}`);
      }
    }
  }));

// --- the program

Deno.test("gretun probe: text, JSON, exit codes, over IPv4 and IPv6", () =>
  inNet(async ({ near }) => {
    for (const ip of FAR) {
      const args = ["--interval", "10ms", "--timeout", "60s"];
      const fine = await gretun(near, "probe", "--target", ip, ...args);
      strictEqual(fine.code, 0, fine.stderr);
      match(
        fine.stdout,
        /^(probe \d: [\d.:a-f]+ rtt=\d+\.\d\dms\n){3}\n3\/3 answered, 0% lost, rtt min\/avg\/max\/stddev \d+\.\d\d\/\d+\.\d\d\/\d+\.\d\d\/\d+\.\d\d ms\nstatus: healthy\n$/,
      );
    }
    const startMs = performance.now();
    const json = await gretun(near, "probe", "--target", FAR_6, "--json", "--timeout", "60s");
    const tookMs = performance.now() - startMs;
    strictEqual(json.code, 0, json.stderr);
    const report = JSON.parse(json.stdout);
    const { target, healthy, threshold, sent, received, loss_percent } = report;
    deepStrictEqual([target, healthy, threshold, sent, received, loss_percent], [
      FAR_6,
      true,
      2,
      3,
      3,
      0,
    ]);
    for (const { success, rtt_ms, timestamp } of report.results) {
      strictEqual(success, true);
      ok(rtt_ms > 0 && rtt_ms < tookMs, `${rtt_ms} of ${tookMs} ms`);
      ok(Math.abs(Date.now() - Date.parse(timestamp)) < 60_000);
    }
    for (const mode of [[], ["--json"]]) {
      const args = ["probe", "--target", "10.9.0.9", "--timeout", "100ms", ...mode];
      const dead = await gretun(near, ...args);
      strictEqual(dead.code, 1);
      match(
        dead.stderr,
        /^Error: 10\.9\.0\.9 is unhealthy: 0 of 3 probes were answered, 2 needed\. .*\n$/,
      );
      if (mode.length === 0) match(dead.stdout, /\n0\/3 answered, 100% lost\nstatus: unhealthy\n$/);
      else strictEqual(JSON.parse(dead.stdout).healthy, false);
    }
  }));

Deno.test("gretun probe: Ctrl-C prints what was found so far", () =>
  inNet(async ({ near }) => {
    const long = ["--count", "1000", "--interval", "50ms", "--timeout", "60s"];
    const args = ["probe", "--target", FAR_4, ...long];
    const child = withNetns(near, () =>
      new Deno.Command(Deno.execPath(), {
        args: [...GRETUN, ...args],
        stdout: "piped",
        stderr: "null",
      }).spawn());
    let text = "";
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      const before = text;
      text += chunk;
      if (!before.includes("probe 4:") && text.includes("probe 4:")) child.kill("SIGINT");
    }
    strictEqual((await child.status).code, 0, text);
    match(text, /\n\d+\/\d+ answered, 0% lost, rtt .*\nstatus: healthy\n$/);
    ok(!text.includes("probe 1000:"));
  }));

Deno.test("gretun probe needs no privilege where ping sockets are allowed, and says what else", () =>
  inNet(async ({ near }) => {
    // Still root's files, none of root's capabilities.
    const unprivileged = (...args: string[]) =>
      runIn(near, "setpriv", [
        "--bounding-set=-all",
        "--inh-caps=-all",
        ...["--securebits=+noroot", Deno.execPath(), ...GRETUN, ...args],
      ]);
    const refused = await unprivileged("probe", "--target", FAR_4);
    strictEqual(refused.code, 1, refused.stdout);
    match(refused.stderr, /^Error: cannot open a socket for ICMP: EPERM\. .*ping_group_range\.\n$/);
    allowPingSockets(near);
    const allowed = await unprivileged("probe", "--target", FAR_4);
    strictEqual(allowed.code, 0, allowed.stderr);
  }));
