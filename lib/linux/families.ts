/** Sockets of both families at one port. */
import { type Family, familyOf, type Ip } from "../addr.ts";
import { SystemError } from "./libc.ts";

/** Of IPv4 and, where the kernel has it, IPv6; of the address's family where there is one to bind to. */
export function openFamilies<T extends Disposable & { readonly port: number }>(
  bind: Ip | undefined,
  port: number,
  open: (family: Family, port: number) => T,
): T[] {
  if (bind) return [open(familyOf(bind), port)];
  const ipv4 = open(4, port);
  try {
    return [ipv4, open(6, ipv4.port)];
  } catch (error) {
    // A kernel without IPv6 says so; a port that is taken is none.
    const isWithout = error instanceof SystemError &&
      ["EAFNOSUPPORT", "EADDRNOTAVAIL"].includes(error.code);
    if (isWithout) return [ipv4];
    ipv4[Symbol.dispose]();
    throw error;
  }
}
