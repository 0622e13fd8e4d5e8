/** What both planes do with links: names, owner marks, addresses, MTU. */
import { familyOf, type Ip, isLoopback } from "../addr.ts";
import { GretunError } from "../errors.ts";
import { KEY_LENGTH, type NodeKey } from "../keys.ts";
import { readKernelLink } from "../linux/mod.ts";
import { hasCode, type Link, type RtNetlink } from "../netlink.ts";
import { DAEMON_PREFIX } from "../tunnel/mod.ts";
import type { LinkCounters, PeerLink } from "./plane.ts";
import { overheadBytes } from "./gre.ts";

/** No link is made smaller than what IPv4 asks every host to take (RFC 791 section 3.1). */
const MIN_MTU = 576;
const ETHERNET_MTU = 1500;

const ALIAS_START = `${DAEMON_PREFIX}port `;

const EXTRA_PORT = " from port ";

/**
 * The interface alias by which a link of ours is known after a crash: the port, because each port
 * is one daemon's, the peer, and the extra port that the link uses.
 */
export function ownerAlias(port: number, peer: NodeKey, extraPort?: number): string {
  const extra = extraPort === undefined ? "" : `${EXTRA_PORT}${extraPort}`;
  return `${ALIAS_START}${port} peer ${peer}${extra}`;
}

/** The peer that a link of the daemon on `port` belongs to, and the extra port that it uses. */
export function ownerOf(
  link: Link,
  port: number,
): { peer: NodeKey; extraPort?: number } | undefined {
  const prefix = ownerAlias(port, "" as NodeKey);
  if (!link.alias?.startsWith(prefix)) return undefined;
  const [peer, extra] = link.alias.slice(prefix.length).split(EXTRA_PORT);
  if (peer!.length !== 2 * KEY_LENGTH) return undefined;
  const extraPort = Number(extra);
  const isPort = Number.isInteger(extraPort) && extraPort > 0 && extraPort < 65_536;
  return { peer: peer as NodeKey, ...(isPort ? { extraPort } : {}) };
}

/**
 * The pattern with `%d` replaced by the lowest number that gives a free name; those of `own` links
 * are known without asking.
 */
export function freeName(rtnl: RtNetlink, pattern: string, own: ReadonlySet<string>): string {
  for (let i = 0;; i++) {
    const name = pattern.replace("%d", String(i));
    if (!own.has(name) && !rtnl.link(name)) return name;
    if (name === pattern) {
      throw new GretunError(
        `cannot make another link: ${name} exists`,
        "Put %d into --iface, so that each link gets its own name",
      );
    }
  }
}

/** Of all links but `key`'s: where that one had a link, somebody has removed it. */
export function otherNames<Key>(
  links: Iterable<readonly [Key, { ifname: string }]>,
  key: Key,
): Set<string> {
  return new Set([...links].flatMap(([other, { ifname }]) => other === key ? [] : [ifname]));
}

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

/** Those whose link the kernel has no more. */
export function missing<Key>(
  rtnl: RtNetlink,
  links: Iterable<readonly [Key, { ifindex: number }]>,
): Key[] {
  const present = new Set(rtnl.links({ skipStats: true }).map(({ ifindex }) => ifindex));
  return [...links].filter(([, { ifindex }]) => !present.has(ifindex)).map(([key]) => key);
}

export function countersOf<Key>(
  rtnl: RtNetlink,
  links: Iterable<readonly [Key, { ifindex: number }]>,
): Map<Key, LinkCounters> {
  const stats = rtnl.linkStats();
  const counters = new Map<Key, LinkCounters>();
  for (const [key, { ifindex }] of links) {
    const found = stats.get(ifindex);
    if (found) counters.set(key, found);
  }
  return counters;
}

/** What is left for inner packets on the way to `remote`; throws `NetlinkError` without a way. */
export function innerMtu(rtnl: RtNetlink, remote: Ip, overheadBytes: number): number {
  const outer = isLoopback(remote) ? ETHERNET_MTU : routeMtu(rtnl, remote);
  return Math.max(MIN_MTU, outer - overheadBytes);
}

function routeMtu(rtnl: RtNetlink, ip: Ip): number {
  const { mtu, device } = rtnl.routeTo(ip);
  return mtu ?? rtnl.link(device ?? 0)?.mtu ?? ETHERNET_MTU;
}

export function linkMtu(rtnl: RtNetlink, { remote: { ip }, keys }: PeerLink): number {
  const overhead = overheadBytes({ family: familyOf(ip), key: keys !== undefined });
  return innerMtu(rtnl, ip, overhead);
}

/** Two links to one address, without keys: what arrives could be of either. */
export function remoteTaken(ip: Ip, cause?: unknown): GretunError {
  return new GretunError(
    `another tunnel goes to ${ip}, and without GRE keys nothing tells their packets apart`,
    "Start gretun up without --gre-key off, on every node",
    { cause },
  );
}

export interface Pair {
  local: Ip;
  peer: Ip;
}

export function pairOf({ localIp, peerIp }: PeerLink): Pair {
  return { local: localIp, peer: peerIp };
}

/**
 * Makes `local peer` the link's only address of its family; the kernel adds the route to the peer.
 * `before` is what the link was given in this run; undefined where an earlier run made it.
 */
export function setPair(
  rtnl: RtNetlink,
  ifindex: number,
  { local, peer }: Pair,
  before: Partial<Pair> | undefined,
): void {
  // With hundreds of links it matters not to read all addresses.
  const isAlone = before &&
    (!before.local || (before.local === local && before.peer === peer));
  if (!isAlone) removeOthers(rtnl, ifindex, { local, peer });
  const prefixLength = familyOf(local) === 4 ? 32 : 128;
  try {
    rtnl.addAddress({ ifindex, local, peer, prefixLength });
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error; // it is there
  }
}

function removeOthers(rtnl: RtNetlink, ifindex: number, { local, peer }: Pair): void {
  for (const address of rtnl.addresses()) {
    if (address.ifindex !== ifindex || familyOf(address.local) !== familyOf(local)) continue;
    if (address.isAutomatic || (address.local === local && address.peer === peer)) continue;
    rtnl.deleteAddress(address);
  }
}
