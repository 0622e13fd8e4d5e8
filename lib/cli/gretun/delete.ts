/** `gretun delete`: one tunnel, several, or all; with the FOU ports that nobody needs any more. */
import { GretunError, UsageError } from "../../errors.ts";
import {
  applySteps,
  checkLinkName,
  formatStep,
  openHost,
  planRemoval,
  type Step,
} from "../../tunnel/mod.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags, withPositional } from "../flags.ts";
import { requireNetAdmin } from "../privilege.ts";
import { lockTunnels, tryLockTunnels } from "./tunnel_lock.ts";

const FLAGS = {
  name: flag.list("NAME", "the tunnel; repeatable"),
  all: flag.on("all that gretun list shows, except those of daemons"),
  force: flag.on("delete links of running daemons too"),
  yes: flag.on("do not ask before --all"),
  "dry-run": flag.on("print the steps as ip commands and change nothing"),
  json: flag.on("JSON on standard output"),
  verbose: flag.on("print each step on standard error", { short: "v" }),
} as const;

export const command: Command = {
  summary: "remove tunnels",
  help: () =>
    "Usage: gretun delete NAME... [flags]\n" +
    `       gretun delete --all [flags]\n\n${flagsHelp(FLAGS)}\n`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(withPositional(args, "name", FLAGS), FLAGS);
  const names = flags.all ? "all" : flags.name;
  checkNames(flags.all, flags.name);
  const isDry = flags["dry-run"];
  if (!isDry) requireNetAdmin("delete");
  using _lock = isDry ? undefined : tryLockTunnels() ?? await lockTunnels(io.signal);
  using host = openHost();
  const plan = planRemoval(host, names, { force: flags.force });
  for (const why of plan.left) io.stderr(`Left: ${why}.\n`);
  if (isDry) {
    io.stdout(flags.json ? dryRunJson(plan.steps) : plan.steps.map(line).join(""));
    return EXIT_OK;
  }
  if (names === "all" && plan.names.length > 0 && !flags.yes) confirmAll(plan.names, io);
  const onStep = (step: Step) => flags.verbose && io.stderr(line(step));
  applySteps(host, plan.steps, onStep);
  io.stdout(flags.json ? JSON.stringify({ deleted: plan.names }, null, 2) + "\n" : text(plan));
  return EXIT_OK;
}

const line = (step: Step) => formatStep(step) + "\n";

function checkNames(all: boolean, names: readonly string[]): void {
  if (all && names.length > 0) {
    throw new UsageError(`--all and --name ${names[0]} exclude each other`, "Give one of them");
  }
  if (!all && names.length === 0) {
    throw new UsageError("no tunnel is named", "Give its name, or --all");
  }
  for (const name of names) checkLinkName("name", name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice) throw new UsageError(`--name ${twice} is given twice`, "Give it once");
}

/** Throws `GretunError` for any answer but yes, and where nobody can answer. */
function confirmAll(names: readonly string[], io: CommandIo): void {
  const count = names.length === 1 ? "1 tunnel" : `${names.length} tunnels`;
  if (!Deno.stdin.isTerminal()) {
    throw new GretunError(
      `--all would delete ${count}, and standard input is no terminal to ask on`,
      "Add --yes to delete them, or look first with --dry-run",
    );
  }
  io.stderr(`Delete ${count}: ${names.join(", ")}? [y/N] `);
  const answer = new Uint8Array(64);
  const length = Deno.stdin.readSync(answer) ?? 0;
  if (/^y(es)?$/i.test(new TextDecoder().decode(answer.subarray(0, length)).trim())) return;
  throw new GretunError("nothing was deleted", "Answer y to delete them, or add --yes");
}

function text({ names, steps }: { names: readonly string[]; steps: readonly Step[] }): string {
  if (names.length === 0) return "No tunnels.\n";
  return names.map((name) => `deleted tunnel ${name}\n`).join("") +
    steps.flatMap((step) =>
      step.do === "close-fou-port" ? [`closed FOU port ${step.port.port}\n`] : []
    ).join("");
}

function dryRunJson(steps: readonly Step[]): string {
  return JSON.stringify({ dry_run: true, commands: steps.map(formatStep), steps }, null, 2) + "\n";
}
