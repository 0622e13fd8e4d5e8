/** This machine, as hub and spoke are given it. */
import { serveControlSocket } from "../../control_socket.ts";
import { systemClock, systemRandom } from "../../edges.ts";
import { openStateDir } from "../../state_dir.ts";
import type { World } from "../world.ts";
import { systemFiles } from "./files.ts";
import { systemProcesses } from "./processes.ts";

export function systemWorld(
  { log, host, ready }: Pick<World, "log" | "host" | "ready">,
): World {
  return {
    clock: systemClock,
    random: systemRandom,
    log,
    host,
    ready,
    files: systemFiles,
    processes: systemProcesses,
    openStateDir,
    onSignal(name, handler) {
      Deno.addSignalListener(name, handler);
      return { [Symbol.dispose]: () => Deno.removeSignalListener(name, handler) };
    },
    serveControl: serveControlSocket,
  };
}
