/** What both planes make of a peer's link. */
import { familyOf, type Ip } from "../addr.ts";
import { GretunError } from "../errors.ts";
import { type Inner, innerMtu, overheadBytes, pairAddress } from "../links/mod.ts";
import { readKernelLink } from "../linux/mod.ts";
import type { RtNetlink } from "../netlink.ts";
import type { PeerLink } from "./plane.ts";

const PARAVIRTUAL_DRIVERS = ["virtio_net", "vif", "hv_netvsc", "vmxnet3"];

/**
 * Whether packets to `remote` leave this machine's kernels with their checksums computed. Where they
 * do not (containers, virtual machines), the next kernel on the same machine still sees the inner
 * TCP checksum as one to fill in; if it translates the address, it then updates the outer UDP
 * checksum the wrong way round (inet_proto_csum_replace4; seen on Linux 6.1): the peer drops the
 * packet. IPv6 is not looked at here: its addresses are hardly ever translated, and it has no UDP
 * without a checksum (RFC 8200 section 8.1).
 */
export function hasSafeChecksums(rtnl: RtNetlink, remote: Ip): boolean {
  const device = rtnl.link(rtnl.routeTo(remote).device ?? 0);
  if (!device || device.kind !== undefined) return false;
  const driver = readKernelLink(`/sys/class/net/${device.name}/device/driver`);
  return driver !== undefined && !PARAVIRTUAL_DRIVERS.includes(driver.split("/").at(-1)!);
}

export function linkMtu(rtnl: RtNetlink, { remote: { ip }, keys }: PeerLink): number {
  const kind = familyOf(ip) === 4 ? "gre" : "ip6gre";
  return innerMtu(rtnl, ip, overheadBytes({ kind, encap: "fou", key: keys !== undefined }));
}

export function innerOf({ localIp, peerIp }: PeerLink): Inner {
  return { addresses: [pairAddress(localIp, peerIp)], routes: [] };
}

/** Two links to one address, without keys: what arrives could be of either. */
export function remoteTaken(ip: Ip, cause?: unknown): GretunError {
  return new GretunError(
    `another tunnel goes to ${ip}, and without GRE keys nothing tells their packets apart`,
    "Start gretun up without --gre-key off, on every node",
    { cause },
  );
}
