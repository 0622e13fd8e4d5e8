/**
 * A UDP socket for data in bulk: read in batches without a promise for each datagram, addresses
 * left in the kernel's form.
 */
import { type Family, type Ip, UNSPECIFIED } from "../addr.ts";
import { checkAgain, type Fd, libc, MSG_DONTWAIT, SystemError } from "./libc.ts";
import {
  bindTo,
  growBuffers,
  localPort,
  openDatagrams,
  setFragments,
  type SockAddr,
  withTtl,
} from "./inet.ts";
import type { Poller } from "./poll.ts";

/** By family, of a `struct sockaddr`. */
const ADDRESS_LENGTH = { 4: 16, 6: 28 } as const;
const MAX_BATCH = 256;

export interface UdpSocketOptions {
  /** 0: the kernel chooses. */
  port: number;
  /** Unless told, 4. */
  family?: Family;
  bind?: Ip;
  /** Datagrams that are too large for the way may be cut up. */
  allowFragments?: boolean;
}

export class UdpSocket implements Disposable {
  readonly port: number;
  readonly #socket: Fd;
  readonly #buffer = new Uint8Array(65_536);
  readonly #family: Family;
  readonly #source: SockAddr;
  readonly #sourceLength = new Uint32Array(1);
  readonly #lengthBytes = new Uint8Array(this.#sourceLength.buffer);
  readonly #onDatagram: (bytes: Uint8Array, source: SockAddr) => void;
  readonly #watch: Disposable;
  #closed = false;

  /**
   * `onDatagram` gets views that are valid during the call. Throws `SystemError`, EADDRINUSE for a
   * port that is taken.
   */
  static open(
    options: UdpSocketOptions,
    poller: Poller,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ): UdpSocket {
    const { family = 4, port, bind, allowFragments = false } = options;
    const socket = openDatagrams(family);
    try {
      growBuffers(socket.fd);
      setFragments(socket.fd, family, allowFragments);
      bindTo(socket.fd, { ip: bind ?? UNSPECIFIED[family], port });
      return new UdpSocket(socket, family, poller, onDatagram);
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(
    socket: Fd,
    family: Family,
    poller: Poller,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ) {
    this.#socket = socket;
    this.#family = family;
    this.#onDatagram = onDatagram;
    this.#source = new Uint8Array(ADDRESS_LENGTH[family]);
    this.port = localPort(socket.fd);
    this.#watch = poller.add(socket.fd, () => this.#drain());
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#watch[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }

  /** A datagram that cannot be sent is lost, like any other on the way. */
  send(bytes: Uint8Array, to: SockAddr, ttl?: number): void {
    const { fd } = this.#socket;
    const packet = bytes as Uint8Array<ArrayBuffer>;
    withTtl(fd, this.#family, ttl, () => {
      libc().sendto(fd, packet, BigInt(packet.length), MSG_DONTWAIT, to, to.length);
    });
  }

  #drain(): void {
    const { fd } = this.#socket;
    const size = BigInt(this.#buffer.length);
    // A datagram can make its reader close the socket.
    for (let i = 0; i < MAX_BATCH && !this.#closed; i++) {
      this.#sourceLength[0] = this.#source.length;
      let length;
      try {
        const args = [
          fd,
          this.#buffer,
          size,
          MSG_DONTWAIT,
          this.#source,
          this.#lengthBytes,
        ] as const;
        length = checkAgain("recvfrom", libc().recvfrom(...args));
      } catch (error) {
        // An ICMP error of an earlier datagram does not end a datagram socket's life.
        if (error instanceof SystemError) continue;
        throw error;
      }
      if (length === undefined) return;
      this.#onDatagram(this.#buffer.subarray(0, length), this.#source);
    }
  }
}
