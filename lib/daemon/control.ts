/** The control socket: a running daemon answers over HTTP on a unix socket in its state directory. */
import { askUnix, serveUnix } from "../control_socket.ts";
import { GretunError, NoDaemonError } from "../errors.ts";
import type { PeerReport } from "./peer_report.ts";

export type { PeerReport };

/** What a running daemon tells about itself; the fields after `state` come once it is registered. */
export interface DaemonReport {
  node_key: string;
  node_name: string;
  coordinator: string;
  state: "waiting for the coordinator" | "running";
  tunnel_ip?: string;
  data_plane?: string;
  port?: number;
  endpoints?: string[];
  /** How the NAT maps, as far as it is known. */
  nat?: { mapping: "easy" | "hard"; port_delta?: number };
  peers: PeerReport[];
}

function socketPath(stateDir: string): string {
  return `${stateDir}/control.sock`;
}

/** Serves reports until disposed; refuses when another daemon answers in the same directory. */
export async function serveControl(
  stateDir: string,
  report: () => DaemonReport,
): Promise<AsyncDisposable> {
  const path = socketPath(stateDir);
  if (await isAnswering(path)) {
    throw new GretunError(
      `another gretun up runs with ${stateDir}`,
      "Stop it first, or give this one another --state-dir",
    );
  }
  return await serveUnix(
    path,
    (request) =>
      new URL(request.url).pathname === "/v1/status"
        ? Response.json(report())
        : new Response("not found\n", { status: 404 }),
  );
}

async function isAnswering(path: string): Promise<boolean> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
    return true;
  } catch {
    return false;
  }
}

/** Asks the daemon that runs with `stateDir`; throws {@link NoDaemonError} when none does. */
export async function askDaemon(stateDir: string): Promise<DaemonReport> {
  const path = socketPath(stateDir);
  try {
    return JSON.parse(await askUnix(path, "/v1/status")) as DaemonReport;
  } catch (cause) {
    throw new NoDaemonError(
      `no daemon answers at ${path}`,
      "Start one with gretun up, or name its directory with --state-dir",
      { cause },
    );
  }
}
