/** Lists of endpoints: where this node can be reached. */
import {
  type Cidr,
  cidrContains,
  type Endpoint,
  type Family,
  familyOf,
  formatEndpoint,
  isUsableEndpoint,
  parseIp,
} from "../../addr.ts";
import type { AdvertisedEndpoint, EndpointSource } from "../../coord/api.ts";
import { isTunnelDevice } from "../../links/mod.ts";
import type { RtNetlink } from "../../netlink.ts";

/** Of documentation (RFC 3849): a place that nobody has a route of its own to. */
const ELSEWHERE = parseIp("2001:db8:ffff:ffff::1");
/** As many endpoints as a coordinator takes from one node. */
const MAX_ENDPOINTS = 32;

/** What this host's kernel is asked. */
export type HostNetwork = Pick<RtNetlink, "links" | "addresses" | "tryRouteTo">;

export interface LocalEndpointsOptions {
  port: number;
  /** Of addresses that the data plane can use. */
  families: readonly Family[];
  /** Addresses in there are tunnels'. */
  overlay: Cidr;
}

/**
 * Every address of this host that others may send to, with the data port: none of tunnels, and of
 * IPv6 none that will not last, except the one that packets leave from. A peer's firewall lets in
 * only whom the peer has sent to.
 */
export function localEndpoints(
  rtnl: HostNetwork,
  { port, families, overlay }: LocalEndpointsOptions,
): Endpoint[] {
  const links = rtnl.links().filter((link) => link.up && !isTunnelDevice(link));
  const ifindexes = new Set(links.map(({ ifindex }) => ifindex));
  const outgoing = rtnl.tryRouteTo(ELSEWHERE)?.source;
  return rtnl.addresses()
    .filter(({ ifindex, local, isNotLasting }) =>
      ifindexes.has(ifindex) && families.includes(familyOf(local)) &&
      (!isNotLasting || local === outgoing)
    )
    .map(({ local }) => ({ ip: local, port }))
    .filter((endpoint) => isUsableEndpoint(endpoint) && !cidrContains(overlay, endpoint.ip));
}

/**
 * Each endpoint once, by the first source that has it, those first that the user gave. What makes the
 * list too long is left out of the local ones: a host can have many addresses that nobody reaches.
 */
export function advertise(
  found: Readonly<Record<EndpointSource, readonly Endpoint[]>>,
): AdvertisedEndpoint[] {
  const all = new Map<string, AdvertisedEndpoint>();
  const others = found.given.length + found.portmap.length + found.stun.length;
  const local = found.local.slice(0, Math.max(0, MAX_ENDPOINTS - others));
  const sources = { ...found, local };
  for (const source of ["given", "local", "portmap", "stun"] as const) {
    for (const endpoint of sources[source]) {
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
