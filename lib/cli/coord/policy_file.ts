/** The file of `gretun-coord --policy`, and the signal that reads it again. */
import { PolicyDesk } from "../../coord/serve.ts";
import { systemClock } from "../../edges.ts";
import { GretunError } from "../../errors.ts";

/** Throws `GretunError`. */
export function openPolicy(path: string): PolicyDesk {
  const readFile = (name: string) => Deno.readTextFileSync(name);
  return new PolicyDesk({ path, readFile, nowMs: () => systemClock.wallMs() });
}

export function onHangup(reload: () => void): Disposable {
  const handler = () => {
    try {
      reload();
    } catch (error) {
      if (!(error instanceof GretunError)) throw error; // told by who refused it
    }
  };
  Deno.addSignalListener("SIGHUP", handler);
  return { [Symbol.dispose]: () => Deno.removeSignalListener("SIGHUP", handler) };
}
