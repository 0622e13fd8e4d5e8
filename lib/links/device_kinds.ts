/** Which links are tunnels, whoever made them. */
import { isUnspecified } from "../addr.ts";
import { isTunnelKind, type Link } from "../netlink.ts";
import { daemonMarkOf, markOf } from "./mark.ts";

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

/** Made by the kernel's modules in every network namespace. */
export const FALLBACK_DEVICES: readonly string[] = [
  ...["gre0", "gretap0", "erspan0", "tunl0", "sit0", "ip6gre0", "ip6tnl0", "ip6_vti0", "ip_vti0"],
];

/**
 * What users see as a tunnel: links of the kinds that `gretun create` makes, whoever made them, but
 * for the kernel's fallback devices; and the devices of our daemons that work in user space.
 */
export function isTunnel(link: Link): boolean {
  const { kind, name, tunnel } = link;
  if (kind === "tun") return daemonMarkOf(link) !== undefined;
  if (!isTunnelKind(kind) || !tunnel) return false;
  return !FALLBACK_DEVICES.includes(name) || !isUnspecified(tunnel.remote);
}
