/** Names and addresses in the lab, and arithmetic on its prefixes. */
import {
  type Cidr,
  familyOf,
  formatCidr,
  type Ip,
  ipBytes,
  ipFromBytes,
  parseCidr,
} from "../../lib/addr.ts";
import { Reader, Writer } from "../../lib/bytes.ts";
import { GretunError } from "../../lib/errors.ts";

/** What every host calls its cable. */
export const UPLINK = "eth0";
/** TEST-NET-3 (RFC 5737) stands in for the internet. */
export const PUBLIC_PREFIX = parseCidr("203.0.113.0/24");
/** TEST-NET-2: what is at the far end of a long line. */
export const DISTANT_PREFIX = parseCidr("198.51.100.0/24");
export const DEFAULT_DESTINATION = parseCidr("0.0.0.0/0");
export const DEFAULT_DESTINATION_6 = parseCidr("::/0");

/** The network behind the nth router, or with 0 the public one: documentation prefix (RFC 3849). */
export function ipv6Prefix(n: number): Cidr {
  return parseCidr(`2001:db8:${n.toString(16)}::/64`);
}

/** Both halves of a prefix: routes to them go before one to the whole. */
export function halves({ ip, prefixLength }: Cidr): [Cidr, Cidr] {
  const bytes = ipBytes(ip);
  bytes[prefixLength >> 3]! |= 0x80 >> (prefixLength & 7);
  const half = prefixLength + 1;
  return [{ ip, prefixLength: half }, { ip: ipFromBytes(bytes), prefixLength: half }];
}

/** Which addresses a host has. */
export type Families = "ipv4" | "ipv6" | "dual";

/** What one end of a cable is called by the others. */
export interface Addresses {
  ip4?: Ip;
  ip6?: Ip;
}

/** Gives the host addresses of a prefix one after the other, from the first but for the last. */
export class AddressPool {
  readonly prefix: Cidr;
  #next = 1;

  constructor(prefix: Cidr) {
    this.prefix = prefix;
  }

  take(): Ip {
    const { ip, prefixLength } = this.prefix;
    const hostBits = Math.min(16, (familyOf(ip) === 4 ? 32 : 128) - prefixLength);
    if (this.#next >= 2 ** hostBits - 2) {
      throw new GretunError(
        `no address is left in ${formatCidr(this.prefix)}`,
        "Make fewer hosts, or give the NAT a larger prefix",
      );
    }
    const network = ipBytes(ip);
    const last = network.length - 4;
    const host = new Reader(network.subarray(last), "network").u32() + this.#next++;
    return ipFromBytes(
      new Writer("network").bytes(network.subarray(0, last)).u32(host).finish(),
    );
  }
}
