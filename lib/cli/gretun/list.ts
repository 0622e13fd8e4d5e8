/** `gretun list`: every tunnel but the kernel's fallback devices, and those in user space of ours. */
import { listTunnels, openHost, type TunnelInfo } from "../../tunnel/mod.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags } from "../flags.ts";
import { formatTable } from "../table.ts";

const FLAGS = {
  json: flag.on("JSON on standard output"),
  verbose: flag.on("no effect", { short: "v" }),
} as const;

export const command: Command = {
  summary: "show all tunnels",
  help: () => `Usage: gretun list [flags]\n\n${flagsHelp(FLAGS)}\n`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(args, FLAGS);
  using host = openHost();
  const tunnels = listTunnels(host);
  io.stdout(flags.json ? JSON.stringify(tunnels, null, 2) + "\n" : formatText(tunnels));
  return EXIT_OK;
}

const HEADINGS = ["NAME", "LOCAL", "REMOTE", "KEY", "TUNNEL IP", "STATUS", "TYPE", "ENCAP"];

function formatText(tunnels: readonly TunnelInfo[]): string {
  if (tunnels.length === 0) return "No tunnels.\n";
  const outer = ({ type }: TunnelInfo, ip = "any") => type === "tun" ? "-" : ip;
  const rows = tunnels.map((tunnel) => [
    tunnel.name,
    outer(tunnel, tunnel.local_ip),
    outer(tunnel, tunnel.remote_ip),
    keyText(tunnel) ?? "-",
    tunnel.tunnel_ip ?? "-",
    tunnel.up ? "up" : "down",
    tunnel.type,
    tunnel.encap ? `${tunnel.encap}:${tunnel.encap_dport}` : "-",
  ]);
  return formatTable(HEADINGS, rows);
}

/** "7", or "in 7 out 8" where the directions differ; undefined without a key. */
export function keyText(
  { key, ikey, okey }: TunnelInfo,
  show: (key: number) => string = String,
): string | undefined {
  if (key !== undefined) return show(key);
  if (ikey === undefined && okey === undefined) return undefined;
  const text = (each: number | undefined) => each === undefined ? "-" : show(each);
  return `in ${text(ikey)} out ${text(okey)}`;
}
