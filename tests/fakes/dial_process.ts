/**
 * A web server ("serve ADDRESS...", port 8443), or a client that asks each URL in turn and prints a
 * line with the status and how long it took.
 */
import { HttpClient, systemDialer } from "../../lib/dial/mod.ts";

const [first, ...rest] = Deno.args;
if (first === "serve") {
  for (const hostname of rest) {
    Deno.serve(
      { hostname, port: 8443, onListen: () => console.log("ready") },
      () => new Response(),
    );
  }
} else {
  using client = new HttpClient(systemDialer());
  for (const url of Deno.args) {
    const startMs = performance.now();
    const { status } = await client.request(url, {
      method: "GET",
      signal: AbortSignal.timeout(60_000),
    });
    console.log(`${status} ${Math.round(performance.now() - startMs)}`);
  }
}
