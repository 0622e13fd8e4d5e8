/**
 * A raw socket beside a UDP port that the kernel's FOU owns: gets a copy of every STUN and disco
 * datagram to that port before the kernel's own demultiplexing, and sends from that port.
 */
import { type Endpoint, familyOf, type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import { concatBytes, Reader, Writer } from "../bytes.ts";
import { onesComplementSum } from "../checksum.ts";
import type { Datagram } from "../edges.ts";
import {
  AF_INET,
  check,
  checkAgain,
  type Fd,
  libc,
  MSG_DONTWAIT,
  openSocket,
  parseSockaddrIn,
  setIntOption,
  SOCK_DGRAM,
  SOCK_RAW,
  sockaddrIn,
  SOL_SOCKET,
} from "./libc.ts";
import type { Poller } from "./poll.ts";
import { attachFilter, DEAF_FILTER, type Signalling, signallingFilter } from "./udp_filter.ts";

const IPPROTO_UDP = 17;
const SO_RCVBUF = 8;
const IPPROTO_IP = 0;
const IP_TTL = 2;
/** As an option: back to the system's. */
const DEFAULT_TTL = -1;
const RECEIVE_BUFFER = 1024 * 1024;
const UDP_HEADER = 8;
const UDP_CHECKSUM = 6;
/** So that a flood on this socket does not starve the rest of the process. */
const MAX_BATCH = 64;

export interface RawUdpOptions {
  /** What is read; disco and STUN unless told. */
  signalling?: Signalling;
  /** Reads what comes to this address only, and sends from it. */
  bind?: Ip;
  /** Checksums of what is sent; on unless told. */
  checksum?: boolean;
}

/** Sends UDP datagrams from a port that another socket, or the kernel, has. */
export class RawUdpSender implements Disposable {
  readonly #port: number;
  readonly #bound: Uint8Array | undefined;
  readonly #checksum: boolean;
  readonly #socket: Fd;
  /** Told nothing and asked for the source address that a destination would get. */
  readonly #sources = openSocket(AF_INET, SOCK_DGRAM, 0);

  /** Needs CAP_NET_RAW; throws `SystemError`. */
  static open(port: number): RawUdpSender {
    const socket = openRawSocket(DEAF_FILTER);
    return new RawUdpSender(port, socket);
  }

  constructor(port: number, socket: Fd, { bind, checksum = true }: RawUdpOptions = {}) {
    this.#bound = bind && ipBytes(bind);
    this.#checksum = checksum;
    this.#port = port;
    this.#socket = socket;
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
    this.#sources[Symbol.dispose]();
  }

  /** A datagram that cannot be sent (no route, no buffer) is lost. IPv4 only. */
  send(payload: Uint8Array, to: Endpoint, ttl?: number): void {
    if (familyOf(to.ip) !== 4) return;
    const destination = ipBytes(to.ip);
    const source = this.#bound ?? this.#sourceFor(destination);
    if (!source) return;
    const packet = encodeUdp(payload, { ip: source, port: this.#port }, {
      ip: destination,
      port: to.port,
    });
    if (!this.#checksum) packet.fill(0, UDP_CHECKSUM, UDP_CHECKSUM + 2);
    // For a raw socket the port in the address is the protocol's, which is 0.
    const address = sockaddrIn(destination, 0);
    const { fd } = this.#socket;
    if (ttl !== undefined) setIntOption(fd, IPPROTO_IP, IP_TTL, ttl);
    libc().sendto(fd, packet, BigInt(packet.length), MSG_DONTWAIT, address, 16);
    if (ttl !== undefined) setIntOption(fd, IPPROTO_IP, IP_TTL, DEFAULT_TTL);
  }

  /** The address that the kernel would send from, by connecting a socket that sends nothing. */
  #sourceFor(destination: Uint8Array): Uint8Array | undefined {
    const fd = this.#sources.fd;
    // Connecting to AF_UNSPEC undoes the last one; a connected socket would keep its source.
    libc().connect(fd, new Uint8Array(16), 16);
    if (libc().connect(fd, sockaddrIn(destination, 9), 16) === -1) return undefined;
    const name = new Uint8Array(16);
    const length = new Writer("host").u32(name.length).finish();
    if (libc().getsockname(fd, name, length) === -1) return undefined;
    return parseSockaddrIn(name).ip;
  }
}

function openRawSocket(filter: Uint8Array<ArrayBuffer>): Fd {
  const socket = openSocket(AF_INET, SOCK_RAW, IPPROTO_UDP);
  try {
    attachFilter(socket.fd, filter);
    return socket;
  } catch (error) {
    socket[Symbol.dispose]();
    throw error;
  }
}

export class RawUdpSocket implements Disposable {
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
    const socket = openRawSocket(signallingFilter(options.signalling ?? "disco", port));
    try {
      if (options.bind) {
        const address = sockaddrIn(ipBytes(options.bind), 0);
        check("bind", libc().bind(socket.fd, address, address.length));
      }
      setIntOption(socket.fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
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
    // A datagram can make its reader close the socket.
    for (let i = 0; i < MAX_BATCH && !this.#closed; i++) {
      const { fd } = this.#socket;
      const size = BigInt(this.#buffer.length);
      const result = libc().recvfrom(fd, this.#buffer, size, MSG_DONTWAIT, null, null);
      const length = checkAgain("recvfrom", result);
      if (length === undefined) return;
      const datagram = decodeIpUdp(this.#buffer.subarray(0, length));
      if (datagram) this.#onDatagram(datagram);
    }
  }
}

interface UdpAddress {
  ip: Uint8Array;
  port: number;
}

/** UDP header (RFC 768) and payload, with checksum. */
export function encodeUdp(
  payload: Uint8Array,
  source: UdpAddress,
  destination: UdpAddress,
): Uint8Array<ArrayBuffer> {
  const length = UDP_HEADER + payload.length;
  const header = (checksum: number) =>
    new Writer("network", UDP_HEADER)
      .u16(source.port).u16(destination.port).u16(length).u16(checksum).finish();
  const pseudoHeader = encodePseudoHeader(source.ip, destination.ip, length);
  const sum = ~onesComplementSum(concatBytes(pseudoHeader, header(0), payload)) & 0xffff;
  return concatBytes(header(sum || 0xffff), payload);
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
  const reader = new Reader(udp, "network");
  const port = reader.u16();
  reader.skip(2);
  const length = reader.u16();
  const checksum = reader.u16();
  if (length < UDP_HEADER || length > udp.length) return undefined;
  const [source, destination] = [packet.subarray(12, 16), packet.subarray(16, 20)];
  const datagram = udp.subarray(0, length);
  const pseudoHeader = encodePseudoHeader(source, destination, length);
  const isWhole = checksum === 0 || checksum === onesComplementSum(pseudoHeader) ||
    onesComplementSum(concatBytes(pseudoHeader, datagram)) === 0xffff;
  if (!isWhole) return undefined;
  return { bytes: datagram.slice(UDP_HEADER), from: { ip: ipFromBytes(source), port } };
}

/** Addresses, protocol and length, as RFC 768 sums them. */
function encodePseudoHeader(source: Uint8Array, destination: Uint8Array, length: number) {
  return new Writer("network", 12)
    .bytes(source).bytes(destination).u8(0).u8(IPPROTO_UDP).u16(length).finish();
}
