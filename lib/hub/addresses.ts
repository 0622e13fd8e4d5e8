/** Addresses, routes and marks of links, on either plane. */
import { type Cidr, formatCidr, type Ip, ipBytes, ipFromBytes, isUnspecified } from "../addr.ts";
import { setPair } from "../dataplane/mod.ts";
import { GretunError } from "../errors.ts";
import { hasCode, type Link, RtNetlink } from "../netlink.ts";
import type { HubLink } from "./plane.ts";

/** Throws `GretunError` for an address that is none of this host's. */
export function checkBind(bind: Ip | undefined): void {
  if (bind === undefined || isUnspecified(bind)) return;
  using rtnl = RtNetlink.open();
  if (rtnl.addresses().some(({ local }) => local === bind)) return;
  throw new GretunError(
    `no interface of this host has the address ${bind}`,
    "Give --bind one that it has, see: ip -br address",
  );
}

/** The interface alias by which a link is known after a crash. A port is one program's. */
export function ownerAlias(owner: "hub" | "spoke", port: number, name: string): string {
  return `gretun ${owner} port ${port} ${owner === "hub" ? "client" : "hub"} ${name}`;
}

export function ownedName(link: Link, owner: "hub" | "spoke", port: number): string | undefined {
  const prefix = ownerAlias(owner, port, "");
  return link.alias?.startsWith(prefix) ? link.alias.slice(prefix.length) : undefined;
}

/**
 * Gives the link its addresses, if it has any, and its routes. `before` is how the link was set in
 * this run; undefined where an earlier run made it.
 */
export function setAddresses(
  rtnl: RtNetlink,
  ifindex: number,
  link: HubLink,
  before: Partial<HubLink> | undefined,
): void {
  const { local, peer, routes } = link;
  if (local && peer) setPair(rtnl, ifindex, { local, peer }, before);
  for (const destination of routes) addRoute(rtnl, ifindex, destination);
}

function addRoute(rtnl: RtNetlink, ifindex: number, destination: Cidr): void {
  try {
    rtnl.addRoute({ destination: network(destination), device: ifindex });
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error;
    if (hasRoute(rtnl, ifindex, destination)) return;
    throw new GretunError(
      `cannot route ${formatCidr(destination)} into the tunnel: there is such a route already`,
      "Remove the other one, see: ip route",
      { cause: error },
    );
  }
}

function hasRoute(rtnl: RtNetlink, ifindex: number, destination: Cidr): boolean {
  const wanted = formatCidr(network(destination));
  return rtnl.routes().some((route) =>
    route.device === ifindex && formatCidr(network(route.destination)) === wanted
  );
}

/** Without host bits, as the kernel wants it. */
function network({ ip, prefixLength }: Cidr): Cidr {
  const bytes = ipBytes(ip).map((byte, i) => {
    const bits = Math.max(0, Math.min(8, prefixLength - 8 * i));
    return byte & (0xff00 >> bits) & 0xff;
  });
  return { ip: ipFromBytes(bytes), prefixLength };
}
