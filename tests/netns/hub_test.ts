/** Hub and spokes over TUN, in network namespaces. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import type { Host } from "../lab/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { packet } from "../fakes/packets.ts";
import { HUB_PORT, HubLab } from "../hub_lab.ts";
import {
  crowd,
  floodedHub,
  HUB_ADDRESS,
  isLetIn,
  pingAll,
  removeLinks,
  revoke,
  roamDuringIperf,
  startSpokes,
  testIpv6Outside,
} from "../hub_scenarios.ts";
import { GRETUN, until } from "../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const TUN = ["--data-plane", "tun"];
const HUB_ARGS = [...TUN, "--address", HUB_ADDRESS];

testIpv6Outside("tun", 1420);

Deno.test("tun: a spoke behind a NAT connects, both ends ping, all is removed at the end", async () => {
  await using lab = new HubLab();
  await lab.startHub(HUB_ARGS);
  const host = lab.lab.host("alice", { behind: lab.lab.nat("nat-a") });
  const alice = lab.spoke("alice", host, { file: "address 10.90.0.2\n" });
  const report = await alice.up();
  deepStrictEqual([report.address, report.hub_address, report.mtu], [
    "10.90.0.2",
    "10.90.0.1",
    1440,
  ]);
  strictEqual(report.encrypt, true);
  await alice.ping("10.90.0.1", ["-s", "1412", "-M", "do"]);
  await lab.hub.ping("10.90.0.2");
  const client = await lab.client("alice");
  strictEqual(client.state, "up");
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  deepStrictEqual(await alice.linkNames(), []);
  await until("the hub to hear it", async () => (await lab.client("alice")).state === "down");
  strictEqual(await lab.hub.stop("SIGTERM"), 0, lab.hub.log);
  deepStrictEqual(await lab.hub.linkNames(), []);
});

// --- who is let in

Deno.test("tun: a client is known by its key, IPv6 and multicast pass", () => isLetIn("key", TUN));

Deno.test("tun: a file lets a client in, its removal and SIGHUP end it; others are not disturbed", async () => {
  await using lab = new HubLab();
  await lab.startHub(HUB_ARGS);
  const bob = lab.spoke("bob", lab.lab.publicHost("bob"), { file: "address 10.90.0.3\n" });
  const scheme = lab.keyScheme("alice");
  const host = lab.lab.publicHost("alice");
  const alice = lab.spoke("alice", host, { file: "", scheme, authorised: false });
  await bob.up();
  lab.clientFile("alice", `${scheme.file}address 10.90.0.2\n`);
  await alice.up();
  await alice.ping("10.90.0.1");
  await revoke(lab, "alice", bob);
  strictEqual((await lab.client("bob")).authentications, 1);
});

Deno.test("tun: planes that do not fit are said so on both ends", async () => {
  await using lab = new HubLab();
  await lab.startHub(HUB_ARGS);
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), {
    file: "address 10.90.0.2\n",
    args: ["--data-plane", "gre-fou"],
  });
  strictEqual((await alice.process.status).code, 1, "this kernel has no FOU");
  await alice.ended;
  match(alice.log, /Error: kernel has no module fou/);
});

// --- roaming, restarts

Deno.test("tun: five spokes, three behind one NAT, one roaming every 2 s during iperf3", async () => {
  await using lab = new HubLab();
  await lab.startHub(HUB_ARGS);
  const spokes = await startSpokes(lab, 5);
  await pingAll(lab, spokes, 1412);
  const authentications = async () => {
    const reports = await Promise.all(spokes.slice(0, 4).map((spoke) => spoke.report()));
    return reports.map((report) => report.authentications);
  };
  const before = await authentications();
  await roamDuringIperf(lab, spokes[4]!, 5);
  deepStrictEqual(await authentications(), before, "the others are not disturbed");
});

Deno.test("tun: kill -9 of the hub: spokes are back by themselves", async () => {
  await using lab = new HubLab();
  await lab.startHub([...HUB_ARGS, "--", "sleep", "1000"]);
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), { file: "address 10.90.0.2\n" });
  await alice.up();
  const pid = (await lab.client("alice")).pid!;
  await lab.hub.stop("SIGKILL");
  const pings = alice.host.spawn("ping", ["-n", "-i", "0.2", "10.90.0.1"]);
  lab.hub.start();
  await lab.hubReady();
  const before = performance.now();
  await lab.clientUp("alice");
  console.log(`after kill -9 of the hub: ${Math.round(performance.now() - before)} ms`);
  await alice.ping("10.90.0.1");
  pings.kill();
  const { stdout } = await lab.host.run("ps", ["-o", "args=", "-p", String(pid)]);
  ok(/^(\[sleep\] <defunct>)?\s*$/.test(stdout), `the killed hub's program is there: ${stdout}`);
  ok((await lab.client("alice")).pid !== undefined);
});

Deno.test("tun: a link that somebody removes comes back, on either end", async () => {
  await using lab = new HubLab();
  await lab.startHub(HUB_ARGS);
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), { file: "address 10.90.0.2\n" });
  await alice.up();
  await removeLinks(lab, alice);
  strictEqual((await alice.report()).authentications, 1);
});

// --- programs

Deno.test("programs: run with the link, told about it, ended with all their children", async () => {
  await using lab = new HubLab();
  const out = `${lab.directory}/out`;
  const script =
    `echo "$TUN_DEV_NAME $TUN_CLIENT_ID $GRETUN_PEER_IP $GRETUN_MTU $GRETUN_TOKEN" >> ${out}
    trap 'echo ended >> ${out}' TERM; sleep 1000 & wait`;
  const hooks = ["--on-up", `echo up $GRETUN_CLIENT >> ${out}`, "--on-down", `echo down >> ${out}`];
  await lab.startHub([...HUB_ARGS, ...hooks, "--", "sh", "-c", script], { GRETUN_TOKEN: "secret" });
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), { file: "address 10.90.0.2\n" });
  await alice.up();
  const { pid } = await until("the program", async () => {
    const client = await lab.client("alice");
    return client.pid !== undefined && client;
  });
  const lines = () => Deno.readTextFileSync(out).trim().split(/ *\n/);
  await until("both to write", async () => {
    try {
      return lines().length === 2;
    } catch {
      return false;
    }
  });
  deepStrictEqual(lines().sort(), ["hub0 616c696365 10.90.0.2 1440", "up alice"]);
  lab.removeClient("alice");
  await until("the program to end", async () => lines().length === 4, () => lab.hub.log);
  deepStrictEqual(lines().slice(2).sort(), ["down", "ended"]);
  await until("its children to end", async () => {
    const { stdout } = await lab.host.run("ps", ["-e", "-o", "pgid=,args="]);
    return !stdout.split("\n").some((line) => line.trim().startsWith(`${pid} `));
  });
  match(lab.hub.log, /msg="program ended"/);
});

Deno.test("status, metrics, SIGUSR1 and --reauth-only, a configuration file", async () => {
  await using lab = new HubLab();
  const config = lab.secretFile("hub.conf", "address 10.90.0.1\ndata-plane = tun\nencrypt off\n");
  await lab.startHub(["--config", config, "--metrics-addr", "127.0.0.1:9100"]);
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), {
    file: "address 10.90.0.2\nroutes 192.168.7.0/24\n",
    args: ["--encrypt", "off", "--route", "10.91.0.0/16"],
  });
  strictEqual((await alice.up()).encrypt, false);
  match(alice.log, /data is authenticated and NOT encrypted/);
  await alice.ping("10.90.0.1");
  match((await lab.host.run("ip", ["route", "show", "192.168.7.0/24"])).stdout, /dev hub0/);
  match((await alice.host.run("ip", ["route", "show", "10.91.0.0/16"])).stdout, /dev spoke0/);

  const authentications = async (n: number) =>
    await until(
      `${n} authentications`,
      async () => (await lab.client("alice")).authentications === n,
    );
  alice.process.kill("SIGUSR1");
  await authentications(2);
  const reauth = ["spoke", "--reauth-only", "--hub", lab.host.ip];
  const state = ["--state-dir", `${lab.directory}/alice`];
  const asked = await alice.host.run(GRETUN, [...reauth, ...state]);
  strictEqual(asked.code, 0, asked.stderr);
  await authentications(3);
  strictEqual((await alice.host.run(GRETUN, [...reauth, "--state-dir", "/nonexistent"])).code, 3);

  const status = ["hub", "status", "--state-dir", `${lab.directory}/hub`];
  const { stdout } = await lab.host.run(GRETUN, status);
  match(
    stdout,
    /^CLIENT +STATE +ENDPOINT.*\nalice +up +203\.0\.113\.3:7788 +10\.90\.0\.2 +hub0 +1440 /,
  );
  const json = JSON.parse((await lab.host.run(GRETUN, [...status, "--json"])).stdout);
  strictEqual(json.clients[0].name, "alice");
  match(stdout, /\nPort 7788, protocol gretun, data plane tun, public key \S{44}\.\n$/);
  const spokeStatus = await alice.host.run(GRETUN, ["spoke", "status", ...state]);
  match(spokeStatus.stdout, /^up: hub 203\.0\.113\.2:7788, .*\nlink spoke0, MTU 1440\n/s);
  const metrics = (await lab.host.run("curl", ["-s", "http://127.0.0.1:9100/metrics"])).stdout;
  match(metrics, /^gretun_hub_clients\{state="up"\} 1$/m);
  match(metrics, /^gretun_hub_authentications_total 3$/m);
  match(metrics, /^gretun_hub_refused_packets_total\{reason="bad-mac"\} 0$/m);

  // A link that somebody removes is made again; a second hub on the port is told.
  await lab.host.run("ip", ["link", "delete", "hub0"]);
  await until("the link", async () => (await lab.hub.linkNames()).length === 1);
  await alice.ping("10.90.0.1");
  const second = await lab.host.run(GRETUN, ["hub", "--clients", lab.clientsDir]);
  strictEqual(second.code, 1);
  match(second.stderr, /^Error: another gretun hub \(pid \d+\) uses port 7788\./);
});

Deno.test("SIGHUP: what can change does, nobody is disconnected; wrong files change nothing", async () => {
  await using lab = new HubLab();
  const config = lab.secretFile("hub.conf", "");
  const write = (lines: string) =>
    lab.secretFile("hub.conf", `address ${HUB_ADDRESS}\ndata-plane tun\n${lines}`);
  write("keepalive 1s\n");
  await lab.startHub(["--config", config]);
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), { file: "address 10.90.0.2\n" });
  await alice.up();
  const pings = alice.host.spawn("ping", ["-n", "-i", "0.05", "-W", "5", HUB_ADDRESS], {
    stdout: "piped",
  });
  const reread = async (lines: string, expected: RegExp) => {
    write(lines);
    const before = lab.hub.log.length;
    lab.hub.process.kill("SIGHUP");
    await until("the configuration to be read", () => {
      return Promise.resolve(/msg"?[=:]"configuration /.test(lab.hub.log.slice(before)));
    }, () => lab.hub.log);
    match(lab.hub.log.slice(before), expected);
  };
  const out = `${lab.directory}/out`;
  const good = `keepalive 2s\nidle 5s\nencrypt off\nverbose\nmetrics-addr 127.0.0.1:9100\n` +
    `program sleep 1000\non-up echo $GRETUN_CLIENT >> ${out}\n`;
  await reread(
    good,
    /"configuration read again" changed=keepalive,idle,encrypt,program,on-up,metrics-addr,verbose\n/,
  );
  // At its next keepalive the client is told.
  await until("a new session", async () => (await lab.client("alice")).authentications === 2);
  await reread(good, /changed=nothing/);
  await reread(`${good}log-format json\n`, /"configuration read again","changed":"log-format"}/);
  await reread(good, /"configuration read again" changed=log-format\n/);
  await reread(
    `${good}port 7799\nmtu 1400\n`,
    /error="port, mtu cannot change while the hub runs" hint="Restart the hub/,
  );
  await reread(`${good}prot 7799\n`, /level=error .*hub.conf:10: unknown key prot/);
  Deno.removeSync(config);
  lab.hub.process.kill("SIGHUP");
  await until("it to be missed", () => Promise.resolve(/cannot read .*hub.conf/.test(lab.hub.log)));
  const metrics = await lab.host.run("curl", ["-s", "http://127.0.0.1:9100/metrics"]);
  match(metrics.stdout, /^gretun_hub_clients\{state="up"\} 1$/m);
  strictEqual((await lab.client("alice")).state, "up");
  pings.kill("SIGINT");
  const { stdout } = await pings.output();
  const answered = [...new TextDecoder().decode(stdout).matchAll(/icmp_seq=(\d+) /g)];
  // The last one may still be on its way.
  deepStrictEqual(answered.map(([, seq]) => Number(seq)), answered.map((_, i) => i + 1));
  ok(answered.length > 10, `${answered.length} answers`);
});

Deno.test("OSPF and its multicast pass: bird on both ends learns what is behind the other", async () => {
  await using lab = new HubLab();
  await lab.startHub(HUB_ARGS);
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), {
    file: "address 10.90.0.2\nsources 10.77.0.0/16\n",
  });
  await alice.up();
  const bird = async (host: Host, id: string, ifname: string, network: string) => {
    await host.run("ip", ["address", "add", network, "dev", "lo"]);
    const config = `router id ${id};
      protocol device {}
      protocol kernel { ipv4 { export all; }; }
      protocol ospf v2 { ipv4 { import all; export none; };
        area 0 { interface "${ifname}" { type ptp; hello 1; }; interface "lo" { stub; }; }; }`;
    const path = lab.secretFile(`${host.name}.bird`, config);
    host.spawn("bird", ["-f", "-c", path, "-s", `${lab.directory}/${host.name}.ctl`]);
  };
  await bird(lab.host, "10.90.0.1", "hub0", "10.78.0.1/24");
  await bird(alice.host, "10.90.0.2", "spoke0", "10.77.0.1/24");
  await until("the hub to learn the route", async () => {
    const { stdout } = await lab.host.run("ip", ["route", "show", "proto", "bird"]);
    return /10\.77\.0\..* dev hub0/.test(stdout);
  });
  await until("alice to learn the route", async () => {
    const { stdout } = await alice.host.run("ip", ["route", "show", "proto", "bird"]);
    return /10\.78\.0\..* dev spoke0/.test(stdout);
  });
  await lab.hub.ping("10.77.0.1", ["-I", "10.78.0.1"]);
});

// --- others' protocols

Deno.test("jtunnel: the program gets device and identifier, IPv6 and multicast pass", async () => {
  await using lab = new HubLab();
  const id = "0123456789abcdef";
  lab.clientFile(id.toUpperCase(), "");
  const out = `${lab.directory}/out`;
  const setUp = (host: string, own: string, peer: string) =>
    `ip address add ${own} peer ${peer} dev $TUN_DEV_NAME; ip -6 address add fd00::${host}/64 dev $TUN_DEV_NAME nodad
     ip link set $TUN_DEV_NAME up; echo "$TUN_DEV_NAME $TUN_CLIENT_ID $GRETUN_MTU" >> ${out}`;
  await lab.startHub([
    ...["--protocol", "jtunnel", "-b", lab.host.ip, "-p", "7788", "-i", "fedcba9876543210"],
    ...["--", "sh", "-c", setUp("1", "10.5.0.1", "10.5.0.2")],
  ]);
  const host = lab.lab.host("alice", { behind: lab.lab.nat("nat-a") });
  const alice = lab.spoke("alice", host, {
    file: "",
    authorised: false,
    scheme: {
      file: "",
      args: ["--protocol", "jtunnel", "-i", id, "--hub-id", "FEDCBA9876543210"],
    },
    args: ["--", "sh", "-c", setUp("2", "10.5.0.2", "10.5.0.1")],
  });
  await until("both programs", async () => {
    try {
      return Deno.readTextFileSync(out).trim().split("\n").length === 2;
    } catch {
      return false;
    }
  }, () => lab.hub.log + alice.log);
  ok(Deno.readTextFileSync(out).includes(`hub0 ${id} 1464`));
  await alice.ping("10.5.0.1", ["-s", "1436", "-M", "do"]);
  await lab.hub.ping("10.5.0.2");
  await alice.ping("fd00::1");
  const { ifname } = await alice.report();
  // All hosts on the link answer: multicast goes both ways, as OSPF needs it.
  await alice.ping(`ff02::1%${ifname}`);
  match(lab.hub.log, /whoever hears an identifier once can be that client/);

  // Of another server, nothing is taken.
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  const wary = lab.spoke("alice", host, {
    file: "",
    authorised: false,
    scheme: {
      file: "",
      args: ["--protocol", "jtunnel", "-i", id, "--hub-id", "0000000000000001"],
    },
    args: ["--", "sh", "-c", setUp("2", "10.5.0.2", "10.5.0.1")],
  });
  await until("packets of another server", async () => {
    await lab.host.run("ping", ["-n", "-c", "1", "-W", "1", "10.5.0.2"]);
    return ((await wary.report().catch(() => undefined))?.refused["unknown-client"] ?? 0) >= 1;
  });
});

Deno.test("ipipou over TUN: a client that is known by its key and a secret", async () => {
  await using lab = new HubLab();
  await lab.startHub(["--protocol", "ipipou", "--data-plane", "tun", "--reply-on-auth-ok", "-v"]);
  const { file, args } = lab.keyScheme("alice");
  const secret = ["--secret-file", lab.secretFile("s", "topsecret")];
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), {
    file: "hub-address 172.28.0.6\naddress 172.28.0.7\n",
    scheme: {
      file: `${file}secret topsecret\n`,
      args: [...args.slice(0, 2), ...secret, "--protocol", "ipipou", "--number", "3"],
    },
    args: ["--port", "10003", "--keepalive", "1s", "-v"],
  });
  await lab.clientUp("alice");
  strictEqual((await alice.up()).mtu, 1472);
  await alice.ping("172.28.0.6", ["-s", "1444", "-M", "do"]);
  await lab.hub.ping("172.28.0.7");
  await until("the reply", () => Promise.resolve(alice.log.includes("hub replied")));
});

Deno.test("ipipou over TUN: data shows that a client is there, and a stranger's is refused", async () => {
  await using lab = new HubLab();
  await lab.startHub(["--protocol", "ipipou", "--data-plane", "tun"]);
  const { file, args } = lab.keyScheme("alice");
  const alice = lab.spoke("alice", lab.lab.publicHost("alice"), {
    file: "hub-address 172.28.0.6\naddress 172.28.0.7\n",
    scheme: { file, args: [...args.slice(0, 2), "--protocol", "ipipou", "--number", "3"] },
    args: ["--port", "10003", "--keepalive", "1h"],
  });
  await lab.clientUp("alice");
  const heardS = async () => (await lab.client("alice")).heard_s!;
  await until("a silent client", async () => await heardS() >= 1);
  const silentS = await heardS();
  await until("its data to be noticed", async () => {
    await alice.ping("172.28.0.6");
    return await heardS() < silentS;
  });

  const stranger = alice.host.within(() =>
    Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 })
  );
  using stack = new DisposableStack();
  stack.defer(() => stranger.close());
  await until("a stranger's packet to be counted", async () => {
    const to = { transport: "udp", hostname: lab.hub.host.ip, port: HUB_PORT } as const;
    await stranger.send(packet("172.28.0.7", "172.28.0.6"), to);
    return (await lab.report()).refused["wrong-address"]! > 0;
  });
});

// --- many, and hostile

Deno.test("200 clients come up in one hub, with their programs", () => crowd(TUN, 200));

Deno.test("50,000 bad authentication packets a second: other clients' traffic goes on", () =>
  floodedHub(TUN, { maxShare: 0.9 }));
