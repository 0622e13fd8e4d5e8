/** The control socket: a running daemon answers over HTTP on a unix socket. */
import {
  askControlSocket,
  type ControlHandler,
  jsonLines,
  readControlLines,
  serveControlSocket,
  textAnswer,
} from "../control_socket.ts";
import type { Clock } from "../edges.ts";
import type { NodeKey } from "../keys.ts";
import type { Finding, PeerReport } from "./peer_report.ts";
import { noAnswer, type PingAnswer, pingPeer, type PingTarget, type PingWish } from "./ping.ts";

export type { PeerReport, PingAnswer, PingWish };

/** What a running daemon tells about itself; the fields after `state` come once it is registered. */
export interface DaemonReport {
  node_key: string;
  node_name: string;
  /** What the others call it, where the coordinator's operator gave it another name. */
  listed_name?: string;
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
  /** What to do about that. */
  coordinator_hint?: string;
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

/** Of a daemon whose state directory is named. */
export function controlPath(stateDir: string): string {
  return `${stateDir}/control.sock`;
}

/** Where the members of a group ask, who may look and not end the daemon. */
export function groupPath(path: string): string {
  return path.replace(/\.sock$/, ".group.sock");
}

const PROGRAM = "daemon";

/** What a running daemon can be asked for. */
export interface Asked {
  report: () => DaemonReport;
  /** Undefined: there is no peer with that key. */
  ping: (nodeKey: string, wish: PingWish) => AsyncIterable<PingAnswer> | undefined;
  /** Take a peer that was refused because of its key. Whether there is one of that name, address or key. */
  accept: (peer: string) => Promise<boolean>;
  /** End, and remove all that it made. */
  down: () => void;
}

/** A daemon as those find it who ask. */
export interface Running extends Pick<Asked, "report" | "accept"> {
  /** What can be done to a peer; undefined: there is none with that key. */
  target: (nodeKey: string) => PingTarget | undefined;
}

/** How a running daemon answers. */
export function answersOf(daemon: Running, clock: Clock): Omit<Asked, "down"> {
  return {
    report: () => daemon.report(),
    accept: (peer) => daemon.accept(peer),
    ping(nodeKey, wish) {
      const target = daemon.target(nodeKey);
      if (target) return pingPeer(target, wish, clock);
      const absent = daemon.report().peers.find(({ node_key }) => node_key === nodeKey);
      return absent && noAnswer(absent);
    },
  };
}

/** Serves until disposed; refuses when another daemon answers there. */
export async function serveControl(
  path: string,
  asked: Asked,
  groupId?: number,
): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  stack.use(await serveControlSocket({ path, program: PROGRAM }, handler(asked)));
  if (groupId !== undefined) {
    const place = { path: groupPath(path), program: PROGRAM, groupId };
    stack.use(
      await serveControlSocket(place, handler({ ...asked, down: undefined, accept: undefined })),
    );
  }
  return stack.move();
}

/** What only the user may that runs the daemon. */
type Closed = Pick<Asked, "accept" | "down">;
type Open = Omit<Asked, keyof Closed>;

/** Nobody may what is not there. */
function handler(
  { report, ping, accept, down }: Open & { [K in keyof Closed]: Closed[K] | undefined },
): ControlHandler {
  return async (request) => {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/v1/status" && request.method === "GET") return Response.json(report());
    if (pathname === "/v1/down" && request.method === "POST") {
      if (!down) return textAnswer(403, "only the user that runs the daemon may end it");
      down();
      return textAnswer(200, "ok");
    }
    if (pathname === "/v1/accept" && request.method === "POST") {
      if (!accept) return textAnswer(403, "only the user that runs the daemon may say so");
      const isThere = await accept(searchParams.get("peer") ?? "");
      return isThere ? textAnswer(200, "ok") : textAnswer(404, "no such peer waits");
    }
    if (pathname === "/v1/ping" && request.method === "POST") {
      const answers = ping(searchParams.get("peer") ?? "", {
        count: Number(searchParams.get("count")),
        untilDirect: searchParams.get("until") === "direct",
      });
      return answers ? jsonLines(answers) : textAnswer(404, "there is no such peer");
    }
    return textAnswer(404, "not found");
  };
}

const HINT = "Start one with gretun up, or name its directory with --state-dir";

/** Ends the daemon that runs at `path`; throws {@link NoDaemonError} when none does. */
export async function askDown(path: string): Promise<void> {
  await askControlSocket({
    path,
    pathname: "/v1/down",
    method: "POST",
    program: PROGRAM,
    hint: HINT,
  });
}

/** Throws `GretunError` where no such peer was refused, {@link NoDaemonError} when no daemon runs. */
export async function askAccept(path: string, peer: string): Promise<void> {
  await askControlSocket({
    ...{ path, pathname: `/v1/accept?peer=${encodeURIComponent(peer)}` },
    ...{ method: "POST", program: PROGRAM, hint: HINT },
    remedy: "Run gretun status to see which peers wait",
  });
}

/**
 * What comes back from a peer that the daemon at `path` pings, until the signal; throws
 * {@link NoDaemonError} when none runs.
 */
export async function* askPing(
  path: string,
  { peer, count, untilDirect, signal }: PingWish & { peer: NodeKey; signal: AbortSignal },
): AsyncGenerator<PingAnswer> {
  const until = untilDirect ? "&until=direct" : "";
  const question = {
    ...{ path, pathname: `/v1/ping?peer=${peer}&count=${count}${until}` },
    ...{ method: "POST", program: PROGRAM, hint: HINT, signal } as const,
  };
  for await (const line of readControlLines(question)) yield line as PingAnswer;
}

/** Asks the daemon that runs at `path`; throws {@link NoDaemonError} when none does. */
export async function askDaemon(path: string): Promise<DaemonReport> {
  const text = await askControlSocket({
    path,
    pathname: "/v1/status",
    program: PROGRAM,
    hint: HINT,
  });
  return JSON.parse(text) as DaemonReport;
}
