/** What comes after the first minute, under a real systemd: restart, reboot, who may look, removal. */
import { match, ok, strictEqual } from "node:assert/strict";
import { Lab } from "../lab/mod.ts";
import { fileLocks } from "../../lib/linux/mod.ts";
import { GRETUN, until } from "../overlay.ts";
import { Machine } from "./machine.ts";

fileLocks().holder("none"); // opens libc outside the tests, which look for leaks

const PREFIX = `gretun-systemd-${Deno.pid}-`;
const README = new URL("../../README.md", import.meta.url);
const COORD_SOCKET = "/var/lib/gretun-coord/coord.sock";
const GROUP_MEMBER = ["setpriv", "--reuid", "4711", "--regid", "4711", "--groups"];

Deno.test("services are installed, restarted, rebooted, looked at by a group, and removed", async () => {
  const stateDir = await Deno.makeTempDir({ prefix: "gretun-systemd-" });
  using _stateDir = { [Symbol.dispose]: () => Deno.removeSync(stateDir, { recursive: true }) };
  await using lab = Lab.create({ prefix: PREFIX });
  const [here, there] = [lab.publicHost("machine"), lab.publicHost("bob")];
  await using machine = await Machine.boot(here);
  const before = await machine.traces();
  const url = `http://${here.ip}:8443`;
  const tokenFile = `${stateDir}/token`;
  const bob = ["up", "--coordinator", url, "--state-dir", stateDir, "--node-name", "bob"];
  bob.push("--token-file", tokenFile);

  {
    console.log("what README says, by hand, then as services");
    const [coord, token, up, status] = commandsOf("Connect two hosts", here.ip);
    const [installCoord, install] = commandsOf("Make it survive a reboot", here.ip);
    const type = (command: string) =>
      machine.ok("sh", "-c", `umask 077; cd /root; PATH=$PATH:/root; ${command}`);
    await type(`${coord} >/dev/null 2>&1 & echo $! >coord.pid`);
    await until("the coordinator", async () => (await machine.run("ls", COORD_SOCKET)).code === 0);
    await type(`${token} >token`);
    await type(`${up} >/dev/null 2>&1 & echo $! >up.pid`);
    await type("gretun wait");
    match(await type(status!), /^No peers\.$/m);
    // Root's own daemon that runs on while the service comes; its last words are the service's files.
    const early = await machine.run(
      "sh",
      "-c",
      `umask 077; cd /root; ./${install!.replace(/^sudo /, "")}`,
    );
    match(early.stderr, /another gretun up \(pid \d+\) uses port 7777/);
    await type("kill $(cat up.pid coord.pid)");
    await until(
      "them to end",
      async () =>
        (await machine.run(
          "sh",
          "-c",
          "kill -0 $(cat /root/up.pid) || kill -0 $(cat /root/coord.pid)",
        ))
          .code !== 0,
    );
    match(await type(installCoord!.replace(/^sudo /, "")), /gretun-coord\.service runs/);
    match(await type(install!.replace(/^sudo /, "")), /gretun\.service runs/);
    await Deno.writeTextFile(tokenFile, await type("cat token"), { mode: 0o600 });
    for (const unit of ["gretun", "gretun-coord"]) {
      match(await machine.ok("systemctl", "show", "-P", "StatusText", unit), /./);
    }
    there.spawn(GRETUN, bob);
    await machine.ok("gretun", "wait", "bob");
    match(await machine.ok("gretun", "status"), /^bob .* direct /m);
    await machine.ok("ping", "-c", "1", await addressOf(machine, "bob"));
  }

  {
    console.log("the commands that README has to look with");
    for (const command of commandsToLook(url)) await machine.ok("sh", "-c", command);
    match(await machine.ok("sh", "-c", "gretun man"), /^\.TH GRETUN 1 /m);
  }

  {
    console.log("hub and spoke are services too");
    const keygen = async () => (await machine.ok("gretun", "hub", "keygen")).split("\n");
    const [[hubKey, hubPublic], [spokeKey, spokePublic]] = [await keygen(), await keygen()];
    const hub = ["port 7799", "clients /etc/gretun/clients", "address 10.90.0.1", hubKey];
    const spoke = [
      "hub 127.0.0.1:7799",
      "port 7800",
      "name carol",
      hubPublic!.replace("public", "hub"),
      spokeKey,
    ];
    await write(machine, "hub-x.conf", hub);
    await write(machine, "clients/carol", [spokePublic, "address 10.90.0.2"]);
    await write(machine, "spoke-x.conf", spoke);
    await machine.ok("systemctl", "start", "gretun-hub@x", "gretun-spoke@x");
    await until("the spoke to be connected", async () => {
      const { stdout } = await machine.run("gretun", "hub", "status", "--port", "7799");
      return /^carol +up /m.test(stdout);
    });
    match(await machine.ok("gretun", "spoke", "status", "--port", "7800"), /^up: /);
    await write(machine, "hub-x.conf", [...hub, "keepalive 20s"]);
    await machine.ok("systemctl", "reload", "gretun-hub@x", "gretun-spoke@x");
    await until("the hub to read its configuration", async () => {
      const { stdout } = await machine.run("journalctl", "-u", "gretun-hub@x", "-o", "cat");
      return stdout.includes("changed=keepalive");
    });
    await machine.ok("systemctl", "stop", "gretun-hub@x", "gretun-spoke@x");
  }

  {
    console.log("members of the group may look, and others are told of it");
    const stranger = await machine.run(...GROUP_MEMBER, "4711", "gretun", "status");
    strictEqual(stranger.code, 1);
    match(stranger.stderr, /permission denied\. Add yourself to group gretun/);
    const gid = (await machine.ok("getent", "group", "gretun")).split(":")[2]!;
    const asMember = (command: string) => machine.run(...GROUP_MEMBER, gid, "gretun", command);
    match((await asMember("status")).stdout, /^bob .* direct /m);
    match((await asMember("down")).stderr, /only the user that runs the daemon may end it/);
  }

  {
    console.log("root's own programs see what the service has");
    const own = ["--coordinator", url, "--state-dir", "/root/state"];
    const { code, stderr } = await machine.run("gretun", "up", ...own);
    strictEqual(code, 1);
    match(stderr, /another gretun up \(pid \d+\) uses port 7777/);
  }

  {
    console.log("a restart is a short interruption");
    const address = await addressOf(machine, "bob");
    const own = (await machine.ok("gretun", "status", "--json")).match(
      /"tunnel_ip": "([^/"]+)/,
    )![1]!;
    // -D: the time of each answer.
    const pings = there.spawn("ping", ["-D", "-i", "0.01", own], { stdout: "piped" });
    const answers = new Response(pings.stdout).text();
    await machine.ok("systemctl", "restart", "gretun");
    await machine.ok("gretun", "wait", "bob");
    await machine.ok("ping", "-c", "20", "-i", "0.1", address);
    pings.kill("SIGINT");
    const times = [...(await answers).matchAll(/^\[(\d+\.\d+)\]/gm)].map(([, s]) =>
      Number(s) * 1000
    );
    await pings.status;
    const gaps = times.slice(1).map((time, i) => time - times[i]!);
    console.log(
      `  ${times.length} answers, the longest silence is ${Math.round(Math.max(...gaps))} ms`,
    );
    ok(times.length > 100);
  }

  {
    console.log("after a reboot all is connected again");
    await machine.reboot();
    await machine.ok("gretun", "wait", "bob", "--timeout", "90s");
    await machine.ok("ping", "-c", "1", await addressOf(machine, "bob"));
    strictEqual(await machine.ok("systemctl", "--failed", "--quiet"), "");
  }

  {
    console.log("uninstall leaves nothing");
    await machine.ok("/root/gretun", "uninstall");
    await machine.ok("/root/gretun-coord", "uninstall");
    await machine.hasOnly(before);
  }
});

/** The commands that README shows in a section, where the coordinator has that address. */
function commandsOf(section: string, ip: string): string[] {
  const text = Deno.readTextFileSync(README).split(`\n## ${section}\n`)[1]!.split("\n## ")[0]!;
  return [...text.matchAll(/^ {4,}((?:sudo )?gretun.*?)(?: +#.*)?$/gm)].map(([, command]) =>
    command!.replaceAll("203.0.113.1", ip)
  );
}

/** Those of README's table, for peer bob; the last one ends the daemon, and is not among them. */
function commandsToLook(url: string): string[] {
  const text = Deno.readTextFileSync(README).split("\n## Look, and mend\n")[1]!.split("\n## ")[0]!;
  const rows = [...text.matchAll(/^\| `(gretun(?:-coord)? [^`]+)` \|/gm)].map(([, row]) => row!);
  const commands = rows.filter((row) => row !== "gretun down")
    .map((row) => row.replace(/\[?PEER\]?/, "bob").replace("URL", url));
  ok(commands.length >= 6, text);
  return commands;
}

async function addressOf(machine: Machine, peer: string): Promise<string> {
  const report = JSON.parse(await machine.ok("gretun", "peers", "--json"));
  return report.peers.find(({ name }: { name: string }) => name === peer).tunnel_ip;
}

/** Below /etc/gretun, for the service alone. */
async function write(machine: Machine, name: string, lines: (string | undefined)[]): Promise<void> {
  const path = `/etc/gretun/${name}`;
  const script =
    'mkdir -p "$(dirname "$0")" && printf %s "$1" >"$0" && chown gretun "$0" && chmod 600 "$0"';
  await machine.ok("sh", "-c", script, path, lines.join("\n") + "\n");
}
