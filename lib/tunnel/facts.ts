/** Facts of the host that plans are made from: a few dumps, whatever the number of tunnels. */
import { daemonMarkOf, ETHERNET_MTU, portHolder } from "../links/mod.ts";
import { type Link, NetlinkError } from "../netlink.ts";
import type { TunnelHost } from "./host.ts";
import { type HostFacts, type OuterPath, pathKey } from "./plan.ts";
import type { TunnelSpec } from "./validate.ts";

export function gatherFacts(host: TunnelHost, specs: readonly TunnelSpec[]): HostFacts {
  const links = host.rtnl.links({ skipStats: true });
  const mtus = new Map(links.map(({ name, ifindex, mtu }) => [ifindex, { name, mtu }]));
  const paths = new Map<string, OuterPath>();
  for (const spec of specs) {
    const key = pathKey(spec);
    if (!paths.has(key)) paths.set(key, pathOf(host, spec, mtus));
  }
  return {
    links,
    ...gatherPorts(host, links, specs.some(({ encap }) => encap)),
    modules: host.loadedModules(),
    paths,
  };
}

/** Receive ports, on a host where tunnels with an encapsulation come or go, and daemons. */
export function gatherPorts(
  host: TunnelHost,
  links: readonly Link[],
  hasEncap: boolean,
): Pick<HostFacts, "fouPorts" | "daemons"> {
  const fouPorts = hasEncap ? host.fou()?.ports() ?? [] : [];
  const ports = [...fouPorts, ...links.flatMap((link) => daemonMarkOf(link) ?? [])]
    .map(({ port }) => port);
  const holders = [...new Set(ports)].flatMap((port) => {
    const holder = portHolder(host.locks, port);
    return holder ? [[port, holder] as const] : [];
  });
  return { fouPorts, daemons: new Map(holders) };
}

/** A route may know a smaller MTU than its device has: that of the path, by ICMP or by hand. */
function pathOf(
  host: TunnelHost,
  { remote, device }: TunnelSpec,
  mtus: ReadonlyMap<number, { name: string; mtu: number }>,
): OuterPath {
  if (device !== undefined) {
    const known = [...mtus.values()].find(({ name }) => name === device);
    return { mtu: known?.mtu ?? ETHERNET_MTU, source: "device" };
  }
  try {
    const route = host.rtnl.routeTo(remote);
    const mtu = route.mtu ?? mtus.get(route.device ?? 0)?.mtu;
    return mtu === undefined ? { mtu: ETHERNET_MTU, source: "assumed" } : { mtu, source: "route" };
  } catch (error) {
    if (!(error instanceof NetlinkError) || !isNoRoute(error.code)) throw error;
    return { mtu: ETHERNET_MTU, source: "assumed" };
  }
}

const isNoRoute = (code: string) =>
  ["ENETUNREACH", "EHOSTUNREACH", "EACCES", "EINVAL", "ENETDOWN"].includes(code);
