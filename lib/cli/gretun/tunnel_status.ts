/** What `gretun status NAME` says of one tunnel. */
import { checkLinkName, openHost, type TunnelStatus, tunnelStatus } from "../../tunnel/mod.ts";
import { printable } from "../table.ts";
import { keyText } from "./list.ts";

/** Throws `GretunError`. */
export function showTunnel(name: string, asJson: boolean): string {
  checkLinkName("name", name);
  using host = openHost();
  const status = tunnelStatus(host, name);
  return asJson ? JSON.stringify(status, null, 2) + "\n" : formatText(status);
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
