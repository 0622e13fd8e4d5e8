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
import { isTunnelDevice, markOf } from "../../links/mod.ts";
import type { Link, RtNetlink } from "../../netlink.ts";

/** Of documentation (RFC 3849): a place that nobody has a route of its own to. */
const ELSEWHERE = parseIp("2001:db8:ffff:ffff::1");
/** The same of IPv4: TEST-NET-1 (RFC 5737). */
const ELSEWHERE_4 = parseIp("192.0.2.1");
/** As many endpoints as a coordinator takes from one node. */
const MAX_ENDPOINTS = 32;

/** What this host's kernel is asked. */
export type HostNetwork = Pick<RtNetlink, "links" | "addresses" | "tryRouteTo">;

/** What the user says of interfaces: names, where `*` stands for any letters. */
export interface InterfaceChoice {
  /** Addresses of these are told, whatever they are. */
  advertise: readonly string[];
  /** Those of these are not. */
  exclude: readonly string[];
}

export interface LocalEndpointsOptions {
  port: number;
  /** Of addresses that the data plane can use. */
  families: readonly Family[];
  /** Addresses in there are tunnels'. */
  overlay: Cidr | undefined;
  interfaces: InterfaceChoice;
}

/** For containers and machines of this host: everybody's have the same addresses. */
const INNER_BRIDGE =
  /^(docker\d|br-[0-9a-f]{12}$|virbr|lxcbr|lxdbr|incusbr|cni|podman|flannel|cilium)/;

/**
 * Every address of this host that others may send to, with the data port, those of the way to the
 * internet first: none of tunnels, and of IPv6 none that will not last, except the one that packets
 * leave from. A peer's firewall lets in only whom the peer has sent to.
 */
export function localEndpoints(
  rtnl: HostNetwork,
  { port, families, overlay, interfaces }: LocalEndpointsOptions,
): Endpoint[] {
  const links = rtnl.links({ skipStats: true });
  const ways = [rtnl.tryRouteTo(ELSEWHERE_4), rtnl.tryRouteTo(ELSEWHERE)];
  const outgoing = ways[1]?.source;
  const used = new Set(ways.map((way) => way?.device));
  const masters = new Set(links.map(({ master }) => master));
  const leads = ({ kind, ifindex }: Link) =>
    kind !== "bridge" || masters.has(ifindex) || used.has(ifindex);
  const told = new Map(
    links.filter((link) => link.up && isTold(link, interfaces, leads)).map((l) => [l.ifindex, l]),
  );
  const use = (ifindex: number) => used.has(ifindex) ? 0 : kindRank(told.get(ifindex)!);
  return rtnl.addresses()
    .filter(({ ifindex, local, isNotLasting }) =>
      told.has(ifindex) && families.includes(familyOf(local)) &&
      (!isNotLasting || local === outgoing)
    )
    .sort((a, b) => use(a.ifindex) - use(b.ifindex))
    .map(({ local }) => ({ ip: local, port }))
    .filter((endpoint) =>
      isUsableEndpoint(endpoint) && !(overlay && cidrContains(overlay, endpoint.ip))
    );
}

/** Bridges are mostly for containers and machines of this host. */
function kindRank({ kind }: Link): number {
  if (kind === undefined) return 1;
  return kind === "bridge" ? 3 : 2;
}

/** Nobody is behind a bridge without ports. */
function isTold(
  link: Link,
  { advertise, exclude }: InterfaceChoice,
  leads: (link: Link) => boolean,
): boolean {
  const isNamed = (patterns: readonly string[]) =>
    patterns.some((pattern) => matchesName(pattern, link.name));
  if (isNamed(exclude) || markOf(link)) return false;
  return isNamed(advertise) ||
    (!isTunnelDevice(link) && !INNER_BRIDGE.test(link.name) && leads(link));
}

function matchesName(pattern: string, name: string): boolean {
  const parts = pattern.split("*").map((part) => part.replace(/[^\w]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(name);
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
