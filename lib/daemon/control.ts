/** The control socket: a running daemon answers over HTTP on a unix socket in its state directory. */
import { askControlSocket, serveControlSocket, textAnswer } from "../control_socket.ts";
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
  /** Packets of data, by reason; absent: none. */
  refused?: Record<string, number>;
}

function socketPath(stateDir: string): string {
  return `${stateDir}/control.sock`;
}

const PROGRAM = "daemon";

/** Serves reports until disposed; refuses when another daemon answers in the same directory. */
export async function serveControl(
  stateDir: string,
  report: () => DaemonReport,
): Promise<AsyncDisposable> {
  const place = { path: socketPath(stateDir), program: PROGRAM };
  return await serveControlSocket(
    place,
    (request) =>
      new URL(request.url).pathname === "/v1/status"
        ? Response.json(report())
        : textAnswer(404, "not found"),
  );
}

/** Asks the daemon that runs with `stateDir`; throws {@link NoDaemonError} when none does. */
export async function askDaemon(stateDir: string): Promise<DaemonReport> {
  const text = await askControlSocket({
    path: socketPath(stateDir),
    pathname: "/v1/status",
    program: PROGRAM,
    hint: "Start one with gretun up, or name its directory with --state-dir",
  });
  return JSON.parse(text) as DaemonReport;
}
