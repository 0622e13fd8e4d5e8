/** What a running daemon tells about its peers. */
import { type Endpoint, equalEndpoints, formatEndpoint, type Ip, isPrivate } from "../addr.ts";
import type { NodeNat } from "../coord/api.ts";
import type { NodeKey } from "../keys.ts";
import type { LinkCounters } from "../links/mod.ts";
import { formatAccess } from "../policy/access.ts";
import { type Path, type Peer, UNANSWERED } from "../peer/mod.ts";
import { type Entry, isRelayed } from "./entry.ts";
import { reportPathMtu } from "./probed_path.ts";

/**
 * How packets get to a peer: over the own network, over the internet, by a port that the peer's
 * router maps or its user gave, through another tunnel, or through a relay.
 */
export type PathKind = "lan" | "direct" | "port-mapped" | "tunnel" | "relay-udp" | "relay-tcp";

/** Something that is wrong, and what to do about it. */
export interface Finding {
  text: string;
  remedy: string;
  /** The tunnel does what it should all the same. */
  harmless?: true;
}

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
  /** Seconds since anything came by that path: an idle one is asked each 25 s, and may be dead meanwhile. */
  path_heard_s?: number;
  /** Seconds for which pings by it have been sent in vain; absent: none is. */
  path_unanswered_s?: number;
  /** Seconds since that path was chosen. */
  path_since_s?: number;
  /** Whether it has been silent for so long that it is taken to be away. */
  offline?: boolean;
  /** Seconds since it was last heard, if it ever was. */
  last_seen_s?: number;
  /** It signs nothing of what is told of it, as older versions do not. */
  v1?: boolean;
  /** Of a relayed peer: in one clause. */
  why_not_direct?: string;
  ifname?: string;
  mtu?: number;
  /** Of packets outside, as pings found it; seconds since the path was last looked at. */
  path_mtu?: number;
  path_mtu_looked_s?: number;
  rx_packets?: number;
  tx_packets?: number;
  rx_bytes?: number;
  tx_bytes?: number;
  /** What it may open here by the coordinator's policy, as that writes it; absent: everything. */
  inbound?: string[];
  /** What keeps data from this peer, or from getting through, though it is reached. */
  findings?: Finding[];
}

/** A peer that has no path and is silent for longer is away. */
const OFFLINE_MS = 60_000;

export interface Look {
  nowMs: number;
  ownNat: NodeNat | undefined;
  counters: LinkCounters | undefined;
  findings: Finding[];
}

export function reportPeer(entry: Entry, look: Look): PeerReport {
  const { record, peer, ifname, mtu, heardMs, pathSinceMs } = entry;
  const { nowMs, counters, findings } = look;
  const seconds = (sinceMs: number) => Math.round((nowMs - sinceMs) / 1000);
  const hasPath = peer.path !== undefined && !peer.path.dead;
  const silentMs = nowMs - (heardMs ?? peer.punchingSinceMs ?? nowMs);
  return {
    name: record.name,
    node_key: record.nodeKey,
    tunnel_ip: record.tunnelIp,
    state: peer.state,
    ...(record.statement ? {} : { v1: true }),
    ...(heardMs === undefined ? {} : { last_seen_s: seconds(heardMs) }),
    ...(!hasPath && silentMs >= OFFLINE_MS ? { offline: true } : {}),
    ...(peer.path && hasPath
      ? {
        path: pathKind(entry, peer.path.endpoint),
        endpoint: formatEndpoint(peer.path.endpoint),
        ...(peer.path.endpoint.localPort ? { local_port: peer.path.endpoint.localPort } : {}),
        ...answers(peer, peer.path, nowMs),
        ...(pathSinceMs === undefined ? {} : { path_since_s: seconds(pathSinceMs) }),
        ...whyNotDirect(entry, look.ownNat),
      }
      : {}),
    ...(ifname ? { ifname } : {}),
    ...(mtu ? { mtu } : {}),
    ...reportPathMtu(entry.probed, nowMs),
    ...(counters
      ? {
        ...{ rx_packets: counters.rxPackets, tx_packets: counters.txPackets },
        ...{ rx_bytes: counters.rxBytes, tx_bytes: counters.txBytes },
      }
      : {}),
    ...(record.inbound ? { inbound: formatAccess(record.inbound) } : {}),
    ...(findings.length > 0 ? { findings } : {}),
  };
}

/** What has come by the path, and whether something is missing now. */
function answers(
  { receivedMs }: Peer,
  { pongMs, rttMs, verify }: Path,
  nowMs: number,
): Pick<PeerReport, "rtt_ms" | "path_heard_s" | "path_unanswered_s"> {
  const seconds = (sinceMs: number) => Math.round((nowMs - sinceMs) / 1000);
  const unanswered = verify ? { path_unanswered_s: seconds(verify.sinceMs) } : {};
  // One of an earlier run, of which nothing is known yet.
  if (pongMs === UNANSWERED) return unanswered;
  return {
    rtt_ms: Math.round(rttMs * 10) / 10,
    path_heard_s: seconds(Math.max(pongMs, receivedMs)),
    ...unanswered,
  };
}

/** A member that is not there, as it was when it was last seen. */
export function reportAbsent(
  nodeKey: NodeKey,
  { name, ip, seenMs }: { name: string; ip: Ip; seenMs: number },
  wallMs: number,
): PeerReport {
  const lastSeenS = Math.max(0, Math.round((wallMs - seenMs) / 1000));
  return {
    ...{ name, node_key: nodeKey, tunnel_ip: ip, state: "unknown" },
    ...{ offline: true, last_seen_s: lastSeenS },
  };
}

function whyNotDirect(
  { record, relay, peer }: Entry,
  ownNat: NodeNat | undefined,
): Pick<PeerReport, "why_not_direct"> {
  if (!relay || !peer.path || !equalEndpoints(relay.endpoint, peer.path.endpoint)) return {};
  const hard = { own: ownNat?.mapping === "hard", its: record.nat?.mapping === "hard" };
  if (relay.kind === "relay-tcp") {
    return { why_not_direct: "UDP does not get out of this network or the peer's" };
  }
  if (hard.own && hard.its) {
    return { why_not_direct: "both NATs give each remote another port" };
  }
  if (hard.own) return { why_not_direct: "this host's NAT gives each remote another port" };
  if (hard.its) return { why_not_direct: "the peer's NAT gives each remote another port" };
  return { why_not_direct: "no direct path has answered yet; the search goes on" };
}

function pathKind(entry: Entry, endpoint: Endpoint): PathKind {
  if (isRelayed(entry, endpoint)) return entry.relay!.kind;
  if (entry.peer.detours.has(endpoint.ip)) return "tunnel";
  if (isPrivate(endpoint.ip)) return "lan";
  const listed = entry.record.endpoints.find((e) => equalEndpoints(e.endpoint, endpoint));
  return listed?.source === "portmap" || listed?.source === "given" ? "port-mapped" : "direct";
}
