/** Who is at the other end of a tunnel: a guess from what this host knows of its own end. */
import { familyOf, type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import type { InterfaceAddress, Route } from "../netlink.ts";

/**
 * The far inner address of the link, IPv4 before IPv6, by the first rule that gives one:
 *
 * 1. the peer of a point-to-point address;
 * 2. the other address of a /31 or /127 (RFC 3021, RFC 6164), of the two hosts of a /30, or of the
 *    first two of a /126;
 * 3. the one gateway of routes through the link;
 * 4. the one host that has a route of its own through the link.
 */
export function farAddress(
  ifindex: number,
  addresses: readonly InterfaceAddress[],
  routes: readonly Route[],
): Ip | undefined {
  const mine = addresses.filter((address) => address.ifindex === ifindex);
  const through = routes.filter((route) => route.device === ifindex);
  const own = new Set(mine.map(({ local }) => local));
  const rules: (Ip | undefined)[][] = [
    mine.map(({ peer }) => peer),
    mine.map(otherOfPair),
    alone(through.map(({ gateway }) => gateway)),
    alone(through.map(hostOf).filter((ip) => ip !== undefined && !own.has(ip))),
  ];
  for (const candidates of rules) {
    const known = candidates.filter((ip) => ip !== undefined);
    const far = known.find((ip) => familyOf(ip) === 4) ?? known[0];
    if (far) return far;
  }
  return undefined;
}

function otherOfPair({ local, peer, prefixLength }: InterfaceAddress): Ip | undefined {
  if (peer) return undefined;
  const bytes = ipBytes(local);
  const last = bytes.length - 1;
  const bits = bytes.length * 8;
  if (prefixLength === bits - 1) {
    bytes[last]! ^= 0b01;
  } else if (prefixLength === bits - 2 && [0b01, 0b10].includes(bytes[last]! & 0b11)) {
    bytes[last]! ^= 0b11;
  } else {
    return undefined;
  }
  return ipFromBytes(bytes);
}

function hostOf({ destination, gateway }: Route): Ip | undefined {
  const { ip, prefixLength } = destination;
  return !gateway && prefixLength === ipBytes(ip).length * 8 ? ip : undefined;
}

/** Of each family the one address that there is, or none of several. */
function alone(ips: readonly (Ip | undefined)[]): Ip[] {
  const different = [...new Set(ips.filter((ip) => ip !== undefined))];
  return ([4, 6] as const).flatMap((family) => {
    const ofFamily = different.filter((ip) => familyOf(ip) === family);
    return ofFamily.length === 1 ? ofFamily : [];
  });
}
