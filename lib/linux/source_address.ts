/** Which of its addresses this host sends from. */
import { type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import { Writer } from "../bytes.ts";
import { AF_INET, libc, openSocket, parseSockaddrIn, SOCK_DGRAM, sockaddrIn } from "./libc.ts";

/** The discard port (RFC 863); nothing is sent to it. */
const ANY_PORT = 9;

/** Towards that IPv4 address, by the routes of this moment; undefined without one. */
export function sourceAddress(to: Ip): Ip | undefined {
  using socket = openSocket(AF_INET, SOCK_DGRAM, 0);
  if (libc().connect(socket.fd, sockaddrIn(ipBytes(to), ANY_PORT), 16) === -1) return undefined;
  const name = new Uint8Array(16);
  const length = new Writer("host").u32(name.length).finish();
  if (libc().getsockname(socket.fd, name, length) === -1) return undefined;
  return ipFromBytes(parseSockaddrIn(name).ip);
}
