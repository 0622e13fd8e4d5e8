/** Addresses and routes of links, on either plane. */
import { type Ip, isUnspecified } from "../addr.ts";
import { GretunError } from "../errors.ts";
import type { Host } from "../host/mod.ts";
import { type LinkAddress, pairAddress } from "../links/mod.ts";

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

/** None where whoever runs on the link gives it some. */
export function pairOf({ local, peer }: { local?: Ip; peer?: Ip }): LinkAddress[] {
  return local && peer ? [pairAddress(local, peer)] : [];
}
