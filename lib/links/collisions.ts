/**
 * What of a link's addresses and routes would take something away that this host has or needs: set
 * all the same, they would hide a neighbour, a resolver or the coordinator, or send the tunnel's own
 * packets into the tunnel. Pure.
 */
import { type Cidr, cidrContains, familyOf, formatCidr, type Ip, ipBytes } from "../addr.ts";
import { addressText, type Inner, type LinkAddress, network } from "./inner.ts";

/** A network that is at one of this host's interfaces, but none of our own links. */
export interface HostNetwork {
  ifname: string;
  /** This host's address in it. */
  local: Ip;
  /** Of the far end's address alone, where that is known. */
  network: Cidr;
}

/** An address that has to be reached as it is now. */
export interface NeededAddress {
  ip: Ip;
  /** As in "the default gateway". */
  what: string;
}

export interface HostView {
  networks: readonly HostNetwork[];
  needed: readonly NeededAddress[];
}

export interface Collision {
  /** The address or route that is not to be set. */
  wanted: string;
  /** As in "10.0.1.0/24 of eth0". */
  found: string;
}

export interface Admitted {
  /** What can be set. */
  inner: Inner;
  collisions: Collision[];
}

export const COLLISION_HINT = "Choose another --pool at the coordinator, or change that network";

/** Divides what is wanted. */
export function withoutCollisions(wanted: Inner, host: HostView): Admitted {
  const collisions: Collision[] = [];
  const isFree = (text: string, found: string | undefined) => {
    if (found !== undefined) collisions.push({ wanted: text, found });
    return found === undefined;
  };
  return {
    inner: {
      addresses: wanted.addresses.filter((address) =>
        isFree(addressText(address), addressCollision(address, host))
      ),
      routes: wanted.routes.filter((route) =>
        isFree(formatCidr(route), routeCollision(network(route), host))
      ),
    },
    collisions,
  };
}

/** This end's address is answered for on every interface; the far end's is a route. */
function addressCollision(
  { local, peer, prefixLength }: LinkAddress,
  host: HostView,
): string | undefined {
  const own = { ip: local, prefixLength: bitsOf(local) };
  const route = network({ ip: peer ?? local, prefixLength });
  return routeCollision(own, host) ?? routeCollision(route, host);
}

/** A route loses against a connected network that is smaller, and takes from one that is not. */
function routeCollision(route: Cidr, { networks, needed }: HostView): string | undefined {
  const taken = networks.find(({ network }) => isWithin(route, network));
  if (taken) return `${formatCidr(taken.network)} of ${taken.ifname}`;
  const own = networks.find(({ local }) => isHost(route, local));
  if (own) return `this host's address on ${own.ifname}`;
  const lost = needed.find(({ ip }) =>
    contains(route, ip) &&
    !networks.some(({ network }) =>
      contains(network, ip) && network.prefixLength > route.prefixLength
    )
  );
  return lost && `${lost.what} ${lost.ip}`;
}

const bitsOf = (ip: Ip) => ipBytes(ip).length * 8;
const isHost = (cidr: Cidr, ip: Ip) => cidr.ip === ip && cidr.prefixLength === bitsOf(ip);
const contains = (cidr: Cidr, ip: Ip) =>
  familyOf(cidr.ip) === familyOf(ip) && cidrContains(cidr, ip);
const isWithin = (inner: Cidr, outer: Cidr) =>
  inner.prefixLength >= outer.prefixLength && contains(outer, inner.ip);
