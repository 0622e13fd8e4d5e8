/** UDP sockets whose datagrams are sent and received in bulk, by threads of their own. */
import { type Endpoint, type Family, familyOf, type Ip, ipBytes } from "../addr.ts";
import { Writer } from "../bytes.ts";
import {
  AF_INET,
  AF_INET6,
  check,
  type Fd,
  libc,
  MSG_DONTWAIT,
  msghdr,
  openSocket,
  parseSockaddr,
  setIntOption,
  SOCK_DGRAM,
  sockaddrIn,
  sockaddrIn6,
  SOL_SOCKET,
  SystemError,
} from "./libc.ts";
import { bulk } from "./bulk.ts";
import { attachFilter, dataFilter, type Signalling } from "./udp_filter.ts";

const [SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE] = [7, 8, 32, 33];
const BUFFER_BYTES = 4 * 1024 * 1024;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
/** How each family names its options and control messages (linux/in.h, linux/in6.h). */
const NAMES = {
  4: { level: 0, mtuDiscover: 10, hops: 2 }, // IPPROTO_IP, IP_MTU_DISCOVER, IP_TTL
  6: { level: IPPROTO_IPV6, mtuDiscover: 23, hops: 52 }, // IPV6_MTU_DISCOVER, IPV6_HOPLIMIT
} as const;
const PMTUDISC_DONT = 0;
const PMTUDISC_PROBE = 3;
const CMSG_LENGTH = 24;

export interface BulkUdpOptions {
  family: Family;
  /** 0: the kernel chooses. */
  port: number;
  bind?: Ip;
  /** Is dropped: another socket is for it. */
  without?: Signalling;
  /** Datagrams that are too large for the way may be cut up. */
  allowFragments: boolean;
}

export class BulkUdpSocket implements Disposable {
  readonly family: Family;
  readonly port: number;
  /** Whether the kernel cuts what is sent and joins what is received. */
  readonly segments: boolean;
  readonly #socket: Fd;

  /** Throws `SystemError`: EADDRINUSE for a port that is taken, EAFNOSUPPORT without that family. */
  static open(options: BulkUdpOptions): BulkUdpSocket {
    const { family } = options;
    const socket = openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0);
    try {
      return new BulkUdpSocket(socket, options);
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(socket: Fd, options: BulkUdpOptions) {
    const { family, port, bind, without, allowFragments } = options;
    this.#socket = socket;
    this.family = family;
    growBuffers(socket.fd);
    if (family === 6) setIntOption(socket.fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    const { level, mtuDiscover } = NAMES[family];
    setIntOption(socket.fd, level, mtuDiscover, allowFragments ? PMTUDISC_DONT : PMTUDISC_PROBE);
    this.segments = trySegments(socket.fd);
    if (without) attachFilter(socket.fd, dataFilter(without));
    const ip = bind ? ipBytes(bind) : new Uint8Array(family === 4 ? 4 : 16);
    const address = sockaddr(family, ip, port);
    check("bind", libc().bind(socket.fd, address, address.length));
    this.port = portOf(socket.fd);
  }

  get fd(): number {
    return this.#socket.fd;
  }

  /** A datagram that cannot be sent is lost, like any other on the way. */
  send(bytes: Uint8Array, to: Endpoint, ttl?: number): void {
    if (familyOf(to.ip) !== this.family) return;
    const data = bytes as Uint8Array<ArrayBuffer>;
    const name = sockaddr(this.family, ipBytes(to.ip), to.port);
    const control = ttl === undefined ? {} : { control: hopsMessage(this.family, ttl) };
    const header = msghdr({ data, name, ...control });
    bulk().sendmsg(this.fd, header, MSG_DONTWAIT);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

export function sockaddrOf({ ip, port }: Endpoint): Uint8Array<ArrayBuffer> {
  return sockaddr(familyOf(ip), ipBytes(ip), port);
}

function sockaddr(family: Family, ip: Uint8Array, port: number): Uint8Array<ArrayBuffer> {
  return family === 4 ? sockaddrIn(ip, port) : sockaddrIn6(ip, port);
}

function portOf(fd: number): number {
  const name = new Uint8Array(28);
  const length = new Writer("host").u32(name.length).finish();
  check("getsockname", libc().getsockname(fd, name, length));
  return parseSockaddr(name).port;
}

/** `struct cmsghdr` (linux/socket.h) with an int. */
function hopsMessage(family: Family, hops: number): Uint8Array<ArrayBuffer> {
  return new Writer("host", CMSG_LENGTH).u64(20n)
    .i32(NAMES[family].level).i32(NAMES[family].hops).i32(hops).zeros(4).finish();
}

/** Linux 4.18 cuts, 5.0 joins. */
function trySegments(fd: number): boolean {
  try {
    setIntOption(fd, SOL_UDP, UDP_SEGMENT, 0);
    setIntOption(fd, SOL_UDP, UDP_GRO, 1);
    return true;
  } catch (error) {
    if (error instanceof SystemError) return false;
    throw error;
  }
}

/** More than net.core.rmem_max and wmem_max where this process may: a burst must not be lost. */
function growBuffers(fd: number): void {
  for (const [forced, polite] of [[SO_SNDBUFFORCE, SO_SNDBUF], [SO_RCVBUFFORCE, SO_RCVBUF]]) {
    try {
      setIntOption(fd, SOL_SOCKET, forced!, BUFFER_BYTES);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      setIntOption(fd, SOL_SOCKET, polite!, BUFFER_BYTES);
    }
  }
}
