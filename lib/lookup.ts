/** Host names, as the system resolves them. */
// Not Deno.resolveDns, which asks DNS alone: lookup is getaddrinfo, which knows /etc/hosts too. Not
// node:dns/promises: importing that prints a deprecation warning of Deno's own.
import { lookup as getAddrInfo } from "node:dns";
import { type Ip, parseIp } from "./addr.ts";

/** All addresses of a host name, in the order in which they are to be tried. */
export type Lookup = (hostname: string) => Promise<Ip[]>;

/** The order is getaddrinfo's (RFC 6724). Rejects where there is no address. */
export const systemLookup: Lookup = (hostname) =>
  new Promise((resolve, reject) => {
    getAddrInfo(hostname, { all: true, verbatim: true }, (error, addresses) => {
      if (error) reject(error);
      else resolve([...new Set(addresses.map(({ address }) => parseIp(address)))]);
    });
  });
