/**
 * Which private addresses can mean anything here: a host without any network of that kind would send
 * to somebody else's, by way of its provider.
 */
import { type Cidr, cidrContains, endOf, type Ip, PRIVATE_NETWORKS } from "../../addr.ts";
import { markOf } from "../../links/mod.ts";
import type { RtNetlink } from "../../netlink.ts";

export class PrivateNetworks {
  readonly #rtnl: Pick<RtNetlink, "links" | "addresses" | "routes">;
  #own: readonly Cidr[] | undefined;

  constructor(rtnl: Pick<RtNetlink, "links" | "addresses" | "routes">) {
    this.#rtnl = rtnl;
  }

  /** Links, addresses or routes are others now. */
  changed(): void {
    this.#own = undefined;
  }

  /** Whether this host has a network of that kind, or a way into one; so it is with public ones. */
  reach(ip: Ip): boolean {
    const end = endOf(ip);
    if (!PRIVATE_NETWORKS.some((net) => cidrContains(net, end))) return true;
    this.#own ??= this.#look();
    return this.#own.some((net) => cidrContains(net, end));
  }

  /** The ranges that this host has addresses of: routers join one's parts; and all it has routes to. */
  #look(): Cidr[] {
    const ours = new Set(this.#rtnl.links().filter((link) => markOf(link)).map((l) => l.ifindex));
    const addresses = this.#rtnl.addresses().filter(({ ifindex }) => !ours.has(ifindex));
    const ranges = PRIVATE_NETWORKS.filter((net) =>
      addresses.some(({ local }) => cidrContains(net, local))
    );
    const routed = this.#rtnl.routes().flatMap(({ destination, device }) =>
      destination.prefixLength > 0 && !ours.has(device ?? 0) ? [destination] : []
    );
    return [...ranges, ...routed];
  }
}
