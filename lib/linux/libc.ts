/**
 * libc through `Deno.dlopen`: the only place where gretun leaves JavaScript. One table of
 * symbols, opened on first use, and one gate that turns -1 into an error with its errno.
 */
import { type Endpoint, ipFromBytes } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { GretunError } from "../errors.ts";

const SYMBOLS = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" }, // domain, type, protocol
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // fd, sockaddr, length
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // fd, sockaddr, length
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" }, // fd, sockaddr, *length
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" }, // fd, level, name, value, length
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "isize" }, // fd, msghdr, flags
  recvfrom: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"], result: "isize" }, // fd, bytes, length, flags, sockaddr, *length
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" }, // fd, bytes, length, flags, sockaddr, length
  open: { parameters: ["buffer", "i32"], result: "i32" }, // path, flags
  create: { name: "open", parameters: ["buffer", "i32", "u32"], result: "i32" }, // path, flags with O_CREAT, mode
  flock: { parameters: ["i32", "i32"], result: "i32" }, // fd, operation
  close: { parameters: ["i32"], result: "i32" }, // fd
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" }, // fd, bytes, length
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" }, // fd, bytes, length
  ioctl: { parameters: ["i32", "usize", "buffer"], result: "i32" }, // fd, request, argument
  eventfd: { parameters: ["u32", "i32"], result: "i32" }, // initial value, flags
  poll: { parameters: ["buffer", "usize", "i32"], result: "i32", nonblocking: true }, // pollfds, count, timeout in ms
  pollHere: { name: "poll", parameters: ["buffer", "usize", "i32"], result: "i32" }, // as poll, on this thread
  setns: { parameters: ["i32", "i32"], result: "i32" }, // fd, kind
  unshare: { parameters: ["i32"], result: "i32" }, // flags
  mount: { parameters: ["buffer", "buffer", "buffer", "usize", "pointer"], result: "i32" }, // source, target, type, flags, data
  umount2: { parameters: ["buffer", "i32"], result: "i32" }, // target, flags
  opendir: { parameters: ["buffer"], result: "pointer" }, // path
  readdir: { parameters: ["pointer"], result: "pointer" }, // directory
  closedir: { parameters: ["pointer"], result: "i32" }, // directory
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "isize" }, // path, target, size
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" }, // clock, timespec
  prlimit: { parameters: ["i32", "i32", "buffer", "buffer"], result: "i32" }, // pid, resource, new, old
  malloc_trim: { parameters: ["usize"], result: "i32" }, // bytes to keep
  madvise: { parameters: ["usize", "usize", "i32"], result: "i32" }, // address, length, advice
  geteuid: { parameters: [], result: "u32" },
  capget: { parameters: ["buffer", "buffer"], result: "i32" }, // header, data
  __errno_location: { parameters: [], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

type Libc = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let opened: Libc | undefined;
/** Each thread has modules, and an errno, of its own. */
let errno: Deno.UnsafePointerView | undefined;

export function libc(): Libc {
  return opened ??= openLibc();
}

/**
 * A symbol costs a third of a millisecond, for code of its own that V8 can call, and no command needs all:
 * the programs open each on first use. What runs from its source opens them once: tests look for what is
 * opened meanwhile.
 */
function openLibc(): Libc {
  const symbols = Deno.build.standalone ? lazyLibc() : Deno.dlopen("libc.so.6", SYMBOLS).symbols;
  errno = new Deno.UnsafePointerView(symbols.__errno_location()!);
  return symbols;
}

/** Before the first call that may fail: to open libc after it would change errno. */
export function readyErrno(): void {
  libc();
}

export function lazyLibc(): Libc {
  const lazy = {};
  for (const name of Object.keys(SYMBOLS) as (keyof typeof SYMBOLS)[]) {
    const get = (): unknown => {
      const value = Deno.dlopen("libc.so.6", { [name]: SYMBOLS[name] }).symbols[name];
      Object.defineProperty(lazy, name, { value });
      return value;
    };
    Object.defineProperty(lazy, name, { get, configurable: true });
  }
  return lazy as Libc;
}

/** errno numbers that callers tell apart (asm-generic/errno-base.h, errno.h). */
const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOSPC: 28,
  ERANGE: 34,
  EMSGSIZE: 90,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  EHOSTUNREACH: 113,
} as const;

const NAMES = new Map<number, string>(Object.entries(ERRNO).map(([name, n]) => [n, name]));

export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`;
}

/** A system call failed. */
export class SystemError extends GretunError {
  override name = "SystemError";
  readonly code: string;

  constructor(call: string, readonly errno: number, hint?: string) {
    const code = errnoName(errno);
    super(`${call} failed: ${code}`, hint ?? hintFor(code));
    this.code = code;
  }
}

/** What a user can do about an error of the kernel, where nothing better is known. */
export function hintFor(code: string): string {
  switch (code) {
    case "EPERM":
    case "EACCES":
      return "Run as root, or give the program CAP_NET_ADMIN and CAP_NET_RAW with setcap";
    case "EOPNOTSUPP":
    case "EPROTONOSUPPORT":
    case "EAFNOSUPPORT":
      return "Load the kernel module for it (modprobe fou ip_gre), or use the user-space plane with --data-plane tun";
    case "EEXIST":
      return "Remove the existing one first, or choose another name, address or key";
    case "ENODEV":
      return "Check the name with: ip link";
    case "EADDRINUSE":
      return "Choose another port or address, or stop the program that has it";
    case "EINVAL":
    case "ERANGE":
      return "Check addresses, key, TTL and MTU";
    default:
      return "Look into the kernel's log with: dmesg";
  }
}

/**
 * Read right after the failing call, on the same thread, after {@link readyErrno}. What the runtime does in
 * between, as opening a library or collecting garbage, may change it.
 */
export function lastErrno(): number {
  return errno!.getInt32();
}

/** The one gate: a result of -1 becomes a {@link SystemError}. */
export function check(call: string, result: number | bigint): number {
  if (Number(result) !== -1) return Number(result);
  throw new SystemError(call, lastErrno());
}

/** As {@link check}, but "would block" gives undefined. */
export function checkAgain(call: string, result: number | bigint): number | undefined {
  if (Number(result) !== -1) return Number(result);
  const errno = lastErrno();
  if (errno === ERRNO.EAGAIN || errno === ERRNO.EINTR) return undefined;
  throw new SystemError(call, errno);
}

export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text + "\0") as Uint8Array<ArrayBuffer>;
}

/** An owned file descriptor; closing twice is harmless. */
export class Fd implements Disposable {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  get fd(): number {
    if (this.#fd < 0) throw new TypeError("File descriptor is closed");
    return this.#fd;
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    libc().close(this.#fd);
    this.#fd = -1;
  }
}

// asm-generic/fcntl.h, bits/socket.h
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_CLOEXEC = O_CLOEXEC;
export const SOCK_NONBLOCK = O_NONBLOCK;
export const SOL_SOCKET = 1;
export const MSG_DONTWAIT = 0x40;
export const MSG_ERRQUEUE = 0x2000;
export const MSG_TRUNC = 0x20;

const FAMILY_NAMES: Record<number, string> = {
  [AF_UNIX]: "AF_UNIX",
  [AF_INET]: "AF_INET",
  [AF_INET6]: "AF_INET6",
  [AF_NETLINK]: "AF_NETLINK",
};

export function openSocket(domain: number, type: number, protocol: number): Fd {
  const fd = libc().socket(domain, type | SOCK_CLOEXEC, protocol);
  if (fd !== -1) return new Fd(fd);
  const errno = lastErrno();
  const family = FAMILY_NAMES[domain];
  // A kernel that gretun runs on has them: a sandbox takes them away.
  const hint = errno === ERRNO.EAFNOSUPPORT && family !== undefined
    ? `Allow ${family} in RestrictAddressFamilies= of its service, or in its container's seccomp profile`
    : undefined;
  throw new SystemError("socket", errno, hint);
}

export function setOption(fd: number, level: number, name: number, value: Uint8Array): void {
  const bytes = value as Uint8Array<ArrayBuffer>;
  check("setsockopt", libc().setsockopt(fd, level, name, bytes, bytes.length));
}

export function setIntOption(fd: number, level: number, name: number, value: number): void {
  setOption(fd, level, name, new Uint8Array(new Int32Array([value]).buffer));
}

/** `struct sockaddr_in`, linux/in.h: family in host order, port and address in network order. */
export function sockaddrIn(ip: Uint8Array, port: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16);
  bytes.set(new Uint8Array(new Uint16Array([AF_INET]).buffer));
  bytes.set([port >> 8, port & 0xff, ...ip], 2);
  return bytes;
}

/** Port and address of a `struct sockaddr_in`. */
export function parseSockaddrIn(bytes: Uint8Array): { ip: Uint8Array; port: number } {
  const reader = new Reader(bytes, "network").skip(2);
  return { port: reader.u16(), ip: reader.bytes(4) };
}

/** `struct sockaddr_in6`, linux/in6.h: family, port, flow, address, scope; 28 bytes. */
export function sockaddrIn6(ip: Uint8Array, port: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(28);
  bytes.set(new Uint8Array(new Uint16Array([AF_INET6]).buffer));
  bytes.set([port >> 8, port & 0xff], 2);
  bytes.set(ip, 8);
  return bytes;
}

/** Address and port of a `struct sockaddr_in` or `struct sockaddr_in6`. */
export function parseSockaddr(bytes: Uint8Array): Endpoint {
  const family = new Reader(bytes, "host").u16();
  const reader = new Reader(bytes, "network").skip(2);
  const port = reader.u16();
  const ip = family === AF_INET6 ? reader.skip(4).bytes(16) : reader.bytes(4);
  return { ip: ipFromBytes(ip), port };
}

/** Keeps alive what a header points to as long as the header itself. */
const POINTED_TO = new WeakMap<Uint8Array, Uint8Array[]>();

/**
 * `struct msghdr` with one `struct iovec`, 64-bit: name, namelen, iov, iovlen, control, controllen,
 * flags. What recvmsg(2) writes goes into these buffers, their lengths into the header.
 */
export function msghdr(
  { data, name, control }: {
    data: Uint8Array<ArrayBuffer>;
    name?: Uint8Array<ArrayBuffer>;
    control?: Uint8Array<ArrayBuffer>;
  },
): Uint8Array<ArrayBuffer> {
  const address = (bytes: Uint8Array<ArrayBuffer> | undefined) =>
    bytes ? BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes))) : 0n;
  const length = (bytes: Uint8Array | undefined) => BigInt(bytes?.length ?? 0);
  const iovec = new Writer("host").u64(address(data)).u64(length(data)).finish();
  const header = new Writer("host")
    .u64(address(name)).u64(length(name))
    .u64(address(iovec)).u64(1n)
    .u64(address(control)).u64(length(control)).u64(0n).finish();
  POINTED_TO.set(header, [iovec, data, ...(name ? [name] : []), ...(control ? [control] : [])]);
  return header;
}
