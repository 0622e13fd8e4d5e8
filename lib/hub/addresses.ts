/** Addresses, routes and marks of links, on either plane. */
import {
  type Cidr,
  familyOf,
  formatCidr,
  type Ip,
  ipBytes,
  ipFromBytes,
  isUnspecified,
} from "../addr.ts";
import { GretunError } from "../errors.ts";
import { type Link, NetlinkError, RtNetlink } from "../netlink.ts";

const MIN_MTU = 576;
const ETHERNET_MTU = 1500;

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

/** The MTU of the way to `remote` less the overhead; throws `GretunError` without a way. */
export function wayMtu(rtnl: RtNetlink, remote: Ip, overheadBytes: number): number {
  const route = rtnl.routeTo(remote);
  const outer = route.mtu ?? rtnl.link(route.device ?? 0)?.mtu ?? ETHERNET_MTU;
  return Math.max(MIN_MTU, outer - overheadBytes);
}

/** Makes `local peer` the link's only address of its family, and `routes` its routes. */
export function setAddresses(
  rtnl: RtNetlink,
  ifindex: number,
  { local, peer, routes }: { local?: Ip; peer?: Ip; routes: readonly Cidr[] },
  isNew: boolean,
): void {
  if (local && peer) setPair(rtnl, ifindex, { local, peer }, isNew);
  for (const destination of routes) {
    try {
      rtnl.addRoute({ destination: network(destination), device: ifindex });
    } catch (error) {
      if (!(error instanceof NetlinkError) || error.code !== "EEXIST") throw error;
      if (!hasRoute(rtnl, ifindex, destination)) throw error;
    }
  }
}

/** A new link has no address yet: with hundreds of links it matters not to read all of them. */
function setPair(
  rtnl: RtNetlink,
  ifindex: number,
  { local, peer }: { local: Ip; peer: Ip },
  isNew: boolean,
): void {
  let present = false;
  for (const address of isNew ? [] : rtnl.addresses()) {
    if (address.ifindex !== ifindex || familyOf(address.local) !== familyOf(local)) continue;
    if (address.local === local && address.peer === peer) present = true;
    else if (!address.isAutomatic) rtnl.deleteAddress(address);
  }
  const prefixLength = familyOf(local) === 4 ? 32 : 128;
  if (!present) rtnl.addAddress({ ifindex, local, peer, prefixLength });
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

/** The pattern's first name that no interface has; own ones are known without asking. */
export function freeIfname(
  rtnl: RtNetlink,
  pattern: string,
  own: ReadonlySet<string>,
): string {
  for (let i = 0;; i++) {
    const name = pattern.replace("%d", String(i));
    if (!own.has(name) && !rtnl.link(name)) return name;
    if (name === pattern) {
      throw new GretunError(
        `cannot make another link: ${name} exists`,
        "Put %d into --iface, so that each link gets its own name",
      );
    }
  }
}
