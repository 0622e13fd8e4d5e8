/** Networks that a pool would hide from hosts that are in them, or they the pool's nodes. Pure. */
import { type Cidr, cidrContains, familyOf, formatCidr, type Ip } from "../addr.ts";

export interface OwnNetworks {
  networks: readonly { ifname: string; network: Cidr }[];
  needed: readonly { ip: Ip; what: string }[];
}

/** Each as in "10.0.1.0/24 of eth0". */
export function poolCollisions(pool: Cidr, { networks, needed }: OwnNetworks): string[] {
  const overlaps = ({ network }: { network: Cidr }) =>
    familyOf(network.ip) === familyOf(pool.ip) &&
    (cidrContains(pool, network.ip) || cidrContains(network, pool.ip));
  const isInside = ({ ip }: { ip: Ip }) =>
    familyOf(ip) === familyOf(pool.ip) && cidrContains(pool, ip);
  return [
    ...networks.filter(overlaps).map(({ ifname, network }) =>
      `${formatCidr(network)} of ${ifname}`
    ),
    ...needed.filter(isInside).map(({ ip, what }) => `${what} ${ip}`),
  ];
}
