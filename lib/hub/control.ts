/** A running hub or spoke answers on a unix socket in its state directory. */
import { askControlSocket, textAnswer } from "../control_socket.ts";
import type { World } from "./world.ts";

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

interface Place {
  stateDir: string;
  role: Role;
  port: number;
}

export function controlPath(stateDir: string, role: Role, port: number): string {
  return `${stateDir}/${role}-${port}.sock`;
}

/** Serves until disposed. Throws `GretunError` when it cannot. */
export async function serveControl(
  world: Pick<World, "serveControl">,
  { stateDir, role, port }: Place,
  { report, reauth }: { report: () => HubReport | SpokeReport; reauth: () => void },
): Promise<AsyncDisposable> {
  const place = { path: controlPath(stateDir, role, port), program: role };
  return await world.serveControl(place, (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/v1/status" && request.method === "GET") return Response.json(report());
    if (pathname === "/v1/reauth" && request.method === "POST") {
      reauth();
      return new Response("ok\n");
    }
    return textAnswer(404, "not found");
  });
}

/** Throws {@link NoDaemonError} when none runs. */
export async function askControl(place: Place): Promise<HubReport | SpokeReport> {
  return JSON.parse(await call(place, "/v1/status", "GET"));
}

/** Makes a running spoke authenticate now; throws {@link NoDaemonError}. */
export async function askReauth(place: Omit<Place, "role">): Promise<void> {
  await call({ ...place, role: "spoke" }, "/v1/reauth", "POST");
}

async function call(
  { stateDir, role, port }: Place,
  pathname: string,
  method: "GET" | "POST",
): Promise<string> {
  return await askControlSocket({
    path: controlPath(stateDir, role, port),
    pathname,
    method,
    program: role,
    hint: `Start gretun ${role}, or name its --port and --state-dir`,
  });
}
