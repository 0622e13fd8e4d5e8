/** What a running daemon tells about its peers. */
import { type Endpoint, equalEndpoints, formatEndpoint, type Ip, isPrivate } from "../addr.ts";
import type { NodeKey } from "../keys.ts";
import type { LinkCounters } from "../links/mod.ts";
import { type Entry, isRelayed } from "./entry.ts";

/**
 * How packets get to a peer: over the own network, over the internet, by a port that the peer's
 * router maps or its user gave, through another tunnel, or through a relay.
 */
export type PathKind = "lan" | "direct" | "port-mapped" | "tunnel" | "relay-udp" | "relay-tcp";

export interface PeerReport {
  name: string;
  node_key: NodeKey;
  tunnel_ip: Ip;
  state: string;
  path?: PathKind;
  endpoint?: string;
  /** Of ours, where it is not the main one. */
  local_port?: number;
  rtt_ms?: number;
  ifname?: string;
  mtu?: number;
  rx_packets?: number;
  tx_packets?: number;
}

export function reportPeer(entry: Entry, counters?: LinkCounters): PeerReport {
  const { record, peer, ifname, mtu } = entry;
  return {
    name: record.name,
    node_key: record.nodeKey,
    tunnel_ip: record.tunnelIp,
    state: peer.state,
    ...(peer.path && !peer.path.dead
      ? {
        path: pathKind(entry, peer.path.endpoint),
        endpoint: formatEndpoint(peer.path.endpoint),
        ...(peer.path.endpoint.localPort ? { local_port: peer.path.endpoint.localPort } : {}),
        rtt_ms: Math.round(peer.path.rttMs * 10) / 10,
      }
      : {}),
    ...(ifname ? { ifname } : {}),
    ...(mtu ? { mtu } : {}),
    ...(counters ? { rx_packets: counters.rxPackets, tx_packets: counters.txPackets } : {}),
  };
}

function pathKind(entry: Entry, endpoint: Endpoint): PathKind {
  if (isRelayed(entry, endpoint)) return entry.relay!.kind;
  if (entry.peer.detours.has(endpoint.ip)) return "tunnel";
  if (isPrivate(endpoint.ip)) return "lan";
  const listed = entry.record.endpoints.find((e) => equalEndpoints(e.endpoint, endpoint));
  return listed?.source === "portmap" || listed?.source === "given" ? "port-mapped" : "direct";
}
