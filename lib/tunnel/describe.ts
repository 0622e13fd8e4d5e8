/** A tunnel as `list` and `status` show it: the JSON object is an interface, see the README. */
import { formatCidr, isUnspecified } from "../addr.ts";
import { createMarkOf, daemonMarkOf, isTunnel } from "../links/mod.ts";
import {
  type Direction,
  type InterfaceAddress,
  isTunnelKind,
  type Link,
  type LinkStats,
  type Tunnel,
  type TunnelKind,
} from "../netlink.ts";
import { TOS_INHERIT } from "./validate.ts";

/** What is absent is not set, or is not known to the kind. */
export interface TunnelInfo {
  name: string;
  /** "tun": of a daemon that works in user space. */
  type: TunnelKind | "tun";
  /** The daemon that made it, the port that it does on, and whom the tunnel leads to. */
  made_by?: "up" | "hub" | "spoke";
  port?: number;
  far_end?: string;
  /** Absent: any. */
  local_ip?: string;
  remote_ip?: string;
  /** Both ways; where they differ, `ikey` and `okey` instead. */
  key?: number;
  ikey?: number;
  okey?: number;
  /** 0: taken from the inner packet. Not of user space. */
  ttl?: number;
  tos?: number | "inherit";
  /** Over IPv4. */
  pmtudisc?: boolean;
  csum?: Direction;
  seq?: Direction;
  dev?: string;
  up: boolean;
  tunnel_ip?: string;
  /** All of them, where there are several. */
  tunnel_ips?: string[];
  encap?: "fou" | "gue";
  encap_sport?: number;
  encap_dport?: number;
  encap_csum?: boolean;
  /** Of tunnels that gretun made. */
  fou_port?: number;
  /** What it carries, where that is not both. */
  payload?: "ipv4" | "ipv6";
  encap_limit?: number;
  flow_label?: number;
  mtu?: number;
}

export interface TunnelStatus extends TunnelInfo {
  stats: {
    rx_packets: number;
    rx_bytes: number;
    rx_errors: number;
    rx_dropped: number;
    tx_packets: number;
    tx_bytes: number;
    tx_errors: number;
    tx_dropped: number;
  };
  /** Of outer packets, where a route knows. */
  path_mtu?: number;
}

/** All tunnels but the kernel's fallback devices, in the kernel's order. */
export function describeTunnels(
  links: readonly Link[],
  addresses: readonly InterfaceAddress[],
): TunnelInfo[] {
  const byLink = Map.groupBy(addresses, ({ ifindex }) => ifindex);
  const names = new Map(links.map(({ ifindex, name }) => [ifindex, name]));
  return links.filter(isTunnel)
    .map((link) => describeTunnel(link, byLink.get(link.ifindex) ?? [], names));
}

function describeTunnel(
  link: Link,
  addresses: readonly InterfaceAddress[],
  names: ReadonlyMap<number, string>,
): TunnelInfo {
  const { name, kind, up, mtu } = link;
  const ips = addresses.filter(({ isAutomatic }) => !isAutomatic)
    .map(({ local, prefixLength }) => formatCidr({ ip: local, prefixLength }));
  return {
    name,
    type: isTunnelKind(kind) ? kind : "tun",
    ...ownerOf(link),
    ...outerOf(link, names),
    up,
    ...(ips[0] ? { tunnel_ip: ips[0] } : {}),
    ...(ips.length > 1 ? { tunnel_ips: ips } : {}),
    ...encapOf(link),
    ...innerOf(link),
    ...(mtu ? { mtu } : {}),
  };
}

function ownerOf(link: Link) {
  const mark = daemonMarkOf(link);
  return mark ? { made_by: mark.by, port: mark.port, far_end: mark.id } : {};
}

/** As the kernel has it; of user space it has nothing. */
function outerOf({ kind, tunnel }: Link, names: ReadonlyMap<number, string>) {
  if (!isTunnelKind(kind) || !tunnel) return {};
  const { local, remote, ttl, tos, pmtudisc, csum, seq, device } = tunnel;
  return {
    ...(local ? { local_ip: local } : {}),
    ...(isUnspecified(remote) ? {} : { remote_ip: remote }),
    ...keysOf(tunnel),
    ttl,
    ...(tos ? { tos: tos === TOS_INHERIT ? "inherit" as const : tos } : {}),
    ...(kind.startsWith("ip6") ? {} : { pmtudisc }),
    ...(csum ? { csum } : {}),
    ...(seq ? { seq } : {}),
    ...(device === undefined ? {} : { dev: names.get(device) ?? `if${device}` }),
  };
}

function innerOf({ tunnel }: Link) {
  const { payload, encapLimit, flowLabel }: Partial<Tunnel> = tunnel ?? {};
  return {
    ...(payload && payload !== "any" ? { payload } : {}),
    ...(encapLimit === undefined ? {} : { encap_limit: encapLimit }),
    ...(flowLabel === undefined ? {} : { flow_label: flowLabel }),
  };
}

function keysOf({ ikey = 0, okey = 0 }: { ikey?: number; okey?: number }) {
  if (ikey === okey) return ikey ? { key: ikey } : {};
  return { ...(ikey ? { ikey } : {}), ...(okey ? { okey } : {}) };
}

function encapOf(link: Link) {
  const encap = link.tunnel?.encap;
  if (!encap) return {};
  const mark = createMarkOf(link);
  return {
    encap: encap.type,
    ...(encap.sport ? { encap_sport: encap.sport } : {}),
    ...(encap.dport ? { encap_dport: encap.dport } : {}),
    encap_csum: encap.csum,
    ...(mark ? { fou_port: mark.port } : {}),
  };
}

/** Counters in the names of the JSON. */
export function formatStats(stats: LinkStats): TunnelStatus["stats"] {
  return {
    rx_packets: stats.rxPackets,
    rx_bytes: stats.rxBytes,
    rx_errors: stats.rxErrors,
    rx_dropped: stats.rxDropped,
    tx_packets: stats.txPackets,
    tx_bytes: stats.txBytes,
    tx_errors: stats.txErrors,
    tx_dropped: stats.txDropped,
  };
}
