/** A running hub or spoke answers on a unix socket in its state directory. */
import { errorText, GretunError, NoDaemonError } from "../errors.ts";
import { endServer } from "../http.ts";

const SHUTDOWN_MS = 300;

export type Role = "hub" | "spoke";

export interface ClientReport {
  name: string;
  state: "up" | "down";
  endpoint?: string;
  address?: string;
  routes?: string[];
  ifname?: string;
  mtu?: number;
  /** Seconds since the last sign of life. */
  heard_s?: number;
  authentications: number;
  roams: number;
  pid?: number;
  rx_packets?: number;
  tx_packets?: number;
  rx_bytes?: number;
  tx_bytes?: number;
}

export interface HubReport {
  role: "hub";
  protocol: string;
  data_plane: string;
  port: number;
  public_key?: string;
  encrypt?: boolean;
  refused: Record<string, number>;
  problems: string[];
  clients: ClientReport[];
}

export interface SpokeReport {
  role: "spoke";
  protocol: string;
  data_plane: string;
  port: number;
  hub: string;
  state: string;
  observed?: string;
  encrypt?: boolean;
  ifname?: string;
  mtu?: number;
  address?: string;
  hub_address?: string;
  authentications: number;
  pid?: number;
  refused: Record<string, number>;
  rx_packets?: number;
  tx_packets?: number;
}

function socketPath(stateDir: string, role: Role, port: number): string {
  return `${stateDir}/${role}-${port}.sock`;
}

/** Serves until disposed. Throws `GretunError` when it cannot. */
export async function serveControl(
  { stateDir, role, port }: { stateDir: string; role: Role; port: number },
  { report, reauth }: { report: () => HubReport | SpokeReport; reauth: () => void },
): Promise<AsyncDisposable> {
  const path = socketPath(stateDir, role, port);
  const handler = (request: Request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/v1/status" && request.method === "GET") return Response.json(report());
    if (pathname === "/v1/reauth" && request.method === "POST") {
      reauth();
      return new Response("ok\n");
    }
    return new Response("not found\n", { status: 404 });
  };
  try {
    await Deno.mkdir(stateDir, { recursive: true, mode: 0o755 });
    await Deno.remove(path).catch(() => {}); // left behind by one that was killed
    const server = Deno.serve({ path, transport: "unix", onListen: () => {} }, handler);
    await Deno.chmod(path, 0o600);
    return {
      async [Symbol.asyncDispose]() {
        await endServer(server, SHUTDOWN_MS);
        await Deno.remove(path).catch(() => {});
      },
    };
  } catch (cause) {
    throw new GretunError(
      `cannot listen on ${path}: ${errorText(cause)}`,
      "Give a writable directory with a shorter path with --state-dir",
      { cause },
    );
  }
}

/** Throws {@link NoDaemonError} when none runs. */
export async function askControl(
  { stateDir, role, port }: { stateDir: string; role: Role; port: number },
): Promise<HubReport | SpokeReport> {
  return await (await call(stateDir, role, port, "/v1/status", "GET")).json();
}

/** Makes a running spoke authenticate now; throws {@link NoDaemonError}. */
export async function askReauth(
  { stateDir, port }: { stateDir: string; port: number },
): Promise<void> {
  await (await call(stateDir, "spoke", port, "/v1/reauth", "POST")).text();
}

async function call(stateDir: string, role: Role, port: number, path: string, method: string) {
  const socket = socketPath(stateDir, role, port);
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: socket } });
  try {
    return await fetch(`http://gretun${path}`, { client, method });
  } catch (cause) {
    throw new NoDaemonError(
      `no ${role} answers at ${socket}`,
      `Start gretun ${role}, or name its --port and --state-dir`,
      { cause },
    );
  }
}
