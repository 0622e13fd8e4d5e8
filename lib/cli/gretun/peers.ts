/** `gretun peers`: what the running daemon knows of the other nodes. */
import { askDaemon, type PeerReport } from "../../daemon/control.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flagsHelp, parseFlags } from "../flags.ts";
import { refusedText } from "../refused.ts";
import { formatTable, printable } from "../table.ts";
import { socketToAsk, STATE_FLAGS } from "./state_dir.ts";

const FLAGS = {
  ...STATE_FLAGS,
  json: { type: "boolean", help: "JSON on standard output" },
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
  const report = await askDaemon(await socketToAsk(flags));
  if (flags.json) io.stdout(JSON.stringify(report, null, 2) + "\n");
  else if (report.peers.length === 0) io.stdout(`No peers yet: ${report.state}.\n`);
  else {
    const findings = (report.findings ?? [])
      .map(({ text, remedy }) => printable(`${text}. ${remedy}.`) + "\n");
    const table = formatTable(HEADINGS, report.peers.map(row));
    io.stdout(table + findings.join("") + refusedText(report.refused ?? {}));
  }
  return EXIT_OK;
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
