/** A socket for ICMP messages: the unprivileged ping socket, or a raw one where that is not allowed. */
import { type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import {
  AF_INET,
  check,
  checkAgain,
  type Fd,
  libc,
  MSG_DONTWAIT,
  openSocket,
  parseSockaddrIn,
  SOCK_DGRAM,
  SOCK_RAW,
  sockaddrIn,
  SystemError,
} from "./libc.ts";
import type { Poller } from "./poll.ts";

const IPPROTO_ICMP = 1;
const MAX_BATCH = 64;

export interface IcmpMessage {
  from: Ip;
  /** From the ICMP header on. */
  message: Uint8Array;
}

export class IcmpSocket implements Disposable {
  /** The kernel puts an identifier of its own into what a ping socket sends. */
  readonly setsIdentifier: boolean;
  readonly #socket: Fd;
  readonly #watch: Disposable;
  readonly #onMessage: (message: IcmpMessage) => void;
  readonly #buffer = new Uint8Array(65_536);

  /** IPv4. Throws `SystemError` when neither kind is allowed. */
  static open(poller: Poller, onMessage: (message: IcmpMessage) => void): IcmpSocket {
    try {
      // Allowed to the groups of net.ipv4.ping_group_range.
      const socket = openSocket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
      return new IcmpSocket(socket, true, poller, onMessage);
    } catch (error) {
      if (!(error instanceof SystemError) || error.code !== "EACCES") throw error;
      const socket = openSocket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
      return new IcmpSocket(socket, false, poller, onMessage);
    }
  }

  private constructor(
    socket: Fd,
    setsIdentifier: boolean,
    poller: Poller,
    onMessage: (message: IcmpMessage) => void,
  ) {
    this.#socket = socket;
    this.setsIdentifier = setsIdentifier;
    this.#onMessage = onMessage;
    this.#watch = poller.add(socket.fd, () => this.#drain());
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }

  /** Throws `SystemError`: no route, not allowed, no buffer. */
  send(message: Uint8Array<ArrayBuffer>, to: Ip): void {
    const address = sockaddrIn(ipBytes(to), 0);
    const { fd } = this.#socket;
    const size = BigInt(message.length);
    check(`ping ${to}`, libc().sendto(fd, message, size, MSG_DONTWAIT, address, 16));
  }

  #drain(): void {
    for (let i = 0; i < MAX_BATCH; i++) {
      const address = new Uint8Array(16);
      const addressLength = new Uint8Array(new Uint32Array([16]).buffer);
      const { fd } = this.#socket;
      const size = BigInt(this.#buffer.length);
      const result = libc()
        .recvfrom(fd, this.#buffer, size, MSG_DONTWAIT, address, addressLength);
      const length = checkAgain("recvfrom", result);
      if (length === undefined) return;
      // A raw socket gives the IP header too.
      const start = this.setsIdentifier ? 0 : (this.#buffer[0]! & 0xf) * 4;
      const message = this.#buffer.slice(start, length);
      this.#onMessage({ from: ipFromBytes(parseSockaddrIn(address).ip), message });
    }
  }
}
