/**
 * System calls by libc: sockets (UDP, raw UDP, ICMP), TUN devices, network namespaces, one `Poller`
 * for all of them. It knows no protocol above UDP.
 *
 * @example
 * using poller = new Poller();
 * using socket = UdpSocket.open({ port: 0 }, poller, (bytes, source) => {});
 */
export { Epoll, openNothing, retire } from "./bulk.ts";
export { BulkUdpSocket } from "./bulk_udp.ts";
export { openFamilies } from "./families.ts";
export { setChecksumOffload } from "./ethtool.ts";
export { fileLocks, type LockHolder, type Locks } from "./file_lock.ts";
export {
  type IcmpError,
  type IcmpMessage,
  IcmpNotAllowedError,
  IcmpSocket,
  type IcmpSocketOptions,
} from "./icmp.ts";
export * from "./libc.ts";
export { loadModule } from "./modules.ts";
export { giveMemoryBack, trimHeap } from "./memory.ts";
export { createNamedNetns, deleteNamedNetns, openNamedNetns, withNetns } from "./netns.ts";
export { notifyManager } from "./notify.ts";
export { Poller } from "./poll.ts";
export {
  canWrite,
  type Capability,
  hasCapability,
  ignoresSignal,
  listKernelDirectory,
  raiseFileLimit,
  readKernelFile,
  readKernelLink,
  tryReadKernelFile,
  writeKernelFile,
} from "./process.ts";
export { type RawUdpOptions, RawUdpSender, RawUdpSocket } from "./raw_udp.ts";
export { sourceAddress } from "./source_address.ts";
export { type AcceptedSettings, setAccepted } from "./tcp.ts";
export { threadRoom } from "./thread_room.ts";
export { type BulkTun, openBulkTun, tryTun, writeBulkTun } from "./tun.ts";
export { type BytePattern, isSignalling, type Signalling } from "./udp_filter.ts";
export { udpPortOwner } from "./udp_owner.ts";
export { UdpSocket, type UdpSocketOptions } from "./udp.ts";
export { endpointOf, equalSockAddrs, type SockAddr, sockAddrOf } from "./inet.ts";
