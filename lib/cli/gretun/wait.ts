/** `gretun wait`: for scripts and units that need the overlay. */
import { askDaemon, type DaemonReport } from "../../daemon/control.ts";
import { systemClock } from "../../edges.ts";
import { GretunError, NoDaemonError } from "../../errors.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags, withPositional } from "../flags.ts";
import { isNamed, pathText } from "./overlay_status.ts";
import { socketToAsk, STATE_FLAGS } from "./state_dir.ts";

const POLL_MS = 100;

const FLAGS = {
  peer: flag.text("PEER", "this peer, by name, address or key"),
  timeout: flag.duration("TIME", "how long to wait", { min: 100, default: 30_000 }),
  ...STATE_FLAGS,
} as const;

export const command: Command = {
  summary: "wait until this host, or a peer, is connected",
  help: () =>
    `Usage: gretun wait [PEER] [flags]

Without PEER: until the daemon runs and the coordinator has given this host its address. With PEER:
until there is a path to it. The exit code is 1 when that takes longer than --timeout.

${flagsHelp(FLAGS)}
`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(withPositional(args, "peer", FLAGS), FLAGS);
  const deadlineMs = systemClock.nowMs() + flags.timeout;
  while (true) {
    const missing = await whatIsMissing(flags);
    if (missing === undefined) return EXIT_OK;
    if (systemClock.nowMs() >= deadlineMs) {
      throw new GretunError(
        `not connected within ${flags.timeout / 1000} s: ${missing}`,
        "Run gretun status to see what is wrong",
      );
    }
    await systemClock.sleep(POLL_MS, io.signal);
  }
}

type Flags = ReturnType<typeof parseFlags<typeof FLAGS>>;

async function whatIsMissing(flags: Flags) {
  try {
    return missingIn(await askDaemon(await socketToAsk(flags)), flags.peer);
  } catch (error) {
    if (error instanceof NoDaemonError) return error.message;
    throw error;
  }
}

/** Undefined: nothing. */
export function missingIn(report: DaemonReport, peer: string | undefined): string | undefined {
  if (report.state !== "running") return report.state;
  if (peer === undefined) return undefined;
  const found = report.peers.find((each) => isNamed(each, peer));
  if (!found) return `no peer ${JSON.stringify(peer)} is known`;
  return found.path === undefined ? `${peer} is ${pathText(found)}` : undefined;
}
