/** What this process may do, and a lock that ends with it. */
import { Reader, Writer } from "../bytes.ts";
import {
  AF_UNIX,
  check,
  cString,
  Fd,
  libc,
  O_CLOEXEC,
  O_WRONLY,
  openSocket,
  SOCK_DGRAM,
} from "./libc.ts";

/** Bits of linux/capability.h. */
const CAPABILITIES = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13, CAP_SYS_MODULE: 16 } as const;
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

/**
 * Takes a name in the abstract unix namespace, which belongs to the network namespace and is let
 * go of when the process ends, however it ends. Undefined when another process has it.
 */
export function bindAbstractLock(name: string): Fd | undefined {
  const socket = openSocket(AF_UNIX, SOCK_DGRAM, 0);
  const address = new Writer("host").u16(AF_UNIX).u8(0).bytes(new TextEncoder().encode(name));
  const bytes = address.finish();
  if (libc().bind(socket.fd, bytes, bytes.length) === 0) return socket;
  socket[Symbol.dispose]();
  return undefined;
}
