/**
 * The way between two places of the public network. It has one segment, but what is sent from one
 * place to another goes by four routers, as on the internet the routers of two homes are not next
 * to each other: what is meant to die on the way must not reach the other side.
 *
 *     place -- internet -- backbone-1 -- backbone-2 -- far-end -- place
 *
 * IPv6 has no such need: it goes straight.
 */
import { type Cidr, type Ip, parseCidr, parseIp } from "../../lib/addr.ts";
import { DEFAULT_DESTINATION, halves } from "./addresses.ts";
import type { Segment } from "./segment.ts";
import type { Space } from "../../lib/lab/mod.ts";

/** What comes after the segment's gateway. */
export const BACKBONE_NAMES = ["backbone-1", "backbone-2", "far-end"] as const;

/** The last address of the segment, which gives out addresses from the first on. */
const FAR_END = parseCidr("203.0.113.254/24");
const UPSTREAM = "up";
const DOWNSTREAM = "down";
const PLACES = "places";
const LINK_PREFIX_LENGTH = 30;

/** Both ends of the nth link between routers, of TEST-NET-1 (RFC 5737). */
function linkAddresses(n: number): [Ip, Ip] {
  return [parseIp(`192.0.2.${4 * n + 1}`), parseIp(`192.0.2.${4 * n + 2}`)];
}

/** Joins the routers, the segment's gateway first, and sends what is for the segment that way. */
export function addBackbone(routers: readonly Space[], segment: Segment): void {
  // Packets come by another way than answers go.
  for (const router of routers) acceptAnySource(router);
  for (const [i, next] of routers.slice(1).entries()) {
    const router = routers[i]!;
    const [near, far] = linkAddresses(i);
    const peer = { peerName: UPSTREAM, peerNetnsFd: next.netns.fd };
    router.rtnl.createLink({ name: DOWNSTREAM, kind: "veth", ...peer });
    bringUp(router, DOWNSTREAM, near);
    bringUp(next, UPSTREAM, far);
    routeAround(router, segment.prefix, far);
    next.route(DEFAULT_DESTINATION, { gateway: near, ifname: UPSTREAM });
    next.forwardPackets();
  }
  const farEnd = routers.at(-1)!;
  segment.plug(farEnd, BACKBONE_NAMES.at(-1)!, PLACES);
  farEnd.addAddress(PLACES, FAR_END.ip, FAR_END.prefixLength);
  farEnd.bringUp(PLACES);
}

/** By an interface that the way back does not lead to. */
function acceptAnySource(router: Space): void {
  for (const which of ["all", "default"]) router.writeSetting(`ipv4/conf/${which}/rp_filter`, "0");
}

function bringUp(space: Space, ifname: string, ip: Ip): void {
  space.addAddress(ifname, ip, LINK_PREFIX_LENGTH);
  space.bringUp(ifname);
}

/** Before the route that the gateway has because it is in the segment. */
function routeAround(router: Space, prefix: Cidr, gateway: Ip): void {
  for (const half of halves(prefix)) router.route(half, { gateway, ifname: DOWNSTREAM });
}
