/** How commands ask the running coordinator: by its control socket, beside its database. */
import { askControlSocket } from "../../control_socket.ts";
import { GretunError, NoDaemonError, UsageError } from "../../errors.ts";
import { STATE_FLAG, statePath } from "./state.ts";
import { flag } from "../flags.ts";

export const ASK_FLAGS = {
  ...STATE_FLAG,
  json: flag.on("JSON on standard output"),
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
  const question = {
    ...{ path, pathname, program: "coordinator" },
    hint: "Start it with gretun-coord, or give its database with --state",
    ...(body === undefined ? {} : { method: "POST", body } as const),
  };
  return JSON.parse(await askControlSocket(question).catch(refused));
}

/** What the coordinator says no to, by how that begins. */
const REMEDIES: [refusal: RegExp, remedy: string][] = [
  [/: (no node is|several nodes are) called/, "See them with: gretun-coord node list"],
  [/: there is no token/, "See them with: gretun-coord token list"],
  [/: there is no policy/, "Start the coordinator with --policy FILE"],
];

function refused(error: unknown): never {
  const isRefusal = error instanceof GretunError && !(error instanceof NoDaemonError);
  const remedy = isRefusal && REMEDIES.find(([refusal]) => refusal.test(error.message))?.[1];
  throw remedy ? new GretunError(error.message, remedy, { cause: error }) : error;
}
