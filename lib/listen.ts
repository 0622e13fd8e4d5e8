/** Listens where it is said, or on all addresses of this machine. */

export interface ListenAddress {
  hostname: string;
  port: number;
}

/** All addresses of both families; {@link openListen} knows what that is on this machine. */
export const ALL = "";
const ALL_IPV6 = "::";
const ALL_IPV4 = "0.0.0.0";

/**
 * Opens what `open` opens, on every address where no host was given: one socket for IPv6 and IPv4,
 * two where the system keeps them apart (net.ipv6.bindv6only), one where there is no IPv6. All or
 * none: throws what `open` throws.
 */
export function openListen<T>(
  { hostname, port }: ListenAddress,
  open: (address: ListenAddress) => T,
  close: (opened: T) => void = () => {},
): T[] {
  if (hostname !== ALL) return [open({ hostname, port })];
  const opened: T[] = [];
  try {
    opened.push(open({ hostname: ALL_IPV6, port }));
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) throw error;
  }
  try {
    opened.push(open({ hostname: ALL_IPV4, port }));
  } catch (error) {
    const isTakenByFirst = opened.length > 0 && error instanceof Deno.errors.AddrInUse;
    if (isTakenByFirst) return opened;
    opened.forEach(close);
    throw error;
  }
  return opened;
}
