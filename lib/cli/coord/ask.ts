/** How commands ask the running coordinator: by its control socket, beside its database. */
import { askControlSocket } from "../../control_socket.ts";
import { UsageError } from "../../errors.ts";
import { STATE_FLAG, statePath } from "./state.ts";

export const ASK_FLAGS = {
  ...STATE_FLAG,
  json: { type: "boolean", help: "JSON on standard output" },
} as const;

export type Json = Record<string, unknown>;

/** Absent for a coordinator that keeps nothing: nobody could tell it from another one. */
export function controlPath(state: string): string | undefined {
  return state === ":memory:" ? undefined : `${state.replace(/\.db$/, "")}.sock`;
}

/** Throws `NoDaemonError` when none runs with that state, `GretunError` for what it refuses. */
export async function ask(
  { state: given }: { state: string | undefined },
  pathname: string,
  body?: Json,
): Promise<Json> {
  const state = statePath(given);
  const path = controlPath(state);
  if (path === undefined) {
    throw new UsageError(
      "a coordinator with --state :memory: cannot be asked",
      "Start it with a file, and give that with --state",
    );
  }
  const text = await askControlSocket({
    path,
    pathname,
    program: "coordinator",
    hint: "Start it with gretun-coord, or give its database with --state",
    ...(body === undefined ? {} : { method: "POST", body }),
  });
  return JSON.parse(text);
}
