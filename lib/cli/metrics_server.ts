/** Prometheus metrics over HTTP, for the programs that have some. */
import type { Log } from "../edges.ts";
import { errorText } from "../errors.ts";
import { endServer } from "../http.ts";
import type { MetricsText } from "../metrics.ts";
import { type ListenAddress, openListen } from "./listen.ts";

const SHUTDOWN_MS = 300;

/** A port that cannot be had is only a warning: the tunnels matter more. */
export async function serveMetrics(
  listen: ListenAddress,
  metrics: MetricsText,
  log: Log,
): Promise<AsyncDisposable | undefined> {
  const addr = `${listen.hostname}:${listen.port}`;
  const handler = async (request: Request) =>
    new URL(request.url).pathname === "/metrics"
      ? new Response(await metrics.text(), { headers: { "content-type": metrics.contentType } })
      : new Response("metrics are at /metrics\n", { status: 404 });
  try {
    const serve = (each: ListenAddress) => Deno.serve({ ...each, onListen: () => {} }, handler);
    const servers = await openListen(listen, serve);
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
