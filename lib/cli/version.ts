/** `version`: which program this is, and what this host lets it do. */
import denoJson from "../../deno.json" with { type: "json" };
import { type Command, EXIT_OK } from "./command.ts";
import { flag, flagsHelp, parseFlags } from "./flags.ts";
import { exists } from "./exists.ts";

const FLAGS = { json: flag.on("JSON on standard output") } as const;

/** Beside the compiled program's files, see compile.sh; what runs from its source has none. */
const BUILD_FILE = new URL("build.json", import.meta.url);

export function versionCommand(program: "gretun" | "gretun-coord"): Command {
  return {
    summary: "print version, runtime and the data planes of this host",
    help: () => `Usage: ${program} version [flags]\n\n${flagsHelp(FLAGS)}\n`,
    // deno-lint-ignore require-await
    async run(args, io) {
      const { json } = parseFlags(args, FLAGS);
      const { version } = denoJson;
      const commit = commitOfBuild();
      const runtime = `deno ${Deno.version.deno}, v8 ${Deno.version.v8}`;
      const planes = program === "gretun" ? { planes: planesHere() } : {};
      if (json) {
        io.stdout(JSON.stringify({ program, version, commit, runtime, ...planes }, null, 2) + "\n");
        return EXIT_OK;
      }
      io.stdout(`${program} ${version}\n`);
      io.stdout(`commit   ${commit ?? "unknown"}\nruntime  ${runtime}\n`);
      if (planes.planes) io.stdout(`planes   ${planes.planes.join(", ") || "none"}\n`);
      return EXIT_OK;
    },
  };
}

function commitOfBuild(): string | undefined {
  try {
    return JSON.parse(Deno.readTextFileSync(BUILD_FILE)).commit;
  } catch {
    return undefined;
  }
}

/** By the names that `--data-plane` has; what a module needs besides is found out at the start. */
function planesHere(): string[] {
  const modules = (kind: string) =>
    textOf(`/lib/modules/${textOf("/proc/sys/kernel/osrelease").trim()}/modules.${kind}`);
  const known = modules("dep") + modules("builtin");
  const hasModule = (name: string) =>
    exists(`/sys/module/${name}`) || new RegExp(`/${name}\\.ko`).test(known);
  return [
    ...(hasModule("fou") && hasModule("ip_gre") ? ["fou"] : []),
    ...(exists("/dev/net/tun") || hasModule("tun") ? ["tun"] : []),
  ];
}

function textOf(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}
