/** The user-space plane: a TUN device for each link, and one UDP port for all. */
import { type Family, familyOf } from "../../addr.ts";
import { errorText, GretunError } from "../../errors.ts";
import type { Host } from "../../host/mod.ts";
import {
  countersOf,
  formatMark,
  freeName,
  innerMtu,
  type KeptLink,
  type LinkCounters,
  LinkKeeper,
  missing,
  NO_INNER,
  routeMtu,
  setInner,
  unlessNoWay,
} from "../../links/mod.ts";
import { SystemError } from "../../linux/mod.ts";
import type { RtNetlink } from "../../netlink.ts";
import type { Access } from "../../policy/access.ts";
import { AccessGuard } from "../guard/access.ts";
import { OwnWays } from "../guard/own_ways.ts";
import { quieten } from "../guard/quieten.ts";
import type {
  AdoptedLink,
  DataCodec,
  DataPlane,
  ExtraPort,
  LinkState,
  PlaneOptions,
  PlaneRefusal,
  PlaneThreads,
  PlaneWorld,
  WantedLink,
} from "../plane.ts";
import { EnginePath, type PathDevice } from "./engine_path.ts";

/** What a header of IPv6 takes more than one of IPv4. */
const IPV6_MORE_BYTES = 20;

interface UserLink {
  device: PathDevice;
  ifindex: number;
  wanted: WantedLink;
}

export class UserPlane implements DataPlane {
  readonly kind = "tun";
  readonly #options: PlaneOptions;
  readonly #codec: DataCodec;
  readonly #rtnl: RtNetlink;
  readonly #path: EnginePath;
  readonly #links = new Map<string, UserLink>();
  readonly #keeper: LinkKeeper;
  readonly #ways: OwnWays;
  readonly #access: AccessGuard;
  readonly #host: Host;

  /** Throws `GretunError` for a kernel without TUN and for a port that is taken. */
  static open(options: PlaneOptions, codec: DataCodec, world: PlaneWorld): UserPlane {
    ensureTun(world.host);
    return new UserPlane(options, codec, world);
  }

  private constructor(options: PlaneOptions, codec: DataCodec, world: PlaneWorld) {
    const { host } = world;
    this.#options = options;
    this.#host = host;
    this.#ways = new OwnWays(options.onFault);
    this.#codec = codec;
    using stack = new DisposableStack();
    this.#rtnl = stack.use(host.openRtNetlink());
    this.#keeper = stack.use(
      new LinkKeeper({ ...world, rtnl: this.#rtnl, wanted: () => this.#kept() }),
    );
    this.#path = this.#openPath(world);
    this.#access = new AccessGuard(host, { ...options, port: this.#path.port });
    stack.move();
  }

  #openPath(world: PlaneWorld): EnginePath {
    try {
      const onTooBig = (link: WantedLink) => this.#narrowed(link);
      return new EnginePath(this.#options, this.#codec, world, onTooBig);
    } catch (cause) {
      if (!(cause instanceof SystemError)) throw cause;
      const { port, portFlag } = this.#options;
      throw new GretunError(
        `cannot open UDP port ${port}: ${errorText(cause)}`,
        `Choose another one with ${portFlag}, or look with: ss -ulpn 'sport = :${port}'`,
        { cause },
      );
    }
  }

  get port(): number {
    return this.#path.port;
  }

  get families(): readonly Family[] {
    return this.#path.families;
  }

  readonly send: DataPlane["send"] = (bytes, to, ttl) => this.#path.send(bytes, to, ttl);

  openPort(): ExtraPort {
    return this.#path.openPort();
  }

  /** TUN devices end with the process that made them. */
  adopted(): AdoptedLink[] {
    return [];
  }

  confine(): void {}

  allow(id: string, access: Access | undefined): void {
    this.#access.allow(id, access);
  }

  refused(): Map<PlaneRefusal, number> {
    return new Map([...this.#path.refused(), ...this.#access.refused()]);
  }

  whileWaiting(): void {
    this.#path.whileWaiting();
  }

  threads(): PlaneThreads {
    return this.#path.threads();
  }

  // --- links

  setLink(link: WantedLink): LinkState {
    const mtu = this.#mtu(link);
    const known = this.#present(link.id);
    this.#codec.setLink?.(link);
    const user = known ?? this.#create(link);
    try {
      this.#access.place(link.id, user.ifindex);
      // The first packet may come as soon as the device is up.
      user.device.set(link, mtu);
      this.#rtnl.changeLink(user.ifindex, { mtu, up: true });
      setInner(this.#rtnl, user.ifindex, link, known ? known.wanted : NO_INNER);
    } catch (error) {
      if (known) this.#setBack(known, mtu);
      else this.removeLink(link.id);
      throw error;
    }
    user.wanted = link;
    return { ifname: user.device.name, mtu };
  }

  #setBack({ device, wanted }: UserLink, mtu: number): void {
    this.#codec.setLink?.(wanted);
    device.set(wanted, mtu);
  }

  #mtu(link: WantedLink): number {
    const { remote: { ip }, pathMtu } = link;
    const more = familyOf(ip) === 6 ? IPV6_MORE_BYTES : 0;
    const overheadBytes = this.#codec.overheadBytes(link) + more;
    return this.#options.mtu ?? innerMtu(this.#rtnl, ip, { overheadBytes, pathMtu });
  }

  routeMtu(id: string): number | undefined {
    const link = this.#links.get(id);
    return link && unlessNoWay(() => routeMtu(this.#rtnl, link.wanted.remote.ip));
  }

  #create(link: WantedLink): UserLink {
    const { ifnamePattern } = this.#options;
    const own = new Set([...this.#links.values()].map(({ device }) => device.name));
    const ifname = freeName(this.#rtnl, ifnamePattern, own);
    const device = this.#path.openDevice(ifname);
    const { ifindex } = this.#rtnl.link(device.name)!;
    const user: UserLink = { device, ifindex, wanted: link };
    this.#links.set(link.id, user);
    try {
      quieten(this.#host, device.name, link);
    } catch (error) {
      this.#options.onFault("link trusts its far end", error);
    }
    this.#rtnl.changeLink(ifindex, { alias: this.#alias(link.id) });
    return user;
  }

  /** The link's device; one that somebody removed is let go of. */
  #present(id: string): UserLink | undefined {
    const user = this.#links.get(id);
    if (!user || this.#rtnl.link(user.ifindex)) return user;
    this.removeLink(id);
    return undefined;
  }

  removeLink(id: string): void {
    this.#codec.removeLink?.(id);
    const user = this.#links.get(id);
    if (!user) return;
    this.#links.delete(id);
    this.#access.place(id, undefined);
    user.device[Symbol.dispose]();
  }

  missingLinks(): string[] {
    return missing(this.#rtnl, this.#links);
  }

  counters(): Map<string, LinkCounters> {
    return countersOf(this.#rtnl, this.#links);
  }

  networkChanged(): void {
    this.#keeper.look();
    const placed = [...this.#links].map(([id, { device, ifindex, wanted: { remote } }]) =>
      [id, { ifindex, ifname: device.name, remote }] as const
    );
    this.#ways.look(this.#rtnl, placed);
  }

  #kept(): KeptLink[] {
    return [...this.#links.values()].map(({ device, ifindex, wanted }) => {
      const { addresses, routes } = wanted;
      const mtu = unlessNoWay(() => this.#mtu(wanted));
      const state = { name: device.name, alias: this.#alias(wanted.id), addresses, routes };
      return { ifindex, state: { ...state, ...(mtu ? { mtu } : {}) } };
    });
  }

  #alias(id: string): string {
    return formatMark({ by: this.#options.role, port: this.port, id });
  }

  refresh(): void {}

  async [Symbol.asyncDispose](): Promise<void> {
    for (const id of [...this.#links.keys()]) this.removeLink(id);
    this.#access[Symbol.dispose]();
    this.#keeper[Symbol.dispose]();
    await this.#path[Symbol.asyncDispose]();
    this.#rtnl[Symbol.dispose]();
  }

  /** A packet did not fit its way: the route may have another MTU now. */
  #narrowed(link: WantedLink): void {
    try {
      if (this.#links.get(link.id)?.wanted === link) this.setLink(link);
    } catch (error) {
      this.#options.onFault("cannot set a link's MTU", error);
    }
  }
}

/** Links are made later, so now is the time to find that this kernel cannot: throws `GretunError`. */
export function ensureTun(host: Host): void {
  try {
    host.tryTun();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    const isForRootAlone = error.code === "EACCES";
    throw new GretunError(
      `no user-space tunnels here: ${errorText(error)}`,
      isForRootAlone
        ? "Let others than root open it, as udev does: chmod 666 /dev/net/tun"
        : "Run: modprobe tun; or give the container the device /dev/net/tun",
      { cause: error },
    );
  }
}
