/**
 * Waits for any of several descriptors: one poll(2) at a time on a thread of its own, over all of
 * them and an eventfd that interrupts it. Callbacks run on the JavaScript thread and read without
 * blocking.
 */
import { Writer } from "../bytes.ts";
import { check, Fd, libc, O_CLOEXEC, O_NONBLOCK } from "./libc.ts";

const POLLIN = 0x1;
/** `struct pollfd`: int fd, short events, short revents. */
const POLLFD_LENGTH = 8;
const REVENTS_OFFSET = 6;
/** Even a lost wake-up does not keep the process for longer. */
const POLL_TIMEOUT_MS = 60_000;
/** How long one wait on this thread may hold up everything else. */
const BUSY_WAIT_MS = 1;

export interface PollerOptions {
  /**
   * For data in bulk: after something came, the JavaScript thread itself waits for more for up to
   * so long, as a change of threads for each few packets costs more than the packets. 0 unless told.
   */
  busyMs?: number;
}

export class Poller implements AsyncDisposable {
  readonly #eventfd = new Fd(check("eventfd", libc().eventfd(0, O_NONBLOCK | O_CLOEXEC)));
  readonly #readers = new Map<number, () => void>();
  readonly #busyMs: number;
  #running: Promise<void> | undefined;
  #closed = false;

  constructor({ busyMs = 0 }: PollerOptions = {}) {
    this.#busyMs = busyMs;
  }

  /** Calls `onReadable` whenever `fd` has something, until the result is disposed. */
  add(fd: number, onReadable: () => void): Disposable {
    this.#readers.set(fd, onReadable);
    this.#wake();
    this.#running ??= this.#run();
    return {
      [Symbol.dispose]: () => {
        if (this.#readers.get(fd) === onReadable) this.#readers.delete(fd);
        this.#wake();
      },
    };
  }

  /** Ends the thread; callbacks are not called any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#wake();
    await this.#running;
    this.#eventfd[Symbol.dispose]();
  }

  #wake(): void {
    const one = new Writer("host").u64(1n).finish();
    libc().write(this.#eventfd.fd, one, BigInt(one.length));
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      const set = this.#pollfds();
      await libc().poll(set.bytes, BigInt(set.fds.length), POLL_TIMEOUT_MS);
      this.#call(set);
      const endMs = performance.now() + this.#busyMs;
      while (performance.now() < endMs && this.#waitHere());
    }
  }

  /** Whether something came within a moment. */
  #waitHere(): boolean {
    if (this.#closed) return false;
    const set = this.#pollfds();
    if (libc().pollHere(set.bytes, BigInt(set.fds.length), BUSY_WAIT_MS) <= 0) return false;
    this.#call(set);
    return true;
  }

  #pollfds(): { fds: number[]; bytes: Uint8Array<ArrayBuffer> } {
    const fds = [this.#eventfd.fd, ...this.#readers.keys()];
    const writer = new Writer("host", fds.length * POLLFD_LENGTH);
    for (const fd of fds) writer.i32(fd).u16(POLLIN).u16(0);
    return { fds, bytes: writer.finish() };
  }

  #call({ fds, bytes }: { fds: number[]; bytes: Uint8Array }): void {
    for (const [i, fd] of fds.entries()) {
      if (bytes[i * POLLFD_LENGTH + REVENTS_OFFSET] === 0) continue;
      if (i === 0) libc().read(fd, new Uint8Array(8), 8n);
      else if (!this.#closed) this.#readers.get(fd)?.();
    }
  }
}
