/**
 * The user-space plane: a TUN device for each link and one UDP port for all. Signalling goes to raw
 * sockets beside it: a flood of it fills their queues, not the one that data waits in.
 */
import { type Family, familyOf } from "../../addr.ts";
import type { Datagram } from "../../edges.ts";
import { errorText, GretunError } from "../../errors.ts";
import type { Host, SignalPort, Tun, UdpPort } from "../../host/mod.ts";
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
  setInner,
  unlessNoWay,
} from "../../links/mod.ts";
import {
  endpointOf,
  isSignalling,
  type SockAddr,
  sockAddrOf,
  SystemError,
} from "../../linux/mod.ts";
import type { RtNetlink } from "../../netlink.ts";
import { isIpPacket, SourceFilter } from "../guard/inner.ts";
import { hasChecksum } from "../kernel/port.ts";
import type {
  AdoptedLink,
  DataCodec,
  DataPlane,
  ExtraPort,
  LinkState,
  PlaneOptions,
  PlaneWorld,
  WantedLink,
} from "../plane.ts";
import { ExtraPorts } from "../ports.ts";

/** What a header of IPv6 takes more than one of IPv4. */
const IPV6_MORE_BYTES = 20;

export interface UserPlaneOptions extends PlaneOptions {
  /** Datagrams that are too large for the way may be cut up. */
  allowFragments?: boolean;
}

interface UserLink {
  device: Tun;
  ifindex: number;
  wanted: WantedLink;
  to: SockAddr;
  filter: SourceFilter | undefined;
}

/** Of one family. */
interface Sockets {
  family: Family;
  data: UdpPort;
  signalling?: SignalPort;
}

export class UserPlane implements DataPlane {
  readonly kind = "tun";
  readonly port: number;
  readonly families: readonly Family[];
  readonly #options: UserPlaneOptions;
  readonly #host: Host;
  readonly #codec: DataCodec;
  readonly #rtnl: RtNetlink;
  readonly #sockets: readonly Sockets[];
  readonly #extra: ExtraPorts;
  readonly #links = new Map<string, UserLink>();
  readonly #keeper: LinkKeeper;
  readonly #stack: DisposableStack;

  /** Throws `GretunError` for a kernel without TUN and for a port that is taken. */
  static open(options: UserPlaneOptions, codec: DataCodec, world: PlaneWorld): UserPlane {
    ensureTun(world.host);
    return new UserPlane(options, codec, world);
  }

  private constructor(options: UserPlaneOptions, codec: DataCodec, world: PlaneWorld) {
    const { host } = world;
    using stack = new DisposableStack();
    this.#options = options;
    this.#codec = codec;
    this.#host = host;
    this.#rtnl = stack.use(host.openRtNetlink());
    this.#sockets = this.#openSockets(stack);
    this.port = this.#sockets[0]!.data.port;
    this.families = this.#sockets.map(({ family }) => family);
    this.#extra = stack.use(
      new ExtraPorts(host, (bytes, source, port) => this.#takeExtra(bytes, source, port)),
    );
    this.#keeper = stack.use(
      new LinkKeeper({ ...world, rtnl: this.#rtnl, wanted: () => this.#kept() }),
    );
    this.#stack = stack.move();
  }

  #openSockets(stack: DisposableStack): Sockets[] {
    const { bind } = this.#options;
    if (bind) return [this.#openFamily(familyOf(bind), this.#options.port, stack)];
    const ipv4 = this.#openFamily(4, this.#options.port, stack);
    try {
      return [ipv4, this.#openFamily(6, ipv4.data.port, stack)];
    } catch (error) {
      // A kernel without IPv6 says so; a port that is taken is none.
      if (hasCause(error, "EAFNOSUPPORT", "EADDRNOTAVAIL")) return [ipv4];
      throw error;
    }
  }

  #openFamily(family: Family, port: number, stack: DisposableStack): Sockets {
    const { bind, signalling, allowFragments = false, onDatagram } = this.#options;
    const bound = { family, ...(bind ? { bind } : {}) };
    const without = signalling ? { without: signalling } : {};
    const data = stack.use(this.#openData({ ...bound, ...without, port, allowFragments }));
    if (!signalling) return { family, data };
    const raw = { ...bound, signalling, checksum: hasChecksum(signalling) };
    const onSignal = (datagram: Datagram) => onDatagram(datagram);
    return { family, data, signalling: stack.use(this.#host.openRawUdp(data.port, raw, onSignal)) };
  }

  #openData(udp: Parameters<Host["openUdp"]>[0]): UdpPort {
    try {
      return this.#host.openUdp(udp, (bytes, source) => this.#take(bytes, source));
    } catch (cause) {
      if (!(cause instanceof SystemError)) throw cause;
      throw new GretunError(
        `cannot open UDP port ${udp.port}: ${errorText(cause)}`,
        `Choose another one with ${this.#options.portFlag}, or look with: ss -ulpn 'sport = :${udp.port}'`,
        { cause },
      );
    }
  }

  readonly send: DataPlane["send"] = (bytes, to, ttl) => {
    const sockets = this.#socketsTo(familyOf(to.ip));
    if (sockets?.signalling) sockets.signalling.send(bytes, to, ttl);
    else sockets?.data.send(bytes, sockAddrOf(to), ttl);
  };

  #socketsTo(family: Family): Sockets | undefined {
    return this.#sockets.find((sockets) => sockets.family === family);
  }

  openPort(): ExtraPort {
    return this.#extra.open();
  }

  /** TUN devices end with the process that made them. */
  adopted(): AdoptedLink[] {
    return [];
  }

  // --- links

  setLink(link: WantedLink): LinkState {
    const mtu = this.#mtu(link);
    const known = this.#present(link.id);
    this.#codec.setLink?.(link);
    const user = known ?? this.#create(link);
    try {
      this.#rtnl.changeLink(user.ifindex, { mtu, up: true });
      setInner(this.#rtnl, user.ifindex, link, known ? known.wanted : NO_INNER);
    } catch (error) {
      if (known) this.#codec.setLink?.(known.wanted);
      else this.removeLink(link.id);
      throw error;
    }
    user.to = sockAddrOf(link.remote);
    user.wanted = link;
    user.filter = link.sources && new SourceFilter(link.sources);
    return { ifname: user.device.name, mtu };
  }

  #mtu(link: WantedLink): number {
    const { ip } = link.remote;
    const more = familyOf(ip) === 6 ? IPV6_MORE_BYTES : 0;
    return this.#options.mtu ??
      innerMtu(this.#rtnl, ip, this.#codec.overheadBytes(link) + more);
  }

  #create(link: WantedLink): UserLink {
    const { ifnamePattern } = this.#options;
    const own = new Set([...this.#links.values()].map(({ device }) => device.name));
    const ifname = freeName(this.#rtnl, ifnamePattern, own);
    const device = this.#host.openTun(ifname, (inner) => this.#forward(user, inner));
    const { ifindex } = this.#rtnl.link(device.name)!;
    const user: UserLink = {
      ...{ device, ifindex, wanted: link, to: sockAddrOf(link.remote) },
      filter: undefined,
    };
    this.#links.set(link.id, user);
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
    this.#stack.dispose();
  }

  // --- packets

  #forward({ wanted: { id, remote, localPort }, to }: UserLink, inner: Uint8Array): void {
    const bytes = this.#codec.encode(id, inner);
    if (!bytes) return;
    if (localPort !== undefined) this.#extra.get(localPort)?.send(bytes, remote);
    else this.#socketsTo(familyOf(remote.ip))?.data.send(bytes, to);
  }

  #takeExtra(bytes: Uint8Array, source: SockAddr, localPort: number): void {
    const { signalling, onDatagram } = this.#options;
    if (!signalling || !isSignalling(signalling, bytes)) return this.#take(bytes, source);
    onDatagram({ bytes: bytes.slice(), from: endpointOf(source) }, localPort);
  }

  #take(bytes: Uint8Array, source: SockAddr): void {
    const packet = this.#codec.decode(bytes, source);
    const user = packet && this.#links.get(packet.id);
    if (!user) return;
    const { inner } = packet;
    if (!isIpPacket(inner)) return this.#options.onRefused("not-ip");
    if (user.filter?.allows(inner) === false) return this.#options.onRefused("wrong-inner-address");
    user.device.write(inner);
  }
}

/** Links are made later, so now is the time to find that this kernel cannot: throws `GretunError`. */
export function ensureTun(host: Host): void {
  try {
    host.tryTun();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new GretunError(
      `no user-space tunnels here: ${errorText(error)}`,
      "Run: modprobe tun; or give the container the device /dev/net/tun",
      { cause: error },
    );
  }
}

function hasCause(error: unknown, ...codes: string[]): boolean {
  const cause = error instanceof GretunError ? error.cause : error;
  return cause instanceof SystemError && codes.includes(cause.code);
}
