/** `gretun demo`, the program itself: it shows a tunnel, and leaves nothing however it ends. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { RtNetlink } from "../../lib/netlink.ts";
import { GRETUN, sleep, until } from "../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const NETNS_DIR = "/run/netns";
const STATE_DIR = "/run/gretun-demo";
const PREFIX = "gretun-demo-";
/** Two hosts, two NATs, the coordinator, and the internet between them. */
const NAMESPACES = ["alice", "bob", "coord", "internet", "nat-alice", "nat-bob"];

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

class Demo {
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  readonly #errors: Promise<string>;
  stdout = "";

  constructor(...args: string[]) {
    const options = { args: ["demo", ...args], stdin: "null", stdout: "piped", stderr: "piped" };
    this.#child = new Deno.Command(GRETUN, options as Deno.CommandOptions).spawn();
    const { stdout, stderr } = this.#child;
    this.#errors = new Response(stderr).text();
    this.#reading = (async () => {
      for await (const chunk of stdout.pipeThrough(new TextDecoderStream())) this.stdout += chunk;
    })();
  }

  async says(what: RegExp): Promise<void> {
    await until(`the demo to say ${what}`, async () => what.test(this.stdout), () => this.stdout);
  }

  /** Waits for its end, after the signal if there is one. */
  async end(signal?: Deno.Signal): Promise<{ code: number; stderr: string }> {
    if (signal) this.#child.kill(signal);
    const { code } = await this.#child.status;
    await this.#reading;
    return { code, stderr: await this.#errors };
  }
}

function namespaces(): string[] {
  try {
    return [...Deno.readDirSync(NETNS_DIR)].map(({ name }) => name)
      .filter((name) => name.startsWith(PREFIX)).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/**
 * What the demo started, by the directory that its arguments name. Not by namespaces: the numbers of
 * those that have gone are soon those of other tests.
 */
function demoProcesses(): string[] {
  const names = [...Deno.readDirSync("/proc")].map(({ name }) => name);
  return names.filter((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      return Deno.readTextFileSync(`/proc/${name}/cmdline`).includes(`${STATE_DIR}/`);
    } catch {
      return false; // it has ended meanwhile
    }
  });
}

async function stdoutOf(command: string, ...args: string[]): Promise<string> {
  return text((await new Deno.Command(command, { args, stderr: "null" }).output()).stdout);
}

/** What of this machine a demo could have touched. */
async function machine(): Promise<unknown> {
  using rtnl = RtNetlink.open();
  return {
    links: rtnl.links().map(({ name }) => name),
    addresses: rtnl.addresses().map(({ local }) => local),
    tables: await stdoutOf("nft", "list", "tables"),
  };
}

/** Runs a test around a demo, which must leave the machine as it was. */
function demoTest(name: string, body: () => Promise<void>): void {
  Deno.test(`gretun demo ${name}`, async () => {
    const before = await machine();
    await body();
    deepStrictEqual(await machine(), before);
    deepStrictEqual(namespaces(), []);
    ok(!exists(STATE_DIR), "keys are gone");
    deepStrictEqual(demoProcesses(), []);
  });
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

demoTest("shows progress and a table, and leaves nothing", async () => {
  const demo = new Demo();
  await demo.says(/punched/);
  const { code, stderr } = await demo.end();
  deepStrictEqual([code, stderr], [0, ""], demo.stdout + stderr);
  for (const name of ["alice", "bob"]) {
    match(demo.stdout, new RegExp(`^${name} +gretun up --coordinator \\S+ --token-file`, "m"));
    match(demo.stdout, new RegExp(`^${name} +endpoints found: 10\\.`, "m"));
    match(demo.stdout, new RegExp(`^${name} +punched: peer at 203\\.0\\.113\\.\\d+:7777; `, "m"));
    match(demo.stdout, new RegExp(`^${name} .* 5 +5 +\\d+\\.\\dms$`, "m"));
  }
});

demoTest("--data-plane tun uses that plane", async () => {
  const demo = new Demo("--data-plane", "tun");
  const { code, stderr } = await demo.end();
  deepStrictEqual([code, stderr], [0, ""], demo.stdout + stderr);
  strictEqual(demo.stdout.match(/ tun +5 +5 /g)?.length, 2, demo.stdout);
});

/** Where in its course it is interrupted. */
const MIDDLES: [where: string, sign: RegExp][] = [
  ["making the network", /^internet/m],
  ["starting the coordinator", /^bob .*behind/m],
  ["starting the nodes", /^alice .*gretun up/m],
  ["punching", /^alice .*punching/m],
  ["with the tunnel up", /^(alice|bob) .*punched/m],
];
for (const [where, sign] of MIDDLES) {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    demoTest(`stopped by ${signal} ${where} leaves nothing`, async () => {
      const demo = new Demo();
      await demo.says(sign);
      const { code, stderr } = await demo.end(signal);
      strictEqual(stderr, "Error: stopped. All of it has been removed.\n", demo.stdout);
      strictEqual(code, 130);
    });
  }
}

demoTest("--keep stays until SIGINT", async () => {
  const demo = new Demo("--keep");
  await demo.says(/It stays up/);
  await sleep(500);
  deepStrictEqual(namespaces(), NAMESPACES.map((name) => PREFIX + name));
  strictEqual(demoProcesses().length, 3);
  // The commands that it suggests work.
  for (const [, command] of demo.stdout.matchAll(/^ {2}(nsenter.*ping .*)$/gm)) {
    const [program, ...args] = `${command} -c 1 -W 5`.split(" ");
    match(await stdoutOf(program!, ...args), / 0% packet loss/);
  }
  const peers = demo.stdout.match(/^ {2}\S+ peers --state-dir (\S+)$/m)!;
  match(await stdoutOf(GRETUN, "peers", "--state-dir", peers[1]!), /^bob .*direct/m);
  const another = await new Demo().end();
  strictEqual(another.code, 1);
  match(another.stderr, /^Error: another gretun demo runs\. .*\n$/);
  deepStrictEqual(await demo.end("SIGINT"), { code: 0, stderr: "" });
});

demoTest("that was killed is cleaned up by the next one", async () => {
  const killed = new Demo("--keep");
  await killed.says(/It stays up/);
  await killed.end("SIGKILL");
  strictEqual(demoProcesses().length, 3);
  const demo = new Demo();
  const { code, stderr } = await demo.end();
  deepStrictEqual([code, stderr], [0, ""], demo.stdout + stderr);
});

const UNPRIVILEGED: [who: string, args: string[]][] = [
  ["another user", ["--reuid", "65534", "--clear-groups"]],
  ["root without capabilities", ["--bounding-set", "-all"]],
];
for (const [who, setpriv] of UNPRIVILEGED) {
  demoTest(`run by ${who} says what it needs`, async () => {
    // Another user may not reach the program where it stands.
    const dir = Deno.makeTempDirSync();
    Deno.chmodSync(dir, 0o755);
    try {
      Deno.copyFileSync(GRETUN, `${dir}/gretun`);
      const args = [...setpriv, `${dir}/gretun`, "demo"];
      const { code, stdout, stderr } = await new Deno.Command("setpriv", { args }).output();
      deepStrictEqual([code, text(stdout), text(stderr)], [
        1,
        "",
        "Error: gretun demo needs CAP_NET_ADMIN to make namespaces. Run it as root.\n",
      ]);
    } finally {
      Deno.removeSync(dir, { recursive: true });
    }
  });
}
