/**
 * Port mappings: asks the home router for a UDP port by which everybody reaches this host. PCP
 * (RFC 6887), NAT-PMP (RFC 6886) and UPnP-IGD, over IPv4.
 *
 * @example
 * const way = findGateway(rtnl);
 * if (way) {
 *   await using mapping = await mapPort({ ...way, internalPort: 7777 });
 *   if (mapping.isPublic) advertise(mapping.external);
 * }
 */
export { NoPortMappingError } from "./errors.ts";
export { findGateway } from "./gateway.ts";
export { isPublicEndpoint, mapPort, type MapPortOptions, type PortMapping } from "./mapping.ts";
export { type PortMapNet, systemNet, type UdpSocket } from "./net.ts";
export { type ProbeOptions, probePortMapping, type ProtocolProbe } from "./probe.ts";
export { type PortMapProtocol, PROTOCOL_NAMES, PROTOCOLS } from "./protocol.ts";
