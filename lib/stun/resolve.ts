/** STUN servers by name. */
// Not Deno.resolveDns, which asks DNS alone: lookup is getaddrinfo, which knows /etc/hosts too. Not
// node:dns/promises: importing that prints a deprecation warning of Deno's own.
import { lookup as getAddrInfo } from "node:dns";
import { type Endpoint, type Family, familyOf, type Ip, parseIp } from "../addr.ts";
import { errorText, GretunError, UsageError } from "../errors.ts";
import type { StunServer } from "./exchange.ts";

export const DEFAULT_STUN_PORT = 3478;

/** All addresses of a host name, as the system resolves it. */
export type Lookup = (hostname: string) => Promise<Ip[]>;

/**
 * "host:port", "host", "192.0.2.1:3478", "[2001:db8::1]:3478" or "2001:db8::1" to one endpoint
 * each: the first IPv4 address, else the first IPv6 one; with `family` set, only of that family.
 * Names that do not resolve are left out. Throws {@link GretunError} with all causes when none is
 * left, {@link UsageError} for a name that is none.
 */
export async function resolveServers(
  names: readonly string[],
  options: { family?: Family; lookup?: Lookup } = {},
): Promise<StunServer[]> {
  const { family, lookup = systemLookup } = options;
  const parsed = names.map((name) => ({ name, ...parseServerName(name) }));
  const results = await Promise.allSettled(parsed.map(async ({ name, hostname, port }) => {
    const ip = choose(await lookup(hostname), family);
    if (!ip) throw new Error(`${hostname} has no ${family ? `IPv${family} ` : ""}address`);
    return { name, endpoint: { ip, port } satisfies Endpoint };
  }));
  const servers = results.flatMap((r) => r.status === "fulfilled" ? [r.value] : []);
  if (servers.length > 0 || names.length === 0) return servers;
  const causes = results.flatMap((r) => r.status === "rejected" ? [errorText(r.reason)] : []);
  throw new GretunError(
    `cannot resolve any STUN server: ${causes.join("; ")}`,
    "Check the names and the DNS of this host, or give a server by address",
  );
}

function choose(ips: readonly Ip[], family: Family | undefined): Ip | undefined {
  if (family) return ips.find((ip) => familyOf(ip) === family);
  return ips.find((ip) => familyOf(ip) === 4) ?? ips[0];
}

/** Throws {@link UsageError}. */
export function parseServerName(name: string): { hostname: string; port: number } {
  const isBareIpv6 = name.split(":").length > 2 && !name.startsWith("[");
  const match = isBareIpv6
    ? [name, name]
    : /^(?:\[([0-9a-fA-F:.]+)\]|([^:\s[\]/]+))(?::(\d{1,5}))?$/.exec(name);
  const hostname = match?.[1] ?? match?.[2];
  const port = Number(match?.[3] ?? DEFAULT_STUN_PORT);
  if (!hostname || port < 1 || port > 65535 || (hostname.includes(":") && !isIp(hostname))) {
    throw new UsageError(
      `cannot parse STUN server ${JSON.stringify(name)}`,
      "Write it as HOST:PORT, with an IPv6 address in brackets",
    );
  }
  return { hostname, port };
}

function isIp(text: string): boolean {
  try {
    parseIp(text);
    return true;
  } catch {
    return false;
  }
}

const systemLookup: Lookup = (hostname) =>
  new Promise((resolve, reject) => {
    getAddrInfo(hostname, { all: true }, (error, addresses) => {
      if (error) reject(error);
      else resolve(addresses.map(({ address }) => parseIp(address)));
    });
  });
