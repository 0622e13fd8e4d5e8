/** Which planes there are, by the names that the commands have for them, and the keys of their links. */

/** `fou` is `gre-fou` by the name that `up` has for it. */
export const UP_PLANES = ["fou", "tun"] as const;
export const HUB_PLANES = ["gre-fou", "ipip-fou", "tun"] as const;
export type UpPlaneKind = typeof UP_PLANES[number];
export type HubPlaneKind = typeof HUB_PLANES[number];
export type PlaneKind = UpPlaneKind | HubPlaneKind;
export type KernelPlaneKind = Exclude<PlaneKind, "tun">;

/** What tells packets of links with one remote address apart. */
export interface LinkKeys {
  kind: "gre";
  /** Of packets from the far end, and to it. */
  ikey: number;
  okey: number;
}
