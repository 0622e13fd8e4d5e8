/** `gretun status`: this host's overlay and its peers, or all about one tunnel. */
import { askDaemon, type DaemonReport } from "../../daemon/control.ts";
import { systemClock } from "../../edges.ts";
import { GretunError } from "../../errors.ts";
import { NoTunnelError } from "../../tunnel/mod.ts";
import { type Command, type CommandIo, EXIT_FAILURE, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags, withPositional } from "../flags.ts";
import { LiveText, terminalSize } from "../live_text.ts";
import { isHealthy, isNamed, overlayStatus, peersNamed } from "./overlay_status.ts";
import { socketToAsk, STATE_FLAGS } from "./state_dir.ts";
import { showTunnel } from "./tunnel_status.ts";

/** Between two looks of --watch. */
const WATCH_MS = 1_000;

const FLAGS = {
  name: flag.text("NAME", "this tunnel instead of the overlay"),
  peer: flag.text("PEER", "only this peer, by name, address or key"),
  watch: flag.on("show it anew each second until Ctrl-C"),
  ...STATE_FLAGS,
  json: flag.on("JSON on standard output; with --watch one line a second"),
  verbose: flag.on("no effect", { short: "v" }),
} as const;

export const command: Command = {
  summary: "show this host's overlay and its peers, or one tunnel",
  help: () =>
    `Usage: gretun status [NAME] [flags]

Without NAME: this node, its coordinator, each peer and the way to it, and what is wrong. The exit
code is 0 when all is well, 1 when something is not, and 3 when no daemon runs.
With NAME: one tunnel with its counters, or the peer of that name.

${flagsHelp(FLAGS)}
`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(withPositional(args, "name", FLAGS), FLAGS);
  if (flags.name === undefined) return await showOverlay(flags, io);
  let text;
  try {
    text = showTunnel(flags.name, flags.json);
  } catch (error) {
    const { name } = flags;
    if (!await isPeer(name, flags)) {
      if (!(error instanceof NoTunnelError)) throw error;
      throw new GretunError(
        `no tunnel and no peer is called ${name}`,
        "See tunnels with gretun list, and peers with gretun status",
      );
    }
    return await showOverlay({ ...flags, peer: flags.name }, io);
  }
  io.stdout(text);
  return EXIT_OK;
}

async function isPeer(name: string, flags: Flags): Promise<boolean> {
  const { peers } = await askDaemon(await socketToAsk(flags)).catch(() => ({ peers: [] }));
  return peers.some((peer) => isNamed(peer, name));
}

type Flags = ReturnType<typeof parseFlags<typeof FLAGS>>;

async function showOverlay(flags: Flags, io: CommandIo): Promise<number> {
  const live = new LiveText();
  let isWell = true;
  do {
    const report = await askDaemon(await socketToAsk(flags));
    if (flags.peer !== undefined) peersNamed(report, flags.peer);
    isWell = isHealthy(report);
    if (flags.json) io.stdout(jsonText(report, flags));
    else {
      const text = overlayStatus(report, flags.peer);
      io.stdout(flags.watch ? live.replace(text, terminalSize()) : text);
    }
    if (flags.watch) await systemClock.sleep(WATCH_MS, io.signal).catch(() => {});
  } while (flags.watch && !io.signal.aborted);
  return isWell ? EXIT_OK : EXIT_FAILURE;
}

function jsonText(report: DaemonReport, { peer, watch }: Flags): string {
  const peers = report.peers.filter((each) => peer === undefined || isNamed(each, peer));
  return JSON.stringify({ version: 1, ...report, peers }, null, watch ? 0 : 2) + "\n";
}
