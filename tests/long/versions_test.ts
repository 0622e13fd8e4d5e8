/** Programs of the version before, which tests/version_before.sh has built, meet those of today. */
import { ok, strictEqual } from "node:assert/strict";
import { RtNetlink } from "../../lib/netlink.ts";
import { HubLab } from "../hub_lab.ts";
import { HUB_ADDRESS } from "../hub_scenarios.ts";
import { GRETUN, GRETUN_COORD, Overlay } from "../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const before = (name: string) =>
  new URL(`../../.cache/version-before/${name}`, import.meta.url).pathname;
const PROGRAMS = { today: GRETUN, before: before("gretun") };
const TUN = ["--data-plane", "tun"];

type Version = keyof typeof PROGRAMS;

function join(overlay: Overlay, name: string, version: Version, args: string[] = []): void {
  const host = overlay.lab.host(name, { behind: overlay.lab.nat(`nat-${name[0]}`) });
  overlay.join(host, [...TUN, ...args], PROGRAMS[version]);
}

/** Each reaches each other one, with full packets. */
async function meet(overlay: Overlay): Promise<void> {
  await overlay.allDirect(overlay.nodes.toReversed());
  for (const from of overlay.nodes) {
    for (const to of overlay.nodes) if (from !== to) await from.ping(to, { sizeBytes: 1400 });
  }
  const [ann, , cat] = overlay.nodes;
  await cat!.transfers(ann!);
  strictEqual(await cat!.stop("SIGTERM"), 0, cat!.log);
}

for (const version of ["today", "before"] as const) {
  Deno.test(`nodes of both versions meet at a coordinator of ${version}`, async () => {
    const coordProgram = version === "today" ? GRETUN_COORD : before("gretun-coord");
    await using overlay = await Overlay.start({ coordProgram });
    for (const name of ["ann", "ben"]) join(overlay, name, "before");
    join(overlay, "cat", "today");
    await meet(overlay);
  });
}

Deno.test("members of the version before stay where tokens are needed since, with --allow-v1", async () => {
  await using overlay = await Overlay.start({ keepState: true, coordArgs: ["--allow-v1"] });
  for (const name of ["ann", "ben"]) join(overlay, name, "before");
  await overlay.allDirect();
  const args = [
    "token",
    "create",
    "--approve",
    "--json",
    "--state",
    `${overlay.directory}/coord.db`,
  ];
  const { code, stdout, stderr } = await overlay.coord.run(GRETUN_COORD, args);
  strictEqual(code, 0, stderr);
  join(overlay, "cat", "today", ["--token", JSON.parse(stdout).token]);
  await meet(overlay);
});

for (const [hub, spoke] of [["before", "today"], ["today", "before"]] as const) {
  Deno.test(`a hub of ${hub} and a spoke of ${spoke}`, async () => {
    await using lab = new HubLab();
    const plane = ["--data-plane", "tun"];
    await lab.startHub(["--address", HUB_ADDRESS, ...plane], {}, PROGRAMS[hub]);
    const host = lab.lab.host("alice", { behind: lab.lab.nat("nat-a") });
    const file = "address 10.90.0.2\n";
    const alice = lab.spoke("alice", host, { file, gretun: PROGRAMS[spoke] });
    const { mtu } = await alice.up();
    ok(mtu! >= 1400);
    await alice.ping(HUB_ADDRESS, ["-s", String(mtu! - 28), "-M", "do"]);
    strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  });
}
