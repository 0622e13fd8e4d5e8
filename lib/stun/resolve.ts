/** STUN servers by name. */
import { type Endpoint, type Family, familyOf, type Ip, parseIp } from "../addr.ts";
import { errorText, GretunError, UsageError } from "../errors.ts";
import { type Lookup, systemLookup } from "../lookup.ts";
import type { StunServer } from "./exchange.ts";

export const DEFAULT_STUN_PORT = 3478;

/** Of one name; more are not tried. */
const MAX_ADDRESSES = 8;

/**
 * "host:port", "host", "192.0.2.1:3478", "[2001:db8::1]:3478" or "2001:db8::1" to one server each,
 * with all its IPv4 addresses, else all IPv6 ones; with `family` set, only those of that family.
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
    const server = serverAt(
      name,
      choose(await lookup(hostname), family).map((ip) => ({ ip, port })),
    );
    if (!server) throw new Error(`${hostname} has no ${family ? `IPv${family} ` : ""}address`);
    return server;
  }));
  const servers = results.flatMap((r) => r.status === "fulfilled" ? [r.value] : []);
  if (servers.length > 0 || names.length === 0) return servers;
  const causes = results.flatMap((r) => r.status === "rejected" ? [errorText(r.reason)] : []);
  throw new GretunError(
    `cannot resolve any STUN server: ${causes.join("; ")}`,
    "Check the names and the DNS of this host, or give a server by address",
  );
}

function choose(ips: readonly Ip[], family: Family | undefined): Ip[] {
  const of = (family: Family) => ips.filter((ip) => familyOf(ip) === family);
  const chosen = family ? of(family) : of(4).length > 0 ? of(4) : of(6);
  return chosen.slice(0, MAX_ADDRESSES);
}

/** Undefined where it has no address. */
export function serverAt(
  name: string,
  [endpoint, ...others]: readonly Endpoint[],
): StunServer | undefined {
  return endpoint && { name, endpoint, ...(others.length > 0 ? { others } : {}) };
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
