/**
 * A socket for ICMP and ICMPv6 messages: the unprivileged ping socket, or a raw one where that is
 * not allowed.
 */
import { type Family, familyOf, type Ip, ipBytes } from "../addr.ts";
import { Reader } from "../bytes.ts";
import { GretunError } from "../errors.ts";
import {
  AF_INET,
  AF_INET6,
  check,
  checkAgain,
  cString,
  type Fd,
  libc,
  MSG_DONTWAIT,
  MSG_ERRQUEUE,
  msghdr,
  openSocket,
  parseSockaddr,
  setIntOption,
  setOption,
  SOCK_DGRAM,
  SOCK_RAW,
  sockaddrIn,
  sockaddrIn6,
  SOL_SOCKET,
  SystemError,
} from "./libc.ts";
import type { Poller } from "./poll.ts";

const SO_BINDTODEVICE = 25;
/**
 * Of the socket: its errors (IP_RECVERR, IPV6_RECVERR), and what only a raw one needs: a filter of
 * types (linux/icmp.h, icmpv6.h).
 */
const PROTOCOLS = {
  4: {
    ...{ domain: AF_INET, protocol: 1, errors: { level: 0, option: 11 } },
    ...{ filterLevel: 255, filterLengthBytes: 4, echoReply: 0 },
  },
  6: {
    ...{ domain: AF_INET6, protocol: 58, errors: { level: 41, option: 25 } },
    ...{ filterLevel: 58, filterLengthBytes: 32, echoReply: 129 },
  },
} as const;
/** ICMP_FILTER and ICMPV6_FILTER: a set bit keeps that type out. */
const FILTER = 1;
const SOCKADDR_LENGTH = 28;
const MAX_BATCH = 64;
/** Room for one `struct cmsghdr` with an error and the address of who says so. */
const CONTROL_LENGTH = 128;
/** `struct cmsghdr`: length u64, level, type. */
const CMSG_HEADER_LENGTH = 16;
/** Where an error comes from (linux/errqueue.h): an ICMP or ICMPv6 message, not this host. */
const SO_EE_ORIGIN_ICMP = 2;
const SO_EE_ORIGIN_ICMP6 = 3;
/** When the kernel got what was read last (asm-generic/sockios.h); asked once, it keeps track. */
const SIOCGSTAMPNS = 0x8907n;
const CLOCK_REALTIME = 0;
/** `struct timespec`, 64-bit: seconds, nanoseconds. */
const TIMESPEC_LENGTH = 16;

export interface IcmpMessage {
  from: Ip;
  /** How long it lay in the kernel until this process came to read it. */
  waitedMs: number;
  /** From the ICMP header on. */
  message: Uint8Array;
  /** `message` is the start of one that was sent from here, of which `from` says this. */
  error?: IcmpError;
}

/** The head of an ICMP or ICMPv6 error message. */
export interface IcmpError {
  type: number;
  code: number;
}

export interface IcmpSocketOptions {
  family: Family;
  poller: Poller;
  /** The interface that messages leave and arrive by; else routes decide. */
  device?: string;
}

/** This process may open neither kind of socket. */
export class IcmpNotAllowedError extends GretunError {
  override name = "IcmpNotAllowedError";

  constructor(cause: SystemError) {
    super(
      `cannot open a socket for ICMP: ${cause.code}`,
      "Run as root, give the program CAP_NET_RAW with setcap, " +
        "or put your group into the sysctl net.ipv4.ping_group_range",
      { cause },
    );
  }
}

export class IcmpSocket implements Disposable {
  /** The kernel puts an identifier of its own into what a ping socket sends. */
  readonly setsIdentifier: boolean;
  readonly #socket: Fd;
  readonly #hasIpHeader: boolean;
  readonly #watch: Disposable;
  readonly #onMessage: (message: IcmpMessage) => void;
  readonly #buffer = new Uint8Array(65_536);

  /** Throws {@link IcmpNotAllowedError}, and `SystemError`: no such device, no IPv6. */
  static open(options: IcmpSocketOptions, onMessage: (message: IcmpMessage) => void): IcmpSocket {
    const { family, poller, device } = options;
    const { socket, isRaw } = openEither(family);
    try {
      if (isRaw) setOption(socket.fd, PROTOCOLS[family].filterLevel, FILTER, echoReplies(family));
      if (device !== undefined) {
        setOption(socket.fd, SOL_SOCKET, SO_BINDTODEVICE, cString(device));
      }
      const { level, option } = PROTOCOLS[family].errors;
      setIntOption(socket.fd, level, option, 1);
      libc().ioctl(socket.fd, SIOCGSTAMPNS, new Uint8Array(TIMESPEC_LENGTH));
      return new IcmpSocket(socket, { isRaw, family, poller, onMessage });
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(
    socket: Fd,
    { isRaw, family, poller, onMessage }: {
      isRaw: boolean;
      family: Family;
      poller: Poller;
      onMessage: (message: IcmpMessage) => void;
    },
  ) {
    this.#socket = socket;
    this.setsIdentifier = !isRaw;
    this.#hasIpHeader = isRaw && family === 4;
    this.#onMessage = onMessage;
    this.#watch = poller.add(socket.fd, () => this.#drain());
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }

  /** Throws `SystemError`: no route, not allowed, too large, no buffer. */
  send(message: Uint8Array<ArrayBuffer>, to: Ip): void {
    // An error that nobody has read would be taken for one of this message.
    this.#drainErrors();
    const bytes = ipBytes(to);
    const address = familyOf(to) === 4 ? sockaddrIn(bytes, 0) : sockaddrIn6(bytes, 0);
    const { fd } = this.#socket;
    const size = BigInt(message.length);
    check(`ping ${to}`, libc().sendto(fd, message, size, MSG_DONTWAIT, address, address.length));
  }

  #drain(): void {
    this.#drainErrors();
    for (let i = 0; i < MAX_BATCH; i++) {
      const received = this.#receive();
      if (!received) return;
      this.#onMessage(received);
    }
  }

  #drainErrors(): void {
    const name = new Uint8Array(SOCKADDR_LENGTH);
    const control = new Uint8Array(CONTROL_LENGTH);
    for (let i = 0; i < MAX_BATCH; i++) {
      const header = msghdr({ data: this.#buffer, name, control });
      const result = libc().recvmsg(this.#socket.fd, header, MSG_ERRQUEUE | MSG_DONTWAIT);
      const length = checkAgain("receive an ICMP error", result);
      if (length === undefined) return;
      const found = parseExtendedError(control);
      const message = this.#buffer.slice(0, length);
      if (found) this.#onMessage({ ...found, waitedMs: 0, message });
    }
  }

  #receive(): IcmpMessage | undefined {
    const address = new Uint8Array(SOCKADDR_LENGTH);
    const addressLength = new Uint8Array(new Uint32Array([SOCKADDR_LENGTH]).buffer);
    const { fd } = this.#socket;
    const size = BigInt(this.#buffer.length);
    const result = libc().recvfrom(fd, this.#buffer, size, MSG_DONTWAIT, address, addressLength);
    // An error here is that of a message sent earlier, and in the queue of errors too.
    if (Number(result) === -1) return undefined;
    const length = Number(result);
    const start = this.#hasIpHeader ? (this.#buffer[0]! & 0xf) * 4 : 0;
    return {
      from: parseSockaddr(address).ip,
      waitedMs: sinceArrivalMs(fd),
      message: this.#buffer.slice(start, length),
    };
  }
}

/**
 * `struct sock_extended_err` of linux/errqueue.h, which a `struct sockaddr` of who says so follows:
 * errno u32, origin, type, code, padding, info u32, data u32. Undefined for an error of this host.
 */
function parseExtendedError(control: Uint8Array): { from: Ip; error: IcmpError } | undefined {
  const reader = new Reader(control, "host").skip(CMSG_HEADER_LENGTH + 4);
  const origin = reader.u8();
  if (origin !== SO_EE_ORIGIN_ICMP && origin !== SO_EE_ORIGIN_ICMP6) return undefined;
  const error = { type: reader.u8(), code: reader.u8() };
  return { from: parseSockaddr(reader.skip(9).bytes(SOCKADDR_LENGTH)).ip, error };
}

function openEither(family: Family): { socket: Fd; isRaw: boolean } {
  const { domain, protocol } = PROTOCOLS[family];
  try {
    // Allowed to the groups of net.ipv4.ping_group_range.
    return { socket: openSocket(domain, SOCK_DGRAM, protocol), isRaw: false };
  } catch (error) {
    if (!isRefusal(error)) throw error;
  }
  try {
    return { socket: openSocket(domain, SOCK_RAW, protocol), isRaw: true };
  } catch (error) {
    throw isRefusal(error) ? new IcmpNotAllowedError(error) : error;
  }
}

function isRefusal(error: unknown): error is SystemError {
  return error instanceof SystemError && (error.code === "EACCES" || error.code === "EPERM");
}

/** Of what was read last; 0 when the kernel does not tell, or the clock was set meanwhile. */
function sinceArrivalMs(fd: number): number {
  const [arrival, now] = [new Uint8Array(TIMESPEC_LENGTH), new Uint8Array(TIMESPEC_LENGTH)];
  if (libc().ioctl(fd, SIOCGSTAMPNS, arrival) === -1) return 0;
  check("clock_gettime", libc().clock_gettime(CLOCK_REALTIME, now));
  return Math.max(0, timespecMs(now) - timespecMs(arrival));
}

function timespecMs(timespec: Uint8Array): number {
  const reader = new Reader(timespec, "host");
  return Number(reader.u64() * 1_000_000_000n + reader.u64()) / 1e6;
}

/** A filter in host words that lets through echo replies alone. */
function echoReplies(family: Family): Uint8Array {
  const { filterLengthBytes, echoReply } = PROTOCOLS[family];
  const words = new Uint32Array(filterLengthBytes / 4).fill(0xffffffff);
  words[echoReply >> 5]! &= ~(1 << (echoReply & 31));
  return new Uint8Array(words.buffer);
}
