/**
 * The user-space plane: a TUN device for each peer and one UDP socket for signalling and data.
 * Per packet and simple; it speaks the kernel plane's bytes, so both kinds of node can be mixed.
 */
import { familyOf, parseIp } from "../addr.ts";
import { errorText, GretunError } from "../errors.ts";
import type { NodeKey } from "../keys.ts";
import {
  loadModule,
  type Poller,
  RawUdpSender,
  RtNetlink,
  SystemError,
  tryTun,
  TunDevice,
} from "../netlink.ts";
import { decodeGre, encodeGre } from "./gre.ts";
import { countersOf, freeName, linkMtu, missing, ownerAlias, setPointToPoint } from "./links.ts";
import type { DataPlane, DataPlaneOptions, LinkCounters, LinkState, PeerLink } from "./plane.ts";

/** Datagrams handed to the socket and not yet taken by the kernel; more are dropped. */
const MAX_SENDING = 512;
const STUN_COOKIE_OFFSET = 4;
const STUN_COOKIE = [0x21, 0x12, 0xa4, 0x42];
const DISCO_MAGIC = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];

interface TunLink {
  device: TunDevice;
  ifindex: number;
  link: PeerLink;
}

export class TunPlane implements DataPlane {
  readonly kind = "tun";
  readonly #options: DataPlaneOptions;
  readonly #poller: Poller;
  readonly #rtnl: RtNetlink;
  readonly #socket: Deno.DatagramConn;
  /** For what needs a TTL of its own, which Deno's socket cannot give it. */
  readonly #sender: RawUdpSender;
  readonly #links = new Map<NodeKey, TunLink>();
  /** By what an arriving packet shows: its key, or its source where there is no key. */
  readonly #receivers = new Map<string, TunLink>();
  readonly #receiving: Promise<void>;
  #sending = 0;
  #closed = false;

  static open(options: DataPlaneOptions, poller: Poller): TunPlane {
    ensureTun();
    using stack = new DisposableStack();
    const rtnl = stack.use(RtNetlink.open());
    const sender = stack.use(RawUdpSender.open(options.port));
    const socket = openSocket(options.port);
    stack.move();
    return new TunPlane(options, poller, { rtnl, sender, socket });
  }

  private constructor(
    options: DataPlaneOptions,
    poller: Poller,
    sockets: { rtnl: RtNetlink; sender: RawUdpSender; socket: Deno.DatagramConn },
  ) {
    this.#options = options;
    this.#poller = poller;
    this.#rtnl = sockets.rtnl;
    this.#sender = sockets.sender;
    this.#socket = sockets.socket;
    this.#receiving = this.#receive();
  }

  readonly send: DataPlane["send"] = (bytes, to, ttl) => {
    // The overlay's outer addresses are IPv4 for now; the socket is.
    if (this.#closed || familyOf(to.ip) !== 4 || this.#sending >= MAX_SENDING) return;
    if (ttl !== undefined) return this.#sender.send(bytes, to, ttl);
    this.#sending++;
    this.#socket.send(bytes, { transport: "udp", hostname: to.ip, port: to.port })
      .catch(() => {}) // as lost as a datagram that is lost on the way
      .finally(() => this.#sending--);
  };

  setLink(link: PeerLink): LinkState {
    const mtu = linkMtu(this.#rtnl, link);
    const known = this.#present(link.peer);
    const tun = known ?? this.#create(link);
    try {
      this.#rtnl.changeLink(tun.ifindex, { mtu, up: true });
      setPointToPoint(this.#rtnl, tun.ifindex, link.localIp, link.peerIp);
    } catch (error) {
      if (!known) this.removeLink(link.peer);
      throw error;
    }
    this.#receivers.delete(receiverKey(tun.link));
    tun.link = link;
    this.#receivers.set(receiverKey(link), tun);
    return { ifname: tun.device.name, mtu };
  }

  removeLink(peer: NodeKey): void {
    const tun = this.#links.get(peer);
    if (!tun) return;
    this.#links.delete(peer);
    this.#receivers.delete(receiverKey(tun.link));
    tun.device[Symbol.dispose]();
  }

  missingLinks(): NodeKey[] {
    const links = [...this.#links].map(([peer, { ifindex }]) => [peer, ifindex] as const);
    return missing(this.#rtnl, new Map(links));
  }

  counters(): Map<NodeKey, LinkCounters> {
    const links = [...this.#links].map(([peer, { ifindex }]) => [peer, ifindex] as const);
    return countersOf(this.#rtnl, links);
  }

  /** TUN devices end with the process that made them: there is nothing left of an earlier run. */
  removeStrangers(): void {}

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const peer of [...this.#links.keys()]) this.removeLink(peer);
    this.#socket.close();
    await this.#receiving;
    this.#sender[Symbol.dispose]();
    this.#rtnl[Symbol.dispose]();
  }

  /** The peer's device; one that somebody removed is let go of. */
  #present(peer: NodeKey): TunLink | undefined {
    const tun = this.#links.get(peer);
    if (!tun || this.#rtnl.link(tun.ifindex)) return tun;
    this.removeLink(peer);
    return undefined;
  }

  #create(link: PeerLink): TunLink {
    const taken = new Set(this.#rtnl.links().map(({ name }) => name));
    const name = freeName(this.#options.ifnamePattern, taken);
    const device = TunDevice.open(name, this.#poller, (inner) => this.#forward(tun, inner));
    const ifindex = this.#rtnl.link(device.name)!.ifindex;
    const tun: TunLink = { device, ifindex, link };
    this.#rtnl.changeLink(ifindex, { alias: ownerAlias(this.#options.port, link.peer) });
    this.#links.set(link.peer, tun);
    return tun;
  }

  #forward(tun: TunLink, inner: Uint8Array): void {
    const packet = encodeGre(inner, tun.link.keys?.okey);
    if (packet) this.send(packet, tun.link.remote);
  }

  async #receive(): Promise<void> {
    const buffer = new Uint8Array(65_536);
    while (!this.#closed) {
      try {
        const [bytes, from] = await this.#socket.receive(buffer);
        if (from.transport === "udp") this.#take(bytes, from);
      } catch {
        // Closed, or an ICMP error of an earlier datagram: neither ends a datagram socket's life.
        if (this.#closed) return;
      }
    }
  }

  #take(bytes: Uint8Array, { hostname, port }: Deno.NetAddr): void {
    const ip = parseIp(hostname);
    if (hasAt(bytes, 0, DISCO_MAGIC) || hasAt(bytes, STUN_COOKIE_OFFSET, STUN_COOKIE)) {
      return this.#options.onDatagram({ bytes: bytes.slice(), from: { ip, port } });
    }
    const packet = decodeGre(bytes);
    if (!packet) return;
    const tun = this.#receivers.get(packet.key === undefined ? ip : `${ip} ${packet.key}`);
    tun?.device.write(packet.inner);
  }
}

/** As the kernel does: the remote's address and the key must fit, its port need not. */
function receiverKey({ remote, keys }: PeerLink): string {
  return keys ? `${remote.ip} ${keys.ikey}` : remote.ip;
}

function hasAt(bytes: Uint8Array, offset: number, pattern: readonly number[]): boolean {
  return pattern.every((byte, i) => bytes[offset + i] === byte);
}

/** Links are made later, so now is the time to find that this kernel cannot. */
function ensureTun(): void {
  try {
    tryTun();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (["ENOENT", "ENODEV"].includes(error.code) && loadModule("tun")) return tryTun();
    throw new GretunError(
      `no user-space tunnels here: ${errorText(error)}`,
      "Run: modprobe tun; or give the container the device /dev/net/tun",
      { cause: error },
    );
  }
}

function openSocket(port: number): Deno.DatagramConn {
  try {
    return Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port });
  } catch (cause) {
    throw new GretunError(
      `cannot open UDP port ${port}: ${errorText(cause)}`,
      `Choose another one with --fou-port, or look with: ss -ulpn 'sport = :${port}'`,
      { cause },
    );
  }
}
