/** Host names, as the system resolves them. */
// Not Deno.resolveDns, which asks DNS alone: lookup is getaddrinfo, which knows /etc/hosts too. Not
// node:dns/promises: importing that prints a deprecation warning of Deno's own.
import { lookup as getAddrInfo } from "node:dns";
import { type Ip, parseIp } from "./addr.ts";
import { type Clock, systemClock } from "./edges.ts";

/** All addresses of a host name, in the order in which they are to be tried. */
export type Lookup = (hostname: string) => Promise<Ip[]>;

/** RFC 8767 section 5, "client response timer": a name server that is later is not waited for. */
const KNOWN_AFTER_MS = 1_800;
const MAX_KNOWN = 256;

/**
 * Serves what a name had last, as RFC 8767 does, where nobody can tell in time what it has now: a
 * name server that fails or is slow takes nothing away that has worked. Who asks for a name that is
 * asked for already waits for the same answer, and one that nobody waits for any more is not lost.
 */
export function rememberingLookup(lookup: Lookup, clock: Clock): Lookup {
  const known = new Map<string, Ip[]>();
  const asked = new Map<string, Promise<Ip[]>>();
  const ask = async (hostname: string): Promise<Ip[]> => {
    try {
      const ips = await lookup(hostname);
      known.delete(hostname);
      known.set(hostname, ips);
      if (known.size > MAX_KNOWN) known.delete(known.keys().next().value!);
      return ips;
    } finally {
      asked.delete(hostname);
    }
  };
  return async (hostname) => {
    const answer = asked.get(hostname) ?? ask(hostname);
    asked.set(hostname, answer);
    const last = known.get(hostname);
    if (!last) return await answer;
    const late = Promise.withResolvers<Ip[]>();
    using _timer = clock.timer(KNOWN_AFTER_MS, () => late.resolve(last));
    return await Promise.race([answer.catch(() => last), late.promise]);
  };
}

/** The order is getaddrinfo's (RFC 6724). */
const askSystem: Lookup = (hostname) =>
  new Promise((resolve, reject) => {
    getAddrInfo(hostname, { all: true, verbatim: true }, (error, addresses) => {
      if (error) reject(error);
      else resolve([...new Set(addresses.map(({ address }) => parseIp(address)))]);
    });
  });

/** Rejects where no address is known. */
export const systemLookup: Lookup = rememberingLookup(askSystem, systemClock);
