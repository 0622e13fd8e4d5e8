/**
 * System calls for packets in bulk, made by threads of their own: they block, take what they need
 * from memory that outlives them, and give results that V8 passes without allocating.
 */
import {
  check,
  cString,
  Fd,
  lastErrno,
  libc,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  readyErrno,
} from "./libc.ts";

export { isSignalling, type Signalling } from "./udp_filter.ts";

const SYMBOLS = {
  readv: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // fd, iovecs, count
  writev: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // fd, iovecs, count
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // fd, msghdr, flags
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // fd, msghdr, flags
  epoll_create1: { parameters: ["i32"], result: "i32" }, // flags
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" }, // epoll, operation, fd, event
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" }, // epoll, events, count, timeout in ms
  ioctlValue: { name: "ioctl", parameters: ["i32", "u32", "u32"], result: "i32" }, // fd, request, argument
  dup2: { parameters: ["i32", "i32"], result: "i32" }, // from, to
} as const satisfies Deno.ForeignLibraryInterface;

export type Bulk = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let opened: Bulk | undefined;

export function bulk(): Bulk {
  return opened ??= openBulk();
}

function openBulk(): Bulk {
  readyErrno();
  return Deno.dlopen("libc.so.6", SYMBOLS).symbols;
}

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLLIN = 0x1;
/** `struct epoll_event` is packed on x86-64 alone. */
const IS_PACKED = Deno.build.arch === "x86_64";
const EVENT_LENGTH = IS_PACKED ? 12 : 16;
const DATA_OFFSET = IS_PACKED ? 4 : 8;
const WAKE = 0xffff_ffff;

/** One thread waits; others may say at any time what for. */
export interface EpollHandles {
  epoll: number;
  eventfd: number;
}

export class Epoll implements Disposable {
  readonly #epoll: Fd;
  readonly #eventfd: Fd;
  readonly #event = new DataView(new ArrayBuffer(EVENT_LENGTH));

  constructor() {
    this.#epoll = new Fd(check("epoll_create1", bulk().epoll_create1(O_CLOEXEC)));
    this.#eventfd = new Fd(check("eventfd", libc().eventfd(0, O_NONBLOCK | O_CLOEXEC)));
    this.add(this.#eventfd.fd, WAKE);
  }

  /** For the thread that waits. */
  get handles(): EpollHandles {
    return { epoll: this.#epoll.fd, eventfd: this.#eventfd.fd };
  }

  /** `tag` is what {@link EpollWaiter.tag} says when `fd` has something. */
  add(fd: number, tag: number): void {
    this.#event.setUint32(0, EPOLLIN, true);
    this.#event.setUint32(DATA_OFFSET, tag, true);
    this.#control(EPOLL_CTL_ADD, fd);
  }

  remove(fd: number): void {
    this.#control(EPOLL_CTL_DEL, fd);
  }

  /** The thread looks up from its wait. */
  wake(): void {
    libc().write(this.#eventfd.fd, new Uint8Array(new BigUint64Array([1n]).buffer), 8n);
  }

  [Symbol.dispose](): void {
    this.#epoll[Symbol.dispose]();
    this.#eventfd[Symbol.dispose]();
  }

  #control(operation: number, fd: number): void {
    const event = new Uint8Array(this.#event.buffer);
    check("epoll_ctl", bulk().epoll_ctl(this.#epoll.fd, operation, fd, event));
  }
}

const MAX_EVENTS = 64;

/** The waiting thread's side of an {@link Epoll}. */
export class EpollWaiter {
  readonly #handles: EpollHandles;
  readonly #events = new Uint8Array(MAX_EVENTS * EVENT_LENGTH);
  readonly #view = new DataView(this.#events.buffer);
  readonly #counter = new Uint8Array(8);

  constructor(handles: EpollHandles) {
    this.#handles = handles;
  }

  /** Blocks; how many descriptors have something. */
  wait(): number {
    return bulk().epoll_wait(this.#handles.epoll, this.#events, MAX_EVENTS, -1);
  }

  /** Of the i-th that has something; undefined for a wake-up, which is taken. */
  tag(i: number): number | undefined {
    const tag = this.#view.getUint32(i * EVENT_LENGTH + DATA_OFFSET, true);
    if (tag !== WAKE) return tag;
    libc().read(this.#handles.eventfd, this.#counter, 8n);
    return undefined;
  }

  /** Of what has failed for good and would be reported for ever. */
  forget(fd: number): void {
    bulk().epoll_ctl(this.#handles.epoll, EPOLL_CTL_DEL, fd, this.#events);
  }
}

/**
 * Puts a descriptor that has nothing and takes everything in the place of `fd`: what `fd` was is
 * closed at once, and a thread that still uses the number does no harm until it is closed too.
 */
export function retire(fd: number, placeholder: number): void {
  check("dup2", bulk().dup2(placeholder, fd));
}

/** What {@link retire} puts in a descriptor's place. */
export function openNothing(): Fd {
  const path = cString("/dev/null");
  return new Fd(check("open /dev/null", libc().open(path, O_RDWR | O_CLOEXEC)));
}

/** Right after a call of {@link bulk} gave -1. */
export function bulkErrno(): number {
  return lastErrno();
}
