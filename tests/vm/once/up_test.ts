/** What lasts too long to be tried on every kernel. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { GRETUN, Overlay, until } from "../../overlay.ts";
import { testOverlays, twoNodes } from "../../up_scenarios.ts";

testOverlays("fou");

Deno.test("auto: the kernel plane is chosen; links of peers that are gone are removed at the next start", async () => {
  await using overlay = await Overlay.start();
  const [alice, bob] = await twoNodes(overlay, ["auto", "auto"]);
  for (const node of [alice, bob]) strictEqual((await node.report()).data_plane, "fou");
  await alice.stop("SIGKILL");
  strictEqual(await bob.stop("SIGTERM"), 0, bob.log);
  alice.start();
  const onlyEth0 = async () => (await alice.linkNames()).join() === "eth0";
  await until("bob's link to go", onlyEth0, () => alice.log);
});

Deno.test("fou: tunnels of gretun create share the FOU port, whoever ends first", async () => {
  await using overlay = await Overlay.start();
  const [alice, bob] = await twoNodes(overlay, ["fou", "fou"]);
  const { host } = alice;
  const port = async () =>
    /^port 7777 ipproto 47$/m.test((await host.run("ip", ["fou", "show"])).stdout);
  const gretun = async (...args: string[]) => {
    const { code, stderr } = await host.run(GRETUN, args);
    strictEqual(code, 0, stderr);
  };
  const ends = ["--local", host.ip, "--remote", "203.0.113.99"];
  const create = () =>
    gretun("create", "--name", "t0", ...ends, "--encap", "fou", "--encap-dport", "7777");
  await create();
  await gretun("delete", "--name", "t0");
  await alice.ping(bob);
  await create();
  strictEqual(await alice.stop("SIGTERM"), 0, alice.log);
  deepStrictEqual(await alice.linkNames(), ["eth0", "t0"]);
  strictEqual(await port(), true);
  await gretun("delete", "--name", "t0");
  strictEqual(await port(), false);
});

Deno.test("fou: another program's FOU port is not touched", async () => {
  await using overlay = await Overlay.start();
  const host = overlay.lab.host("alice", { behind: overlay.lab.nat("nat-a") });
  strictEqual((await host.run("ip", ["fou", "add", "port", "7777", "ipproto", "4"])).code, 0);
  const args = ["up", "--coordinator", overlay.url, "--state-dir", `${overlay.directory}/a`];
  const { code, stderr } = await host.run(GRETUN, args);
  strictEqual(code, 1, stderr);
  ok(/^Error: cannot open UDP port 7777: another FOU port has it\..*\n$/.test(stderr), stderr);
  strictEqual((await host.run("ip", ["fou", "show"])).stdout.trim(), "port 7777 ipproto 4");
});

Deno.test("fou: up and hub on one port: the second is refused by name, the port stays the first's", async () => {
  await using overlay = await Overlay.start();
  const [alice, bob] = await twoNodes(overlay, ["fou", "fou"]);
  const { host } = alice;
  const dir = `${overlay.directory}/hub`;
  await Deno.mkdir(`${dir}/clients`, { recursive: true });
  strictEqual((await host.run(GRETUN, ["hub", "keygen", "--out", `${dir}/key`])).code, 0);
  const clients = ["--clients", `${dir}/clients`, "--key-file", `${dir}/key`];
  const hub = ["hub", ...clients, "--address", "10.90.0.1", "--data-plane", "gre-fou"];
  const { code, stderr } = await host.run(GRETUN, [...hub, "--port", "7777", "--state-dir", dir]);
  strictEqual(code, 1, stderr);
  ok(stderr.includes(`a running gretun up (pid ${alice.process.pid}) uses port 7777.`), stderr);
  for (const args of [["--name", "gretun0"], ["--all", "--yes"]]) {
    const { stderr } = await host.run(GRETUN, ["delete", ...args]);
    ok(stderr.includes(`belongs to gretun up (pid ${alice.process.pid})`), stderr);
  }
  await alice.ping(bob);
  const { stdout } = await host.run("ip", ["fou", "show"]);
  ok(/^port 7777 ipproto 47$/m.test(stdout), stdout);
});
