/** `gretun down`: ends the running daemon, which removes its links. */
import { askDaemon, askDown } from "../../daemon/control.ts";
import { systemClock } from "../../edges.ts";
import { GretunError, NoDaemonError } from "../../errors.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flagsHelp, parseFlags } from "../flags.ts";
import { socketToAsk, STATE_FLAGS } from "./state_dir.ts";

const PATIENCE_MS = 15_000;
const POLL_MS = 50;

export const command: Command = {
  summary: "end the daemon on this host and remove its tunnels",
  help: () =>
    `Usage: gretun down [flags]

A service that systemd runs stays down until it is started again, or until the next boot.

${flagsHelp(STATE_FLAGS)}
`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const socket = await socketToAsk(parseFlags(args, STATE_FLAGS));
  await askDown(socket);
  const deadlineMs = systemClock.nowMs() + PATIENCE_MS;
  while (await isThere(socket)) {
    if (systemClock.nowMs() >= deadlineMs) {
      throw new GretunError(
        "the daemon has not ended yet",
        "Look at its log, and end it with: pkill -f 'gretun up'",
      );
    }
    await systemClock.sleep(POLL_MS, io.signal);
  }
  io.stdout("The daemon has ended, and its tunnels are removed.\n");
  return EXIT_OK;
}

async function isThere(socket: string): Promise<boolean> {
  try {
    await askDaemon(socket);
    return true;
  } catch (error) {
    if (error instanceof NoDaemonError) return false;
    throw error;
  }
}
