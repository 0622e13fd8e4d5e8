/** `gretun ping`: the path to a peer and its time, then the time through the tunnel. */
import { askDaemon, askPing, type DaemonReport, type PingAnswer } from "../../daemon/control.ts";
import { GretunError } from "../../errors.ts";
import { type Command, type CommandIo, EXIT_FAILURE, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags, withPositional } from "../flags.ts";
import { printable } from "../table.ts";
import { pathText, peersNamed } from "./overlay_status.ts";
import { socketToAsk, STATE_FLAGS } from "./state_dir.ts";

/** Unless a number is given. */
const AT_MOST = 10;

const FLAGS = {
  peer: flag.text("PEER", "this peer, by name, address or key", { required: true, isWord: true }),
  count: flag.integer(
    "N",
    `send N pings; without it, ${AT_MOST} at most, until one is answered on a direct path`,
    { short: "c", min: 1, max: 1_000_000 },
  ),
  ...STATE_FLAGS,
  json: flag.on("JSON on standard output, one line an answer"),
} as const;

export const command: Command = {
  summary: "ping a peer: which path it is reached by, and how fast",
  help: () =>
    `Usage: gretun ping PEER [flags]

Pings the peer on the path that its tunnel uses, once a second, then once through the tunnel. The
exit code is 0 when both are answered, 1 when one is not, and 3 when no daemon runs.

${flagsHelp(FLAGS)}
`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(withPositional(args, "peer", FLAGS), FLAGS);
  const socket = await socketToAsk(flags);
  const peer = onePeer(await askDaemon(socket), flags.peer);
  const { count = AT_MOST } = flags;
  const untilDirect = flags.count === undefined;
  const wish = { peer: peer.node_key, count, untilDirect, signal: io.signal };
  const answered = { path: false, tunnel: false };
  let last = peer;
  for await (const answer of askPing(socket, wish)) {
    io.signal.throwIfAborted();
    if (answer.rtt_ms !== undefined) answered[answer.via] = true;
    last = answer.peer;
    io.stdout(flags.json ? jsonLine(answer) : textLine(answer));
  }
  io.signal.throwIfAborted();
  if (last.why_not_direct && !flags.json) io.stdout(`Not direct: ${last.why_not_direct}.\n`);
  return answered.path && answered.tunnel ? EXIT_OK : EXIT_FAILURE;
}

function onePeer(report: DaemonReport, text: string) {
  const own = [report.listed_name ?? report.node_name, report.tunnel_ip?.split("/")[0]];
  if (own.includes(text)) {
    throw new GretunError(
      `${text} is this host`,
      "Name one of its peers: gretun status shows them",
    );
  }
  const [peer, another] = peersNamed(report, text);
  if (!another) return peer!;
  throw new GretunError(
    `more than one peer is called ${JSON.stringify(text)}`,
    "Give the address or the key of one: gretun peers shows them",
  );
}

/** "bob (100.64.0.2): direct 203.0.113.4:7777, 12.3 ms". */
export function textLine({ via, rtt_ms, peer }: PingAnswer): string {
  const time = rtt_ms === undefined ? "no answer" : `${rtt_ms} ms`;
  const isPathless = via === "path" && peer.path === undefined;
  const where = via === "tunnel" ? "through the tunnel" : pathText(peer);
  return `${printable(peer.name)} (${peer.tunnel_ip}): ${where}${isPathless ? "" : `, ${time}`}\n`;
}

function jsonLine({ via, rtt_ms, peer }: PingAnswer): string {
  const { name, node_key, tunnel_ip, path, endpoint, why_not_direct } = peer;
  const shown = { name, node_key, tunnel_ip, via, path, endpoint, rtt_ms, why_not_direct };
  return JSON.stringify({ version: 1, ...shown }) + "\n";
}
