/** The data plane that was asked for, or the best that this kernel has. */
import { NoKernelPlaneError } from "../dataplane/mod.ts";
import type { Log } from "../edges.ts";
import { errorText } from "../errors.ts";
import { KernelPlane } from "./kernel_plane.ts";
import type { HubPlane, PlaneKind, PlaneOptions } from "./plane.ts";
import type { Host } from "../host/mod.ts";
import type { Signalling } from "../linux/mod.ts";

/** `auto` is `kernel` where the kernel can, else user space. Throws `GretunError`. */
export function openPlane(
  kind: PlaneKind | "auto",
  kernel: "gre-fou" | "ipip-fou",
  { options, signalling, tokens, host, log, openTun }: {
    options: PlaneOptions;
    signalling: Signalling;
    tokens?: () => readonly Uint8Array[];
    host: Host;
    log: Log;
    openTun: () => HubPlane;
  },
): HubPlane {
  if (kind === "tun") return openTun();
  try {
    const extras = tokens ? { tokens } : {};
    return KernelPlane.open({
      ...options,
      ...extras,
      kind: kind === "auto" ? kernel : kind,
      signalling,
    }, host);
  } catch (error) {
    if (kind !== "auto" || !(error instanceof NoKernelPlaneError)) throw error;
    log.info("no kernel plane here, using user space", { reason: errorText(error) });
    return openTun();
  }
}
