/** UDP sockets whose datagrams are sent and received in bulk, by threads of their own. */
import { type Endpoint, type Family, familyOf, type Ip, UNSPECIFIED } from "../addr.ts";
import { Writer } from "../bytes.ts";
import { bulk } from "./bulk.ts";
import {
  bindTo,
  growBuffers,
  IPPROTO_IPV6,
  localPort,
  openDatagrams,
  setFragments,
  sockAddrOf,
} from "./inet.ts";
import { type Fd, MSG_DONTWAIT, msghdr, setIntOption, SystemError } from "./libc.ts";
import { attachFilter, dataFilter, type Signalling } from "./udp_filter.ts";

const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
/** As a control message: IPPROTO_IP, IP_TTL (linux/in.h), IPV6_HOPLIMIT (linux/in6.h). */
const HOPS = { 4: { level: 0, type: 2 }, 6: { level: IPPROTO_IPV6, type: 52 } } as const;
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
    const socket = openDatagrams(family);
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
    setFragments(socket.fd, family, allowFragments);
    this.segments = trySegments(socket.fd);
    if (without) attachFilter(socket.fd, dataFilter(without));
    bindTo(socket.fd, { ip: bind ?? UNSPECIFIED[family], port });
    this.port = localPort(socket.fd);
  }

  get fd(): number {
    return this.#socket.fd;
  }

  /** A datagram that cannot be sent is lost, like any other on the way. */
  send(bytes: Uint8Array, to: Endpoint, ttl?: number): void {
    if (familyOf(to.ip) !== this.family) return;
    const data = bytes as Uint8Array<ArrayBuffer>;
    const name = sockAddrOf(to);
    const control = ttl === undefined ? {} : { control: hopsMessage(this.family, ttl) };
    const header = msghdr({ data, name, ...control });
    bulk().sendmsg(this.fd, header, MSG_DONTWAIT);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** `struct cmsghdr` (linux/socket.h) with an int. */
function hopsMessage(family: Family, hops: number): Uint8Array<ArrayBuffer> {
  return new Writer("host", CMSG_LENGTH).u64(20n)
    .i32(HOPS[family].level).i32(HOPS[family].type).i32(hops).zeros(4).finish();
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
