/**
 * This machine as daemons and data planes are given it: netlink, sockets, TUN devices, kernel files
 * and news of changes. `linuxHost` is the real one; tests hand in a machine in memory.
 *
 * @example
 * await using host = linuxHost();
 * using rtnl = host.openRtNetlink();
 * using news = host.watchNetwork(() => console.log(rtnl.links()));
 */
import type { Datagram, SendDatagram } from "../edges.ts";
import { Engine, type EngineOptions, type PacketEngine } from "../engine/mod.ts";
import {
  fileLocks,
  loadModule,
  type Locks,
  Poller,
  type RawUdpOptions,
  RawUdpSender,
  RawUdpSocket,
  readKernelFile,
  readKernelLink,
  setChecksumOffload,
  type SockAddr,
  tryTun,
  UdpSocket,
  type UdpSocketOptions,
  writeKernelFile,
} from "../linux/mod.ts";
import { Fou, LinkMonitor, RtNetlink } from "../netlink.ts";
import { Nft } from "../nft/mod.ts";

/** Sends, and calls what it was opened with for each datagram that arrives. */
export interface UdpPort extends Disposable {
  readonly port: number;
  /** A datagram that cannot be sent is lost, like any other on the way. */
  send(bytes: Uint8Array, to: SockAddr, ttl?: number): void;
}

/** Signalling beside a UDP port that the kernel or another socket owns. */
export interface SignalPort extends Disposable {
  send: SendDatagram;
}

export interface Host extends AsyncDisposable {
  readonly locks: Locks;
  openRtNetlink(): RtNetlink;
  /** Throws `NetlinkError` with ENOENT where the kernel has no FOU. */
  openFou(): Fou;
  openNft(): Nft;
  /** Whether the kernel has it now. */
  loadModule(name: string): boolean;
  /** Links, addresses or routes changed: once for each batch of news. */
  watchNetwork(onChange: () => void): Disposable;
  /** Tables of nf_tables, or parts of them, were removed. Throws `SystemError`. */
  watchTables(onChange: () => void): Disposable;
  /**
   * Whether the link leaves checksums of what it sends to be filled in by hardware below. Throws
   * `SystemError`.
   */
  setChecksumOffload(ifname: string, isOn: boolean): void;
  /** A file of /proc or /sys. Throws `SystemError`. */
  readFile(path: string): string;
  writeFile(path: string, text: string): void;
  /** Where a link of /proc or /sys leads; undefined when it is not there. */
  readLink(path: string): string | undefined;
  /** `onDatagram` gets views that are valid during the call. Throws `SystemError`. */
  openUdp(
    options: UdpSocketOptions,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ): UdpPort;
  /** Reads signalling to `port`, and sends from it. Needs CAP_NET_RAW; throws `SystemError`. */
  openRawUdp(
    port: number,
    options: RawUdpOptions,
    onDatagram: (datagram: Datagram) => void,
  ): SignalPort;
  /** Sends from `port` with a TTL of its own. */
  openRawSender(port: number, family: 4 | 6): SignalPort;
  /** Throws `SystemError` where the kernel has no TUN. */
  tryTun(): void;
  /** Sockets and devices whose packets do not pass through this thread. Throws `SystemError`. */
  openEngine(options: EngineOptions): PacketEngine;
}

export interface LinuxHostOptions {
  /** While datagrams flow, timers and HTTP wait for no longer than this. */
  busyMs?: number;
}

/** The machine that this process runs on, in the network namespace of the calling thread. */
export function linuxHost(options: LinuxHostOptions = {}): Host {
  const poller = new Poller(options);
  return {
    locks: fileLocks(),
    openRtNetlink: () => RtNetlink.open(),
    openFou: () => Fou.open(),
    openNft: () => Nft.open(),
    loadModule,
    watchNetwork: (onChange) => LinkMonitor.open(poller, onChange),
    watchTables: (onChange) => LinkMonitor.openTables(poller, onChange),
    setChecksumOffload,
    readFile: readKernelFile,
    writeFile: writeKernelFile,
    readLink: readKernelLink,
    openUdp: (udp, onDatagram) => UdpSocket.open(udp, poller, onDatagram),
    openRawUdp: (port, raw, onDatagram) => RawUdpSocket.open(port, poller, onDatagram, raw),
    openRawSender: (port, family) => RawUdpSender.open(port, family),
    tryTun,
    openEngine: (engine) => Engine.open(engine),
    [Symbol.asyncDispose]: () => poller[Symbol.asyncDispose](),
  };
}
