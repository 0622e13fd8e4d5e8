/** `gretun status`: this host's overlay and its peers, or all about one tunnel. */
import { askDaemon, type DaemonReport } from "../../daemon/control.ts";
import { systemClock } from "../../edges.ts";
import { checkLinkName, openHost, type TunnelStatus, tunnelStatus } from "../../tunnel/mod.ts";
import { type Command, type CommandIo, EXIT_FAILURE, EXIT_OK } from "../command.ts";
import { flagsHelp, parseFlags, withPositional } from "../flags.ts";
import { LiveText } from "../live_text.ts";
import { printable } from "../table.ts";
import { keyText } from "./list.ts";
import { isHealthy, isNamed, overlayStatus, peersNamed } from "./overlay_status.ts";
import { socketToAsk, STATE_FLAGS } from "./state_dir.ts";

/** Between two looks of --watch. */
const WATCH_MS = 1_000;

const FLAGS = {
  name: { type: "string", placeholder: "NAME", help: "this tunnel instead of the overlay" },
  peer: { type: "string", placeholder: "PEER", help: "only this peer, by name, address or key" },
  watch: { type: "boolean", help: "show it anew each second until Ctrl-C" },
  ...STATE_FLAGS,
  json: { type: "boolean", help: "JSON on standard output; with --watch one line a second" },
  verbose: { type: "boolean", short: "v", help: "no effect" },
} as const;

export const command: Command = {
  summary: "show this host's overlay and its peers, or one tunnel",
  help: () =>
    `Usage: gretun status [NAME] [flags]

Without NAME: this node, its coordinator, each peer and the way to it, and what is wrong. The exit
code is 0 when all is well, 1 when something is not, and 3 when no daemon runs.
With NAME: one tunnel with its counters.

${flagsHelp(FLAGS)}
`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(withPositional(args, "name", FLAGS), FLAGS);
  if (flags.name === undefined) return await showOverlay(flags, io);
  checkLinkName("name", flags.name);
  using host = openHost();
  const status = tunnelStatus(host, flags.name);
  io.stdout(flags.json ? JSON.stringify(status, null, 2) + "\n" : formatText(status));
  return EXIT_OK;
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

function terminalSize() {
  try {
    return Deno.consoleSize();
  } catch {
    return { columns: 80, rows: 24 }; // no terminal
  }
}

function formatText(status: TunnelStatus): string {
  const rows = rowsOf(status).filter((row): row is [string, string] => row[1] !== undefined);
  const width = Math.max(...rows.map(([label]) => label.length)) + 2;
  const lines = rows.map(([label, text]) => `  ${(label + ":").padEnd(width)}${text}\n`);
  return `Tunnel ${printable(status.name)}\n${lines.join("")}`;
}

function rowsOf(status: TunnelStatus): [string, string | undefined][] {
  const { stats } = status;
  const outer = (ip: string | undefined) => status.type === "tun" ? undefined : ip ?? "any";
  const flag = (on: unknown) => on ? on === "both" ? "yes" : `${on}` : undefined;
  return [
    ["Status", status.up ? "up" : "down"],
    ["Type", status.type === "tun" ? "tun, in user space" : status.type],
    ["Made by", ownerText(status)],
    ["Local", outer(status.local_ip)],
    ["Remote", outer(status.remote_ip)],
    ["Device", status.dev],
    ["Key", keyText(status, dotted)],
    ["Checksums", flag(status.csum)],
    ["Sequence", flag(status.seq)],
    ["TTL", status.ttl === 0 ? "inherit" : status.ttl?.toString()],
    ["TOS", status.tos === undefined ? undefined : String(status.tos)],
    ["Tunnel IP", (status.tunnel_ips ?? [status.tunnel_ip]).join(", ") || undefined],
    ["Encap", encapText(status)],
    ["MTU", status.mtu === undefined ? undefined : String(status.mtu)],
    ["Path MTU", status.path_mtu === undefined ? undefined : String(status.path_mtu)],
    ["Received", countsText(stats.rx_packets, stats.rx_bytes, stats.rx_errors, stats.rx_dropped)],
    ["Sent", countsText(stats.tx_packets, stats.tx_bytes, stats.tx_errors, stats.tx_dropped)],
  ];
}

/** As a number and as `ip -d link` shows it. */
const dotted = (key: number) =>
  `${key} (${[24, 16, 8, 0].map((bits) => key >>> bits & 255).join(".")})`;

function ownerText({ made_by, port, far_end }: TunnelStatus): string | undefined {
  return made_by && `gretun ${made_by} on port ${port}, for ${printable(far_end ?? "")}`;
}

function encapText(status: TunnelStatus): string | undefined {
  const { encap, encap_sport = "auto", encap_dport, encap_csum, fou_port } = status;
  if (!encap) return undefined;
  const receive = fou_port === undefined ? "" : `, receive port ${fou_port}`;
  return `${encap}, ports ${encap_sport} -> ${encap_dport}${receive}` +
    `, checksum ${encap_csum ? "on" : "off"}`;
}

function countsText(packets: number, bytes: number, errors: number, dropped: number): string {
  return `${packets} packets, ${bytes} bytes, ${errors} errors, ${dropped} dropped`;
}
