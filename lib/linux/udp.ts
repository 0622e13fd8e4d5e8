/**
 * A UDP socket for data in bulk: read in batches without a promise for each datagram, addresses
 * left in the kernel's form. IPv4.
 */
import { type Endpoint, type Ip, ipBytes, parseIp } from "../addr.ts";
import {
  AF_INET,
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
  SOL_SOCKET,
  SystemError,
} from "./libc.ts";
import type { Poller } from "./poll.ts";
import { attachFilter, dataFilter, type Signalling } from "./udp_filter.ts";

const SO_RCVBUF = 8;
const SO_SNDBUF = 7;
const SO_RCVBUFFORCE = 33;
const IPPROTO_IP = 0;
const IP_TTL = 2;
/** As an option: back to the system's. */
const DEFAULT_TTL = -1;
const IP_MTU_DISCOVER = 10;
const IP_PMTUDISC_DONT = 0;
const IP_PMTUDISC_PROBE = 3;
const BUFFER_BYTES = 4 * 1024 * 1024;
const SOCKADDR_LENGTH = 16;
const MAX_BATCH = 256;
const ANY = parseIp("0.0.0.0");

/** `struct sockaddr_in` of a datagram's source or destination. */
export type SockAddr = Uint8Array<ArrayBuffer>;

export interface UdpSocketOptions {
  /** 0: the kernel chooses. */
  port: number;
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
  readonly #source = new Uint8Array(SOCKADDR_LENGTH);
  readonly #sourceLength = new Uint32Array([SOCKADDR_LENGTH]);
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
    const socket = openSocket(AF_INET, SOCK_DGRAM, 0);
    try {
      growBuffers(socket.fd);
      // Data forbids fragmentation, and what a router said about the way does not stop a sender.
      const discover = options.allowFragments ? IP_PMTUDISC_DONT : IP_PMTUDISC_PROBE;
      setIntOption(socket.fd, IPPROTO_IP, IP_MTU_DISCOVER, discover);
      if (options.without) attachFilter(socket.fd, dataFilter(options.without));
      const address = sockaddrIn(ipBytes(options.bind ?? ANY), options.port);
      check("bind", libc().bind(socket.fd, address, address.length));
      return new UdpSocket(socket, poller, onDatagram);
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(
    socket: Fd,
    poller: Poller,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ) {
    this.#socket = socket;
    this.#onDatagram = onDatagram;
    const name = new Uint8Array(SOCKADDR_LENGTH);
    const length = new Uint8Array(new Uint32Array([SOCKADDR_LENGTH]).buffer);
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
    if (ttl !== undefined) setIntOption(fd, IPPROTO_IP, IP_TTL, ttl);
    libc().sendto(fd, packet, BigInt(packet.length), MSG_DONTWAIT, to, SOCKADDR_LENGTH);
    if (ttl !== undefined) setIntOption(fd, IPPROTO_IP, IP_TTL, DEFAULT_TTL);
  }

  #drain(): void {
    const { fd } = this.#socket;
    const size = BigInt(this.#buffer.length);
    // A datagram can make its reader close the socket.
    for (let i = 0; i < MAX_BATCH && !this.#closed; i++) {
      this.#sourceLength[0] = SOCKADDR_LENGTH;
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
  return sockaddrIn(ipBytes(ip), port);
}

export function endpointOf(address: SockAddr): Endpoint {
  return parseSockaddr(address);
}

/** Whether two of them are the same place; the padding does not count. */
export function equalSockAddrs(a: SockAddr, b: SockAddr): boolean {
  for (let i = 2; i < 8; i++) if (a[i] !== b[i]) return false;
  return true;
}
