/** Hub and spokes on the kernel planes: needs a kernel with FOU, GRE and IPIP, see boot.sh. */
import { match, ok, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { concatBytes, fromHex, toBase64, toHex } from "../../../lib/bytes.ts";
import { Poller, RawUdpSender, UdpSocket } from "../../../lib/linux/mod.ts";
import { RtNetlink } from "../../../lib/netlink.ts";
import type { Host } from "../../lab/mod.ts";
import { HubLab } from "../../hub_lab.ts";
import {
  HUB_ADDRESS,
  killBothEnds,
  pingAsAnother,
  pingWithoutDaemons,
  removeLinks,
  revoke,
  roamDuringIperf,
  shell,
  startSpokes,
  stopAll,
  testIpv6Outside,
} from "../../hub_scenarios.ts";
import { IPIPOU_SCHEMES, ipipouClient, ipipouPayload, PUBLIC, SEED } from "../../ipipou_peer.ts";
import { sleep, until } from "../../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

/** Restarts are tested where links need most, roaming with the plane that is used most. */
const PLANES = [["gre-fou", 1464, 5, "roaming"], ["ipip-fou", 1472, 3, "restarts"]] as const;

testIpv6Outside("gre-fou", 1444);

for (const [plane, mtu, count, what] of PLANES) {
  Deno.test(`${plane}: ${count} spokes, three behind one NAT; data without daemons; ${what}`, async () => {
    await using lab = new HubLab();
    await lab.startHub(["--address", HUB_ADDRESS, "--data-plane", plane]);
    const spokes = await startSpokes(lab, count);
    const [ann] = spokes;
    strictEqual((await ann!.report()).mtu, mtu);
    strictEqual((await ann!.report()).data_plane, plane);
    await pingWithoutDaemons(lab, spokes, mtu - 28);
    if (what === "roaming") await roamDuringIperf(lab, spokes[4]!, 2);
    else {
      await pingAsAnother(ann!);
      await killBothEnds(lab, spokes);
      await removeLinks(lab, spokes[1]!);
      await revoke(lab, "ben", ann!);
    }
    await stopAll(lab, spokes);
  });
}

const text = (value: string) => new TextEncoder().encode(value);

Deno.test("fence: no data from a wrong port of a client's address, no ICMP to strangers", async () => {
  await using lab = new HubLab();
  await lab.startHub(["--address", HUB_ADDRESS, "--data-plane", "ipip-fou"]);
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), { file: "address 10.90.0.2\n" });
  await alice.up();
  const stranger = lab.lab.publicHost("stranger");
  const echo = fromHex(
    "4500002400010000400166d60a5a00020a5a0001" + "0800645b77770001494e4a4543544544",
  );
  const hub = parseEndpoint(`${lab.host.ip}:7788`);
  const unreachables = async (host: Host) => {
    const [names, values] = (await shell(host, "grep ^Icmp: /proc/net/snmp")).trim().split("\n")
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
    await shell(lab.host, "nft list table ip gretun-hub-7788"),
    /counter packets 4 bytes \d+ drop/,
  );
  await alice.ping("10.90.0.1");
});

// --- ipipou

Deno.test("ipipou: its client's packets are taken, with each scheme, three behind one NAT", async () => {
  await using lab = new HubLab();
  await lab.startHub(["--protocol", "ipipou", "--reply-on-auth-ok", "-v"]);
  strictEqual((await lab.report()).data_plane, "ipip-fou");
  const nat = lab.lab.nat("nat-s");
  const hosts = IPIPOU_SCHEMES.map((_, i) => lab.lab.host(`client${i}`, { behind: nat }));
  for (const [i, { file, payload }] of IPIPOU_SCHEMES.entries()) {
    const number = i + 1;
    lab.clientFile(
      `client${i}`,
      `${file(nat.ip)}hub-address 172.28.0.${2 * number}\naddress 172.28.0.${2 * number + 1}\n`,
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
    await shell(host, `ping -n -c 2 -i 0.1 -W 5 -s 1444 -M do ${peer}`);
    await shell(lab.host, `ping -n -c 2 -i 0.1 -W 5 172.28.0.${2 * number + 1}`);
  }
  for (const [i, host] of hosts.entries()) {
    await shell(host, `ping -n -c 1 -W 5 172.28.0.${2 * i + 2}`);
  }
  const { clients } = await lab.report();
  strictEqual(new Set(clients.map(({ ifname }) => ifname)).size, 3);
  match(
    await shell(lab.host, "ip -o address show dev lo"),
    /172\.29\.0\.1\/32[^]*172\.29\.0\.2\/32/,
  );

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
  await shell(hosts[1]!, "ping -n -c 1 -W 5 172.28.0.4");
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
  await shell(
    lab.host,
    `ip fou add port 10003 ipproto 4
     ip link add ipipou3 type ipip remote ${nat.ip} local ${lab.host.ip} ttl inherit encap fou encap-sport 10003 encap-dport ${port}
     ip address add 172.28.0.6 peer 172.28.0.7 dev ipipou3; ip link set ipipou3 up`,
  );
  await shell(host, "ping -n -c 2 -i 0.2 -W 5 -s 1444 -M do 172.28.0.6");
  await shell(lab.host, "ping -n -c 2 -i 0.2 -W 5 172.28.0.7");
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
});
