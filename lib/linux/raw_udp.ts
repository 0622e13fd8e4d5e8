/**
 * A raw socket beside a UDP port that the kernel's FOU owns: gets a copy of every datagram of
 * signalling to that port before the kernel's own demultiplexing, and sends from that port.
 */
import { type Endpoint, type Family, familyOf, type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import { concatBytes, Reader, Writer } from "../bytes.ts";
import { onesComplementSum } from "../checksum.ts";
import type { Datagram } from "../edges.ts";
import {
  AF_INET,
  AF_INET6,
  checkAgain,
  type Fd,
  libc,
  MSG_DONTWAIT,
  openSocket,
  parseSockaddr,
  parseSockaddrIn,
  setIntOption,
  SOCK_DGRAM,
  SOCK_RAW,
  sockaddrIn,
  SOL_SOCKET,
} from "./libc.ts";
import { bindTo, IPPROTO_IPV6, setFragments, sockAddrOf, withTtl } from "./inet.ts";
import type { Poller } from "./poll.ts";
import { attachFilter, DEAF_FILTER, type Signalling, signallingFilter } from "./udp_filter.ts";

const IPPROTO_UDP = 17;
const SO_RCVBUF = 8;
const IPV6_CHECKSUM = 7;
const SOCKADDR_LENGTH = 28;
const RECEIVE_BUFFER = 1024 * 1024;
const UDP_HEADER = 8;
/** Of the checksum in a UDP header. */
const CHECKSUM_OFFSET = 6;
const EVERYTHING: Signalling = { kind: "patterns", any: [{ offset: 0, bytes: new Uint8Array() }] };
/** So that a flood on this socket does not starve the rest of the process. */
const MAX_BATCH = 64;

export interface RawUdpOptions {
  /** Of what is read and sent; 4 unless told. */
  family?: Family;
  /** What is read; all unless told. */
  signalling?: Signalling;
  /** Reads what comes to this address of the family only, and sends from it. */
  bind?: Ip;
  /** Checksums of what is sent over IPv4; on unless told. */
  checksum?: boolean;
}

/** Sends UDP datagrams of one family from a port that another socket, or the kernel, has. */
export class RawUdpSender implements Disposable {
  readonly #port: number;
  readonly #family: Family;
  readonly #bound: Uint8Array | undefined;
  readonly #checksum: boolean;
  readonly #socket: Fd;
  /** Of IPv4: told nothing and asked for the source address that a destination would get. */
  readonly #sources: Fd | undefined;

  /** Needs CAP_NET_RAW; throws `SystemError`. */
  static open(port: number, family: Family = 4): RawUdpSender {
    return new RawUdpSender(port, openRawSocket(family, DEAF_FILTER), { family });
  }

  constructor(port: number, socket: Fd, options: RawUdpOptions = {}) {
    const { family = 4, bind, checksum = true } = options;
    this.#family = family;
    this.#bound = bind && ipBytes(bind);
    this.#checksum = checksum;
    this.#port = port;
    this.#socket = socket;
    this.#sources = family === 4 ? openSocket(AF_INET, SOCK_DGRAM, 0) : undefined;
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
    this.#sources?.[Symbol.dispose]();
  }

  /**
   * A datagram that cannot be sent (no route, no buffer, the other family) is lost. `ttl` is the
   * hop limit of IPv6.
   */
  send(payload: Uint8Array, to: Endpoint, ttl?: number): void {
    if (familyOf(to.ip) !== this.#family) return;
    const packet = this.#encode(payload, { ip: ipBytes(to.ip), port: to.port });
    if (!packet) return;
    // For a raw socket the port in the address is the protocol's, which is 0.
    const address = sockAddrOf({ ip: to.ip, port: 0 });
    const { fd } = this.#socket;
    withTtl(fd, this.#family, ttl, () => {
      libc().sendto(fd, packet, BigInt(packet.length), MSG_DONTWAIT, address, address.length);
    });
  }

  /** The kernel fills in the checksum of IPv6 (IPV6_CHECKSUM), which takes the source address. */
  #encode(payload: Uint8Array, to: UdpAddress): Uint8Array<ArrayBuffer> | undefined {
    const ports = { source: this.#port, destination: to.port };
    if (!this.#sources || !this.#checksum) {
      return concatBytes(encodeUdpHeader(ports, payload.length, 0), payload);
    }
    const source = this.#bound ?? sourceFor(this.#sources, to.ip);
    return source && encodeUdp(payload, { ip: source, port: this.#port }, to);
  }
}

/** The IPv4 address that the kernel would send from, by connecting a socket that sends nothing. */
function sourceFor({ fd }: Fd, destination: Uint8Array): Uint8Array | undefined {
  // Connecting to AF_UNSPEC undoes the last one; a connected socket would keep its source.
  libc().connect(fd, new Uint8Array(16), 16);
  if (libc().connect(fd, sockaddrIn(destination, 9), 16) === -1) return undefined;
  const name = new Uint8Array(16);
  const length = new Writer("host").u32(name.length).finish();
  if (libc().getsockname(fd, name, length) === -1) return undefined;
  return parseSockaddrIn(name).ip;
}

function openRawSocket(family: Family, filter: Uint8Array<ArrayBuffer>): Fd {
  const socket = openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_RAW, IPPROTO_UDP);
  try {
    attachFilter(socket.fd, filter);
    // Made for what is sent, and looked at for what arrives.
    if (family === 6) setIntOption(socket.fd, IPPROTO_IPV6, IPV6_CHECKSUM, CHECKSUM_OFFSET);
    return socket;
  } catch (error) {
    socket[Symbol.dispose]();
    throw error;
  }
}

/** Receives of one family, and sends as {@link RawUdpSender} does. */
export class RawUdpSocket implements Disposable {
  readonly #family: Family;
  readonly #socket: Fd;
  readonly #sender: RawUdpSender;
  readonly #buffer = new Uint8Array(65_536);
  readonly #onDatagram: (datagram: Datagram) => void;
  readonly #watch: Disposable;
  #closed = false;

  /** Needs CAP_NET_RAW; throws `SystemError`. */
  static open(
    port: number,
    poller: Poller,
    onDatagram: (datagram: Datagram) => void,
    options: RawUdpOptions = {},
  ): RawUdpSocket {
    const { family = 4, signalling = EVERYTHING } = options;
    const socket = openRawSocket(family, signallingFilter(signalling, port, family));
    try {
      if (options.bind) bindTo(socket.fd, { ip: options.bind, port: 0 });
      setIntOption(socket.fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
      // As the data beside it: what looks for the way's MTU must not be cut up.
      setFragments(socket.fd, family, false);
      return new RawUdpSocket(port, socket, { poller, onDatagram, options });
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(port: number, socket: Fd, { poller, onDatagram, options }: {
    poller: Poller;
    onDatagram: (datagram: Datagram) => void;
    options: RawUdpOptions;
  }) {
    this.#family = options.family ?? 4;
    this.#socket = socket;
    this.#sender = new RawUdpSender(port, socket, options);
    this.#onDatagram = onDatagram;
    this.#watch = poller.add(socket.fd, () => this.#drain());
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#watch[Symbol.dispose]();
    this.#sender[Symbol.dispose]();
  }

  /** As {@link RawUdpSender.send}. */
  send(payload: Uint8Array, to: Endpoint, ttl?: number): void {
    this.#sender.send(payload, to, ttl);
  }

  #drain(): void {
    const address = new Uint8Array(SOCKADDR_LENGTH);
    const addressLength = new Writer("host").u32(address.length).finish();
    // A datagram can make its reader close the socket.
    for (let i = 0; i < MAX_BATCH && !this.#closed; i++) {
      const { fd } = this.#socket;
      const size = BigInt(this.#buffer.length);
      // For a wrong checksum of IPv6 the kernel says "would block"; poll tells of what is behind it.
      const result = libc()
        .recvfrom(fd, this.#buffer, size, MSG_DONTWAIT, address, addressLength);
      const length = checkAgain("recvfrom", result);
      if (length === undefined) return;
      const packet = this.#buffer.subarray(0, length);
      const datagram = this.#family === 4
        ? decodeIpUdp(packet)
        : decodeUdp(packet, parseSockaddr(address).ip);
      if (datagram) this.#onDatagram(datagram);
    }
  }
}

interface UdpAddress {
  ip: Uint8Array;
  port: number;
}

/** UDP header (RFC 768) and payload over IPv4, with checksum. */
export function encodeUdp(
  payload: Uint8Array,
  source: UdpAddress,
  destination: UdpAddress,
): Uint8Array<ArrayBuffer> {
  const ports = { source: source.port, destination: destination.port };
  const header = (checksum: number) => encodeUdpHeader(ports, payload.length, checksum);
  const length = UDP_HEADER + payload.length;
  const pseudoHeader = encodePseudoHeader(source.ip, destination.ip, length);
  const sum = ~onesComplementSum(concatBytes(pseudoHeader, header(0), payload)) & 0xffff;
  return concatBytes(header(sum || 0xffff), payload);
}

function encodeUdpHeader(
  ports: { source: number; destination: number },
  payloadLength: number,
  checksum: number,
): Uint8Array<ArrayBuffer> {
  return new Writer("network", UDP_HEADER)
    .u16(ports.source).u16(ports.destination).u16(UDP_HEADER + payloadLength).u16(checksum)
    .finish();
}

/** A UDP datagram whose checksum the kernel has looked at; undefined when it is cut short. */
export function decodeUdp(packet: Uint8Array, source: Ip): Datagram | undefined {
  if (packet.length < UDP_HEADER) return undefined;
  const reader = new Reader(packet, "network");
  const port = reader.u16();
  const length = reader.skip(2).u16();
  if (length < UDP_HEADER || length > packet.length) return undefined;
  return { bytes: packet.slice(UDP_HEADER, length), from: { ip: source, port } };
}

/**
 * The UDP datagram inside an IPv4 packet; undefined when it is cut short or its checksum is wrong,
 * which the kernel does not look at for a raw socket. A packet that never left this machine (from
 * another namespace over veth) may carry the sum of the pseudo-header alone: the network card
 * would have added the rest (CHECKSUM_PARTIAL).
 */
export function decodeIpUdp(packet: Uint8Array): Datagram | undefined {
  const headerLength = ((packet[0] ?? 0) & 0xf) * 4;
  if (headerLength < 20 || packet.length < headerLength + UDP_HEADER) return undefined;
  const udp = packet.subarray(headerLength);
  const [source, destination] = [packet.subarray(12, 16), packet.subarray(16, 20)];
  const datagram = decodeUdp(udp, ipFromBytes(source));
  if (!datagram) return undefined;
  const length = UDP_HEADER + datagram.bytes.length;
  const checksum = new Reader(udp, "network").skip(CHECKSUM_OFFSET).u16();
  const pseudoHeader = encodePseudoHeader(source, destination, length);
  const isWhole = checksum === 0 || checksum === onesComplementSum(pseudoHeader) ||
    onesComplementSum(concatBytes(pseudoHeader, udp.subarray(0, length))) === 0xffff;
  return isWhole ? datagram : undefined;
}

/** Addresses, protocol and length, as RFC 768 sums them. */
function encodePseudoHeader(source: Uint8Array, destination: Uint8Array, length: number) {
  return new Writer("network", 12)
    .bytes(source).bytes(destination).u8(0).u8(IPPROTO_UDP).u16(length).finish();
}
