/** The control socket of a running coordinator. */
import { Admin, type AdminOptions } from "../../coord/serve.ts";
import { serveControlSocket } from "../../control_socket.ts";
import type { Log } from "../../edges.ts";
import { errorText } from "../../errors.ts";
import { controlPath } from "./ask.ts";

/** Without it the coordinator serves nodes all the same. */
export async function openControl(
  state: string,
  options: Omit<AdminOptions, "log">,
  log: Log,
): Promise<AsyncDisposable | undefined> {
  const path = controlPath(state);
  if (path === undefined) return undefined;
  try {
    const admin = new Admin({ ...options, log });
    return await serveControlSocket(
      { path, program: "gretun-coord" },
      (request) => admin.handle(request),
    );
  } catch (error) {
    log.warn("no control socket", { path, error: errorText(error) });
    return undefined;
  }
}
