/** What this process may do, and a lock that ends with it. */
import { Writer } from "../bytes.ts";
import { AF_UNIX, type Fd, libc, openSocket, SOCK_DGRAM } from "./libc.ts";

/** Bits of linux/capability.h. */
const CAPABILITIES = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13, CAP_SYS_MODULE: 16 } as const;
export type Capability = keyof typeof CAPABILITIES;

/** Whether the capability is in the effective set: root is neither needed nor enough. */
export function hasCapability(capability: Capability): boolean {
  const status = Deno.readTextFileSync("/proc/self/status");
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  return ((effective >> BigInt(CAPABILITIES[capability])) & 1n) === 1n;
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
