/** `gretun peers`: what the running daemon knows of the other nodes. */
import { askAccept, askDaemon, type DaemonReport, type PeerReport } from "../../daemon/control.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags } from "../flags.ts";
import { refusedText } from "../refused.ts";
import { formatTable, printable } from "../table.ts";
import { socketToAsk, STATE_FLAGS } from "./state_dir.ts";

const FLAGS = {
  accept: flag.text(
    "PEER",
    "take a peer that was refused because its key is another, by name, address or key",
  ),
  ...STATE_FLAGS,
  json: flag.on("JSON on standard output"),
} as const;

export const command: Command = {
  summary: "show the peers of the running daemon",
  help: () => `Usage: gretun peers [flags]\n\n${flagsHelp(FLAGS)}\n`,
  run,
};

const HEADINGS = [
  "NAME",
  "TUNNEL IP",
  "STATE",
  "PATH",
  "ENDPOINT",
  "RTT",
  "LINK",
  "MTU",
  "RX",
  "TX",
];

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(args, FLAGS);
  const socket = await socketToAsk(flags);
  if (flags.accept !== undefined) await askAccept(socket, flags.accept);
  const report = await askDaemon(socket);
  if (flags.json) io.stdout(JSON.stringify(report, null, 2) + "\n");
  else io.stdout(peersText(report));
  return EXIT_OK;
}

export function peersText({ state, peers, coordinator_error, findings, refused }: DaemonReport) {
  const lines = (findings ?? []).map(({ text, remedy }) => `${text}. ${remedy}.`);
  if (coordinator_error !== undefined) lines.push(`coordinator: ${coordinator_error}.`);
  const table = peers.length === 0
    ? `No peers yet: ${state}.\n`
    : formatTable(HEADINGS, peers.map(row));
  return table + lines.map((line) => printable(line) + "\n").join("") + refusedText(refused ?? {});
}

function row(peer: PeerReport): string[] {
  const text = (value: string | number | undefined) => value === undefined ? "-" : String(value);
  return [
    peer.name,
    peer.tunnel_ip,
    peer.state,
    text(peer.path),
    text(peer.endpoint),
    peer.rtt_ms === undefined ? "-" : `${peer.rtt_ms}ms`,
    text(peer.ifname),
    text(peer.mtu),
    text(peer.rx_packets),
    text(peer.tx_packets),
  ];
}
