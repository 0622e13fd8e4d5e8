/**
 * The user-space plane: a TUN device for each peer and one UDP port for signalling and data.
 * Per packet and simple; it speaks the kernel plane's bytes, so both kinds of node can be mixed.
 */
import { type Endpoint, type Family, familyOf, parseIp } from "../addr.ts";
import { errorText, GretunError } from "../errors.ts";
import type { NodeKey } from "../keys.ts";
import {
  countersOf,
  formatMark,
  freeName,
  type LinkCounters,
  missing,
  NO_INNER,
  setInner,
} from "../links/mod.ts";
import {
  isSignalling,
  type Poller,
  RawUdpSender,
  readKernelFile,
  SystemError,
  tryTun,
  TunDevice,
} from "../linux/mod.ts";
import { RtNetlink } from "../netlink.ts";
import { decodeGre, encodeGre } from "./gre.ts";
import { innerOf, linkMtu, remoteTaken } from "./links.ts";
import type { DataPlane, DataPlaneOptions, ExtraPort, LinkState, PeerLink } from "./plane.ts";
import { ExtraPorts } from "./ports.ts";

/** Datagrams handed to the socket and not yet taken by the kernel; more are dropped. */
const MAX_SENDING = 512;

/** Of one UDP port, by family; one and the same where it takes both. */
interface Sockets {
  4: Deno.DatagramConn;
  6?: Deno.DatagramConn;
}

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
  readonly #sockets: Sockets;
  /** For what needs a TTL of its own, which Deno's sockets cannot give it. */
  readonly #senders: readonly RawUdpSender[];
  readonly #extra: ExtraPorts;
  readonly #links = new Map<NodeKey, TunLink>();
  /** By what an arriving packet shows: its key, or its source where there is no key. */
  readonly #receivers = new Map<string, TunLink>();
  readonly #receiving: Promise<unknown>;
  #sending = 0;
  #closed = false;

  static open(options: DataPlaneOptions, poller: Poller): TunPlane {
    ensureTun();
    using stack = new DisposableStack();
    const rtnl = stack.use(RtNetlink.open());
    const sockets = openSockets(options.port);
    stack.defer(() => closeSockets(sockets));
    const senders = familiesOf(sockets)
      .map((family) => stack.use(RawUdpSender.open(options.port, family)));
    stack.move();
    return new TunPlane(options, poller, { rtnl, senders, sockets });
  }

  private constructor(
    options: DataPlaneOptions,
    poller: Poller,
    { rtnl, senders, sockets }: {
      rtnl: RtNetlink;
      senders: readonly RawUdpSender[];
      sockets: Sockets;
    },
  ) {
    this.#options = options;
    this.#poller = poller;
    this.#rtnl = rtnl;
    this.#senders = senders;
    this.#sockets = sockets;
    this.#extra = new ExtraPorts(
      poller,
      ({ bytes, from }, localPort) => this.#take(bytes, from, localPort),
    );
    this.#receiving = Promise.all(distinct(sockets).map((socket) => this.#receive(socket)));
  }

  get families(): Family[] {
    return familiesOf(this.#sockets);
  }

  readonly send: DataPlane["send"] = (bytes, to, ttl) => {
    const socket = this.#sockets[familyOf(to.ip)];
    if (this.#closed || !socket || this.#sending >= MAX_SENDING) return;
    if (ttl !== undefined) {
      for (const sender of this.#senders) sender.send(bytes, to, ttl);
      return;
    }
    this.#sending++;
    socket.send(bytes, { transport: "udp", hostname: to.ip, port: to.port })
      .catch(() => {}) // as lost as a datagram that is lost on the way
      .finally(() => this.#sending--);
  };

  openPort(): ExtraPort {
    return this.#extra.open();
  }

  /** Nothing is left of an earlier run. */
  adopted(): undefined {}

  setLink(link: PeerLink): LinkState {
    const mtu = linkMtu(this.#rtnl, link);
    const known = this.#present(link.peer);
    const other = this.#receivers.get(receiverKey(link));
    if (other && other !== known) throw remoteTaken(link.remote.ip);
    const tun = known ?? this.#create(link);
    try {
      this.#rtnl.changeLink(tun.ifindex, { mtu, up: true });
      setInner(this.#rtnl, tun.ifindex, innerOf(link), known ? innerOf(known.link) : NO_INNER);
    } catch (error) {
      if (!known) this.removeLink(link.peer);
      throw error;
    }
    this.#receivers.delete(receiverKey(tun.link));
    tun.link = link;
    this.#receivers.set(receiverKey(link), tun);
    return { ifname: tun.device.name, mtu };
  }

  /** Devices name no address of this host. */
  addressesChanged(): void {}

  removeLink(peer: NodeKey): void {
    const tun = this.#links.get(peer);
    if (!tun) return;
    this.#links.delete(peer);
    this.#receivers.delete(receiverKey(tun.link));
    tun.device[Symbol.dispose]();
  }

  missingLinks(): NodeKey[] {
    return missing(this.#rtnl, this.#links);
  }

  counters(): Map<NodeKey, LinkCounters> {
    return countersOf(this.#rtnl, this.#links);
  }

  /** TUN devices end with the process that made them: there is nothing left of an earlier run. */
  removeStrangers(): void {}

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const peer of [...this.#links.keys()]) this.removeLink(peer);
    closeSockets(this.#sockets);
    this.#extra[Symbol.dispose]();
    await this.#receiving;
    for (const sender of this.#senders) sender[Symbol.dispose]();
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
    const own = new Set([...this.#links.values()].map(({ device }) => device.name));
    const name = freeName(this.#rtnl, this.#options.ifnamePattern, own);
    const device = TunDevice.open(name, this.#poller, (inner) => this.#forward(tun, inner));
    const ifindex = this.#rtnl.link(device.name)!.ifindex;
    const tun: TunLink = { device, ifindex, link };
    const mark = { by: "up", port: this.#options.port, id: link.peer } as const;
    this.#rtnl.changeLink(ifindex, { alias: formatMark(mark) });
    this.#links.set(link.peer, tun);
    return tun;
  }

  #forward(tun: TunLink, inner: Uint8Array): void {
    const { keys, remote, localPort } = tun.link;
    const packet = encodeGre(inner, keys?.okey);
    if (!packet) return;
    if (localPort === undefined) this.send(packet, remote);
    else this.#extra.get(localPort)?.send(packet, remote);
  }

  async #receive(socket: Deno.DatagramConn): Promise<void> {
    const buffer = new Uint8Array(65_536);
    while (!this.#closed) {
      try {
        const [bytes, from] = await socket.receive(buffer);
        if (from.transport !== "udp") continue;
        this.#take(bytes, { ip: parseIp(from.hostname), port: from.port });
      } catch {
        // Closed, or an ICMP error of an earlier datagram: neither ends a datagram socket's life.
        if (this.#closed) return;
      }
    }
  }

  #take(bytes: Uint8Array, from: Endpoint, localPort?: number): void {
    if (isSignalling(this.#options.signalling, bytes)) {
      return this.#options.onDatagram({ bytes: bytes.slice(), from }, localPort);
    }
    const packet = decodeGre(bytes);
    if (!packet) return;
    const { ip } = from;
    const tun = this.#receivers.get(packet.key === undefined ? ip : `${ip} ${packet.key}`);
    tun?.device.write(packet.inner);
  }
}

/** As the kernel does: the remote's address and the key must fit, its port need not. */
function receiverKey({ remote, keys }: PeerLink): string {
  return keys ? `${remote.ip} ${keys.ikey}` : remote.ip;
}

/** Links are made later, so now is the time to find that this kernel cannot: throws `GretunError`. */
export function ensureTun(): void {
  try {
    tryTun();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new GretunError(
      `no user-space tunnels here: ${errorText(error)}`,
      "Run: modprobe tun; or give the container the device /dev/net/tun",
      { cause: error },
    );
  }
}

/** Throws `GretunError`. */
function openSockets(port: number): Sockets {
  try {
    const keepsApart = readBindV6Only();
    if (keepsApart === undefined) return { 4: listen("0.0.0.0", port) };
    const ipv6 = listen("::", port);
    if (!keepsApart) return { 4: ipv6, 6: ipv6 };
    try {
      return { 4: listen("0.0.0.0", port), 6: ipv6 };
    } catch (error) {
      ipv6.close();
      throw error;
    }
  } catch (cause) {
    throw new GretunError(
      `cannot open UDP port ${port}: ${errorText(cause)}`,
      `Choose another one with --fou-port, or look with: ss -ulpn 'sport = :${port}'`,
      { cause },
    );
  }
}

function listen(hostname: string, port: number): Deno.DatagramConn {
  return Deno.listenDatagram({ transport: "udp", hostname, port });
}

function closeSockets(sockets: Sockets): void {
  for (const socket of distinct(sockets)) socket.close();
}

function distinct(sockets: Sockets): Deno.DatagramConn[] {
  return [...new Set(Object.values(sockets))];
}

function familiesOf(sockets: Sockets): Family[] {
  return sockets[6] ? [4, 6] : [4];
}

/**
 * Whether a socket of IPv6 takes IPv6 alone; else it takes IPv4 as well. Undefined on a kernel
 * without IPv6.
 */
function readBindV6Only(): boolean | undefined {
  try {
    return readKernelFile("/proc/sys/net/ipv6/bindv6only").trim() === "1";
  } catch (error) {
    if (error instanceof SystemError) return undefined;
    throw error;
  }
}
