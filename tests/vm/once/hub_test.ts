/** Hub and spokes on the kernel planes: needs a kernel with FOU, GRE and IPIP, see boot.sh. */
import { match, ok, strictEqual } from "node:assert/strict";
import { createPrivateKey, sign } from "node:crypto";
import { parseEndpoint } from "../../../lib/addr.ts";
import { concatBytes, fromHex, toBase64, toHex } from "../../../lib/bytes.ts";
import { Poller, RawUdpSender, RtNetlink, UdpSocket } from "../../../lib/netlink.ts";
import type { Host } from "../../../lib/lab/mod.ts";
import { HubLab, type SpokeDaemon } from "../../hub_lab.ts";
import { sleep, until } from "../../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const ADDRESS = ["--address", "10.90.0.1"];

async function run(host: Host, command: string): Promise<string> {
  const { code, stdout, stderr } = await host.run("sh", ["-c", command]);
  strictEqual(code, 0, `${command}: ${stderr}`);
  return stdout;
}

/** Three behind one NAT; of five one behind another, and one that roams. */
async function startSpokes(lab: HubLab, count: 3 | 5): Promise<SpokeDaemon[]> {
  const shared = lab.lab.nat("nat-s");
  const hosts = ["ann", "ben", "cat"].map((name) => lab.lab.host(name, { behind: shared }));
  if (count === 5) {
    hosts.push(lab.lab.host("dan", { behind: lab.lab.nat("nat-d") }));
    hosts.push(lab.lab.host("roamer", { behind: lab.lab.nat("nat-r") }));
  }
  const spokes = hosts.map((host, i) =>
    lab.spoke(host.name, host, { file: `address 10.90.0.${i + 2}\n` })
  );
  for (const spoke of spokes) await spoke.up();
  return spokes;
}

async function pingAll(lab: HubLab, spokes: SpokeDaemon[], size: number): Promise<void> {
  await Promise.all(spokes.flatMap((spoke, i) => [
    run(spoke.host, `ping -n -c 1 -W 9 -s ${size} -M do 10.90.0.1`),
    run(lab.host, `ping -n -c 1 -W 9 -s ${size} -M do 10.90.0.${i + 2}`),
  ]));
}

async function restartBothEnds(lab: HubLab, spokes: SpokeDaemon[]): Promise<void> {
  const [ann] = spokes;
  // Of another's address, nothing comes in.
  const { ifname } = await ann!.report();
  await run(ann!.host, `ip address add 10.90.0.3/32 dev ${ifname}`);
  const spoofed = ["-n", "-c", "2", "-i", "0.1", "-W", "1", "-I", "10.90.0.3", "10.90.0.1"];
  strictEqual((await ann!.host.run("ping", spoofed)).code, 1);
  await run(ann!.host, `ip address del 10.90.0.3/32 dev ${ifname}`);

  // A killed hub: data flows, the next one adopts the links.
  const before = await run(lab.host, "ip -o link show type ipip");
  await lab.hub.stop("SIGKILL");
  await pingAll(lab, spokes, 100);
  lab.hub.start();
  await lab.hubReady();
  await pingAll(lab, spokes, 100);
  strictEqual(await run(lab.host, "ip -o link show type ipip"), before);
  ok((await lab.report()).clients.every(({ state }) => state === "up"));
  ann!.process.kill("SIGUSR1");
  await until("ann to authenticate", async () => (await lab.client("ann")).authentications === 1);

  // A killed spoke, too.
  await ann!.stop("SIGKILL");
  await ann!.ping("10.90.0.1");
  ann!.start();
  await ann!.up();
  await ann!.ping("10.90.0.1");

  // Revoked.
  lab.removeClient("ben");
  const startMs = performance.now();
  lab.hub.process.kill("SIGHUP");
  await until("ben's link to go", async () => (await lab.hub.linkNames()).length === 2);
  ok(performance.now() - startMs < 1000);
  await pingAll(lab, [ann!], 100);
}

async function roamDuringIperf(lab: HubLab, roamer: SpokeDaemon): Promise<void> {
  const server = lab.host.spawn("iperf3", ["-s", "-1", "-B", "10.90.0.1"]);
  await sleep(1000);
  const iperf = roamer.host.run("iperf3", ["-c", "10.90.0.1", "-t", "6", "-J"]);
  const prefix = roamer.host.ip.split(".").slice(0, 3).join(".");
  const places = [roamer.host.ip, `${prefix}.77`];
  const gateway = (await run(roamer.host, "ip route show default")).trim();
  for (let i = 0; i < 2; i++) {
    await sleep(2000);
    await run(
      roamer.host,
      `ip address del ${places[i % 2]}/24 dev eth0; ip address add ${places[1 - i % 2]}/24 dev eth0
       ip route replace ${gateway}`,
    );
  }
  const { code, stdout } = await iperf;
  await server.status;
  strictEqual(code, 0, stdout + roamer.log);
  const { roams } = await lab.client("roamer");
  console.log(
    `roaming: ${
      Math.round(JSON.parse(stdout).end.sum_received.bits_per_second / 1e6)
    } Mbit/s, ${roams} moves`,
  );
  ok(roams >= 2);
}

/** Restarts are tested where links need most, roaming with the plane that is used most. */
const PLANES = [["gre-fou", 1464, 5, "roaming"], ["ipip-fou", 1472, 3, "restarts"]] as const;

for (const [plane, mtu, count, what] of PLANES) {
  Deno.test(`${plane}: ${count} spokes, three behind one NAT; data without daemons; ${what}`, async () => {
    await using lab = new HubLab();
    await lab.startHub([...ADDRESS, "--data-plane", plane]);
    const spokes = await startSpokes(lab, count);
    const [ann] = spokes;
    strictEqual((await ann!.report()).mtu, mtu);
    strictEqual((await ann!.report()).data_plane, plane);

    // The kernels alone.
    for (const { process } of [lab.hub, ...spokes]) process.kill("SIGSTOP");
    await pingAll(lab, spokes, mtu - 28);
    for (const { process } of [lab.hub, ...spokes]) process.kill("SIGCONT");

    if (what === "roaming") await roamDuringIperf(lab, spokes[4]!);
    else await restartBothEnds(lab, spokes);

    const codes = await Promise.all(spokes.map((spoke) => spoke.stop("SIGTERM")));
    ok(codes.every((code) => code === 0), spokes.map(({ log }) => log).join());
    strictEqual(await lab.hub.stop("SIGTERM"), 0, lab.hub.log);
    for (const host of [lab.host, ann!.host]) {
      const left = await run(
        host,
        "ip -o link; ip fou show; nft list ruleset; ip -o address show dev lo",
      );
      ok(!/hub\d|spoke\d|port \d|gretun-hub|172\.29/.test(left), left);
    }
  });
}

Deno.test("fence: no data from a wrong port of a client's address, no ICMP to strangers", async () => {
  await using lab = new HubLab();
  await lab.startHub([...ADDRESS, "--data-plane", "ipip-fou"]);
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), { file: "address 10.90.0.2\n" });
  await alice.up();
  const stranger = lab.lab.publicHost("stranger");
  const echo = fromHex(
    "4500002400010000400166d60a5a00020a5a0001" + "0800645b77770001494e4a4543544544",
  );
  const hub = parseEndpoint(`${lab.host.ip}:7788`);
  const unreachables = async (host: Host) => {
    const [names, values] = (await run(host, "grep ^Icmp: /proc/net/snmp")).trim().split("\n")
      .map((line) => line.split(" "));
    return Number(values![names!.indexOf("InDestUnreachs")]);
  };
  for (const host of [alice.host, stranger]) {
    const before = await unreachables(host);
    using sender = host.within(() => RawUdpSender.open(9999));
    sender.send(echo, hub);
    sender.send(fromHex("e7677274" + "00".repeat(70)), hub);
    sender.send(text("something else of enough length to be an inner packet"), hub);
    await sleep(500);
    strictEqual(await unreachables(host), before, host.name);
  }
  match(
    await run(lab.host, "nft list table ip gretun-hub-7788"),
    /counter packets 4 bytes \d+ drop/,
  );
  await alice.ping("10.90.0.1");
});

// --- ipipou: a client and a server made of iproute2 and of bytes from its description

const SEED = fromHex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
const PUBLIC = fromHex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
const PKCS8 = fromHex("302e020100300506032b657004220420");

/** 73 bytes: signature, five bytes of time, four of salt. By node's Ed25519, not by ours. */
function ipipouPayload(secret: string): Uint8Array {
  const seconds = Math.floor(Date.now() / 1000);
  const signed = new Uint8Array(9);
  new DataView(signed.buffer).setUint32(1, seconds);
  crypto.getRandomValues(signed.subarray(5));
  const der = concatBytes(PKCS8, SEED);
  // deno-lint-ignore no-explicit-any -- Buffer is not needed for it
  const key = createPrivateKey({ key: der as any, format: "der", type: "pkcs8" });
  const message = concatBytes(signed, new TextEncoder().encode(secret));
  return concatBytes(new Uint8Array(sign(null, message, key)), signed);
}

async function ipipouClient(host: Host, hub: string, number: number): Promise<void> {
  const port = 10_000 + number;
  await run(
    host,
    `ip fou add port ${port} ipproto 4
     ip link add ipipou${number} type ipip remote ${hub} local ${host.ip} ttl inherit encap fou encap-sport ${port} encap-dport 7788
     ip address add 172.28.0.${2 * number + 1} peer 172.28.0.${2 * number} dev ipipou${number}
     ip link set ipipou${number} up`,
  );
}

const text = (value: string) => new TextEncoder().encode(value);
const SCHEMES: [string, (lab: HubLab) => string, () => Uint8Array][] = [
  ["token", () => "auth-token Elephant-of-a-token\n", () => text("Elephant-of-a-token")],
  [
    "key",
    () => `auth-remote-pubkey-b64 ${toBase64(PUBLIC)}\nauth-secret topsecret\n`,
    () => ipipouPayload("topsecret"),
  ],
  ["address, with an empty packet", () => "remote 203.0.113.9\n", () => new Uint8Array()],
];

Deno.test("ipipou: its client's packets are taken, with each scheme, three behind one NAT", async () => {
  await using lab = new HubLab();
  await lab.startHub(["--protocol", "ipipou", "--reply-on-auth-ok", "-v"]);
  strictEqual((await lab.report()).data_plane, "ipip-fou");
  const nat = lab.lab.nat("nat-s");
  const hosts = SCHEMES.map((_, i) => lab.lab.host(`client${i}`, { behind: nat }));
  for (const [i, [name, file, payload]] of SCHEMES.entries()) {
    const number = i + 1;
    const remote = name.startsWith("address") ? `remote ${nat.ip}\n` : file(lab);
    lab.clientFile(
      `client${i}`,
      `${remote}hub-address 172.28.0.${2 * number}\naddress 172.28.0.${2 * number + 1}\n`,
    );
    await until("the file to be read", async () => (await lab.report()).clients.length === number);
    const host = hosts[i]!;
    await ipipouClient(host, lab.host.ip, number);
    // Data before it is authenticated is dropped without a word.
    const peer = `172.28.0.${2 * number}`;
    strictEqual((await host.run("ping", ["-c", "1", "-W", "1", peer])).code, 1);
    using sender = host.within(() => RawUdpSender.open(10_000 + number));
    sender.send(payload(), parseEndpoint(`${lab.host.ip}:7788`));
    await lab.clientUp(`client${i}`);
    await run(host, `ping -n -c 2 -i 0.1 -W 5 -s 1444 -M do ${peer}`);
    await run(lab.host, `ping -n -c 2 -i 0.1 -W 5 172.28.0.${2 * number + 1}`);
  }
  for (const [i, host] of hosts.entries()) {
    await run(host, `ping -n -c 1 -W 5 172.28.0.${2 * i + 2}`);
  }
  const { clients } = await lab.report();
  strictEqual(new Set(clients.map(({ ifname }) => ifname)).size, 3);
  match(await run(lab.host, "ip -o address show dev lo"), /172\.29\.0\.1\/32[^]*172\.29\.0\.2\/32/);

  // A captured packet, from elsewhere: nothing moves.
  const stranger = lab.lab.publicHost("stranger");
  const captured = ipipouPayload("topsecret");
  const { endpoint } = await lab.client("client1");
  using owner = hosts[1]!.within(() => RawUdpSender.open(10_002));
  using thief = stranger.within(() => RawUdpSender.open(10_002));
  owner.send(captured, parseEndpoint(`${lab.host.ip}:7788`));
  await sleep(300);
  thief.send(captured, parseEndpoint(`${lab.host.ip}:7788`));
  await until("it to be refused", async () => ((await lab.report()).refused.replayed ?? 0) >= 1);
  strictEqual((await lab.client("client1")).endpoint, endpoint);
  await run(hosts[1]!, "ping -n -c 1 -W 5 172.28.0.4");
});

Deno.test("ipipou: our spoke's packets are what its server wants", async () => {
  await using lab = new HubLab();
  const nat = lab.lab.nat("nat-a");
  const host = lab.lab.host("alice", { behind: nat });
  // What the server's queue would see: the first packets to its port.
  await using poller = new Poller();
  const seen: { bytes: string; from: string }[] = [];
  using socket = lab.host.within(() =>
    UdpSocket.open({ port: 10_003 }, poller, (bytes, source) => {
      seen.push({ bytes: toHex(bytes), from: toHex(source.subarray(2, 8)) });
    })
  );
  const key = lab.secretFile("alice.key", toBase64(SEED));
  const args = ["--protocol", "ipipou", "--number", "3", "--key-file", key, "--keepalive", "1s"];
  const secret = ["--secret-file", lab.secretFile("secret", "topsecret")];
  lab.hubPort = 10_003;
  const alice = lab.spoke("alice", host, {
    file: "",
    authorised: false,
    scheme: { file: "", args: [...args, ...secret, "--port", "10003"] },
  });
  await until("two packets", async () => seen.length >= 2, () => alice.log);
  socket[Symbol.dispose]();
  const [first, second] = seen.map(({ bytes }) => fromHex(bytes));
  strictEqual(first!.length, 73);
  const verify = await crypto.subtle.importKey("raw", PUBLIC, "Ed25519", false, ["verify"]);
  for (const payload of [first!, second!]) {
    const message = concatBytes(payload.subarray(64), text("topsecret"));
    const signature = payload.slice(0, 64);
    ok(await crypto.subtle.verify("Ed25519", verify, signature, message));
    const seconds = new DataView(payload.buffer, payload.byteOffset).getUint32(65);
    ok(Math.abs(seconds - Date.now() / 1000) < 5);
  }
  ok(toHex(first!.subarray(69)) !== toHex(second!.subarray(69)), "another salt");
  // The server's device towards where the packets came from, as it would make it.
  const port = parseInt(seen[0]!.from.slice(0, 4), 16);
  await run(
    lab.host,
    `ip fou add port 10003 ipproto 4
     ip link add ipipou3 type ipip remote ${nat.ip} local ${lab.host.ip} ttl inherit encap fou encap-sport 10003 encap-dport ${port}
     ip address add 172.28.0.6 peer 172.28.0.7 dev ipipou3; ip link set ipipou3 up`,
  );
  await run(host, "ping -n -c 2 -i 0.2 -W 5 -s 1444 -M do 172.28.0.6");
  await run(lab.host, "ping -n -c 2 -i 0.2 -W 5 172.28.0.7");
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
});
