/** `gretun install`: this host's overlay daemon as a systemd service. */
import { GretunError, UsageError } from "../../errors.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flagsHelp, parseFlags } from "../flags.ts";
import { checkInstance } from "./state_dir.ts";
import { INSTALL_FLAGS, performSteps, requireRoot } from "../service.ts";

const FLAGS = {
  coordinator: {
    type: "string",
    placeholder: "URL",
    help: "coordinator to register with; written to the configuration file if there is none",
  },
  instance: {
    type: "string",
    placeholder: "NAME",
    help: "one of several daemons on this host, with a configuration and state of its own",
  },
  ...INSTALL_FLAGS,
} as const;

export const command: Command = {
  summary: "run gretun up as a systemd service, also after a reboot",
  help: () =>
    `Usage: gretun install [--coordinator URL] [flags]

Copies the program to /usr/local/bin, makes the user gretun and systemd units for gretun up, hub and
spoke, and enables and starts gretun up with /etc/gretun/up.conf. What is in place already stays.

${flagsHelp(FLAGS)}
`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(args, FLAGS);
  const { instance, coordinator } = flags;
  if (instance !== undefined) checkInstance(instance);
  const { configPath, hasSystemd, installSteps, presentFiles, runningUnit } = await import(
    "../../service/mod.ts"
  );
  if (!flags["dry-run"]) requireRoot("install");
  const start = !flags["no-start"];
  const config = configPath("up", instance);
  if (coordinator === undefined && start && !presentFiles.exists(config)) {
    throw new UsageError(
      `--coordinator is missing, and there is no ${config}`,
      "Add --coordinator URL, or write the file first",
    );
  }
  if (!hasSystemd() && !flags["dry-run"]) {
    throw new GretunError(
      "systemd does not run on this host",
      "Start gretun up by the means of this host's own service manager",
    );
  }
  const steps = installSteps({
    kind: "up",
    ...(instance === undefined ? {} : { instance }),
    program: Deno.execPath(),
    config: coordinator === undefined ? [] : [`coordinator ${coordinator}`],
    start,
  }, presentFiles);
  performSteps(steps, io, flags["dry-run"]);
  if (!flags["dry-run"] && start) {
    io.stdout(`${runningUnit("up", instance)} runs. Look with: gretun status\n`);
  }
  return EXIT_OK;
}
