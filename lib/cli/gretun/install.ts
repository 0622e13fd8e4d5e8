/** `gretun install`: this host's overlay daemon as a systemd service. */
import { UsageError } from "../../errors.ts";
import type { Command, CommandIo } from "../command.ts";
import { flag, flagsHelp, parseFlags, withPositional } from "../flags.ts";
import { readSecretFile } from "../secret_file.ts";
import { parseJoinToken } from "./join_token.ts";
import { checkInstance } from "./state_dir.ts";
import { configPath, presentFiles } from "../../service/mod.ts";
import { install, INSTALL_FLAGS } from "../service.ts";

const FLAGS = {
  coordinator: flag.text(
    "URL",
    "coordinator to register with; written to the configuration file if there is none",
  ),
  "token-file": flag.text(
    "FILE",
    "what lets this host join; copied into the configuration file if there is none",
  ),
  instance: flag.text(
    "NAME",
    "one of several daemons on this host, with a configuration and state of its own",
  ),
  port: flag.integer(
    "PORT",
    "UDP port, if not 7777: each instance has one of its own; written to the configuration file likewise",
    { min: 1, max: 65_535 },
  ),
  ...INSTALL_FLAGS,
} as const;

export const command: Command = {
  summary: "run gretun up as a systemd service, also after a reboot",
  help: () =>
    `Usage: gretun install [--coordinator URL] [flags]

Copies the program to /usr/local/bin, makes the user gretun and systemd units for gretun up, hub and
spoke, and enables and starts gretun up with /etc/gretun/up.conf. What is in place already stays; services of
gretun up that run an older program are restarted.

${flagsHelp(FLAGS)}
`,
  run,
};

function readToken(file: string): string {
  const text = readSecretFile(file);
  parseJoinToken(text, file);
  return text;
}

// deno-lint-ignore require-await
async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(withPositional(args, "coordinator", FLAGS), FLAGS);
  const { instance, coordinator, port, "token-file": tokenFile } = flags;
  if (instance !== undefined) checkInstance(instance);
  const config = configPath("up", instance);
  if (coordinator === undefined && !flags["no-start"] && !presentFiles.exists(config)) {
    throw new UsageError(
      `--coordinator is missing, and there is no ${config}`,
      "Add --coordinator URL, or write the file first",
    );
  }
  return install(
    {
      kind: "up",
      ...(instance === undefined ? {} : { instance }),
      config: [
        ...(coordinator === undefined ? [] : [`coordinator ${coordinator}`]),
        ...(port === undefined ? [] : [`port ${port}`]),
        // Which the service alone can read.
        ...(tokenFile === undefined ? [] : [`token ${readToken(tokenFile)}`]),
      ],
    },
    flags,
    io,
  );
}
