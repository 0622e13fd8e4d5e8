/** `gretun-coord install`: the coordinator as a systemd service. */
import type { Command, CommandIo } from "../command.ts";
import { flagsHelp, parseFlags } from "../flags.ts";
import { install, INSTALL_FLAGS } from "../service.ts";

export const command: Command = {
  summary: "run the coordinator as a systemd service, also after a reboot",
  help: () =>
    `Usage: gretun-coord install [flags]

Copies the program to /usr/local/bin, makes the user gretun and a systemd unit, enables and starts it.
Settings go into /etc/gretun/coord.conf: flags without dashes, one a line.

${flagsHelp(INSTALL_FLAGS)}
`,
  run,
};

// deno-lint-ignore require-await
async function run(args: string[], io: CommandIo): Promise<number> {
  return install({ kind: "coord", config: [] }, parseFlags(args, INSTALL_FLAGS), io);
}
