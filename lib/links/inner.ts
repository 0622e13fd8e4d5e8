/**
 * The inner side of a link: addresses and routes as sets. What is wanted is compared with what is
 * there, and only the difference is changed.
 */
import { type Cidr, familyOf, formatCidr, type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import { GretunError } from "../errors.ts";
import { hasCode, type InterfaceAddress, type RtNetlink } from "../netlink.ts";

export interface LinkAddress {
  local: Ip;
  /** The far end's: the kernel adds the route to it. */
  peer?: Ip;
  /** Of the peer where there is one, else of the local address. */
  prefixLength: number;
}

export interface Inner {
  addresses: readonly LinkAddress[];
  /** Networks behind the far end. */
  routes: readonly Cidr[];
}

export const NO_INNER: Inner = { addresses: [], routes: [] };

/** A point-to-point pair. */
export function pairAddress(local: Ip, peer: Ip): LinkAddress {
  return { local, peer, prefixLength: familyOf(local) === 4 ? 32 : 128 };
}

export interface InnerChanges {
  removeAddresses: LinkAddress[];
  addAddresses: LinkAddress[];
  removeRoutes: Cidr[];
  addRoutes: Cidr[];
}

/** What turns `present` into `wanted`. */
export function innerChanges(wanted: Inner, present: Inner): InnerChanges {
  const addresses = difference(wanted.addresses, present.addresses, addressText);
  const routes = difference(wanted.routes.map(network), present.routes.map(network), formatCidr);
  return {
    removeAddresses: addresses.gone,
    addAddresses: addresses.missing,
    removeRoutes: routes.gone,
    addRoutes: routes.missing,
  };
}

function difference<T>(wanted: readonly T[], present: readonly T[], textOf: (item: T) => string) {
  const [want, have] = [new Set(wanted.map(textOf)), new Set(present.map(textOf))];
  return {
    gone: present.filter((item) => !want.has(textOf(item))),
    missing: wanted.filter((item) => !have.has(textOf(item))),
  };
}

export function addressText({ local, peer, prefixLength }: LinkAddress): string {
  return `${local}${peer === undefined ? "" : ` peer ${peer}`}/${prefixLength}`;
}

/**
 * Makes the link's inner side what is wanted. `before` is what it was given in this run; what others
 * added to that is theirs. It is undefined where an earlier run made the link: then addresses of the
 * wanted families that are there go. Throws `GretunError` for a route that another link has.
 */
export function setInner(
  rtnl: RtNetlink,
  ifindex: number,
  wanted: Inner,
  before: Inner | undefined,
): void {
  // With hundreds of links it matters not to read all addresses.
  const present = before ?? { addresses: readAddresses(rtnl, ifindex, wanted), routes: [] };
  const changes = innerChanges(wanted, present);
  for (const destination of changes.removeRoutes) {
    gone(() => rtnl.deleteRoute({ destination, device: ifindex }));
  }
  for (const address of changes.removeAddresses) {
    gone(() => rtnl.deleteAddress({ ifindex, ...address }));
  }
  for (const address of changes.addAddresses) addAddress(rtnl, ifindex, address);
  for (const destination of changes.addRoutes) addRoute(rtnl, ifindex, { destination });
}

function readAddresses(rtnl: RtNetlink, ifindex: number, wanted: Inner): LinkAddress[] {
  const families = new Set(wanted.addresses.map(({ local }) => familyOf(local)));
  return addressesOf(rtnl.addresses(), ifindex).filter(({ local }) =>
    families.has(familyOf(local))
  );
}

/** What was set of the link, by whomever. */
export function addressesOf(all: readonly InterfaceAddress[], ifindex: number): LinkAddress[] {
  return all.filter((address) => address.ifindex === ifindex && !address.isAutomatic)
    .map(({ local, peer, prefixLength }) => ({
      local,
      ...(peer ? { peer } : {}),
      prefixLength,
    }));
}

/** Runs `remove`; what is not there any more is as good. */
function gone(remove: () => void): void {
  try {
    remove();
  } catch (error) {
    if (!hasCode(error, "EADDRNOTAVAIL", "ESRCH", "ENODEV")) throw error;
  }
}

export function addAddress(rtnl: RtNetlink, ifindex: number, address: LinkAddress): void {
  try {
    rtnl.addAddress({ ifindex, ...address });
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error; // it is there
  }
}

/** A route into a link; those that come with an address have it as their source. */
export interface LinkRoute {
  destination: Cidr;
  source?: Ip;
}

/** Throws `GretunError` for one that another link has. */
export function addRoute(rtnl: RtNetlink, ifindex: number, route: LinkRoute): void {
  const { destination } = route;
  try {
    rtnl.addRoute({ ...route, device: ifindex });
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error;
    if (hasRoute(rtnl, ifindex, destination)) return;
    throw new GretunError(
      `cannot route ${formatCidr(destination)} into the tunnel: a route to it already exists`,
      "Remove the other one, see: ip route",
      { cause: error },
    );
  }
}

function hasRoute(rtnl: RtNetlink, ifindex: number, destination: Cidr): boolean {
  const wanted = formatCidr(destination);
  return rtnl.routes().some((route) =>
    route.device === ifindex && formatCidr(network(route.destination)) === wanted
  );
}

/** Without host bits, as the kernel wants it. */
export function network({ ip, prefixLength }: Cidr): Cidr {
  const bytes = ipBytes(ip).map((byte, i) => {
    const bits = Math.max(0, Math.min(8, prefixLength - 8 * i));
    return byte & (0xff00 >> bits) & 0xff;
  });
  return { ip: ipFromBytes(bytes), prefixLength };
}
