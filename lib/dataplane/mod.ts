/** How a tunnel's packets travel: in the kernel (`fou`) or through this process (`tun`). */
import { errorText } from "../errors.ts";
import type { Log } from "../edges.ts";
import type { Poller } from "../linux/mod.ts";
import { FouPlane } from "./fou.ts";
import { NoKernelPlaneError } from "./kernel.ts";
import type { DataPlane, DataPlaneKind, DataPlaneOptions } from "./plane.ts";
import { TunPlane } from "./tun.ts";

export { decodeGre, encodeGre } from "./gre.ts";
export * from "./kernel.ts";
export { hasSafeChecksums } from "./links.ts";
export * from "./plane.ts";
export { ensureTun } from "./tun.ts";

/** Opens the plane asked for; `auto` takes the kernel's where it has one. Throws `GretunError`. */
export function openDataPlane(
  kind: DataPlaneKind | "auto",
  options: DataPlaneOptions,
  poller: Poller,
  log: Log,
): DataPlane {
  if (kind === "tun") return TunPlane.open(options, poller);
  try {
    return FouPlane.open(options, poller, log);
  } catch (error) {
    if (kind === "fou" || !(error instanceof NoKernelPlaneError)) throw error;
    log.info("no kernel plane here, using user space", { reason: errorText(error) });
    return TunPlane.open(options, poller);
  }
}
