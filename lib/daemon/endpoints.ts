/** Lists of endpoints: where this node can be reached. */
import {
  type Cidr,
  cidrContains,
  type Endpoint,
  familyOf,
  formatEndpoint,
  isUsableEndpoint,
} from "../addr.ts";
import type { AdvertisedEndpoint, EndpointSource } from "../coord/api.ts";
import type { RtNetlink } from "../netlink.ts";

/** As many endpoints as a coordinator takes from one node. */
const MAX_ENDPOINTS = 32;

/** Every usable IPv4 address of this host with the data port; our own tunnels' are left out. */
export function localEndpoints(rtnl: RtNetlink, port: number, overlay: Cidr): Endpoint[] {
  const up = new Set(rtnl.links().filter((link) => link.up).map((link) => link.ifindex));
  return rtnl.addresses()
    .filter(({ ifindex, local }) => up.has(ifindex) && familyOf(local) === 4)
    .map(({ local }) => ({ ip: local, port }))
    .filter((endpoint) => isUsableEndpoint(endpoint) && !cidrContains(overlay, endpoint.ip));
}

/** Each endpoint once, by the first source that has it, those first that the user gave. */
export function advertise(
  found: Readonly<Record<EndpointSource, readonly Endpoint[]>>,
): AdvertisedEndpoint[] {
  const all = new Map<string, AdvertisedEndpoint>();
  for (const source of ["given", "local", "portmap", "stun"] as const) {
    for (const endpoint of found[source]) {
      const key = formatEndpoint(endpoint);
      if (!all.has(key)) all.set(key, { endpoint, source });
    }
  }
  return [...all.values()].slice(0, MAX_ENDPOINTS);
}

export function sameEndpoints(
  a: readonly AdvertisedEndpoint[],
  b: readonly AdvertisedEndpoint[],
): boolean {
  const text = (list: readonly AdvertisedEndpoint[]) =>
    list.map(({ endpoint }) => formatEndpoint(endpoint)).sort().join();
  return text(a) === text(b);
}
