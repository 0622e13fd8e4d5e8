/** HTTP on a unix socket that its owner alone may use: how a running program is asked. */
import { errorText, GretunError } from "./errors.ts";
import { endServer } from "./http.ts";

/** What an open request gets to finish when the program stops. */
const SHUTDOWN_MS = 300;

/** In place of one that a killed program left behind. Throws `GretunError` when it cannot listen. */
export async function serveUnix(
  path: string,
  handler: (request: Request) => Response,
): Promise<AsyncDisposable> {
  await Deno.remove(path).catch(() => {});
  try {
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

/** The body of the answer. Throws `TypeError` when nobody answers there. */
export async function askUnix(path: string, pathname: string, method = "GET"): Promise<string> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  const response = await fetch(`http://gretun${pathname}`, { client, method });
  return await response.text();
}
