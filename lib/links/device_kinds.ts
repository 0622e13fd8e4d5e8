/** Which links lead through a tunnel, whoever made it. */
import type { Link } from "../netlink.ts";
import { markOf } from "./mark.ts";

/**
 * Kinds of links whose packets leave this host inside other packets: rtnetlink's names. Not PPP,
 * mobile networks, bridges and VLANs, which are ways to the internet.
 */
const TUNNEL_DEVICES = new Set([
  ...["gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan", "ipip", "sit", "ip6tnl"],
  ...["vti", "vti6", "xfrm", "wireguard", "amneziawg", "tun", "ovpn", "ovpn-dco"],
  ...["vxlan", "geneve", "bareudp", "gtp", "amt"],
]);

/** By kind, or by our mark. */
export function isTunnelDevice(link: Pick<Link, "kind" | "alias">): boolean {
  return TUNNEL_DEVICES.has(link.kind ?? "") || markOf(link) !== undefined;
}
