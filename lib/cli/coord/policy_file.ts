/** The file of `gretun-coord --policy`, and the signal that reads it again. */
import { PolicyDesk } from "../../coord/serve.ts";
import { systemClock } from "../../edges.ts";
import { GretunError } from "../../errors.ts";
import { refuseEverybodys } from "../../state_dir.ts";

/** Throws `GretunError`. */
export function openPolicy(path: string): PolicyDesk {
  const readFile = (name: string) => {
    const text = Deno.readTextFileSync(name);
    refuseEverybodys(name);
    return text;
  };
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
