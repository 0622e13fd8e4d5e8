/** A TUN device of single packets for tests that carry, answer or count them. */
import { bulk } from "../../lib/linux/bulk.ts";
import {
  checkAgain,
  type Fd,
  libc,
  openBulkTun,
  type Poller,
  SystemError,
  writeBulkTun,
} from "../../lib/linux/mod.ts";

bulk(); // opens libc outside the tests, which look for leaks

const TUNSETOFFLOAD = 0x400454d0;
/** Of `struct virtio_net_hdr`, before each packet. */
const HEADER_LENGTH = 10;
const MAX_BATCH = 256;

export class TunDevice implements Disposable {
  readonly name: string;
  readonly #fd: Fd;
  readonly #buffer = new Uint8Array(65_536 + HEADER_LENGTH);
  readonly #onPacket: (packet: Uint8Array) => void;
  readonly #watch: Disposable;

  /**
   * Makes the device, which is gone when it is disposed or the process ends. `onPacket` gets each
   * IP packet that the kernel routes into it, as a view that is valid during the call.
   */
  static open(name: string, poller: Poller, onPacket: (packet: Uint8Array) => void): TunDevice {
    const { fd } = openBulkTun(name);
    bulk().ioctlValue(fd.fd, TUNSETOFFLOAD, 0);
    return new TunDevice(name, fd, poller, onPacket);
  }

  private constructor(
    name: string,
    fd: Fd,
    poller: Poller,
    onPacket: (packet: Uint8Array) => void,
  ) {
    this.name = name;
    this.#fd = fd;
    this.#onPacket = onPacket;
    this.#watch = poller.add(fd.fd, () => this.#drain());
  }

  /** Hands a packet to the kernel; false when it does not take it, as while the link is down. */
  write(packet: Uint8Array): boolean {
    return writeBulkTun(this.#fd, packet);
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#fd[Symbol.dispose]();
  }

  #drain(): void {
    for (let i = 0; i < MAX_BATCH; i++) {
      let length;
      try {
        const result = libc().read(this.#fd.fd, this.#buffer, BigInt(this.#buffer.length));
        length = checkAgain("read TUN device", result);
      } catch (error) {
        // Somebody deleted the device under us: nothing comes from it any more.
        if (error instanceof SystemError) return this.#watch[Symbol.dispose]();
        throw error;
      }
      if (length === undefined) return;
      this.#onPacket(this.#buffer.subarray(HEADER_LENGTH, length));
    }
  }
}
