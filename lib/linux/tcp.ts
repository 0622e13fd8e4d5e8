/** Settings of TCP sockets that Deno has opened, whose file descriptors it does not show. */
import { Reader, Writer } from "../bytes.ts";
import { AF_INET, AF_INET6, libc } from "./libc.ts";

const IPPROTO_TCP = 6;
/** linux/tcp.h */
const TCP_MAXSEG = 2;
/** `struct sockaddr_in6` */
const SOCKADDR_LENGTH = 28;
/** A listener that was just opened has one of the lowest that are free. */
const LAST_FD = 1023;

/**
 * Makes the segments of all connections that this process accepts on that port from now on no
 * larger than `sizeBytes`, both those that it sends and those that it asks for.
 */
export function limitSegments(port: number, sizeBytes: number): void {
  const value = new Writer("host").u32(sizeBytes).finish();
  for (let fd = 0; fd <= LAST_FD; fd++) {
    if (portOf(fd) === port) libc().setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, value, value.length);
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
