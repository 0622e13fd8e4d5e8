/**
 * Names with several addresses of which the first is dead, over real sockets:
 *
 *     client --- server, which drops what is for its address .dead and refuses at .closed
 */
import { strictEqual } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Lab } from "../lab/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { DENO_RUN } from "../deno_run.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

const PREFIX = `gretun-dial-${Deno.pid}-`;
const PROGRAM = fileURLToPath(new URL("../fakes/dial_process.ts", import.meta.url));
const [DEAD, CLOSED, ALIVE] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"] as const;
const [DEAD_6] = ["2001:db8:1::1"] as const;

const NAMES: [name: string, addresses: string[]][] = [
  ["dead-first", [DEAD, ALIVE]],
  ["closed-first", [CLOSED, ALIVE]],
  ["dead-ipv6", [DEAD_6, ALIVE]],
  ["all-dead-but-one", [DEAD_6, DEAD, CLOSED, ALIVE]],
];

Deno.test("a server with a dead first address is reached long before the kernel gives that up", async () => {
  await using lab = Lab.create({ prefix: PREFIX });
  const host = lab.publicHost("host");
  for (const address of [`${DEAD}/32`, `${CLOSED}/32`, `${ALIVE}/32`, `${DEAD_6}/128`]) {
    const { code, stderr } = await host.run("ip", ["addr", "add", address, "dev", "lo"]);
    strictEqual(code, 0, stderr);
  }
  const rules = `table inet dead {
    chain in {
      type filter hook input priority 0
      ip daddr ${DEAD} tcp dport 8443 drop
      ip6 daddr ${DEAD_6} tcp dport 8443 drop
    }
  }`;
  strictEqual((await host.run("nft", [rules])).code, 0);
  const server = host.spawn(Deno.execPath(), [...DENO_RUN, PROGRAM, "serve", ALIVE], {
    stdout: "piped",
  });
  const output = server.stdout.getReader();
  await output.read(); // ready
  // `ip netns exec` lays the files of this folder over those of /etc.
  const etc = `/etc/netns/${host.netnsName}`;
  await Deno.mkdir(etc, { recursive: true });
  try {
    const lines = NAMES.flatMap(([name, ips]) => ips.map((ip) => `${ip} ${name}.example\n`));
    await Deno.writeTextFile(`${etc}/hosts`, lines.join(""));
    await Deno.writeTextFile(`${etc}/nsswitch.conf`, "hosts: files\n");
    const urls = NAMES.map(([name]) => `http://${name}.example:8443/`);
    const args = ["netns", "exec", host.netnsName, Deno.execPath(), ...DENO_RUN, PROGRAM, ...urls];
    const { stdout, stderr } = await host.run("ip", args);
    const answers = stdout.trim().split("\n");
    strictEqual(answers.length, NAMES.length, stderr);
    for (const [i, answer] of answers.entries()) {
      // A connection to what is dead takes the kernel more than two minutes to give up.
      const [status, elapsedMs] = answer.split(" ");
      strictEqual(status, "200", NAMES[i]![0]);
      console.log(`${NAMES[i]![0]}: ${elapsedMs} ms`);
    }
  } finally {
    await Deno.remove(etc, { recursive: true });
    server.kill("SIGKILL");
    await output.cancel();
    await server.status;
  }
});
