/** `gretun-coord install`: the coordinator as a systemd service. */
import { GretunError } from "../../errors.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flagsHelp, parseFlags } from "../flags.ts";
import { INSTALL_FLAGS, performSteps, requireRoot } from "../service.ts";

export const command: Command = {
  summary: "run the coordinator as a systemd service, also after a reboot",
  help: () =>
    `Usage: gretun-coord install [flags]

Copies the program to /usr/local/bin, makes the user gretun and a systemd unit, enables and starts it.
Settings other than the defaults go into the unit: systemctl edit gretun-coord.

${flagsHelp(INSTALL_FLAGS)}
`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(args, INSTALL_FLAGS);
  const { hasSystemd, installSteps, presentFiles, runningUnit } = await import(
    "../../service/mod.ts"
  );
  const isDryRun = flags["dry-run"];
  if (!isDryRun) requireRoot("install");
  if (!isDryRun && !hasSystemd()) {
    throw new GretunError(
      "systemd does not run on this host",
      "Start gretun-coord by the means of this host's own service manager",
    );
  }
  const start = !flags["no-start"];
  const steps = installSteps(
    { kind: "coord", program: Deno.execPath(), config: [], start },
    presentFiles,
  );
  performSteps(steps, io, isDryRun);
  if (start && !isDryRun) {
    io.stdout(`${runningUnit("coord")} runs. Look with: gretun-coord status\n`);
  }
  return EXIT_OK;
}
