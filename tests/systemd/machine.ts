/** A bare Debian that systemd runs, in namespaces: it boots, reboots, and forgets all when it goes. */
import { strictEqual } from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import type { Host, RunResult } from "../lab/mod.ts";
import { until } from "../overlay.ts";

const ROOT = new URL("../../.cache/debian", import.meta.url).pathname;
const PROGRAMS = ["gretun", "gretun-coord"].map((name) =>
  new URL(`../../${name}`, import.meta.url).pathname
);

export class Machine implements AsyncDisposable {
  readonly #directory: string;
  readonly #netns: string;
  #nspawn: Deno.ChildProcess;

  private constructor(directory: string, netns: string) {
    this.#directory = directory;
    this.#netns = netns;
    this.#nspawn = this.#start();
  }

  /** In the host's network; resolves when it is up. The programs lie in /root. */
  static async boot(host: Host): Promise<Machine> {
    // Not below /tmp, which may be in memory.
    const directory = await Deno.makeTempDir({ dir: `${ROOT}/..`, prefix: `machine-${Deno.pid}-` });
    const place = (name: string) => `${directory}/${name}`;
    for (const name of ["upper", "work", "root"]) Deno.mkdirSync(place(name));
    const layers = `lowerdir=${ROOT},upperdir=${place("upper")},workdir=${place("work")}`;
    await run("mount", "-t", "overlay", "overlay", "-o", layers, place("root"));
    for (const program of PROGRAMS) await run("cp", program, place("root/root"));
    // Open to all, as udev makes it: this host may have none.
    await run("mknod", "-m", "666", place("tun"), "c", "10", "200");
    const machine = new Machine(directory, `/run/netns/${host.netnsName}`);
    await machine.#isUp();
    return machine;
  }

  #start(): Deno.ChildProcess {
    const binds = exists("/lib/modules") ? ["--bind=/lib/modules"] : [];
    return new Deno.Command("systemd-nspawn", {
      args: [
        ...["--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe"],
        ...["--directory", `${this.#directory}/root`, "--machine", "machine"],
        `--network-namespace-path=${this.#netns}`,
        "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
        `--bind=${this.#directory}/tun:/dev/net/tun`,
        ...binds,
      ],
      ...{ stdin: "null", stdout: "null", stderr: "null" },
    }).spawn();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const first = this.#firstProcess();
    if (first !== undefined) Deno.kill(first, "SIGKILL");
    await this.#nspawn.status;
    await run("umount", `${this.#directory}/root`);
    await Deno.remove(this.#directory, { recursive: true });
  }

  /** Stops systemd, and with it everything, and starts it again. */
  async reboot(): Promise<void> {
    await this.run("systemctl", "poweroff");
    await this.#nspawn.status;
    this.#nspawn = this.#start();
    await this.#isUp();
  }

  async #isUp(): Promise<void> {
    let said = "";
    await until("systemd to be up", async () => {
      said = (await this.run("systemctl", "is-system-running")).stdout;
      return said === "running\n" || said === "degraded\n";
    }, () => said);
  }

  #firstProcess(): number | undefined {
    const { pid } = this.#nspawn;
    try {
      const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim();
      return children === "" ? undefined : Number(children.split(" ")[0]);
    } catch {
      return undefined; // it has ended
    }
  }

  /** Waits for a program in it. */
  async run(...words: string[]): Promise<RunResult> {
    const target = this.#firstProcess();
    if (target === undefined) return { code: -1, stdout: "", stderr: "the machine is down" };
    return await output("nsenter", ["--target", String(target), "--all", "--", ...words]);
  }

  /** What it prints, if it ends well. */
  async ok(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...words);
    const journal = code === 0
      ? ""
      : (await this.run("journalctl", "-n", "25", "-o", "cat")).stdout;
    strictEqual(code, 0, `${words.join(" ")}: ${stdout}${stderr}${journal}`);
    return stdout;
  }

  /** Files, users, units, links and processes with gretun's name. */
  async traces(): Promise<string[]> {
    const looks = [
      "find / -xdev -name '*gretun*'",
      "find /run -name '*gretun*'",
      "grep gretun /etc/passwd /etc/group /etc/shadow /etc/gshadow",
      // Not those that are gone, which systemd does not forget on cgroups of version 1.
      "systemctl list-units --all --plain --no-legend '*gretun*' | grep -v 'not-found inactive'",
      "ip -o link | grep gretun",
      "cat /proc/[0-9]*/comm | grep gretun",
    ];
    const said = [];
    for (const look of looks) said.push((await this.run("sh", "-c", look)).stdout);
    return said;
  }

  /** Waits until its traces are those of before: systemd forgets units that are gone in a moment. */
  async hasOnly(before: string[]): Promise<void> {
    let left = before;
    await until("nothing to be left", async () => {
      left = await this.traces();
      return isDeepStrictEqual(left, before);
    }, () => left.join("\n"));
  }
}

async function run(program: string, ...args: string[]): Promise<void> {
  const { code, stderr } = await output(program, args);
  strictEqual(code, 0, `${program} ${args.join(" ")}: ${stderr}`);
}

async function output(program: string, args: string[]): Promise<RunResult> {
  // Nothing of ours gets in, such as where certificates are.
  const env = {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: "/root",
  };
  const options = { args, env, clearEnv: true, stdin: "null" } as const;
  const { code, stdout, stderr } = await new Deno.Command(program, options).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
