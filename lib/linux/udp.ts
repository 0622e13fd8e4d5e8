/**
 * A UDP socket for data in bulk: read in batches without a promise for each datagram, addresses
 * left in the kernel's form.
 */
import { type Endpoint, type Family, familyOf, type Ip, ipBytes } from "../addr.ts";
import {
  AF_INET,
  AF_INET6,
  check,
  checkAgain,
  type Fd,
  libc,
  MSG_DONTWAIT,
  openSocket,
  parseSockaddr,
  setIntOption,
  SOCK_DGRAM,
  sockaddrIn,
  sockaddrIn6,
  SOL_SOCKET,
  SystemError,
} from "./libc.ts";
import type { Poller } from "./poll.ts";
import { attachFilter, dataFilter, type Signalling } from "./udp_filter.ts";

const SO_RCVBUF = 8;
const SO_SNDBUF = 7;
const SO_RCVBUFFORCE = 33;
/** How each family names its options, and how long its addresses are (linux/in.h, linux/in6.h). */
const FAMILIES = {
  4: {
    domain: AF_INET,
    level: 0,
    ttl: 2,
    mtuDiscover: 10,
    any: "0.0.0.0" as Ip,
    addressLength: 16,
  },
  6: { domain: AF_INET6, level: 41, ttl: 16, mtuDiscover: 23, any: "::" as Ip, addressLength: 28 },
} as const;
const IPV6_V6ONLY = 26;
/** As an option: back to the system's. */
const DEFAULT_TTL = -1;
/** Of both families. */
const PMTUDISC_DONT = 0;
const PMTUDISC_PROBE = 3;
const BUFFER_BYTES = 4 * 1024 * 1024;
const MAX_BATCH = 256;

/** `struct sockaddr_in` or `struct sockaddr_in6` of a datagram's source or destination. */
export type SockAddr = Uint8Array<ArrayBuffer>;

export interface UdpSocketOptions {
  /** 0: the kernel chooses. */
  port: number;
  /** Unless told, 4. */
  family?: Family;
  bind?: Ip;
  /** Is dropped: another socket is for it. */
  without?: Signalling;
  /** Datagrams that are too large for the way may be cut up. */
  allowFragments?: boolean;
}

export class UdpSocket implements Disposable {
  readonly port: number;
  readonly #socket: Fd;
  readonly #buffer = new Uint8Array(65_536);
  readonly #family: Family;
  readonly #source: SockAddr;
  readonly #sourceLength = new Uint32Array(1);
  readonly #lengthBytes = new Uint8Array(this.#sourceLength.buffer);
  readonly #onDatagram: (bytes: Uint8Array, source: SockAddr) => void;
  readonly #watch: Disposable;
  #closed = false;

  /**
   * `onDatagram` gets views that are valid during the call. Throws `SystemError`, EADDRINUSE for a
   * port that is taken.
   */
  static open(
    options: UdpSocketOptions,
    poller: Poller,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ): UdpSocket {
    const { family = 4, port, bind, without, allowFragments } = options;
    const { domain, level, mtuDiscover, any } = FAMILIES[family];
    const socket = openSocket(domain, SOCK_DGRAM, 0);
    try {
      growBuffers(socket.fd);
      // Data forbids fragmentation, and what a router said about the way does not stop a sender.
      const discover = allowFragments ? PMTUDISC_DONT : PMTUDISC_PROBE;
      setIntOption(socket.fd, level, mtuDiscover, discover);
      if (family === 6) setIntOption(socket.fd, level, IPV6_V6ONLY, 1);
      if (without) attachFilter(socket.fd, dataFilter(without));
      const address = sockAddrOf({ ip: bind ?? any, port });
      check("bind", libc().bind(socket.fd, address, address.length));
      return new UdpSocket(socket, family, poller, onDatagram);
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(
    socket: Fd,
    family: Family,
    poller: Poller,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ) {
    this.#socket = socket;
    this.#family = family;
    this.#onDatagram = onDatagram;
    const { addressLength } = FAMILIES[family];
    this.#source = new Uint8Array(addressLength);
    const name = new Uint8Array(addressLength);
    const length = new Uint8Array(new Uint32Array([addressLength]).buffer);
    check("getsockname", libc().getsockname(socket.fd, name, length));
    this.port = parseSockaddr(name).port;
    this.#watch = poller.add(socket.fd, () => this.#drain());
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#watch[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }

  /** A datagram that cannot be sent is lost, like any other on the way. */
  send(bytes: Uint8Array, to: SockAddr, ttl?: number): void {
    const { fd } = this.#socket;
    const packet = bytes as Uint8Array<ArrayBuffer>;
    const { level, ttl: option } = FAMILIES[this.#family];
    if (ttl !== undefined) setIntOption(fd, level, option, ttl);
    libc().sendto(fd, packet, BigInt(packet.length), MSG_DONTWAIT, to, to.length);
    if (ttl !== undefined) setIntOption(fd, level, option, DEFAULT_TTL);
  }

  #drain(): void {
    const { fd } = this.#socket;
    const size = BigInt(this.#buffer.length);
    // A datagram can make its reader close the socket.
    for (let i = 0; i < MAX_BATCH && !this.#closed; i++) {
      this.#sourceLength[0] = this.#source.length;
      let length;
      try {
        const args = [
          fd,
          this.#buffer,
          size,
          MSG_DONTWAIT,
          this.#source,
          this.#lengthBytes,
        ] as const;
        length = checkAgain("recvfrom", libc().recvfrom(...args));
      } catch (error) {
        // An ICMP error of an earlier datagram does not end a datagram socket's life.
        if (error instanceof SystemError) continue;
        throw error;
      }
      if (length === undefined) return;
      this.#onDatagram(this.#buffer.subarray(0, length), this.#source);
    }
  }
}

/** More than net.core.rmem_max where this process may: a burst must not be lost. */
function growBuffers(fd: number): void {
  setIntOption(fd, SOL_SOCKET, SO_SNDBUF, BUFFER_BYTES);
  try {
    setIntOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    setIntOption(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_BYTES);
  }
}

export function sockAddrOf({ ip, port }: Endpoint): SockAddr {
  return familyOf(ip) === 4 ? sockaddrIn(ipBytes(ip), port) : sockaddrIn6(ipBytes(ip), port);
}

export function endpointOf(address: SockAddr): Endpoint {
  return parseSockaddr(address);
}

/** Whether two of them are the same place; padding, flow and scope do not count. */
export function equalSockAddrs(a: SockAddr, b: SockAddr): boolean {
  if (a.length !== b.length) return false;
  for (let i = 2; i < 8; i++) if (a[i] !== b[i]) return false;
  for (let i = 8; a.length > 16 && i < 24; i++) if (a[i] !== b[i]) return false;
  return true;
}
