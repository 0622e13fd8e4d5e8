/** What is known of this host's network, and what that means for its peers. */
import { type Endpoint, type Ip, isPrivate, isUsableEndpoint } from "../addr.ts";
import type { PortMapProtocol, ProtocolProbe } from "../portmap/mod.ts";
import type { FilteringBehaviour, MappingBehaviour } from "../stun/mod.ts";

/** A STUN server, once for each family that it has an address of. */
export interface ServerReport {
  name: string;
  /** Absent: the name does not resolve. */
  endpoint?: Endpoint;
  /** Absent: no answer. */
  rttMs?: number;
}

/** Larger packets than `pathMtu` vanish on the way to that server. */
export interface PathMtuReport {
  server: string;
  pathMtu: number;
  routeMtu: number;
}

/** One family of addresses that UDP works over. */
export interface FamilyReport {
  /** Where the STUN servers see this host. */
  mapped: Endpoint;
  /** Of the socket that asked. */
  localPort: number;
  /** Whether that differs from the host's own address and port. */
  isTranslated: boolean;
  mapping: MappingBehaviour;
  filtering: FilteringBehaviour;
  /** Absent: as wide as the route says, or not known. */
  narrowPath?: PathMtuReport;
}

export interface PortMapReport {
  gateway: Ip;
  protocols: Record<PortMapProtocol, ProtocolProbe>;
}

export interface CoordinatorReport {
  url: string;
  /** Absent where it did not answer as one. */
  rttMs?: number;
  error?: string;
}

export interface NetReport {
  servers: ServerReport[];
  ipv4?: FamilyReport;
  ipv6?: FamilyReport;
  /** Whether a datagram to this host's own public IPv4 address comes back; absent: not tried. */
  hairpins?: boolean;
  /** Absent without an IPv4 router. */
  portMap?: PortMapReport;
  /** Absent where none was named. */
  coordinator?: CoordinatorReport;
}

/**
 * How peers get to this host. `open`: everybody does, `mapped`: so they do by a port mapping,
 * `restricted`: those that it has sent to, at any port of theirs, `port-restricted`: just where it
 * has sent to, `symmetric`: the same, at an address that is another for each of them.
 */
export type Reach =
  | "nothing"
  | "tcp-only"
  | "open"
  | "mapped"
  | "restricted"
  | "port-restricted"
  | "symmetric"
  | "unknown";

/** Whether anything gets out at all. */
export function hasWayOut(report: NetReport): boolean {
  return reachOf(report) !== "nothing";
}

/** By IPv4 if that works. */
export function reachOf({ ipv4, ipv6, portMap, coordinator }: NetReport): Reach {
  const family = ipv4 ?? ipv6;
  if (!family) return coordinator?.rttMs === undefined ? "nothing" : "tcp-only";
  const reach = reachBehind(family);
  const isMapped = ipv4 && portMap && isDoubleNat({ ipv4, portMap }) === false;
  return isMapped && reach !== "open" ? "mapped" : reach;
}

/** Address-dependent mapping is so rare that it is taken for none where two ports agree. */
function reachBehind({ mapping, filtering }: FamilyReport): Reach {
  switch (mapping) {
    case "unknown":
      return "unknown";
    case "address-dependent":
    case "address-dependent or address-and-port-dependent":
    case "address-and-port-dependent":
      return "symmetric";
    case "endpoint-independent":
    case "endpoint-independent or address-dependent":
      return reachThrough(filtering);
  }
}

/** What is not known is taken for the stricter. */
function reachThrough(filtering: FilteringBehaviour): Reach {
  switch (filtering) {
    case "endpoint-independent":
      return "open";
    case "endpoint-independent or address-dependent":
    case "address-dependent":
      return "restricted";
    case "address-dependent or address-and-port-dependent":
    case "address-and-port-dependent":
    case "unknown":
      return "port-restricted";
  }
}

/** What the router calls its outer address, by whichever protocol tells it. */
export function externalIpOf({ protocols }: PortMapReport): Ip | undefined {
  const { pcp, natpmp, upnp } = protocols;
  return [pcp, natpmp, upnp].map((probe) => probe.answers ? probe.externalIp : undefined)
    .find((ip) => ip !== undefined);
}

export function isPublicIp(ip: Ip): boolean {
  return isUsableEndpoint({ ip, port: 1 }) && !isPrivate(ip);
}

/**
 * Whether there is another NAT above the router, which makes port mappings useless. Undefined where
 * the router does not tell its address.
 */
export function isDoubleNat(
  { ipv4, portMap }: Pick<NetReport, "ipv4" | "portMap">,
): boolean | undefined {
  const external = portMap && externalIpOf(portMap);
  if (external === undefined) return undefined;
  if (!isPublicIp(external)) return true;
  return ipv4 && ipv4.mapped.ip !== external;
}

/** One sentence; a second one where IPv6 does better. */
export function meaningOf(report: NetReport): string {
  const reach = reachOf(report);
  const isLimited = !["open", "mapped", "restricted"].includes(reach);
  const alsoIpv6 = report.ipv4 && report.ipv6 && isLimited
    ? " Over IPv6, direct with peers that have it too."
    : "";
  return sentence(reach, report) + alsoIpv6 + narrowText(report);
}

function narrowText({ ipv4, ipv6 }: NetReport): string {
  const narrow = ipv4?.narrowPath ?? ipv6?.narrowPath;
  if (!narrow) return "";
  const { pathMtu, routeMtu } = narrow;
  return ` Packets of more than ${pathMtu} bytes vanish on the way, though the route says ${routeMtu}:` +
    " tunnels of gretun up follow by themselves; for others, have the router send ICMP" +
    ' "fragmentation needed", or give the route that MTU.';
}

function sentence(reach: Reach, { ipv4, ipv6, coordinator }: NetReport): string {
  switch (reach) {
    case "nothing":
      return coordinator
        ? "Nothing gets out: neither a STUN server nor the coordinator answers."
        : "No STUN server answers: UDP is blocked, or there is no network." +
          " With --coordinator, TCP is tried too.";
    case "tcp-only":
      return "No STUN server answers, UDP seems to be blocked: a relay over TCP is needed with every peer.";
    case "open":
      return "Direct with all peers: everybody reaches this host.";
    case "mapped":
      return "Direct with all peers, by a port mapping of the router.";
    case "restricted":
      return "Direct with all peers.";
    case "port-restricted":
      return "Direct with all peers but those behind symmetric NATs: a relay is needed with these." +
        ((ipv4 ?? ipv6)!.filtering === "unknown" ? " How the NAT filters is not known." : "");
    case "symmetric":
      return "Symmetric NAT: direct with peers that have a public address, a port mapping or a NAT" +
        " that filters by address at most; a relay is needed with the others.";
    case "unknown":
      return "UDP works, but how the NAT maps is not known: a STUN server at another address" +
        " would tell.";
  }
}
