/**
 * How packets of links travel, in the kernel or through this process, for `up`, `hub` and `spoke`.
 *
 * @example
 * await using plane = openPlane({ wanted: "auto", kernel: "fou", codec }, options, { host, clock, log });
 * const { ifname } = plane.setLink({ id, remote, addresses: [pairAddress(own, peer)], routes: [] });
 */
export { decodeGre, encodeGre } from "./gre.ts";
export { wantsChecksum } from "./kernel/checksums.ts";
export { isIpPacket, SourceFilter } from "./guard/inner.ts";
export { ENCAPSULATIONS, NoKernelPlaneError, openFou, tryTunnel } from "./kernel/encapsulation.ts";
export { openPlane, type PlaneChoice } from "./open.ts";
export type {
  AdoptedLink,
  DataCodec,
  DataPlane,
  EncapCsum,
  ExtraPort,
  KernelPlaneKind,
  LinkKeys,
  LinkState,
  Lookalikes,
  PlaneKind,
  PlaneOptions,
  PlaneRefusal,
  PlaneWorld,
  WantedLink,
} from "./plane.ts";
export { ensureTun } from "./user/plane.ts";
export { GreCodec } from "./user/gre_codec.ts";
