/** Sockets of both families of IP: addresses, and options that the families number differently. */
import { type Endpoint, type Family, familyOf, ipBytes } from "../addr.ts";
import {
  AF_INET,
  AF_INET6,
  check,
  type Fd,
  libc,
  openSocket,
  parseSockaddr,
  setIntOption,
  SOCK_DGRAM,
  sockaddrIn,
  sockaddrIn6,
  SOL_SOCKET,
  SystemError,
} from "./libc.ts";

const [SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE] = [7, 8, 32, 33];
const BUFFER_BYTES = 4 * 1024 * 1024;
export const IPPROTO_IPV6 = 41;
/** linux/in.h: IPPROTO_IP, IP_TTL, IP_MTU_DISCOVER; linux/in6.h: IPV6_UNICAST_HOPS, IPV6_MTU_DISCOVER. */
const OPTIONS = {
  4: { level: 0, ttl: 2, mtuDiscover: 10 },
  6: { level: IPPROTO_IPV6, ttl: 16, mtuDiscover: 23 },
} as const;
const IPV6_V6ONLY = 26;
/** Of both families. */
const PMTUDISC_DONT = 0;
const PMTUDISC_PROBE = 3;
/** As an option: back to the system's. */
const DEFAULT_TTL = -1;
const LONGEST_ADDRESS = 28;

/** `struct sockaddr_in` or `struct sockaddr_in6`. */
export type SockAddr = Uint8Array<ArrayBuffer>;

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

/** For datagrams; of IPv6, for IPv6 alone. Throws `SystemError`. */
export function openDatagrams(family: Family): Fd {
  const socket = openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0);
  if (family === 6) setIntOption(socket.fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  return socket;
}

/** Throws `SystemError`. */
export function bindTo(fd: number, endpoint: Endpoint): void {
  const address = sockAddrOf(endpoint);
  check("bind", libc().bind(fd, address, address.length));
}

export function localPort(fd: number): number {
  const name = new Uint8Array(LONGEST_ADDRESS);
  const length = new Uint8Array(new Uint32Array([LONGEST_ADDRESS]).buffer);
  check("getsockname", libc().getsockname(fd, name, length));
  return parseSockaddr(name).port;
}

/** Whether what is too large for the way is cut up; else it is sent whatever routers said of the way. */
export function setFragments(fd: number, family: Family, isAllowed: boolean): void {
  const { level, mtuDiscover } = OPTIONS[family];
  setIntOption(fd, level, mtuDiscover, isAllowed ? PMTUDISC_DONT : PMTUDISC_PROBE);
}

/** Runs `send` with that TTL, or hop limit; undefined: the system's. */
export function withTtl(
  fd: number,
  family: Family,
  ttl: number | undefined,
  send: () => void,
): void {
  const { level, ttl: option } = OPTIONS[family];
  if (ttl !== undefined) setIntOption(fd, level, option, ttl);
  send();
  if (ttl !== undefined) setIntOption(fd, level, option, DEFAULT_TTL);
}

/** More than net.core.rmem_max and wmem_max where this process may: a burst must not be lost. */
export function growBuffers(fd: number): void {
  for (const [forced, polite] of [[SO_SNDBUFFORCE, SO_SNDBUF], [SO_RCVBUFFORCE, SO_RCVBUF]]) {
    try {
      setIntOption(fd, SOL_SOCKET, forced!, BUFFER_BYTES);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      setIntOption(fd, SOL_SOCKET, polite!, BUFFER_BYTES);
    }
  }
}
