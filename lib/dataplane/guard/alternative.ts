/**
 * Alternative local addresses, 172.29.0.0/16 on loopback: an IPIP link is known by its addresses
 * only, so the second link to one remote address needs another local one. The fence rewrites them
 * on the way in and out; nobody else sees them.
 */
import { cidrContains, type Ip, ipBytes, ipFromBytes, parseCidr } from "../../addr.ts";
import { Reader, Writer } from "../../bytes.ts";
import { GretunError } from "../../errors.ts";
import { hasCode, NetlinkError, type RtNetlink } from "../../netlink.ts";

const ALTERNATIVE_PREFIX = parseCidr("172.29.0.0/16");
const COUNT = 2 ** 16;
const LOOPBACK_NAME = "lo";

export class AlternativeAddresses {
  readonly #rtnl: RtNetlink;
  readonly #own = new Set<Ip>();
  /** Where the search for a free one goes on: with hundreds of clients it does not begin anew. */
  #last = 0;

  constructor(rtnl: RtNetlink) {
    this.#rtnl = rtnl;
  }

  /** The address when it is one of these, from an earlier run. */
  adopt(ip: Ip): Ip | undefined {
    if (!cidrContains(ALTERNATIVE_PREFIX, ip)) return undefined;
    this.#own.add(ip);
    return ip;
  }

  /** A free one, put on loopback. */
  take(): Ip {
    const base = new Reader(ipBytes(ALTERNATIVE_PREFIX.ip), "network").u32();
    for (let tries = 0; tries < COUNT - 2; tries++) {
      this.#last = this.#last % (COUNT - 2) + 1;
      const ip = ipFromBytes(new Writer("network", 4).u32(base + this.#last).finish());
      if (this.#own.has(ip) || !this.#add(ip)) continue;
      this.#own.add(ip);
      return ip;
    }
    throw new GretunError("no alternative local address is left", "Use --data-plane gre-fou");
  }

  /** False for one that is there already. */
  #add(ip: Ip): boolean {
    try {
      this.#rtnl.addAddress({ ifindex: this.#loopback(), local: ip, prefixLength: 32 });
      return true;
    } catch (error) {
      if (hasCode(error, "EEXIST")) return false;
      throw error;
    }
  }

  release(ip: Ip): void {
    if (!this.#own.delete(ip)) return;
    try {
      this.#rtnl.deleteAddress({ ifindex: this.#loopback(), local: ip, prefixLength: 32 });
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error; // somebody removed it
    }
  }

  #loopback(): number {
    return this.#rtnl.link(LOOPBACK_NAME)!.ifindex;
  }
}
