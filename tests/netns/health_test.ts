/**
 * Pings through interfaces of the real kernel, and `gretun health` as far as it goes without a
 * tunnel: for those see tests/vm. TUN devices stand in for tunnels.
 */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { parseIp } from "../../lib/addr.ts";
import { onesComplementSum } from "../../lib/checksum.ts";
import { systemClock, systemRandom } from "../../lib/edges.ts";
import { checkTunnels, icmpSockets, ping, tunnelTargets } from "../../lib/health/mod.ts";
import {
  createNamedNetns,
  deleteNamedNetns,
  type Fd,
  Poller,
  withNetns,
} from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { DENO_RUN } from "../deno_run.ts";
import { TunDevice } from "../lab/tun_device.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

const NETNS_NAME = `gretun-health-${Deno.pid}`;
const FAR = parseIp("10.8.0.2");

async function inNetns(body: (netns: Fd, rtnl: RtNetlink) => Promise<void>): Promise<void> {
  using netns = createNamedNetns(NETNS_NAME);
  try {
    using rtnl = withNetns(netns, () => RtNetlink.open());
    await body(netns, rtnl);
  } finally {
    deleteNamedNetns(NETNS_NAME);
  }
}

/** The echo reply to an IPv4 packet with an echo. */
function replyTo(packet: Uint8Array): Uint8Array {
  const reply = packet.slice();
  reply.set(packet.subarray(16, 20), 12);
  reply.set(packet.subarray(12, 16), 16);
  reply.set([0, 0, 0, 0], 20);
  const sum = ~onesComplementSum(reply.subarray(20)) & 0xffff;
  reply.set([sum >> 8, sum & 0xff], 22);
  return reply;
}

const isEcho = (packet: Uint8Array) => packet[0] === 0x45 && packet[9] === 1 && packet[20] === 8;

Deno.test("each tunnel is pinged through itself, whatever the routes say", () =>
  inNetns(async (netns, rtnl) => {
    await using poller = new Poller();
    const echoes: Record<string, number> = { good: 0, silent: 0 };
    using good = withNetns(netns, () =>
      TunDevice.open("good", poller, (packet) => {
        if (!isEcho(packet)) return;
        echoes.good!++;
        good.write(replyTo(packet));
      }));
    using _silent = withNetns(netns, () =>
      TunDevice.open("silent", poller, (packet) => {
        if (isEcho(packet)) echoes.silent!++;
      }));
    // The same point-to-point addresses on both: routes lead through one of them alone.
    for (const name of ["good", "silent"]) {
      const { ifindex } = rtnl.link(name)!;
      rtnl.addAddress({ ifindex, local: parseIp("10.8.0.1"), peer: FAR, prefixLength: 32 });
      rtnl.changeLink(ifindex, { up: true });
    }
    const limits = { count: 1, intervalMs: 0 };
    const world = { clock: systemClock, random: systemRandom };
    const results = await checkTunnels(
      ["good", "silent", "good", "absent"].map((name) => ({ name, target: FAR })),
      {
        concurrency: 4,
        async ping(target, device) {
          const open = icmpSockets({ poller, device }, (body) => withNetns(netns, body));
          const timeoutMs = device === "silent" ? 200 : 60_000;
          return (await ping(target, { ...limits, timeoutMs, ...world, open }))[0];
        },
      },
    );
    deepStrictEqual(results.map(({ rttMs, error }) => error ?? (rttMs! >= 0 ? "ok" : rttMs)), [
      "ok",
      "no answer in 0.2s",
      "ok",
      "setsockopt failed: ENODEV",
    ]);
    deepStrictEqual(echoes, { good: 2, silent: 1 });
    const state = { links: rtnl.links(), addresses: rtnl.addresses(), routes: rtnl.routes() };
    const isRunning = () => true;
    deepStrictEqual(
      tunnelTargets({ ...state, isRunning }, { named: new Map() }),
      [],
      "TUN devices are none",
    );
  }));

// --- the program

const GRETUN = [...DENO_RUN, "main.ts", "health"];

function spawn(
  netns: Fd,
  command: string,
  args: string[],
  stdin: "null" | "piped" = "null",
): Deno.ChildProcess {
  const options = { args, stdin, stdout: "piped", stderr: "piped" } as const;
  return withNetns(netns, () => new Deno.Command(command, options).spawn());
}

async function health(netns: Fd, ...args: string[]) {
  const { code, stdout, stderr } = await spawn(netns, Deno.execPath(), [...GRETUN, ...args])
    .output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

const GHOST = ["--target", `ghost=${FAR}`];

Deno.test("gretun health: no tunnels, and one that is missing", () =>
  inNetns(async (netns) => {
    const none = await health(netns);
    deepStrictEqual(none, { code: 0, stdout: "There are no tunnels.\n", stderr: "" });
    deepStrictEqual(await health(netns, "--json"), { code: 0, stdout: "[]\n", stderr: "" });
    const missing = await health(netns, ...GHOST);
    strictEqual(missing.code, 1);
    match(
      missing.stdout,
      /^NAME +REMOTE +TARGET +STATUS +RTT +REASON\nghost +- +10\.8\.0\.2 +unhealthy +- +there is no such tunnel\n$/,
    );
    match(missing.stderr, /^Error: 1 of 1 tunnels down: ghost\. Look at .*\n$/);
    const json = await health(netns, "--json", "--exit-zero", ...GHOST);
    strictEqual(json.code, 0, json.stderr);
    deepStrictEqual(JSON.parse(json.stdout), [{
      name: "ghost",
      remote: null,
      target: FAR,
      healthy: false,
      rtt_ms: 0,
      error: "there is no such tunnel",
    }]);
  }));

/** Runs it until it has printed `marker` so many times, then stops it. */
async function watch(
  child: Deno.ChildProcess,
  marker: string,
  times: number,
  stop: () => void = () => child.kill("SIGINT"),
) {
  let stdout = "";
  let isStopped = false;
  const errors = new Response(child.stderr).text();
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    stdout += chunk;
    if (isStopped || stdout.split(marker).length <= times) continue;
    isStopped = true;
    stop();
  }
  const { code } = await child.status;
  return { code, stdout, stderr: await errors };
}

Deno.test("gretun health --watch: plain lines and JSON lines where there is no terminal", () =>
  inNetns(async (netns) => {
    const args = [...GRETUN, "--watch", "--interval", "100ms", ...GHOST];
    const lines = await watch(spawn(netns, Deno.execPath(), args), "ghost", 3);
    strictEqual(lines.code, 1);
    match(
      lines.stdout,
      /^(\d{4}-\d\d-\d\dT[\d:.]+Z ghost 10\.8\.0\.2 unhealthy error=there is no such tunnel\n){3,}$/,
    );
    match(lines.stderr, /^Error: 1 of 1 tunnels down: ghost\./);
    const json = await watch(
      spawn(netns, Deno.execPath(), [...args, "--json", "--exit-zero"]),
      "ghost",
      2,
    );
    strictEqual(json.code, 0, json.stderr);
    for (const line of json.stdout.trim().split("\n")) {
      const { timestamp, name, healthy } = JSON.parse(line);
      ok(Date.parse(timestamp) > 0);
      deepStrictEqual([name, healthy], ["ghost", false]);
    }
  }));

Deno.test("gretun health --watch: a table that stays in its place on a terminal", () =>
  inNetns(async (netns) => {
    const words = [Deno.execPath(), ...GRETUN, "--watch", "--interval", "100ms", ...GHOST];
    // script(1) gives it a terminal, which turns ^C into an interruption.
    const args = ["--quiet", "--return", "--command", `exec ${words.join(" ")}`, "/dev/null"];
    const child = spawn(netns, "script", args, "piped");
    const keyboard = child.stdin.getWriter();
    const press = () => void keyboard.write(new TextEncoder().encode("\x03"));
    const { code, stdout } = await watch(child, "ghost", 4, press);
    await keyboard.close();
    strictEqual(code, 1);
    const frames = stdout.split("\x1b[3F\x1b[J");
    ok(frames.length >= 3, JSON.stringify(frames));
    for (const frame of frames.slice(0, -1)) {
      match(frame, /^\S+Z, every 0\.1s, Ctrl-C to end\r\nNAME .*\r\nghost .*\r\n$/);
    }
  }));
