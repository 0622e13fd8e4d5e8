/** Settings of TCP sockets that Deno has opened, whose file descriptors it does not show. */
import { Reader, Writer } from "../bytes.ts";
import { AF_INET, AF_INET6, libc, SOL_SOCKET } from "./libc.ts";

const IPPROTO_TCP = 6;
/** linux/tcp.h */
const TCP_MAXSEG = 2;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_USER_TIMEOUT = 18;
/** asm-generic/socket.h */
const SO_KEEPALIVE = 9;
const KEEPALIVE_PROBES = 3;
const PROBE_SECONDS = 5;
/** `struct sockaddr_in6` */
const SOCKADDR_LENGTH = 28;
/** A listener that was just opened has one of the lowest that are free. */
const LAST_FD = 1023;

/** What connections get that are accepted on a port. */
export interface AcceptedSettings {
  /** No segment is larger, of those that are sent and those that are asked for. */
  segmentBytes: number;
  /** A peer that is not there any more is noticed after so long: silent, or not taking what is sent. */
  deadAfterSeconds: number;
}

/**
 * Settings of all connections that this process accepts on that port from now on: Linux gives
 * them to a connection from its listener.
 */
export function setAccepted(port: number, settings: AcceptedSettings): void {
  const { segmentBytes, deadAfterSeconds } = settings;
  const options: [level: number, name: number, value: number][] = [
    [IPPROTO_TCP, TCP_MAXSEG, segmentBytes],
    [SOL_SOCKET, SO_KEEPALIVE, 1],
    [IPPROTO_TCP, TCP_KEEPIDLE, deadAfterSeconds - KEEPALIVE_PROBES * PROBE_SECONDS],
    [IPPROTO_TCP, TCP_KEEPINTVL, PROBE_SECONDS],
    [IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES],
    [IPPROTO_TCP, TCP_USER_TIMEOUT, deadAfterSeconds * 1000],
  ];
  for (let fd = 0; fd <= LAST_FD; fd++) {
    if (portOf(fd) !== port) continue;
    for (const [level, name, value] of options) {
      const bytes = new Writer("host").u32(value).finish();
      libc().setsockopt(fd, level, name, bytes, bytes.length);
    }
  }
}

/** Of a socket of IPv4 or IPv6. */
function portOf(fd: number): number | undefined {
  const name = new Uint8Array(SOCKADDR_LENGTH);
  const length = new Writer("host").u32(name.length).finish();
  if (libc().getsockname(fd, name, length) === -1) return undefined;
  const family = new Reader(name, "host").u16();
  return family === AF_INET || family === AF_INET6
    ? new Reader(name, "network").skip(2).u16()
    : undefined;
}
