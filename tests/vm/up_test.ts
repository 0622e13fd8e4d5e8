/** `gretun up` on the kernel plane: needs a kernel with FOU and GRE, see boot.sh. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { GRETUN, Overlay } from "../overlay.ts";
import { testMeeting, testTrust, twoNodes } from "../up_scenarios.ts";

testMeeting("fou");
testTrust("fou");

for (const planes of [["fou", "tun"], ["tun", "fou"]] as const) {
  Deno.test(`${planes.join(" and ")}: a kernel and a user-space node talk`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = await twoNodes(overlay, planes);
    deepStrictEqual([(await alice.report()).data_plane, (await bob.report()).data_plane], planes);
    await alice.ping(bob, { sizeBytes: 1400 });
    await bob.ping(alice, { sizeBytes: 1464 - 28 });
  });
}

Deno.test("fou: packets go through the GRE links while both daemons are stopped", async () => {
  await using overlay = await Overlay.start();
  const [alice, bob] = await twoNodes(overlay, ["fou", "fou"]);
  const before = await alice.linkCounters();
  const ip = await alice.tunnelIp();
  for (const node of [alice, bob]) node.process.kill("SIGSTOP");
  const { code, stdout } = await bob.host
    .run("ping", ["-c", "20", "-i", "0.05", "-s", "1400", "-M", "do", ip]);
  strictEqual(code, 0, stdout);
  const after = await alice.linkCounters();
  for (const node of [alice, bob]) node.process.kill("SIGCONT");
  strictEqual(after[0]!.kind, "gre");
  ok(after[0]!.rxPackets >= before[0]!.rxPackets + 20, JSON.stringify({ before, after }));
  ok(after[0]!.txPackets >= before[0]!.txPackets + 20, JSON.stringify({ before, after }));
});

Deno.test("fou: SIGTERM removes links and the FOU port, SIGKILL leaves data flowing", async () => {
  await using overlay = await Overlay.start();
  // Without %d there is no other name to try this kernel with.
  const args = ["--iface", "overlay0"];
  const [alice, bob] = await twoNodes(overlay, ["fou", "fou"], args);
  const ports = async () => (await alice.host.run("ip", ["fou", "show"])).stdout.trim();
  match(await ports(), /^port 7777 ipproto 47$/m);
  const ip = await bob.tunnelIp();
  const ifindex = await alice.ifindex("overlay0");
  await alice.stop("SIGKILL");
  strictEqual((await alice.host.run("ping", ["-c", "3", "-i", "0.1", ip])).code, 0);
  alice.start();
  await alice.directTo(1);
  strictEqual(await alice.ifindex("overlay0"), ifindex, "the link is adopted, not rebuilt");
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  strictEqual(await ports(), "");
  deepStrictEqual(await alice.linkNames(), ["eth0"]);
});

const NOBODY = 65534;
/** As the service's unit has it. */
const SERVICE_USER = [
  ...["setpriv", "--reuid", `${NOBODY}`, "--regid", `${NOBODY}`, "--clear-groups"],
  ...["--inh-caps", "-all,+net_admin,+net_raw", "--ambient-caps", "-all,+net_admin,+net_raw"],
  ...["--bounding-set", "-all,+net_admin,+net_raw", "--no-new-privs"],
];

Deno.test("fou: the service's restart, with another program, loses next to no packets", async () => {
  await using overlay = await Overlay.start();
  const [alice, bob] = await twoNodes(overlay, ["fou", "fou"], ["--keep-links"]);
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  const newer = `${overlay.directory}/gretun-newer`;
  await Deno.copyFile(GRETUN, newer);
  await Deno.chmod(overlay.directory, 0o755);
  for (const { name } of [...Deno.readDirSync(alice.stateDir), { name: "" }]) {
    await Deno.chown(`${alice.stateDir}/${name}`, NOBODY, NOBODY);
  }
  alice.program = [...SERVICE_USER, GRETUN];
  alice.start();
  await alice.directTo(1);
  const ifindex = await alice.ifindex("gretun0");
  const ip = await alice.tunnelIp();
  const pings = bob.host.spawn("ping", ["-q", "-i", "0.01", ip], { stdout: "piped" });
  const said = new Response(pings.stdout).text();
  await bob.ping(alice);
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  alice.program = [...SERVICE_USER, newer];
  alice.start();
  await alice.directTo(1);
  await bob.ping(alice);
  pings.kill("SIGINT");
  await pings.status;
  const summary = await said;
  const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(summary)!;
  const lost = Number(sent) - Number(received);
  console.log(`  ${sent} pings, one each 10 ms: ${lost} lost`);
  ok(Number(sent) > 100 && lost <= 20, summary);
  strictEqual(await alice.ifindex("gretun0"), ifindex, "the link is adopted, not rebuilt");
});
