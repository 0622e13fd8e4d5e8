/**
 * The user-space plane: a TUN device for each link and one UDP socket. Signalling goes to a raw
 * socket beside it: a flood of it fills that socket's queue, not the one that data waits in.
 */
import { type Endpoint, equalEndpoints } from "../addr.ts";
import { ensureTun, isIpPacket, type LinkState, SourceFilter } from "../dataplane/mod.ts";
import { errorText, GretunError } from "../errors.ts";
import type { Host, SignalPort, Tun, UdpPort } from "../host/mod.ts";
import {
  countersOf,
  formatMark,
  freeName,
  innerMtu,
  type LinkCounters,
  missing,
  NO_INNER,
  setInner,
} from "../links/mod.ts";
import { type Signalling, type SockAddr, sockAddrOf, SystemError } from "../linux/mod.ts";
import type { RtNetlink } from "../netlink.ts";
import { innerOf } from "./addresses.ts";
import type { DataCodec, HubLink, HubPlane, PlaneOptions } from "./plane.ts";

export interface TunPlaneOptions extends PlaneOptions {
  /** What goes to the raw socket; none: everything is for the codec. */
  signalling?: Signalling;
  allowFragments?: boolean;
}

interface TunLink {
  device: Tun;
  ifindex: number;
  link: HubLink;
  to: SockAddr;
  filter: SourceFilter | undefined;
}

export class TunPlane implements HubPlane {
  readonly kind = "tun";
  readonly #options: TunPlaneOptions;
  readonly #codec: DataCodec;
  readonly #host: Host;
  readonly #rtnl: RtNetlink;
  readonly #socket: UdpPort;
  readonly #raw: SignalPort | undefined;
  readonly #links = new Map<string, TunLink>();

  /** Throws `GretunError` for a kernel without TUN and for a port that is taken. */
  static open(options: TunPlaneOptions, codec: DataCodec, host: Host): TunPlane {
    ensureTun(host);
    return new TunPlane(options, codec, host);
  }

  private constructor(options: TunPlaneOptions, codec: DataCodec, host: Host) {
    this.#options = options;
    this.#codec = codec;
    this.#host = host;
    const { signalling, bind, allowFragments = false } = options;
    const bound = bind ? { bind } : {};
    using stack = new DisposableStack();
    this.#rtnl = stack.use(host.openRtNetlink());
    this.#socket = stack.use(openSocket(options.port, () =>
      host.openUdp(
        {
          port: options.port,
          allowFragments,
          ...bound,
          ...(signalling ? { without: signalling } : {}),
        },
        (bytes, source) => this.#take(bytes, source),
      )));
    if (signalling) {
      const raw = { signalling, ...bound, checksum: signalling.kind === "patterns" };
      this.#raw = stack.use(host.openRawUdp(this.port, raw, options.onSignal));
    }
    stack.move();
  }

  get port(): number {
    return this.#socket.port;
  }

  send(bytes: Uint8Array, to: Endpoint): void {
    if (this.#raw) this.#raw.send(bytes, to);
    else this.#socket.send(bytes, sockAddrOf(to));
  }

  setLink(link: HubLink): LinkState {
    const mtu = this.#options.mtu ??
      innerMtu(this.#rtnl, link.endpoint.ip, this.#codec.overheadBytes);
    const known = this.#present(link.name);
    const tun = known ?? this.#create(link);
    try {
      this.#rtnl.changeLink(tun.ifindex, { mtu, up: true });
      setInner(this.#rtnl, tun.ifindex, innerOf(link), known ? innerOf(known.link) : NO_INNER);
    } catch (error) {
      if (!known) this.removeLink(link.name);
      throw error;
    }
    if (!equalEndpoints(tun.link.endpoint, link.endpoint)) tun.to = sockAddrOf(link.endpoint);
    tun.link = link;
    tun.filter = link.sources && new SourceFilter(link.sources);
    return { ifname: tun.device.name, mtu };
  }

  removeLink(name: string): void {
    const tun = this.#links.get(name);
    if (!tun) return;
    this.#links.delete(name);
    tun.device[Symbol.dispose]();
  }

  refresh(): void {}

  missingLinks(): string[] {
    return missing(this.#rtnl, this.#links);
  }

  counters(): Map<string, LinkCounters> {
    return countersOf(this.#rtnl, this.#links);
  }

  /** TUN devices end with the process that made them. */
  adopted(): [] {
    return [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...this.#links.keys()]) this.removeLink(name);
    this.#raw?.[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
    this.#rtnl[Symbol.dispose]();
  }

  /** The link's device; one that somebody removed is let go of. */
  #present(name: string): TunLink | undefined {
    const tun = this.#links.get(name);
    if (!tun || this.#rtnl.link(tun.ifindex)) return tun;
    this.removeLink(name);
    return undefined;
  }

  #create(link: HubLink): TunLink {
    const { ifnamePattern, owner, port } = this.#options;
    const own = new Set([...this.#links.values()].map(({ device }) => device.name));
    const ifname = freeName(this.#rtnl, ifnamePattern, own);
    const device = this.#host.openTun(ifname, (inner) => this.#forward(tun, inner));
    const { ifindex } = this.#rtnl.link(device.name)!;
    const tun: TunLink = {
      device,
      ifindex,
      link,
      to: sockAddrOf(link.endpoint),
      filter: undefined,
    };
    this.#links.set(link.name, tun);
    this.#rtnl.changeLink(ifindex, { alias: formatMark({ by: owner, port, id: link.name }) });
    return tun;
  }

  #forward(tun: TunLink, inner: Uint8Array): void {
    const bytes = this.#codec.encode(tun.link.name, inner);
    if (bytes) this.#socket.send(bytes, tun.to);
  }

  #take(bytes: Uint8Array, source: SockAddr): void {
    const packet = this.#codec.decode(bytes, source);
    if (!packet) return;
    const tun = this.#links.get(packet.name);
    if (!tun) return;
    if (!isIpPacket(packet.inner)) return this.#options.onRefused("not-ip");
    if (tun.filter?.allows(packet.inner) === false) {
      return this.#options.onRefused("wrong-inner-address");
    }
    tun.device.write(packet.inner);
  }
}

/** Links are made later, so now is the time to find that this kernel cannot. */
function openSocket(port: number, open: () => UdpPort): UdpPort {
  try {
    return open();
  } catch (cause) {
    if (!(cause instanceof SystemError)) throw cause;
    throw new GretunError(
      `cannot open UDP port ${port}: ${errorText(cause)}`,
      `Choose another one with --port, or look with: ss -ulpn 'sport = :${port}'`,
      { cause },
    );
  }
}
