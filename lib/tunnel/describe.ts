/** A tunnel as `list` and `status` show it: the JSON object is an interface, see the README. */
import { formatCidr, isUnspecified } from "../addr.ts";
import { createMarkOf } from "../links/mod.ts";
import {
  type Direction,
  type InterfaceAddress,
  isTunnelKind,
  type Link,
  type LinkStats,
  type TunnelKind,
} from "../netlink.ts";
import { isTunnel } from "./plan.ts";
import { TOS_INHERIT } from "./validate.ts";

/** What is absent is not set, or is not known to the kind. */
export interface TunnelInfo {
  name: string;
  type: TunnelKind;
  /** Absent: any. */
  local_ip?: string;
  remote_ip?: string;
  /** Both ways; where they differ, `ikey` and `okey` instead. */
  key?: number;
  ikey?: number;
  okey?: number;
  /** 0: taken from the inner packet. */
  ttl: number;
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
  const { name, kind, tunnel, up, mtu } = link;
  if (!isTunnelKind(kind) || !tunnel) throw new TypeError(`Link is no tunnel: ${name}`);
  const { local, remote, ttl, tos, pmtudisc, csum, seq, device, payload } = tunnel;
  const ips = addresses.filter(({ isAutomatic }) => !isAutomatic)
    .map(({ local, prefixLength }) => formatCidr({ ip: local, prefixLength }));
  return {
    name,
    type: kind,
    ...(local ? { local_ip: local } : {}),
    ...(isUnspecified(remote) ? {} : { remote_ip: remote }),
    ...keysOf(tunnel),
    ttl,
    ...(tos ? { tos: tos === TOS_INHERIT ? "inherit" : tos } : {}),
    ...(kind.startsWith("ip6") ? {} : { pmtudisc }),
    ...(csum ? { csum } : {}),
    ...(seq ? { seq } : {}),
    ...(device === undefined ? {} : { dev: names.get(device) ?? `if${device}` }),
    up,
    ...(ips[0] ? { tunnel_ip: ips[0] } : {}),
    ...(ips.length > 1 ? { tunnel_ips: ips } : {}),
    ...encapOf(link),
    ...(payload && payload !== "any" ? { payload } : {}),
    ...(tunnel.encapLimit === undefined ? {} : { encap_limit: tunnel.encapLimit }),
    ...(tunnel.flowLabel === undefined ? {} : { flow_label: tunnel.flowLabel }),
    ...(mtu ? { mtu } : {}),
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
