/**
 * Which lines of `lib` unit tests and simulations run together, by room: `deno task coverage`. Fails below
 * the least that is wanted of all rooms but those that need a real kernel or terminal.
 */
import { join } from "node:path";

const ROOT = new URL("../", import.meta.url).pathname;
const FLAGS = (Deno.env.get("GRETUN_DENO_FLAGS") ?? "").split(" ").filter((flag) => flag !== "");
const LEAST_PERCENT = 85;
const NOT_COUNTED = ["linux", "netlink", "nft", "lab", "cli"];
/** Each in a process of its own: some make time or cryptography of the runtime their own. */
const SUITES = { unit: "tests/unit", sim: "tests/sim", hub: "tests/sim/hub" };

interface Lines {
  run: number;
  all: number;
}

function* filesBelow(folder: string, ending: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(join(ROOT, folder))) {
    const path = `${folder}/${name}`;
    if (isDirectory) yield* filesBelow(path, ending);
    else if (name.endsWith(ending)) yield path;
  }
}

async function deno(args: string[], stdout: "inherit" | "piped"): Promise<string> {
  const command = new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdout, stderr: "inherit" });
  const output = await command.output();
  // Of a test that fails there is coverage all the same.
  if (!output.success) Deno.exitCode = output.code;
  return stdout === "piped" ? new TextDecoder().decode(output.stdout) : "";
}

/** Files of a suite are loaded together, and with them all of lib: what no test loads counts, too. */
async function runSuite(name: keyof typeof SUITES, directory: string): Promise<void> {
  const tests = [...filesBelow(SUITES[name], "_test.ts")]
    .filter((path) => name === "hub" || !path.startsWith(SUITES.hub));
  const lib = [...filesBelow("lib", ".ts")].filter((path) => path !== "lib/engine/worker.ts");
  const all = join(directory, `${name}_test.ts`);
  const imports = [...tests.sort(), ...lib].map((path) =>
    `import ${JSON.stringify(ROOT + path)};\n`
  );
  Deno.writeTextFileSync(all, imports.join(""));
  const profiles = ["--coverage-raw-data-only", `--coverage=${join(directory, name)}`];
  await deno(["test", "-A", "--no-check", "--quiet", ...profiles, ...FLAGS, all], "inherit");
}

function linesByRoom(lcov: string): Map<string, Lines> {
  const rooms = new Map<string, Lines>();
  for (const [, path, body] of lcov.matchAll(/^SF:(.*)\n([^]*?)^end_of_record$/gm)) {
    const [top, room, ...rest] = path!.slice(ROOT.length).split("/");
    if (top !== "lib") continue;
    const name = rest.length === 0 ? (room === "netlink.ts" ? "netlink" : "leaves") : room!;
    const lines = rooms.get(name) ?? { run: 0, all: 0 };
    for (const [, count] of body!.matchAll(/^DA:\d+,(\d+)$/gm)) {
      lines.all++;
      if (count !== "0") lines.run++;
    }
    rooms.set(name, lines);
  }
  return rooms;
}

const percent = ({ run, all }: Lines) => 100 * run / all;

const directory = Deno.makeTempDirSync();
const names = Object.keys(SUITES) as (keyof typeof SUITES)[];
try {
  await Promise.all(names.map((name) => runSuite(name, directory)));
  const profiles = names.map((name) => join(directory, name));
  // Tests load modules of temporary folders, too, which are gone by now.
  const report = ["coverage", "--quiet", "--lcov", `--include=^file://${ROOT}lib/`];
  const rooms = linesByRoom(await deno([...report, ...profiles], "piped"));
  const total = { run: 0, all: 0 };
  for (const [name, lines] of [...rooms].sort(([, a], [, b]) => percent(a) - percent(b))) {
    const counts = !NOT_COUNTED.includes(name);
    if (counts) total.run += lines.run;
    if (counts) total.all += lines.all;
    const mark = counts ? "" : "  not counted";
    console.log(`${name.padEnd(12)} ${percent(lines).toFixed(1).padStart(5)} %${mark}`);
  }
  console.log(`${"together".padEnd(12)} ${percent(total).toFixed(1).padStart(5)} %`);
  if (percent(total) < LEAST_PERCENT) {
    console.error(`Error: less than ${LEAST_PERCENT} % of the lines that count are run`);
    Deno.exitCode = 1;
  }
} finally {
  Deno.removeSync(directory, { recursive: true });
}
