/**
 * The door of the kernel: links, addresses and routes (`RtNetlink`), UDP receive ports (`Fou`),
 * raw and TUN sockets on one `Poller`, network namespaces. All by libc's own calls; no `ip`.
 *
 * @example
 * using rtnl = RtNetlink.open();
 * const ifindex = rtnl.createLink({ name: "t0", kind: "dummy", up: true });
 * rtnl.deleteLink(ifindex);
 */
export type { InterfaceAddress } from "./netlink/addr.ts";
export { flushConntrack } from "./netlink/conntrack.ts";
export { Fou, type FouPort } from "./netlink/fou.ts";
export {
  type IcmpError,
  type IcmpMessage,
  IcmpNotAllowedError,
  IcmpSocket,
  type IcmpSocketOptions,
} from "./netlink/icmp_socket.ts";
export { Fd, SystemError } from "./netlink/libc.ts";
export type { Link, LinkChange, LinkSpec, LinkStats } from "./netlink/link.ts";
export { hasCode, NetlinkError, type NetlinkTransport } from "./netlink/message.ts";
export { loadModule } from "./netlink/modules.ts";
export { LinkMonitor } from "./netlink/monitor.ts";
export { createNamedNetns, deleteNamedNetns, openNamedNetns, withNetns } from "./netlink/netns.ts";
export * as nft from "./netlink/nft/mod.ts";
export { Poller } from "./netlink/poll.ts";
export {
  bindAbstractLock,
  type Capability,
  hasCapability,
  isAbstractLockHeld,
  listKernelDirectory,
  readKernelFile,
  readKernelLink,
  writeKernelFile,
} from "./netlink/process.ts";
export { type RawUdpOptions, RawUdpSender, RawUdpSocket } from "./netlink/raw_udp.ts";
export type { Route } from "./netlink/route.ts";
export { RtNetlink } from "./netlink/rtnl.ts";
export { sourceAddress } from "./netlink/source_address.ts";
export { limitSegments } from "./netlink/tcp.ts";
export { tryTun, TunDevice } from "./netlink/tun.ts";
export {
  type Direction,
  isTunnelKind,
  outerFamily,
  type Payload,
  type Tunnel,
  TUNNEL_KINDS,
  type TunnelEncap,
  type TunnelKind,
} from "./netlink/tunnel_link.ts";
export { udpPortOwner } from "./netlink/udp_owner.ts";
export {
  endpointOf,
  equalSockAddrs,
  type SockAddr,
  sockAddrOf,
  UdpSocket,
  type UdpSocketOptions,
} from "./netlink/udp_socket.ts";
