/**
 * Which addresses this host reaches by a detour: through a tunnel of others, or through our own links.
 * Addresses in another VPN are as private as those of a local network, and no reason to go through it.
 */
import { type Ip, isPrivate } from "../addr.ts";
import { ETHERNET_MTU, isTunnelDevice, markOf } from "../links/mod.ts";
import type { Link, RtNetlink } from "../netlink.ts";
import type { DetourKind } from "../peer/mod.ts";

/** Tunnels in tunnels. */
const MAX_DEPTH = 4;
/** A device that carries so much less than others is a tunnel, whatever it calls itself. */
const NARROWER_BY = 50;
const MAX_KNOWN = 4_096;

export type HostRoutes = Pick<RtNetlink, "links" | "tryRouteTo">;

export class HostDetours {
  readonly #rtnl: HostRoutes;
  readonly #known = new Map<Ip, DetourKind | undefined>();
  #links: ReadonlyMap<number, Link> | undefined;

  constructor(rtnl: HostRoutes) {
    this.#rtnl = rtnl;
  }

  /** Links, addresses or routes are others now. */
  changed(): void {
    this.#known.clear();
    this.#links = undefined;
  }

  /** Those of these addresses that are reached so. */
  of(ips: Iterable<Ip>): Map<Ip, DetourKind> {
    const found = new Map<Ip, DetourKind>();
    for (const ip of ips) {
      const kind = this.#kindOf(ip);
      if (kind) found.set(ip, kind);
    }
    return found;
  }

  /** By which device packets to that address leave now; undefined: by none. */
  deviceTo(ip: Ip): string | undefined {
    return this.#link(this.#rtnl.tryRouteTo(ip)?.device)?.name;
  }

  #kindOf(ip: Ip): DetourKind | undefined {
    if (!this.#known.has(ip)) {
      if (this.#known.size >= MAX_KNOWN) this.#known.clear();
      this.#known.set(ip, this.#look(ip, 0));
    }
    return this.#known.get(ip);
  }

  #look(ip: Ip, depth: number): DetourKind | undefined {
    const { device } = this.#rtnl.tryRouteTo(ip) ?? {};
    const link = this.#link(device);
    if (!link) return undefined;
    if (markOf(link)?.by === "up") return "own";
    if (!isTunnelDevice(link)) return isPrivate(ip) && this.#isNarrow(link) ? "tunnel" : undefined;
    const carrier = link.tunnel?.remote;
    const isInsideOurs = carrier && depth < MAX_DEPTH && this.#look(carrier, depth + 1) === "own";
    return isInsideOurs ? "own" : "tunnel";
  }

  #link(ifindex: number | undefined): Link | undefined {
    this.#links ??= new Map(this.#rtnl.links({ skipStats: true }).map((l) => [l.ifindex, l]));
    return this.#links.get(ifindex ?? 0);
  }

  #isNarrow({ mtu }: Link): boolean {
    const isCarrier = (link: Link) => link.up && !isTunnelDevice(link) && link.name !== "lo";
    const mtus = [...this.#links!.values()].filter(isCarrier).map((link) => link.mtu);
    return mtu + NARROWER_BY < Math.min(ETHERNET_MTU, Math.max(...mtus));
  }
}
