/** What this host has, as far as tunnels could take it away: see `collisions.ts`. */
import { type Ip, isLinkLocal, isLoopback, parseIp } from "../addr.ts";
import { SystemError } from "../linux/mod.ts";
import type { InterfaceAddress, Link, Route, RtNetlink } from "../netlink.ts";
import type { HostNetwork, HostView, NeededAddress } from "./collisions.ts";
import { network } from "./inner.ts";
import { type DaemonRole, linksOf } from "./mark.ts";

const RESOLV_CONF = "/etc/resolv.conf";

export interface HostViewOptions {
  rtnl: Pick<RtNetlink, "links" | "addresses" | "routes">;
  /** Throws `SystemError`. */
  readFile: (path: string) => string;
  /** Whose links are looked past. */
  daemon: { role: DaemonRole; port: number };
}

export function readHostView({ rtnl, readFile, daemon }: HostViewOptions): HostView {
  const links = rtnl.links({ skipStats: true });
  const own = new Set(linksOf(links, daemon).map(({ link }) => link.ifindex));
  const others = new Map(
    links.filter(({ ifindex, up }) => up && !own.has(ifindex)).map((l) => [l.ifindex, l]),
  );
  return {
    networks: networksOf(rtnl.addresses(), others),
    needed: [...gatewaysOf(rtnl.routes(), others), ...resolversOf(readResolvConf(readFile))],
  };
}

function networksOf(
  addresses: readonly InterfaceAddress[],
  links: ReadonlyMap<number, Link>,
): HostNetwork[] {
  return addresses.flatMap(({ ifindex, local, peer, prefixLength }) => {
    const link = links.get(ifindex);
    if (!link || isLoopback(local) || isLinkLocal(local)) return [];
    return [{ ifname: link.name, local, network: network({ ip: peer ?? local, prefixLength }) }];
  });
}

function gatewaysOf(
  routes: readonly Route[],
  links: ReadonlyMap<number, Link>,
): NeededAddress[] {
  return routes.flatMap(({ gateway, device }) =>
    gateway && links.has(device ?? -1) && !isLinkLocal(gateway)
      ? [{ ip: gateway, what: "the gateway" }]
      : []
  );
}

function readResolvConf(readFile: (path: string) => string): string {
  try {
    return readFile(RESOLV_CONF);
  } catch (error) {
    if (error instanceof SystemError) return "";
    throw error;
  }
}

/** See resolv.conf(5). */
export function resolversOf(resolvConf: string): NeededAddress[] {
  return resolvConf.split("\n").flatMap((line) => {
    const ip = tryParse(/^nameserver\s+([^\s%]+)/.exec(line)?.[1]);
    return ip && !isLoopback(ip) && !isLinkLocal(ip) ? [{ ip, what: "the DNS server" }] : [];
  });
}

function tryParse(text: string | undefined): Ip | undefined {
  try {
    return text === undefined ? undefined : parseIp(text);
  } catch {
    return undefined;
  }
}
