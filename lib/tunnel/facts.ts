/** Facts of the host that plans are made from: a few dumps, whatever the number of tunnels. */
import { NetlinkError } from "../netlink.ts";
import type { TunnelHost } from "./host.ts";
import { type HostFacts, type OuterPath, pathKey } from "./plan.ts";
import type { TunnelSpec } from "./validate.ts";

const ETHERNET_MTU = 1500;

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
    ...gatherFouPorts(host, specs.some(({ encap }) => encap)),
    modules: host.loadedModules(),
    paths,
  };
}

/** Of a host on which tunnels with an encapsulation come or go. */
export function gatherFouPorts(
  host: TunnelHost,
  isNeeded: boolean,
): Pick<HostFacts, "fouPorts" | "daemonPorts"> {
  const fouPorts = isNeeded ? host.fou()?.ports() ?? [] : [];
  const daemonPorts = fouPorts.map(({ port }) => port).filter((port) => host.hasDaemon(port));
  return { fouPorts, daemonPorts: new Set(daemonPorts) };
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
