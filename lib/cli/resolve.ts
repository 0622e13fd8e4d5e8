/** Hosts that a user names, by address or by name. */
import { type Family, familyOf, type Ip, isMulticast, isUnspecified, parseIp } from "../addr.ts";
import { unlessAborted } from "../edges.ts";
import { errorText, GretunError, UsageError } from "../errors.ts";
import { systemLookup } from "../lookup.ts";

/** An address, or a name that is still to be resolved. */
export type HostName = { ip: Ip } | { name: string };

/** Throws `UsageError` for what can be neither, and for addresses that are no host's. */
export function parseHost(flag: string, text: string): HostName {
  const refuse = (rule: string) => {
    const hint = "Give a host name, or an address as in 10.0.0.2 or fd00::2";
    return new UsageError(`--${flag} ${JSON.stringify(text)} ${rule}`, hint);
  };
  const ip = tryParseIp(text);
  if (ip && isHostAddress(ip)) return { ip };
  if (ip) throw refuse("is not the address of one host");
  if (text.includes("%")) throw refuse("has a zone: link-local addresses cannot be probed");
  // The system's resolver would take "10.1" for 10.0.0.1.
  if (/^[\d.]+$/.test(text)) throw refuse("is not a whole IPv4 address");
  if (text.length > 253 || !/^[\p{L}\p{N}_.-]+$/u.test(text)) throw refuse("is not a host name");
  return { name: text };
}

export function tryParseIp(text: string): Ip | undefined {
  try {
    return parseIp(text);
  } catch {
    return undefined;
  }
}

/** Whether it can be one other host's, or this one's. */
export function isHostAddress(ip: Ip): boolean {
  return !isUnspecified(ip) && !isMulticast(ip) && ip !== "255.255.255.255";
}

/**
 * The address that the system prefers for a host, of that family if one is given. Throws
 * `GretunError`, or the signal's reason.
 */
export async function resolveHost(
  host: HostName,
  options: { family?: Family; signal: AbortSignal },
): Promise<Ip> {
  const [ip] = await resolveAddresses(host, options);
  return ip;
}

/** All its addresses, as the system prefers them. Throws as {@link resolveHost}. */
export async function resolveAddresses(
  host: HostName,
  { family, signal }: { family?: Family; signal: AbortSignal },
): Promise<[Ip, ...Ip[]]> {
  if ("ip" in host) return [host.ip];
  signal.throwIfAborted();
  const failure = (why: string, cause?: unknown) =>
    new GretunError(
      `cannot resolve ${host.name}: ${why}`,
      "Check the name and the DNS of this host, or give the address",
      { cause },
    );
  // The system's look-up cannot be stopped.
  const ips = await unlessAborted(systemLookup(host.name), signal).catch((error) => {
    throw signal.aborted ? error : failure(errorText(error), error);
  });
  const [ip, ...others] = ips.filter((ip) => family === undefined || familyOf(ip) === family);
  if (!ip) throw failure(`it has no IPv${family ?? ""} address`);
  return [ip, ...others];
}
