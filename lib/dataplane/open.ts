/** The data plane that was asked for, or the best that this kernel has. */
import { errorText } from "../errors.ts";
import { NoKernelPlaneError } from "./kernel/encapsulation.ts";
import { KernelPlane } from "./kernel/plane.ts";
import type { KernelPlaneKind, PlaneKind } from "./kinds.ts";
import type { DataCodec, DataPlane, PlaneOptions, PlaneWorld } from "./plane.ts";
import { UserPlane } from "./user/plane.ts";

export interface PlaneChoice {
  /** `auto`: `kernel` where this kernel can, else user space. */
  wanted: PlaneKind | "auto";
  /** Absent: there is none for what is to travel. */
  kernel?: KernelPlaneKind;
  /** For user space. */
  codec: () => DataCodec;
}

/** Throws `GretunError`. */
export function openPlane(
  { wanted, kernel, codec }: PlaneChoice,
  options: PlaneOptions,
  world: PlaneWorld,
): DataPlane {
  const openUser = () => UserPlane.open(options, codec(), world);
  const kind = wanted === "auto" ? kernel ?? "tun" : wanted;
  const { signalling } = options;
  if (kind === "tun" || !signalling) return openUser();
  try {
    return KernelPlane.open({ ...options, kind, signalling }, world);
  } catch (error) {
    if (wanted !== "auto" || !(error instanceof NoKernelPlaneError)) throw error;
    world.log.info("no kernel plane here, using user space", { reason: errorText(error) });
    return openUser();
  }
}
