/** A restart of the service on the kernel plane. */
import { ok, strictEqual } from "node:assert/strict";
import { GRETUN, Overlay } from "../../overlay.ts";
import { twoNodes } from "../../up_scenarios.ts";

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
