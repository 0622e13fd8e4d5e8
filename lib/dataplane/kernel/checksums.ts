/** Whether outer packets of IPv4 can have a UDP checksum. */
import { familyOf, type Ip, isLoopback } from "../../addr.ts";
import type { Host } from "../../host/mod.ts";
import type { RtNetlink } from "../../netlink.ts";
import type { EncapCsum, WantedLink } from "../plane.ts";

const PARAVIRTUAL_DRIVERS = ["virtio_net", "vif", "hv_netvsc", "vmxnet3"];

/** Always over IPv6, which has no UDP without a checksum (RFC 8200 section 8.1). */
export function wantsChecksum(
  host: Host,
  rtnl: RtNetlink,
  encapCsum: EncapCsum,
  remote: Ip,
): boolean {
  if (familyOf(remote) === 6) return true;
  return encapCsum === "auto" ? hasSafeChecksums(host, rtnl, remote) : encapCsum === "on";
}

/**
 * Whether inner checksums have to be filled in before packets are encapsulated. Where the next
 * kernel is on the same machine (containers, virtual machines), nobody fills them in on the way: a
 * kernel at the end knows that they were left open, but a program's socket gets the bytes as they are,
 * and in one datagram what would have been cut up later. The kernel itself fills them in for
 * loopback, which has no offloads for what is encapsulated.
 */
export function needsInnerChecksum(host: Host, rtnl: RtNetlink, link: WantedLink): boolean {
  const { meetsSocket, remote: { ip } } = link;
  return meetsSocket === true && !isLoopback(ip) && !hasSafeChecksums(host, rtnl, ip);
}

/**
 * Whether packets to `remote` leave this machine's kernels with their checksums computed. Where they
 * do not (containers, virtual machines), the next kernel on the same machine still sees the inner
 * TCP checksum as one to fill in; if it translates the address, it then updates the outer UDP
 * checksum the wrong way round (inet_proto_csum_replace4; seen on Linux 6.1): the peer drops the
 * packet. IPv6 is not looked at here: its addresses are hardly ever translated.
 */
function hasSafeChecksums(host: Host, rtnl: RtNetlink, remote: Ip): boolean {
  const device = rtnl.link(rtnl.routeTo(remote).device ?? 0);
  if (!device || device.kind !== undefined) return false;
  const driver = host.readLink(`/sys/class/net/${device.name}/device/driver`);
  return driver !== undefined && !PARAVIRTUAL_DRIVERS.includes(driver.split("/").at(-1)!);
}
