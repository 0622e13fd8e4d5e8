/**
 * How packets of links travel, in the kernel or through this process, for `up`, `hub` and `spoke`.
 *
 * @example
 * await using plane = openPlane({ wanted: "auto", kernel: "fou", codec }, options, { host, clock, log });
 * const { ifname } = plane.setLink({ id, remote, addresses: [pairAddress(own, peer)], routes: [] });
 */
export { isIpPacket } from "../engine/mod.ts";
export type { HubPlaneKind, KernelPlaneKind, LinkKeys, PlaneKind, UpPlaneKind } from "./kinds.ts";
export { NoKernelPlaneError } from "./kernel/encapsulation.ts";
export { leftKernelPlane } from "./kernel/left.ts";
export { openPlane, type PlaneChoice } from "./open.ts";
export type {
  AdoptedLink,
  DataCodec,
  DataPlane,
  EncapCsum,
  ExtraPort,
  InnerLimits,
  LinkState,
  Lookalikes,
  PlaneOptions,
  PlaneRefusal,
  PlaneThreads,
  PlaneWorld,
  WantedLink,
} from "./plane.ts";
export { PLANE_DROPS, PLANE_REFUSALS } from "./plane.ts";
export { GreCodec } from "./user/gre_codec.ts";
