/**
 * Which addresses this host reaches by a detour: through a tunnel of others, or through our own links.
 * Addresses in another VPN are as private as those of a local network, and no reason to go through it.
 */
import { type Ip, isPrivate } from "../addr.ts";
import type { NodeKey } from "../keys.ts";
import { ETHERNET_MTU, isTunnelDevice, markOf } from "../links/mod.ts";
import type { Link, RouteSender, RtNetlink } from "../netlink.ts";
import type { DetourKind } from "../peer/mod.ts";

/** Tunnels in tunnels. */
const MAX_DEPTH = 4;
/** A device that carries so much less than others is a tunnel, whatever it calls itself. */
const NARROWER_BY = 50;
const MAX_KNOWN = 4_096;
const MAX_SENDERS = 8;

export type HostRoutes = Pick<RtNetlink, "links" | "tryRouteTo" | "rules">;

export interface Diversion {
  device: string;
  /** "" : everybody's. */
  whose: string;
  /** Somebody keeps the tunnel's own link down. */
  isDown: boolean;
}

export class HostDetours {
  readonly #rtnl: HostRoutes;
  readonly #known = new Map<Ip, DetourKind | undefined>();
  #links: ReadonlyMap<number, Link> | undefined;
  /** Those of peers, by their node keys. */
  #own: ReadonlyMap<string, Link> | undefined;
  #told: readonly RouteSender[] | undefined;

  constructor(rtnl: HostRoutes) {
    this.#rtnl = rtnl;
  }

  /** Links, addresses or routes are others now. */
  changed(): void {
    this.#known.clear();
    this.#forgetLinks();
    this.#told = undefined;
  }

  #forgetLinks(): void {
    this.#links = undefined;
    this.#own = undefined;
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

  /**
   * Whose packets to that address of a peer leave by another device than its link, whatever that is
   * called by now, if anybody's do. Rules for others than this user may be for a mark of the firewall's
   * or a user; what else they may ask is not looked at.
   */
  diversion(ip: Ip, peer: NodeKey): Diversion | undefined {
    for (const sender of [{}, ...this.#senders()]) {
      const { device } = this.#rtnl.tryRouteTo(ip, sender) ?? {};
      if (device !== undefined && device === this.#ownLink(peer)?.ifindex) continue;
      this.#forgetLinks(); // they may just have been put right, or made again
      const own = this.#ownLink(peer);
      if (!own || own.ifindex === device) continue;
      const name = this.#link(device)?.name ?? "no device";
      return { device: name, whose: whose(sender), isDown: !own.up };
    }
    return undefined;
  }

  #ownLink(peer: NodeKey): Link | undefined {
    this.#own ??= new Map(
      [...this.#allLinks().values()].flatMap((link) => {
        const mark = markOf(link);
        return mark?.by === "up" ? [[mark.id, link]] : [];
      }),
    );
    return this.#own.get(peer);
  }

  /** Those that rules of this host tell apart. */
  #senders(): readonly RouteSender[] {
    return this.#told ??= this.#rtnl.rules().filter(({ isInverted }) => !isInverted)
      .flatMap(({ mark, uid }) => [
        ...(mark ? [{ mark }] : []),
        ...(uid === undefined ? [] : [{ uid }]),
      ]).slice(0, MAX_SENDERS);
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
    return this.#allLinks().get(ifindex ?? 0);
  }

  #allLinks(): ReadonlyMap<number, Link> {
    return this.#links ??= new Map(
      this.#rtnl.links({ skipStats: true }).map((link) => [link.ifindex, link]),
    );
  }

  #isNarrow({ mtu }: Link): boolean {
    const isCarrier = (link: Link) => link.up && !isTunnelDevice(link) && link.name !== "lo";
    const mtus = [...this.#links!.values()].filter(isCarrier).map((link) => link.mtu);
    return mtu + NARROWER_BY < Math.min(ETHERNET_MTU, Math.max(...mtus));
  }
}

function whose({ mark, uid }: RouteSender): string {
  if (mark !== undefined) return `with mark 0x${mark.toString(16)}`;
  return uid === undefined ? "" : `of user ${uid}`;
}
