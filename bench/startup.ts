/** How long the program takes for a word, start and end included. See README.md. */
import { parseArgs } from "@std/cli/parse-args";
import { controlPath, type DaemonReport, serveControl } from "../lib/daemon/control.ts";
import type { Ip } from "../lib/addr.ts";
import type { NodeKey } from "../lib/keys.ts";

const PROGRAM = new URL("../gretun", import.meta.url).pathname;
const TARGET_MS = 80;

/** The daemon that `status` asks is this process: its own time does not count. */
function reportOf(peers: number): DaemonReport {
  return {
    ...{ node_key: "ab".repeat(32), node_name: "bench", coordinator: "http://203.0.113.1:8443/" },
    ...{ state: "running", tunnel_ip: "100.64.0.1/24", data_plane: "tun", port: 7777 },
    peers: Array.from({ length: peers }, (_, i) => ({
      ...{ name: `peer-${i}`, node_key: i.toString(16).padStart(64, "0") as NodeKey },
      ...{ tunnel_ip: `100.64.0.${i + 2}` as Ip, state: "direct", path: "direct" },
      ...{ endpoint: `203.0.113.${i + 2}:7777`, rtt_ms: 20 },
    })),
  };
}

interface Took {
  wallMs: number;
  /** Of all its threads: what a quiet machine would have to do. */
  cpuMs: number;
}

async function run(words: string[]): Promise<Took> {
  // bash counts a child's processor time.
  const script = 'TIMEFORMAT="%R %U %S"; time "$@" >/dev/null 2>&1';
  const args = ["-c", script, "bash", PROGRAM, ...words];
  const { stderr } = await new Deno.Command("bash", { args }).output();
  const [wall, user, system] = new TextDecoder().decode(stderr).trim().split(" ").map(Number);
  return { wallMs: wall! * 1000, cpuMs: (user! + system!) * 1000 };
}

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]!;

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, {
    string: ["runs", "peers"],
    default: { runs: "21", peers: "50" },
  });
  const stateDir = await Deno.makeTempDir({ prefix: "gretun-bench-" });
  try {
    const report = reportOf(Number(flags.peers));
    const asked = { report: () => report, ping: () => undefined, down() {} };
    await using _control = await serveControl(controlPath(stateDir), {
      ...asked,
      accept: () => Promise.resolve(false),
    });
    const commands = [["version"], ["list"], ["status", "--state-dir", stateDir]];
    for (const words of commands) {
      await run(words); // its file is in memory then
      const took: Took[] = [];
      for (let i = 0; i < Number(flags.runs); i++) took.push(await run(words));
      const wall = median(took.map(({ wallMs }) => wallMs));
      const cpu = median(took.map(({ cpuMs }) => cpuMs));
      console.log(
        `${words[0]!.padEnd(8)} ${wall.toFixed(0).padStart(4)} ms, processor ` +
          `${cpu.toFixed(0).padStart(4)} ms (median of ${flags.runs}; aim: under ${TARGET_MS} ms)`,
      );
    }
  } finally {
    await Deno.remove(stateDir, { recursive: true });
  }
}

await main();
