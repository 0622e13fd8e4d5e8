/** The service manager, and the commands of both programs that install and remove their services. */
import { systemClock } from "../edges.ts";
import { GretunError } from "../errors.ts";
import { notifyManager } from "../linux/mod.ts";
import {
  applyStep,
  configPath,
  hasSystemd,
  type InstallOptions,
  installSteps,
  presentFiles,
  runningUnit,
  ServiceManager,
  type Step,
  stepText,
  uninstallSteps,
  unitsNamed,
} from "../service/mod.ts";
import { type Command, type CommandIo, EXIT_OK } from "./command.ts";
import { flag, flagsHelp, parseFlags } from "./flags.ts";

/** Of a program that may have been started by systemd. */
export function systemManager(): ServiceManager {
  return new ServiceManager({
    socketPath: Deno.env.get("NOTIFY_SOCKET"),
    watchdogUs: Deno.env.get("WATCHDOG_USEC"),
    send: notifyManager,
    clock: systemClock,
  });
}

export const INSTALL_FLAGS = {
  "no-start": flag.on("neither enable nor start the service"),
  "dry-run": flag.on("print the steps, and do nothing"),
} as const;

const UNINSTALL_FLAGS = {
  "keep-state": flag.on("leave keys, database and configuration"),
  "dry-run": flag.on("print the steps, and do nothing"),
} as const;

type Kind = InstallOptions["kind"];

const PROGRAMS = { up: "gretun", coord: "gretun-coord" } as const;

/** Prints each step, then does it. Throws `GretunError`. */
export function install(
  options: Omit<InstallOptions, "program" | "start" | "others">,
  flags: { "no-start": boolean; "dry-run": boolean },
  io: CommandIo,
): number {
  const isDryRun = flags["dry-run"];
  const start = !flags["no-start"];
  const program = PROGRAMS[options.kind];
  if (!isDryRun) {
    requireRoot("install");
    if (!hasSystemd()) {
      throw new GretunError(
        "systemd does not run on this host",
        `Start ${program} by the means of this host's own service manager`,
      );
    }
  }
  const unit = runningUnit(options.kind, options.instance);
  const others = options.kind === "up" && hasSystemd()
    ? [runningUnit("up"), ...unitsNamed("gretun@")].filter((other) => other !== unit)
    : [];
  const all = { ...options, program: Deno.execPath(), start, others };
  const config = configPath(options.kind, options.instance);
  if (options.config.length > 0 && presentFiles.exists(config)) {
    io.stderr(`${config} is there already and stays as it is.\n`);
  }
  const steps = installSteps(all, presentFiles);
  if (steps.length === 0) io.stdout("Nothing to do: all is in place.\n");
  performSteps(steps, io, isDryRun);
  if (isDryRun || !start) return EXIT_OK;
  const which = options.instance === undefined ? "" : ` --instance ${options.instance}`;
  io.stdout(`${unit} runs. Look with: ${program} status${which}\n`);
  return EXIT_OK;
}

/** Takes back what {@link install} did. */
export function uninstallCommand(kind: Kind, summary: string): Command {
  const program = PROGRAMS[kind];
  const other = PROGRAMS[kind === "up" ? "coord" : "up"];
  return {
    summary,
    help: () => `Usage: ${program} uninstall [flags]\n\n${flagsHelp(UNINSTALL_FLAGS)}\n`,
    // deno-lint-ignore require-await
    async run(args, io) {
      const flags = parseFlags(args, UNINSTALL_FLAGS);
      if (!flags["dry-run"]) requireRoot("uninstall");
      const units = hasSystemd() ? unitsNamed(program) : [];
      const steps = uninstallSteps({
        kind,
        units: units.filter((unit) => kind === "coord" || !unit.startsWith(PROGRAMS.coord)),
        keepState: flags["keep-state"],
        isShared: presentFiles.exists(`/etc/systemd/system/${other}.service`),
      }, presentFiles);
      if (steps.length === 0) io.stdout("Nothing to do: nothing is installed.\n");
      performSteps(steps, io, flags["dry-run"]);
      return EXIT_OK;
    },
  };
}

function requireRoot(what: string): void {
  if (Deno.uid() === 0) return;
  throw new GretunError(`only root can ${what} services`, "Run the same command with sudo");
}

/** Prints each step, then does it. */
function performSteps(steps: readonly Step[], io: CommandIo, isDryRun: boolean): void {
  for (const step of steps) {
    io.stdout(stepText(step) + "\n");
    if (!isDryRun) applyStep(step);
  }
}
