/** What hub and spokes do on every data plane: many behind one NAT, roaming, crashes, crowds, floods. */
import { match, ok, strictEqual } from "node:assert/strict";
import { fromBase64, toBase64 } from "../lib/bytes.ts";
import { publicKeyOf } from "../lib/ed25519.ts";
import type { Host } from "./lab/mod.ts";
import { Flood, SimulatedSpokes } from "./hub_crowd.ts";
import { HUB_PORT, HubLab, type Scheme, type SpokeDaemon } from "./hub_lab.ts";
import { iperfServer, sleep, transfer, until } from "./overlay.ts";
import { lossIn, pingUntilAnswered, pingWithoutLoss } from "./pings.ts";

export const HUB_ADDRESS = "10.90.0.1";

/** Its standard output; throws when it fails. */
export async function shell(host: Host, command: string): Promise<string> {
  const { code, stdout, stderr } = await host.run("sh", ["-c", command]);
  strictEqual(code, 0, `${command}: ${stderr}`);
  return stdout;
}

/** Three behind one NAT; of five one behind another, and one that roams. */
export async function startSpokes(lab: HubLab, count: 3 | 5): Promise<SpokeDaemon[]> {
  const shared = lab.lab.nat("nat-s");
  const hosts = ["ann", "ben", "cat"].map((name) => lab.lab.host(name, { behind: shared }));
  if (count === 5) {
    hosts.push(lab.lab.host("dan", { behind: lab.lab.nat("nat-d") }));
    hosts.push(lab.lab.host("roamer", { behind: lab.lab.nat("nat-r") }));
  }
  const spokes = hosts.map((host, i) => {
    // A name without %d is there already after a kill.
    const args = host.name === "ann" ? ["--iface", "tohub"] : [];
    return lab.spoke(host.name, host, { file: `address 10.90.0.${i + 2}\n`, args });
  });
  for (const spoke of spokes) await spoke.up();
  return spokes;
}

/** Both ways, not fragmented. */
export async function pingAll(lab: HubLab, spokes: SpokeDaemon[], size: number): Promise<void> {
  const to = (ip: string) => `ping -n -c 1 -W 9 -s ${size} -M do ${ip}`;
  await Promise.all(spokes.flatMap((spoke, i) => [
    shell(spoke.host, to(HUB_ADDRESS)),
    shell(lab.host, to(`10.90.0.${i + 2}`)),
  ]));
}

/** The kernels alone. */
export async function pingWithoutDaemons(
  lab: HubLab,
  spokes: SpokeDaemon[],
  size: number,
): Promise<void> {
  const daemons = [lab.hub, ...spokes];
  for (const { process } of daemons) process.kill("SIGSTOP");
  await pingAll(lab, spokes, size);
  for (const { process } of daemons) process.kill("SIGCONT");
}

/** Of another's address nothing comes in. */
export async function pingAsAnother(spoke: SpokeDaemon): Promise<void> {
  const { ifname } = await spoke.report();
  const other = "10.90.0.3";
  await shell(spoke.host, `ip address add ${other}/32 dev ${ifname}`);
  const spoofed = ["-n", "-c", "3", "-i", "0.1", "-W", "1", "-I", other, HUB_ADDRESS];
  strictEqual((await spoke.host.run("ping", spoofed)).code, 1);
  await shell(spoke.host, `ip address del ${other}/32 dev ${ifname}`);
}

/** IPv6 and multicast pass; of a source that is not routed to the client nothing comes in. */
export async function pingIpv6(lab: HubLab, spoke: SpokeDaemon): Promise<void> {
  const { ifname } = await spoke.report();
  const hubIfname = (await lab.client(spoke.host.name)).ifname;
  const add = async (host: Host, own: string, peer: string, device = "") => {
    await shell(host, `ip -6 address add ${own} peer ${peer} dev ${device} nodad`);
    // The kernel adds the route a moment later.
    await until("a route", async () => {
      return (await host.run("ip", ["-6", "route", "get", peer])).code === 0;
    });
  };
  await add(lab.host, "fd00::1", "fd00::2", hubIfname);
  await add(spoke.host, "fd00::2", "fd00::1", ifname);
  await spoke.ping("fd00::1");
  await lab.hub.ping("fd00::2");
  // All hosts on the link answer: multicast goes both ways, as OSPF needs it.
  await spoke.ping(`ff02::1%${ifname}`);
  await shell(spoke.host, `ip -6 address add fd00::3/128 dev ${ifname} nodad`);
  await shell(lab.host, "ip -6 route add fd00::3/128 dev lo");
  const spoofed = ["-n", "-c", "2", "-i", "0.1", "-W", "1", "-I", "fd00::3", "fd00::1"];
  strictEqual((await spoke.host.run("ping", spoofed)).code, 1);
}

/** With IPv6 outside. */
export function testIpv6Outside(plane: "gre-fou" | "tun", mtu: number): void {
  Deno.test(`${plane}: a spoke that reaches its hub over IPv6`, async () => {
    await using lab = new HubLab({ ipv6: true });
    await lab.startHub(["--address", HUB_ADDRESS, "--data-plane", plane]);
    const host = lab.lab.publicHost("alice", { families: "dual" });
    const alice = lab.spoke("alice", host, {
      file: "address 10.90.0.2\n",
      args: ["--hub", `[${lab.host.ip6}]:${lab.hubPort}`, "--data-plane", plane],
    });
    await alice.up();
    strictEqual((await alice.report()).mtu, mtu);
    await alice.ping(HUB_ADDRESS, ["-s", String(mtu - 28), "-M", "do"]);
    await lab.hub.ping("10.90.0.2");
    match((await lab.client("alice")).endpoint!, /^\[2001:db8:/);
    await stopAll(lab, [alice]);
  });
}

/** The spoke's host has another address every 2 s while iperf3 runs, which has to survive it. */
export async function roamDuringIperf(
  lab: HubLab,
  roamer: SpokeDaemon,
  moves: number,
): Promise<void> {
  const server = await iperfServer(lab.host, "-B", HUB_ADDRESS);
  const seconds = 2 * (moves + 1);
  const iperf = roamer.host.run("iperf3", ["-c", HUB_ADDRESS, "-t", String(seconds), "-J"]);
  const prefix = roamer.host.ip.split(".").slice(0, 3).join(".");
  const places = [roamer.host.ip, `${prefix}.77`];
  const gateway = (await shell(roamer.host, "ip route show default")).trim();
  for (let i = 0; i < moves; i++) {
    await sleep(2000);
    const [from, to] = [places[i % 2], places[1 - i % 2]];
    await shell(
      roamer.host,
      `ip address del ${from}/24 dev eth0; ip address add ${to}/24 dev eth0
       ip route replace ${gateway}`,
    );
  }
  const { code, stdout } = await iperf;
  await server.status;
  strictEqual(code, 0, stdout + roamer.log);
  const { end, intervals } = JSON.parse(stdout);
  const { roams } = await lab.client(roamer.host.name);
  const dead = intervals.filter((i: { sum: { bytes: number } }) => i.sum.bytes === 0).length;
  const megabits = Math.round(end.sum_received.bits_per_second / 1e6);
  console.log(
    `roaming: ${megabits} Mbit/s, ${roams} moves, ${dead} of ${intervals.length} seconds without data`,
  );
  ok(roams >= Math.min(moves, 4), `${roams} moves`);
}

/** Kernel planes: data flows while an end is dead, and the next start adopts the links. */
export async function killBothEnds(lab: HubLab, spokes: SpokeDaemon[]): Promise<void> {
  const [ann] = spokes;
  const links = () => shell(lab.host, "ip -o link show | grep -o '^[0-9]*: hub[^:]*'");
  const before = await links();
  await lab.hub.stop("SIGKILL");
  await pingAll(lab, spokes, 100);
  lab.hub.start();
  await lab.hubReady();
  await pingAll(lab, spokes, 100);
  strictEqual(await links(), before);
  ok((await lab.report()).clients.every(({ state }) => state === "up"));
  ann!.process.kill("SIGUSR1");
  await until("ann to authenticate", async () => (await lab.client("ann")).authentications === 1);

  await ann!.stop("SIGKILL");
  await ann!.ping(HUB_ADDRESS);
  ann!.start();
  await ann!.up();
  await ann!.ping(HUB_ADDRESS);
}

/** A link that somebody removes comes back under its own name, with its addresses, on either end. */
export async function removeLinks(lab: HubLab, spoke: SpokeDaemon): Promise<void> {
  const client = await lab.client(spoke.host.name);
  const hubEnd = { daemon: lab.hub, ifname: client.ifname!, to: client.address! };
  const spokeEnd = { daemon: spoke, ifname: (await spoke.report()).ifname!, to: HUB_ADDRESS };
  for (const { daemon, ifname, to } of [hubEnd, spokeEnd]) {
    const addresses = () => shell(daemon.host, "ip -o -4 address | sed 's/^[0-9]*: //' | sort");
    const before = await addresses();
    await shell(daemon.host, `ip link del ${ifname}`);
    await until("data to flow again", async () => {
      return (await daemon.host.run("ping", ["-n", "-c", "1", "-W", "1", to])).code === 0;
    }, () => daemon.log);
    strictEqual(await addresses(), before);
    ok(daemon.log.includes("link is gone, making it again"), daemon.log);
  }
}

/** Removes the client's file and says so by a signal; others lose nothing. */
export async function revoke(lab: HubLab, gone: string, other: SpokeDaemon): Promise<void> {
  const links = (await lab.hub.linkNames()).length;
  const pings = pingWithoutLoss(other.host, HUB_ADDRESS, { count: 40, gapS: 0.05 });
  pings.catch(() => {}); // it is awaited below
  await sleep(500);
  lab.removeClient(gone);
  const startMs = performance.now();
  lab.hub.process.kill("SIGHUP");
  await until("its link to go", async () => (await lab.hub.linkNames()).length === links - 1);
  console.log(`revocation took ${Math.round(performance.now() - startMs)} ms`);
  await pings;
}

/** Everything of hub and spokes is gone after SIGTERM. */
export async function stopAll(lab: HubLab, spokes: SpokeDaemon[]): Promise<void> {
  const codes = await Promise.all(spokes.map((spoke) => spoke.stop("SIGTERM")));
  ok(codes.every((code) => code === 0), spokes.map(({ log }) => log).join());
  strictEqual(await lab.hub.stop("SIGTERM"), 0, lab.hub.log);
  for (const host of [lab.host, spokes[0]!.host]) {
    const left = await shell(
      host,
      "ip -o link; ip fou show; nft list ruleset; ip -o address show dev lo",
    );
    ok(!/hub\d|spoke\d|port \d|gretun-hub|172\.29/.test(left), left);
  }
}

// --- who is let in

const TOKEN = "a token of some length, shared";

/** Every way that our own protocol's ends know each other by. */
export const SCHEMES: Record<string, (lab: HubLab, host: Host) => Scheme> = {
  key: (lab) => lab.keyScheme("alice"),
  "key and secret": (lab) => {
    const { file, args } = lab.keyScheme("alice");
    const secret = lab.secretFile("secret", "topsecret\n");
    return { file: `${file}secret topsecret\n`, args: [...args, "--secret-file", secret] };
  },
  token: (lab) => ({
    file: `token ${TOKEN}\n`,
    args: ["--token-file", lab.secretFile("token", TOKEN)],
  }),
  address: (_lab, host) => ({ file: `remote ${host.ip}:${HUB_PORT}\n`, args: [] }),
};

/** A hub and a client that know each other so ping each other. */
export async function isLetIn(scheme: string, hubArgs: string[]): Promise<void> {
  await using lab = new HubLab();
  await lab.startHub([...hubArgs, "--address", HUB_ADDRESS]);
  const host = lab.lab.publicHost("alice");
  const alice = lab.spoke("alice", host, {
    file: "address 10.90.0.2\nsources fd00::2\n",
    scheme: SCHEMES[scheme]!(lab, host),
  });
  const { data_plane } = await alice.up();
  if (scheme === "key" && data_plane !== "ipip-fou") await pingIpv6(lab, alice);
  await alice.ping(HUB_ADDRESS);
  await lab.hub.ping("10.90.0.2");
  const [from, to] = [alice.host, lab.hub.host];
  await transfer("hub and client to carry TCP", { from, to, ip: HUB_ADDRESS });
}

// --- many, and hostile

/** So many clients connect at the same moment, each with its program. */
export async function crowd(hubArgs: string[], count: number): Promise<void> {
  await using lab = new HubLab();
  const spokes = Array.from({ length: count }, (_, i) => {
    const name = `client-${i}`;
    const address = `address 10.90.${1 + (i >> 7)}.${1 + (i & 127)}`;
    const seed = crypto.getRandomValues(new Uint8Array(32));
    const publicKey = publicKeyOf(seed);
    lab.clientFile(name, `public-key ${toBase64(publicKey)}\n${address}\n`);
    return { name, seed, publicKey };
  });
  await lab.startHub([...hubArgs, "--address", HUB_ADDRESS, "--", "sleep", "1000"]);
  const many = lab.lab.publicHost("many");
  const hub = { ip: lab.host.ip, port: HUB_PORT };
  await using simulated = new SimulatedSpokes(many, hub, fromBase64(lab.publicKey));
  for (const spoke of spokes) await simulated.add(spoke);
  const before = performance.now();
  await simulated.connect();
  const connectedMs = performance.now() - before;
  await until("all programs", async () => {
    const { clients } = await lab.report();
    const running = clients.filter(({ state, pid }) => state === "up" && pid !== undefined);
    return running.length === count;
  }, () => lab.hub.log.slice(-2000));
  const tookMs = performance.now() - before;
  const rounded = Math.round(tookMs);
  console.log(
    `${count} clients: connected in ${Math.round(connectedMs)} ms, with programs ${rounded} ms`,
  );
  strictEqual(await lab.hub.stop("SIGTERM"), 0, lab.hub.log.slice(-2000));
  strictEqual((await lab.hub.linkNames()).length, 0);
}

/**
 * Bad authentication packets, as many as can be, while another client's traffic goes on. The hub
 * takes at most `maxShare` of a CPU.
 */
export async function floodedHub(
  hubArgs: string[],
  { maxShare }: { maxShare: number },
): Promise<void> {
  await using lab = new HubLab();
  await lab.startHub([...hubArgs, "--address", HUB_ADDRESS]);
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), { file: "address 10.90.0.2\n" });
  await alice.up();
  const attacker = lab.lab.publicHost("attacker");
  const ping = async () => {
    const count = 150;
    const { text, answered } = await pingUntilAnswered(alice.host, HUB_ADDRESS, {
      count,
      gapS: 0.02,
    });
    strictEqual(answered.length, count, `${text}\n${alice.log}`);
    const averageMs = Number(/= [\d.]+\/([\d.]+)\//.exec(text)![1]);
    return { percent: Math.round(100 * lossIn(answered)), averageMs };
  };
  const quiet = await ping();
  const before = { cpu: cpuMs(lab.hub.process.pid), ms: performance.now() };
  const flood = new Flood(attacker, { ip: lab.host.ip, port: HUB_PORT });
  await sleep(500);
  const under = await ping();
  const perSecond = await flood.stop();
  const spentMs = cpuMs(lab.hub.process.pid) - before.cpu;
  const share = spentMs / (performance.now() - before.ms);
  const { refused, clients } = await lab.report();
  console.log(
    `flood of ${
      Math.round(perSecond)
    }/s: loss ${under.percent} %, round trip ${quiet.averageMs} -> ` +
      `${under.averageMs} ms, ${Math.round(100 * share)} % of a CPU; ${JSON.stringify(refused)}`,
  );
  ok(share < maxShare, `${share}`);
  strictEqual(clients.length, 1);
  ok(Object.values(refused).reduce((sum, n) => sum + n, 0) > 500);
  strictEqual((await alice.report()).authentications, 1);
  // Another one can still come.
  const bob = lab.spoke("bob", lab.lab.publicHost("bob"), { file: "address 10.90.0.3\n" });
  await bob.up();
}

/** What the process has used since its start: fields 14 and 15 of /proc/PID/stat, in 10 ms. */
function cpuMs(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return 10 * (Number(fields[11]) + Number(fields[12]));
}
