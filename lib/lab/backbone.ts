/**
 * The way between two places of the public network: it has one segment, but what is sent from one
 * place to another goes by three routers, as on the internet no two routers of homes are next to
 * each other. What dies on the way with a small TTL must not reach the other side.
 *
 *     place -- gateway -- backbone -- far-end -- place
 *              (internet)
 *
 * IPv6 has no such need: it goes straight.
 */
import { type Cidr, parseCidr, parseIp } from "../addr.ts";
import { DEFAULT_DESTINATION, halves } from "./addresses.ts";
import type { Segment } from "./segment.ts";
import type { Space } from "./space.ts";

/** TEST-NET-1 (RFC 5737): between the routers. */
const GATEWAY_TO_BACKBONE = ["192.0.2.1", "192.0.2.2"] as const;
const BACKBONE_TO_FAR_END = ["192.0.2.5", "192.0.2.6"] as const;
const LINK_PREFIX_LENGTH = 30;
/** Last of the segment, which gives out addresses from the first on. */
const FAR_END = parseCidr("203.0.113.254/24");

export const BACKBONE_NAMES = { backbone: "backbone", farEnd: "far-end" } as const;

export interface BackboneSpaces {
  gateway: Space;
  backbone: Space;
  farEnd: Space;
}

/** Joins the routers, and sends what is for the segment from its gateway around to its far end. */
export function addBackbone({ gateway, backbone, farEnd }: BackboneSpaces, segment: Segment): void {
  const { backbone: backboneName, farEnd: farEndName } = BACKBONE_NAMES;
  // Packets come by another way than answers go.
  for (const space of [gateway, backbone, farEnd]) space.acceptAnySource();
  join(gateway, backboneName, backbone, "gateway", GATEWAY_TO_BACKBONE);
  join(backbone, farEndName, farEnd, backboneName, BACKBONE_TO_FAR_END);
  segment.plug(farEnd, farEndName, "places");
  farEnd.addAddress("places", FAR_END.ip, FAR_END.prefixLength);
  farEnd.bringUp("places");
  routeAround(gateway, segment.prefix, GATEWAY_TO_BACKBONE[1], backboneName);
  routeAround(backbone, segment.prefix, BACKBONE_TO_FAR_END[1], farEndName);
  backbone.route(DEFAULT_DESTINATION, {
    gateway: parseIp(GATEWAY_TO_BACKBONE[0]),
    ifname: "gateway",
  });
  farEnd.route(DEFAULT_DESTINATION, {
    gateway: parseIp(BACKBONE_TO_FAR_END[0]),
    ifname: backboneName,
  });
  backbone.forwardPackets();
  farEnd.forwardPackets();
}

function routeAround(space: Space, prefix: Cidr, gateway: string, ifname: string): void {
  for (const half of halves(prefix)) space.route(half, { gateway: parseIp(gateway), ifname });
}

function join(
  a: Space,
  nameAtA: string,
  b: Space,
  nameAtB: string,
  addresses: readonly [string, string],
): void {
  a.rtnl.createLink({
    name: nameAtA,
    kind: "veth",
    peerName: nameAtB,
    peerNetnsFd: b.netns.fd,
  });
  for (
    const [space, ifname, ip] of [[a, nameAtA, addresses[0]], [b, nameAtB, addresses[1]]] as const
  ) {
    space.addAddress(ifname, parseIp(ip), LINK_PREFIX_LENGTH);
    space.bringUp(ifname);
  }
}
