/** The control socket: a running daemon answers over HTTP on a unix socket in its state directory. */
import {
  askControlSocket,
  jsonLines,
  readControlLines,
  serveControlSocket,
  textAnswer,
} from "../control_socket.ts";
import type { NodeKey } from "../keys.ts";
import type { Finding, PeerReport } from "./peer_report.ts";
import type { PingAnswer, PingWish } from "./ping.ts";

export type { PeerReport, PingAnswer, PingWish };

/** What a running daemon tells about itself; the fields after `state` come once it is registered. */
export interface DaemonReport {
  node_key: string;
  node_name: string;
  coordinator: string;
  /** Base64; absent: it has none, or it is not known yet. */
  coordinator_key?: string;
  state: "waiting for the coordinator" | "running";
  tunnel_ip?: string;
  data_plane?: string;
  port?: number;
  endpoints?: string[];
  /** How the NAT maps, as far as it is known. */
  nat?: { mapping: "easy" | "hard"; port_delta?: number };
  /** Why the coordinator is of no use now. */
  coordinator_error?: string;
  /** For how long that has been so, or else for how long it has answered. */
  coordinator_since_s?: number;
  /** What is wrong, and what to do about it: sentences without a final period. */
  findings?: Finding[];
  peers: PeerReport[];
  /** Packets of data, by reason; absent: none. */
  refused?: Record<string, number>;
  /** Of threads that carry packets in user space; absent where there are none. */
  data_path?: {
    /** What of the kernel's help is used; `udp_super_packets` is known with the first link. */
    features: { segments: boolean; udp_super_packets?: boolean };
    /** Packets that could not be carried, by reason; those of `refused` are not among them. */
    drops: Record<string, number>;
  };
}

function socketPath(stateDir: string): string {
  return `${stateDir}/control.sock`;
}

const PROGRAM = "daemon";

/** What a running daemon can be asked for. */
export interface Asked {
  report: () => DaemonReport;
  /** Undefined: there is no peer with that key. */
  ping: (nodeKey: string, wish: PingWish) => AsyncIterable<PingAnswer> | undefined;
  /** End, and remove all that it made. */
  down: () => void;
}

/** Serves until disposed; refuses when another daemon answers in the same directory. */
export async function serveControl(
  stateDir: string,
  { report, ping, down }: Asked,
): Promise<AsyncDisposable> {
  const place = { path: socketPath(stateDir), program: PROGRAM };
  return await serveControlSocket(place, (request) => {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/v1/status" && request.method === "GET") return Response.json(report());
    if (pathname === "/v1/down" && request.method === "POST") {
      down();
      return textAnswer(200, "ok");
    }
    if (pathname === "/v1/ping" && request.method === "POST") {
      const answers = ping(searchParams.get("peer") ?? "", {
        count: Number(searchParams.get("count")),
        untilDirect: searchParams.get("until") === "direct",
      });
      return answers ? jsonLines(answers) : textAnswer(404, "there is no such peer");
    }
    return textAnswer(404, "not found");
  });
}

const HINT = "Start one with gretun up, or name its directory with --state-dir";

/** Ends the daemon that runs with `stateDir`; throws {@link NoDaemonError} when none does. */
export async function askDown(stateDir: string): Promise<void> {
  const path = socketPath(stateDir);
  await askControlSocket({
    path,
    pathname: "/v1/down",
    method: "POST",
    program: PROGRAM,
    hint: HINT,
  });
}

/**
 * What comes back from a peer that the daemon with `stateDir` pings, until the signal; throws
 * {@link NoDaemonError} when none runs.
 */
export async function* askPing(
  stateDir: string,
  { peer, count, untilDirect, signal }: PingWish & { peer: NodeKey; signal: AbortSignal },
): AsyncGenerator<PingAnswer> {
  const until = untilDirect ? "&until=direct" : "";
  const question = {
    ...{ path: socketPath(stateDir), pathname: `/v1/ping?peer=${peer}&count=${count}${until}` },
    ...{ method: "POST", program: PROGRAM, hint: HINT, signal } as const,
  };
  for await (const line of readControlLines(question)) yield line as PingAnswer;
}

/** Asks the daemon that runs with `stateDir`; throws {@link NoDaemonError} when none does. */
export async function askDaemon(stateDir: string): Promise<DaemonReport> {
  const text = await askControlSocket({
    path: socketPath(stateDir),
    pathname: "/v1/status",
    program: PROGRAM,
    hint: HINT,
  });
  return JSON.parse(text) as DaemonReport;
}
