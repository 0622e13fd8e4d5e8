/** Hub and spokes on both kernel planes, all of it: needs a kernel with FOU, GRE and IPIP, see boot.sh. */
import { match, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { type Host, SYMMETRIC } from "../../lab/mod.ts";
import { RawUdpSender } from "../../../lib/linux/mod.ts";
import { RtNetlink } from "../../../lib/netlink.ts";
import { HUB_PORT, HubLab } from "../../hub_lab.ts";
import {
  crowd,
  floodedHub,
  HUB_ADDRESS,
  isLetIn,
  killBothEnds,
  pingAsAnother,
  pingWithoutDaemons,
  revoke,
  roamDuringIperf,
  SCHEMES,
  shell,
  startSpokes,
  stopAll,
} from "../../hub_scenarios.ts";
import { IPIPOU_SCHEMES, ipipouClient, type IpipouScheme } from "../../ipipou_peer.ts";
import { until } from "../../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

// Times and shares of a CPU are those of a machine that is emulated.
for (const [plane, mtu] of [["gre-fou", 1464], ["ipip-fou", 1472]] as const) {
  const args = ["--data-plane", plane];

  Deno.test(`${plane}: five spokes, three behind one NAT, one roams during iperf3; either end is killed; revocation`, async () => {
    await using lab = new HubLab();
    await lab.startHub([...args, "--address", HUB_ADDRESS]);
    const spokes = await startSpokes(lab, 5);
    await pingWithoutDaemons(lab, spokes, mtu - 28);
    await pingAsAnother(spokes[0]!);
    await roamDuringIperf(lab, spokes[4]!, 5);
    await killBothEnds(lab, spokes);
    await revoke(lab, "ben", spokes[0]!);
    await stopAll(lab, spokes);
  });

  for (const scheme of Object.keys(SCHEMES)) {
    Deno.test(`${plane}: a client is known by ${scheme}`, () => isLetIn(scheme, args));
  }

  Deno.test(`${plane}: 200 clients come up with their programs`, () => crowd(args, 200));

  Deno.test(`${plane}: a flood of bad authentication packets: other clients' traffic goes on`, () =>
    floodedHub(args, { maxShare: 1.1 }));
}

// --- ipipou's crash: after a kill of its server the first authentication fails

for (const scheme of IPIPOU_SCHEMES) {
  Deno.test(`ipipou: ${scheme.name}: the first authentication after kill -9 of the hub is taken, from the old place and from another`, async () => {
    await using lab = new HubLab();
    await lab.startHub(["--protocol", "ipipou", "--data-plane", "ipip-fou"]);
    const nat = lab.lab.nat("nat-a");
    const host = lab.lab.host("client", { behind: nat });
    lab.clientFile(
      "client",
      `${scheme.file(nat.ip)}hub-address 172.28.0.2\naddress 172.28.0.3\n`,
    );
    await until("the file to be read", async () => (await lab.report()).clients.length === 1);
    await ipipouClient(host, lab.host.ip, 1);
    await authenticate(lab, host, scheme, 1);

    await lab.hub.stop("SIGKILL");
    await shell(host, "ping -n -c 1 -W 5 172.28.0.2"); // the kernel goes on
    lab.hub.start();
    await lab.hubReady();
    match(lab.hub.log, /link adopted/);
    await authenticate(lab, host, scheme, 1);

    // Another mapping of the NAT while it is dead, and the old one again: ipipou is deaf on return.
    const home = (await lab.client("client")).endpoint;
    for (const behaviour of [SYMMETRIC, {}]) {
      await lab.hub.stop("SIGKILL");
      nat.restart(behaviour);
      lab.hub.start();
      await lab.hubReady();
      await authenticate(lab, host, scheme, 1);
      const { endpoint } = await lab.client("client");
      strictEqual(endpoint === home, behaviour !== SYMMETRIC, endpoint);
    }
    strictEqual(await lab.hub.stop("SIGTERM"), 0, lab.hub.log);
  });
}

/** One packet, as its client sends it, and the tunnel works. */
async function authenticate(lab: HubLab, host: Host, scheme: IpipouScheme, count: number) {
  using sender = host.within(() => RawUdpSender.open(10_001));
  sender.send(scheme.payload(), parseEndpoint(`${lab.host.ip}:${HUB_PORT}`));
  await until("it to be taken", async () => (await lab.client("client")).authentications === count);
  await shell(host, "ping -n -c 2 -i 0.2 -W 5 172.28.0.2");
  await shell(lab.host, "ping -n -c 2 -i 0.2 -W 5 172.28.0.3");
}
