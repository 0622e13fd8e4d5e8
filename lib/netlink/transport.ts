/** The kernel's end of netlink: a socket, requests by sendto, replies by recvmsg. */
import { Reader, Writer } from "../bytes.ts";
import {
  AF_NETLINK,
  check,
  type Fd,
  libc,
  MSG_TRUNC,
  msghdr,
  openSocket,
  setIntOption,
  SOCK_RAW,
  SOL_SOCKET,
  SystemError,
} from "../linux/mod.ts";
import type { NetlinkTransport } from "./message.ts";

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
export const NETLINK_GENERIC = 16;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const SO_RCVBUF = 8;
const SO_RCVTIMEO = 20;
const RECEIVE_BUFFER = 4 * 1024 * 1024;
/** The kernel fills at most 32 kB of a dump into one datagram; acks can quote more. */
const DATAGRAM_SIZE = 256 * 1024;
/** Replies are there when sendto returns: a wait means that we count wrongly, not that it is slow. */
const REPLY_TIMEOUT_SECONDS = 10n;

/** Opens a netlink socket in the network namespace of the calling thread. */
export function openNetlink(protocol: number): NetlinkTransport {
  return new KernelTransport(openNetlinkSocket(protocol));
}

/** Groups are `RTNLGRP_*` numbers. */
export function openNetlinkSocket(protocol: number, groups: readonly number[] = []): Fd {
  const socket = openSocket(AF_NETLINK, SOCK_RAW, protocol);
  setIntOption(socket.fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
  setIntOption(socket.fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
  setIntOption(socket.fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
  // Unbound, the socket has port id 0, which the kernel leaves out of its own announcements.
  const address = new Writer("host").u16(AF_NETLINK).zeros(10).finish();
  check("bind", libc().bind(socket.fd, address, address.length));
  for (const group of groups) {
    setIntOption(socket.fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
  }
  return socket;
}

/** `struct sockaddr_nl`, linux/netlink.h: family u16, padding u16, port id u32, groups u32. */
function portIdOf(socket: Fd): number {
  const address = new Uint8Array(12);
  const length = new Uint8Array(new Uint32Array([address.length]).buffer);
  check("getsockname", libc().getsockname(socket.fd, address, length));
  return new Reader(address, "host").skip(4).u32();
}

class KernelTransport implements NetlinkTransport {
  readonly portId: number;
  readonly #socket: Fd;
  readonly #buffer = new Uint8Array(DATAGRAM_SIZE);
  readonly #header = msghdr({ data: this.#buffer });

  constructor(socket: Fd) {
    this.#socket = socket;
    this.portId = portIdOf(socket);
    const timeout = new Writer("host").u64(REPLY_TIMEOUT_SECONDS).u64(0n).finish();
    check(
      "setsockopt",
      libc().setsockopt(socket.fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length),
    );
  }

  send(bytes: Uint8Array): void {
    const { fd } = this.#socket;
    const length = BigInt(bytes.length);
    check("send", libc().sendto(fd, bytes as Uint8Array<ArrayBuffer>, length, 0, null, 0));
  }

  receive(): Uint8Array {
    const length = check("recvmsg", libc().recvmsg(this.#socket.fd, this.#header, MSG_TRUNC));
    if (length > this.#buffer.length) throw new SystemError("recvmsg", 90);
    return this.#buffer.slice(0, length);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}
