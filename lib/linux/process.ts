/** What this process may do, and files of the kernel. */
import { Reader, Writer } from "../bytes.ts";
import {
  check,
  cString,
  Fd,
  lastErrno,
  libc,
  O_CLOEXEC,
  O_RDONLY,
  O_WRONLY,
  SystemError,
} from "./libc.ts";

/** Bits of linux/capability.h. */
const CAPABILITIES = {
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_MODULE: 16,
  CAP_SYS_ADMIN: 21,
} as const;
export type Capability = keyof typeof CAPABILITIES;

/** `_LINUX_CAPABILITY_VERSION_3`: two data blocks of 32 capabilities each. */
const CAPABILITY_VERSION = 0x20080522;

/** Whether the capability is in the effective set: root is neither needed nor enough. */
export function hasCapability(capability: Capability): boolean {
  const header = new Writer("host").u32(CAPABILITY_VERSION).i32(0).finish();
  const data = new Uint8Array(24);
  check("capget", libc().capget(header, data));
  const effective = new Reader(data, "host").u32();
  return ((effective >>> CAPABILITIES[capability]) & 1) === 1;
}

/**
 * Writes a file of /proc or /sys. Through libc, because Deno asks for all permissions there;
 * inside `withNetns` it is the namespace's own setting.
 */
export function writeKernelFile(path: string, text: string): void {
  using file = new Fd(check(`open ${path}`, libc().open(cString(path), O_WRONLY | O_CLOEXEC)));
  const bytes = new TextEncoder().encode(text);
  check(`write ${path}`, libc().write(file.fd, bytes, BigInt(bytes.length)));
}

/** The whole of a file of /proc or /sys; through libc, as above. Throws `SystemError`. */
export function readKernelFile(path: string): string {
  using file = new Fd(check(`open ${path}`, libc().open(cString(path), O_RDONLY | O_CLOEXEC)));
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(16_384);
  const size = BigInt(buffer.length);
  let text = "";
  for (let length; (length = check(`read ${path}`, libc().read(file.fd, buffer, size))) > 0;) {
    text += decoder.decode(buffer.subarray(0, length), { stream: true });
  }
  return text + decoder.decode();
}

/** Undefined for what is not there, or not ours to read. */
export function tryReadKernelFile(path: string): string | undefined {
  try {
    return readKernelFile(path);
  } catch (error) {
    if (error instanceof SystemError) return undefined;
    throw error;
  }
}

/** Offset of `d_name` in `struct dirent` (bits/dirent.h). */
const D_NAME = 19;

/** Names in a directory of /proc or /sys; through libc, as above. */
export function listKernelDirectory(path: string): string[] {
  const directory = libc().opendir(cString(path));
  if (!directory) throw new SystemError(`open ${path}`, lastErrno());
  const names: string[] = [];
  for (let entry; (entry = libc().readdir(directory));) {
    names.push(new Deno.UnsafePointerView(entry).getCString(D_NAME));
  }
  libc().closedir(directory);
  return names;
}

/** Where a link of /proc or /sys leads; undefined when it is not there (any more). */
export function readKernelLink(path: string): string | undefined {
  const target = new Uint8Array(256);
  const length = Number(libc().readlink(cString(path), target, BigInt(target.length)));
  return length < 0 ? undefined : new TextDecoder().decode(target.subarray(0, length));
}

/** asm-generic/resource.h */
const RLIMIT_NOFILE = 7;
/** As far as Deno can count, and nobody needs more. */
const MAX_FILES = 2n ** 20n;

/** Lets this process open as many files as it may allow itself, and says how many that are. */
export function raiseFileLimit(): number {
  const limits = new BigUint64Array(2); // struct rlimit64: soft, hard
  const bytes = new Uint8Array(limits.buffer);
  check("prlimit", libc().prlimit(0, RLIMIT_NOFILE, null, bytes));
  const [soft, hard] = [limits[0]!, limits[1]!];
  const wanted = hard < MAX_FILES ? hard : MAX_FILES;
  if (wanted <= soft) return Number(soft < MAX_FILES ? soft : MAX_FILES);
  limits[0] = wanted;
  check("prlimit", libc().prlimit(0, RLIMIT_NOFILE, bytes, null));
  return Number(wanted);
}

/** `struct pollfd`, and its events (poll.h). */
const POLLOUT = 4;

/** Whether a write would not wait, or fail at once, after waiting for so long at most. */
export function canWrite(fd: number, timeoutMs: number): boolean {
  const pollfd = new Writer("host", 8).i32(fd).u16(POLLOUT).u16(0).finish();
  return libc().pollHere(pollfd, 1n, timeoutMs) !== 0;
}

/** Whether whoever started this process had it ignore the signal of that number. */
export function ignoresSignal(number: number): boolean {
  const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readKernelFile("/proc/self/status"))?.[1] ?? "0";
  return (BigInt(`0x${mask}`) >> BigInt(number - 1) & 1n) === 1n;
}
