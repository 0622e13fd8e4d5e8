/** Which router to ask. */
import { type Ip, parseIp } from "../addr.ts";
import { NetlinkError, type RtNetlink } from "../netlink.ts";

/** TEST-NET-1 (RFC 5737): a place on the internet that nobody has a route of its own to. */
const ELSEWHERE = parseIp("192.0.2.1");

/**
 * The IPv4 router that packets to the internet go to, and this host's address on that way.
 * Undefined without a way, and where it leads into a point-to-point link.
 */
export function findGateway(rtnl: RtNetlink): { gateway: Ip; local: Ip } | undefined {
  try {
    const { gateway, source } = rtnl.routeTo(ELSEWHERE);
    return gateway && source ? { gateway, local: source } : undefined;
  } catch (error) {
    // ENETUNREACH, or whatever a route that leads nowhere on purpose gives.
    if (error instanceof NetlinkError) return undefined;
    throw error;
  }
}
