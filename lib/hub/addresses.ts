/** Addresses and routes of links, on either plane. */
import { type Ip, isUnspecified } from "../addr.ts";
import { GretunError } from "../errors.ts";
import type { Host } from "../host/mod.ts";
import { type Inner, pairAddress } from "../links/mod.ts";
import type { HubLink } from "./plane.ts";

/** Throws `GretunError` for an address that is none of this host's. */
export function checkBind(host: Host, bind: Ip | undefined): void {
  if (bind === undefined || isUnspecified(bind)) return;
  using rtnl = host.openRtNetlink();
  if (rtnl.addresses().some(({ local }) => local === bind)) return;
  throw new GretunError(
    `no interface of this host has the address ${bind}`,
    "Give --bind one that it has, see: ip -br address",
  );
}

export function innerOf({ local, peer, routes }: HubLink): Inner {
  return { addresses: local && peer ? [pairAddress(local, peer)] : [], routes };
}
