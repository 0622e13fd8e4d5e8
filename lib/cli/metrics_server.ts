/** Prometheus metrics over HTTP, for the programs that have some. */
import type { Log } from "../edges.ts";
import { errorText } from "../errors.ts";
import { endServer } from "../http.ts";
import type { MetricsText } from "../metrics.ts";
import { type ListenAddress, openListen } from "../listen.ts";
import { ProcessMetrics } from "./process_metrics.ts";

const SHUTDOWN_MS = 300;

/**
 * Serves them, and those of the process, if anywhere. A port that cannot be had is only a warning: the tunnels
 * matter more.
 */
export async function serveMetrics(
  listen: ListenAddress | undefined,
  metrics: readonly MetricsText[],
  log: Log,
): Promise<AsyncDisposable | undefined> {
  if (!listen) return undefined;
  const addr = `${listen.hostname}:${listen.port}`;
  const all = [new ProcessMetrics(), ...metrics];
  const text = async () => (await Promise.all(all.map((each) => each.text()))).join("");
  const handler = async (request: Request) =>
    new URL(request.url).pathname === "/metrics"
      ? new Response(await text(), { headers: { "content-type": all[0]!.contentType } })
      : new Response("metrics are at /metrics\n", { status: 404 });
  try {
    const serve = (each: ListenAddress) => Deno.serve({ ...each, onListen: () => {} }, handler);
    const servers = openListen(listen, serve, (server) => void server.shutdown());
    log.info("metrics listening", { addr });
    return {
      async [Symbol.asyncDispose]() {
        await Promise.all(servers.map((server) => endServer(server, SHUTDOWN_MS)));
      },
    };
  } catch (error) {
    log.warn("metrics server failed", { addr, error: errorText(error) });
    return undefined;
  }
}
