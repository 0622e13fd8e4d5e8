/** `gretun-coord uninstall`: takes back what `gretun-coord install` did. */
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flagsHelp, parseFlags } from "../flags.ts";
import { performSteps, requireRoot, UNINSTALL_FLAGS } from "../service.ts";

export const command: Command = {
  summary: "stop the service and remove program, unit and database",
  help: () => `Usage: gretun-coord uninstall [flags]\n\n${flagsHelp(UNINSTALL_FLAGS)}\n`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(args, UNINSTALL_FLAGS);
  const { hasSystemd, presentFiles, uninstallSteps, unitsNamed } = await import(
    "../../service/mod.ts"
  );
  if (!flags["dry-run"]) requireRoot("uninstall");
  const steps = uninstallSteps({
    kind: "coord",
    units: hasSystemd() ? unitsNamed("gretun-coord") : [],
    keepState: flags["keep-state"],
    isShared: presentFiles.exists("/etc/systemd/system/gretun.service"),
  }, presentFiles);
  performSteps(steps, io, flags["dry-run"]);
  return EXIT_OK;
}
