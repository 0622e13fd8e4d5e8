/** Where this node can be reached: its own addresses, and what STUN servers see. */
import {
  type Cidr,
  cidrContains,
  type Endpoint,
  familyOf,
  formatEndpoint,
  isUsableEndpoint,
} from "../addr.ts";
import type { AdvertisedEndpoint } from "../coord/api.ts";
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

/** Local endpoints first, then what STUN saw and is not a local one, each once. */
export function advertise(local: Endpoint[], mapped: Endpoint[]): AdvertisedEndpoint[] {
  const all = new Map<string, AdvertisedEndpoint>();
  for (const endpoint of local) all.set(formatEndpoint(endpoint), { endpoint, source: "local" });
  for (const endpoint of mapped) {
    const key = formatEndpoint(endpoint);
    if (!all.has(key)) all.set(key, { endpoint, source: "stun" });
  }
  return [...all.values()].slice(0, MAX_ENDPOINTS);
}

export function sameEndpoints(a: AdvertisedEndpoint[], b: AdvertisedEndpoint[]): boolean {
  const text = (list: AdvertisedEndpoint[]) =>
    list.map(({ endpoint }) => formatEndpoint(endpoint)).sort().join();
  return text(a) === text(b);
}
