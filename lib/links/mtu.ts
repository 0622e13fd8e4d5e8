/** What is left for inner packets. */
import { type Ip, isLoopback } from "../addr.ts";
import { NetlinkError, type RtNetlink } from "../netlink.ts";

/** What IPv4 asks every host to take (RFC 791 section 3.1): no way is taken for narrower. */
export const MIN_MTU = 576;
export const ETHERNET_MTU = 1500;
/** Of an IP packet. The loopback device says one more. */
const MAX_MTU = 65_535;

/** On the way to `remote`, which may carry less than its route says; throws as {@link routeMtu}. */
export function innerMtu(
  rtnl: RtNetlink,
  remote: Ip,
  { overheadBytes, pathMtu = Infinity }: { overheadBytes: number; pathMtu: number | undefined },
): number {
  return Math.max(MIN_MTU, Math.min(routeMtu(rtnl, remote), pathMtu)) - overheadBytes;
}

/** Of packets to `ip`, as far as this host knows; throws `NetlinkError` without a way. */
export function routeMtu(rtnl: RtNetlink, ip: Ip): number {
  if (isLoopback(ip)) return ETHERNET_MTU;
  const { mtu, device } = rtnl.routeTo(ip);
  return Math.min(mtu ?? rtnl.link(device ?? 0)?.mtu ?? ETHERNET_MTU, MAX_MTU);
}

/** Undefined where the kernel has no way for what `look` asks. */
export function unlessNoWay<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (error instanceof NetlinkError) return undefined;
    throw error;
  }
}
