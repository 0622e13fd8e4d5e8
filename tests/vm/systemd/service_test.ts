/** The service as `gretun install` makes it, under a real systemd, on the kernel plane. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { fileLocks } from "../../../lib/linux/mod.ts";
import { type Host } from "../../lab/mod.ts";
import { Overlay, until } from "../../overlay.ts";
import { Machine } from "../../systemd/machine.ts";

fileLocks().holder("none"); // opens libc outside the tests, which look for leaks

Deno.test("fou: the service is restarted and stopped while data flows", async () => {
  await using overlay = await Overlay.start();
  const { lab } = overlay;
  const bob = overlay.node("bob", lab.nat("nat-b"), ["--data-plane", "fou"]);
  const host = lab.host("alice", { behind: lab.nat("nat-a") });
  await using machine = await Machine.boot(host);
  const before = await machine.traces();
  match(
    await machine.ok("/root/gretun", "install", "--coordinator", overlay.url),
    /gretun\.service runs/,
  );
  await machine.ok("gretun", "wait", "bob");
  match(await machine.ok("gretun", "status"), /^bob .* direct /m);
  const ip = (await bob.directTo(1)).peers[0]!.tunnel_ip;
  const link = await ifindex(host);

  {
    console.log("a restart loses next to nothing");
    const { sent, lost } = await pingsWhile(bob.host, ip, async () => {
      await machine.ok("systemctl", "restart", "gretun");
      await machine.ok("gretun", "wait", "bob");
    });
    console.log(`  ${sent} pings, one each 10 ms: ${lost} lost`);
    ok(sent > 50 && lost <= 20);
    strictEqual(await ifindex(host), link, "the link is adopted, not rebuilt");
  }

  {
    console.log("what is stopped leaves the tunnel, and what starts adopts it");
    const { sent, lost } = await pingsWhile(bob.host, ip, async () => {
      await machine.ok("systemctl", "stop", "gretun");
      strictEqual((await machine.run("gretun", "status")).code, 3);
      await machine.ok("ping", "-c", "20", "-i", "0.1", await bob.tunnelIp());
      await machine.ok("systemctl", "start", "gretun");
      await machine.ok("gretun", "wait", "bob");
    });
    console.log(`  ${sent} pings, one each 10 ms: ${lost} lost`);
    ok(lost <= 20);
    strictEqual(await ifindex(host), link);
  }

  {
    console.log("gretun down removes the tunnel, and it is not started again");
    await machine.ok("gretun", "down");
    await until("the service to be down", async () => {
      const { stdout } = await machine.run("systemctl", "is-active", "gretun");
      return stdout === "inactive\n";
    });
    strictEqual(await ifindex(host), undefined);
    await machine.ok("systemctl", "start", "gretun");
    await machine.ok("gretun", "wait", "bob");
    ok(await ifindex(host) !== undefined);
  }

  {
    console.log("uninstall leaves nothing");
    await machine.ok("/root/gretun", "uninstall");
    await machine.hasOnly(before);
    const { stdout } = await host.run("nft", ["list", "tables"]);
    deepStrictEqual(stdout.match(/gretun.*/g), null);
  }
});

async function ifindex(host: Host): Promise<number | undefined> {
  const { code, stdout } = await host.run("ip", ["-o", "link", "show", "dev", "gretun0"]);
  return code === 0 ? parseInt(stdout) : undefined;
}

/** One each 10 ms. */
async function pingsWhile(
  from: Host,
  to: string,
  what: () => Promise<void>,
): Promise<{ sent: number; lost: number }> {
  const pings = from.spawn("ping", ["-q", "-i", "0.01", to], { stdout: "piped" });
  const said = new Response(pings.stdout).text();
  await what();
  pings.kill("SIGINT");
  await pings.status;
  const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(await said)!;
  return { sent: Number(sent), lost: Number(sent) - Number(received) };
}
