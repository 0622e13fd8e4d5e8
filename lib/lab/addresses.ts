/** Arithmetic on the lab's IPv4 prefixes. */
import { type Cidr, type Ip, ipBytes, ipFromBytes, parseCidr } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { GretunError } from "../errors.ts";

/** TEST-NET-3 (RFC 5737) stands in for the internet. */
export const PUBLIC_PREFIX = parseCidr("203.0.113.0/24");
/** TEST-NET-2: public hosts at the far end of a long line. */
export const DISTANT_PREFIX = parseCidr("198.51.100.0/24");
export const DEFAULT_DESTINATION = parseCidr("0.0.0.0/0");

/** Gives the host addresses of a prefix one after the other, from the first. */
export class AddressPool {
  readonly prefix: Cidr;
  #next = 1;

  constructor(prefix: Cidr) {
    this.prefix = prefix;
  }

  take(): Ip {
    const { ip, prefixLength } = this.prefix;
    if (this.#next >= 2 ** (32 - prefixLength) - 1) {
      throw new GretunError(
        `no address is left in ${ip}/${prefixLength}`,
        "Make fewer hosts, or give the NAT a larger prefix",
      );
    }
    const network = new Reader(ipBytes(ip), "network").u32();
    return ipFromBytes(new Writer("network", 4).u32(network + this.#next++).finish());
  }
}
