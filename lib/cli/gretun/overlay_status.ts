/** What `gretun status` says of the overlay, at most 80 columns wide, from the daemon's report. */
import { GretunError } from "../../errors.ts";
import { nearest } from "../nearest.ts";
import { printable } from "../table.ts";
import type { DaemonReport, PeerReport } from "../../daemon/control.ts";

const WIDTH = 80;
const NAME_WIDTH = 14;
const MAX_NAME_WIDTH = 20;
/** A path of which nothing was heard for so long is idle. */
const IDLE_S = 5;
/** Columns in the table of peers. */
const PATH = 2;
const RTT = 3;

/** Whether all that should work does: what the exit code says. */
export function isHealthy(report: DaemonReport): boolean {
  return report.state === "running" && report.coordinator_error === undefined &&
    (report.findings ?? []).every(({ harmless }) => harmless) &&
    report.peers.every(({ path, offline }) => path !== undefined || offline === true);
}

export function overlayStatus(report: DaemonReport, onlyPeer?: string): string {
  const peers = onlyPeer === undefined
    ? report.peers
    : report.peers.filter((peer) => isNamed(peer, onlyPeer));
  const lines = [
    ...(onlyPeer === undefined ? selfLines(report) : []),
    ...peerLines(peers),
    ...(onlyPeer === undefined ? findingLines(report) : []),
  ];
  return lines.map((line) => line.trimEnd() + "\n").join("");
}

/** By name, overlay address, or the beginning of the node key. */
export function isNamed(peer: PeerReport, text: string): boolean {
  return peer.name === text || peer.tunnel_ip === text ||
    (text.length >= 8 && peer.node_key.startsWith(text.toLowerCase()));
}

/** At least one. Throws `GretunError`. */
export function peersNamed({ peers }: DaemonReport, text: string): PeerReport[] {
  const named = peers.filter((peer) => isNamed(peer, text));
  if (named.length > 0) return named;
  const meant = nearest(text, peers.flatMap(({ name, tunnel_ip }) => [name, tunnel_ip]));
  throw new GretunError(
    `no peer ${JSON.stringify(text)}`,
    meant ? `Did you mean ${meant}?` : "Run gretun status to see the peers that the daemon knows",
  );
}

function selfLines(report: DaemonReport): string[] {
  const { node_name, tunnel_ip, data_plane, port, coordinator, coordinator_error } = report;
  const { coordinator_hint, listed_name } = report;
  const given = listed_name === undefined ? "" : ` (to others ${printable(listed_name)})`;
  const since = report.coordinator_since_s;
  const connection = coordinator_error !== undefined
    ? `${coordinator_error}${since === undefined ? "" : `, for ${ago(since)}`}` +
      (coordinator_hint === undefined ? "" : `. ${coordinator_hint}.`)
    : report.state === "running"
    ? `connected${since === undefined ? "" : ` for ${ago(since)}`}`
    : report.state;
  return [
    field("Node", `${printable(node_name)}${given}, ${tunnel_ip ?? "no address yet"}`),
    field("Key", report.node_key.slice(0, 16)),
    field("Coordinator", coordinator),
    ...wrapped("", connection),
    field("Data plane", `${planeText(data_plane)}, UDP port ${port ?? "-"}`),
    ...wrapped("Endpoints", report.endpoints?.join(", ") || "none found yet"),
    field("NAT", natText(report)),
    "",
  ];
}

function planeText(plane: string | undefined): string {
  if (plane === "tun") return "user space (tun)";
  return plane === undefined ? "none" : `kernel (${plane})`;
}

/** In the words of RFC 4787 section 4.1. */
function natText({ nat }: DaemonReport): string {
  if (!nat) return "not known yet";
  if (nat.mapping === "easy") return "endpoint-independent mapping, or none";
  const order = nat.port_delta === undefined
    ? "ports chosen at random"
    : `ports in steps of ${nat.port_delta}`;
  return `address- or port-dependent mapping, ${order}`;
}

const HEADINGS: readonly string[] = ["PEER", "ADDRESS", "PATH", "RTT", "RECEIVED / SENT"];
const GAP = 2;

/** As wide as their texts; the path's column has what is left, and a longer path a line of its own. */
function peerLines(peers: readonly PeerReport[]): string[] {
  if (peers.length === 0) return ["No peers."];
  const rows = peers.map((peer) => [
    cut(printable(peer.name), MAX_NAME_WIDTH),
    peer.tunnel_ip,
    pathText(peer),
    rttText(peer),
    `${bytesText(peer.rx_bytes)} / ${bytesText(peer.tx_bytes)}`,
  ]);
  const hasAges = rows.some((row) => row[RTT]!.includes(","));
  const headings = HEADINGS.with(RTT, hasAges ? "RTT, HEARD" : "RTT");
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...rows.map((row) => row[column]!.length)) + GAP
  );
  const [name, address, path, rtt, bytes] = widths as [number, number, number, number, number];
  const room = Math.min(path, WIDTH - name - address - rtt - (bytes - GAP));
  const line = (row: readonly string[]) =>
    row.map((text, column) => text.padEnd(column === PATH ? room : widths[column]!)).join("");
  return [
    line(headings),
    ...peers.flatMap((peer, i) => {
      const row = rows[i]!;
      const fits = row[PATH]!.length + GAP <= room;
      const [kind, ...rest] = row[PATH]!.split(/,? /);
      return [
        line(fits ? row : row.toSpliced(PATH, 1, kind!)),
        ...(fits ? [] : [`  ${kind}: ${rest.join(" ")}`]),
        ...(peer.v1 ? ["  older version: nothing that is told of it is signed"] : []),
        ...(peer.path_unanswered_s
          ? [`  pings not answered for ${ago(peer.path_unanswered_s)}`]
          : []),
        ...(peer.why_not_direct ? [`  not direct: ${peer.why_not_direct}`] : []),
      ];
    }),
  ];
}

/** "direct 203.0.113.4:7777", "lan ...", "relay HOST", "connecting", "offline, last seen 3 h ago". */
export function pathText(peer: PeerReport): string {
  const { path, endpoint } = peer;
  switch (path) {
    case undefined:
      if (!peer.offline) return "connecting";
      return peer.last_seen_s === undefined
        ? "offline"
        : `offline, last seen ${ago(peer.last_seen_s)} ago`;
    case "relay-udp":
      return `relay ${endpoint}`;
    case "relay-tcp":
      // The endpoint is what stands for the peer on loopback, and nobody's relay.
      return "relay by WebSocket";
    default:
      return `${path === "port-mapped" ? "direct" : path} ${endpoint}`;
  }
}

/** "20 ms"; "20 ms, 14 s" of a path that is idle since then, and may have died. */
function rttText({ rtt_ms, path_heard_s = 0 }: PeerReport): string {
  if (rtt_ms === undefined) return "-";
  return `${Math.round(rtt_ms)} ms${path_heard_s < IDLE_S ? "" : `, ${ago(path_heard_s)}`}`;
}

function findingLines({ findings = [] }: DaemonReport): string[] {
  if (findings.length === 0) return [];
  return [
    "",
    "Findings:",
    ...findings.flatMap(({ text, remedy }) => wrapped("-", `${text}. ${remedy}.`)),
  ];
}

function field(name: string, value: string): string {
  return `${name}:`.padEnd(NAME_WIDTH) + value;
}

/** Words of `text` in lines that stay within the width, under each other. */
function wrapped(name: string, text: string): string[] {
  const head = name === "" ? "" : name === "-" ? "- " : `${name}:`;
  const indent = name === "-" ? 2 : NAME_WIDTH;
  const lines: string[] = [];
  let line = head.padEnd(indent);
  for (const word of text.split(" ")) {
    if (line.length + word.length > WIDTH && line.trim() !== head.trim()) {
      lines.push(line);
      line = " ".repeat(indent);
    }
    line += word + " ";
  }
  return [...lines, line];
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : text.slice(0, width - 1) + "…";
}

/** "3 s", "5 min", "2 h", "4 d". */
export function ago(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** "-", "0 B", "1.2 kB", "34 MB". */
export function bytesText(bytes: number | undefined): string {
  if (bytes === undefined) return "-";
  let value = bytes;
  let unit = 0;
  for (; value >= 999.5 && unit < BYTE_UNITS.length - 1; unit++) value /= 1000;
  const text = unit > 0 && value < 9.95 ? value.toFixed(1) : String(Math.round(value));
  return `${text} ${BYTE_UNITS[unit]}`;
}
