/** Addresses to listen on: "HOST:PORT", ":PORT" for all addresses, "[v6]:PORT". */
import { UsageError } from "../errors.ts";

export interface ListenAddress {
  hostname: string;
  port: number;
}

/** All addresses of both families; {@link openListen} knows what that is on this machine. */
export const ALL = "";
const ALL_IPV6 = "::";
const ALL_IPV4 = "0.0.0.0";

export function parseListen(flag: string, text: string): ListenAddress {
  const match = /^(?:\[(.+)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match && port >= 1 && port <= 65535) {
    return { hostname: match[1] ?? match[2] ?? ALL, port };
  }
  throw new UsageError(
    `--${flag} ${JSON.stringify(text)} is not HOST:PORT`,
    "Give for example 127.0.0.1:8443, or :8443 for all addresses",
  );
}

/**
 * Opens what `open` opens, on every address where no host was given: one socket for IPv6 and IPv4,
 * two where the system keeps them apart (net.ipv6.bindv6only), one where there is no IPv6. Throws
 * what `open` throws.
 */
export async function openListen<T>(
  { hostname, port }: ListenAddress,
  open: (address: ListenAddress) => T | Promise<T>,
): Promise<T[]> {
  if (hostname !== ALL) return [await open({ hostname, port })];
  const opened: T[] = [];
  try {
    opened.push(await open({ hostname: ALL_IPV6, port }));
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) throw error;
  }
  try {
    opened.push(await open({ hostname: ALL_IPV4, port }));
  } catch (error) {
    const isTakenByFirst = opened.length > 0 && error instanceof Deno.errors.AddrInUse;
    if (!isTakenByFirst) throw error;
  }
  return opened;
}
