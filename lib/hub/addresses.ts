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

interface Pair {
  local?: Ip;
  peer?: Ip;
}

/**
 * Makes `local peer` the link's only address of its family, and `routes` its routes. `before` is
 * what it was given in this run, `{}` for a new link; undefined where an earlier run made it.
 */
export function setAddresses(
  rtnl: RtNetlink,
  ifindex: number,
  { local, peer, routes }: Pair & { routes: readonly Cidr[] },
  before: Pair | undefined,
): void {
  if (local && peer) {
    // With hundreds of links it matters not to read all addresses.
    const isSame = before?.local === local && before.peer === peer;
    if (!before || (before.local && !isSame)) removeOthers(rtnl, ifindex, { local, peer });
    const prefixLength = familyOf(local) === 4 ? 32 : 128;
    unlessThere(() => rtnl.addAddress({ ifindex, local, peer, prefixLength }));
  }
  for (const destination of routes) {
    const isAdded = unlessThere(() =>
      rtnl.addRoute({ destination: network(destination), device: ifindex })
    );
    if (isAdded || hasRoute(rtnl, ifindex, destination)) continue;
    throw new GretunError(
      `cannot route ${formatCidr(destination)} into the tunnel: there is such a route already`,
      "Remove the other one, see: ip route",
    );
  }
}

/** Whether `add` added what was not there. */
function unlessThere(add: () => void): boolean {
  try {
    add();
    return true;
  } catch (error) {
    if (error instanceof NetlinkError && error.code === "EEXIST") return false;
    throw error;
  }
}

function removeOthers(rtnl: RtNetlink, ifindex: number, { local, peer }: Required<Pair>): void {
  for (const address of rtnl.addresses()) {
    if (address.ifindex !== ifindex || familyOf(address.local) !== familyOf(local)) continue;
    if (address.isAutomatic || (address.local === local && address.peer === peer)) continue;
    rtnl.deleteAddress(address);
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
