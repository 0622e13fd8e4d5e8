/**
 * The kernel plane: GRE over FOU. The kernel owns the UDP port and moves the data; a raw socket
 * with a filter gets a copy of what is STUN or disco before the kernel's own demultiplexing, and
 * sends from the same port, so that one NAT mapping serves both (see the design in README.md).
 * IPv6 has a port, a raw socket and a kind of link of its own.
 */
import { type Family, familyOf, type Ip } from "../addr.ts";
import type { Datagram, Log } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import type { NodeKey } from "../keys.ts";
import {
  countersOf,
  formatMark,
  freeName,
  type Inner,
  type LinkCounters,
  linksOf,
  missing,
  NO_INNER,
  openFouPort,
  otherNames,
  setInner,
} from "../links/mod.ts";
import { type Poller, RawUdpSocket, SystemError } from "../linux/mod.ts";
import { Fou, hasCode, type Link, NetlinkError, RtNetlink, type Tunnel } from "../netlink.ts";
import { NoKernelPlaneError, openFou, tryTunnel } from "./kernel.ts";
import { hasSafeChecksums, innerOf, linkMtu, remoteTaken } from "./links.ts";
import type {
  AdoptedPath,
  DataPlane,
  DataPlaneOptions,
  ExtraPort,
  LinkState,
  PeerLink,
} from "./plane.ts";
import { ExtraPorts, type Socket } from "./ports.ts";

const IPPROTO_GRE = 47;
const TTL = 64;
/** Links of each family, the modules that they need besides `fou`, and an address of no peer. */
const GRE = {
  4: { kind: "gre", modules: ["ip_gre"], remote: "192.0.2.1" as Ip },
  6: { kind: "ip6gre", modules: ["ip6_gre", "fou6"], remote: "2001:db8::1" as Ip },
} as const;

interface FouLink {
  ifindex: number;
  ifname: string;
  /** What it was given in this run. */
  inner?: Inner;
}

export class FouPlane implements DataPlane {
  readonly kind = "fou";
  readonly #options: DataPlaneOptions;
  readonly #rtnl: RtNetlink;
  readonly #fou: Fou;
  readonly #ports: readonly OuterPort[];
  readonly #poller: Poller;
  readonly #extra: ExtraPorts;
  readonly #links = new Map<NodeKey, FouLink>();
  /** Extra ports that carry data, or did for the link before it went elsewhere. */
  readonly #dataPorts = new Map<NodeKey, number>();

  /** Throws `GretunError` when the kernel cannot do it, or when the port is somebody else's. */
  static open(options: DataPlaneOptions, poller: Poller, log: Log): FouPlane {
    using stack = new DisposableStack();
    const rtnl = stack.use(RtNetlink.open());
    const fou = stack.use(openFou());
    const open = (family: Family) => stack.use(OuterPort.open(family, options, rtnl, fou, poller));
    const ports = [open(4)];
    try {
      ports.push(open(6));
    } catch (error) {
      if (!isKernels(error)) throw error;
      log.debug("no IPv6 outside", { reason: errorText(error) });
    }
    stack.move();
    return new FouPlane(options, { rtnl, fou, poller }, ports);
  }

  private constructor(
    options: DataPlaneOptions,
    { rtnl, fou, poller }: { rtnl: RtNetlink; fou: Fou; poller: Poller },
    ports: readonly OuterPort[],
  ) {
    this.#options = options;
    this.#rtnl = rtnl;
    this.#fou = fou;
    this.#ports = ports;
    this.#poller = poller;
    this.#extra = new ExtraPorts(poller, options.onDatagram);
    for (const { link, mark } of linksOf(rtnl.links(), { role: "up", port: options.port })) {
      if (!familyOfKind(link.kind)) continue;
      const peer = mark.id as NodeKey;
      this.#links.set(peer, { ifindex: link.ifindex, ifname: link.name });
      if (mark.extraPort === undefined) continue;
      this.#adoptPort(peer, mark.extraPort);
      // The link has gone elsewhere: the port was kept for a while.
      const isUsed = link.tunnel?.encap?.sport === mark.extraPort;
      if (!isUsed) this.#extraPort(peer)?.[Symbol.dispose]();
    }
  }

  get families(): Family[] {
    return this.#ports.map(({ family }) => family);
  }

  readonly send: DataPlane["send"] = (bytes, to, ttl) => {
    for (const { socket } of this.#ports) socket.send(bytes, to, ttl);
  };

  openPort(): ExtraPort {
    return this.#extra.open();
  }

  adopted(peer: NodeKey): AdoptedPath | undefined {
    const { remote, encap } = this.#link(peer)?.tunnel ?? {};
    if (!remote || !encap) return undefined;
    const path = { remote: { ip: remote, port: encap.dport } };
    if (encap.sport === this.#options.port) return path;
    const extraPort = this.#extraPort(peer);
    return extraPort?.port === encap.sport ? { ...path, extraPort } : undefined;
  }

  #extraPort(peer: NodeKey): ExtraPort | undefined {
    const port = this.#dataPorts.get(peer);
    return port === undefined ? undefined : this.#extra.get(port);
  }

  setLink(link: PeerLink): LinkState {
    const mtu = linkMtu(this.#rtnl, link);
    const known = this.#link(link.peer);
    if (link.localPort !== undefined) this.#carryData(link, link.localPort, known);
    const ifindex = this.#createOrChange(known, link, mtu);
    try {
      const inner = innerOf(link);
      const before = known?.ifindex === ifindex ? this.#links.get(link.peer)!.inner : NO_INNER;
      setInner(this.#rtnl, ifindex, inner, before);
      const ifname = this.#rtnl.link(ifindex)!.name;
      this.#links.set(link.peer, { ifindex, ifname, inner });
      return { ifname, mtu };
    } catch (error) {
      if (!known) this.removeLink(link.peer);
      throw error;
    }
  }

  /** Makes an extra port one of the kernel's, with a raw socket beside it as the main one has. */
  #carryData({ peer }: PeerLink, port: number, known: Link | undefined): void {
    const extra = this.#extra.get(port);
    if (!extra) throw new GretunError(`port ${port} is closed`, "Find another path");
    const before = this.#dataPorts.get(peer);
    if (before !== undefined && before !== port) this.#extra.get(before)?.[Symbol.dispose]();
    this.#dataPorts.set(peer, port);
    // Named before it is there, so that the next run closes it if this one is killed.
    if (known) this.#rtnl.changeLink(known.ifindex, { alias: this.#alias(peer) });
    extra.replace(() => this.#openDataPort(port));
  }

  #openDataPort(port: number): Socket {
    const { signalling } = this.#options;
    const onDatagram = (datagram: Datagram) => this.#options.onDatagram(datagram, port);
    using stack = new DisposableStack();
    stack.use(openPort(this.#rtnl, this.#fou, port, 4));
    const socket = stack.use(RawUdpSocket.open(port, this.#poller, onDatagram, { signalling }));
    const sockets = stack.move();
    return {
      send: (bytes, to, ttl) => socket.send(bytes, to, ttl),
      [Symbol.dispose]: () => sockets.dispose(),
    };
  }

  #adoptPort(peer: NodeKey, port: number): void {
    try {
      this.#extra.adopt(port, this.#openDataPort(port));
      this.#dataPorts.set(peer, port);
    } catch {
      // Somebody else has it by now: the link finds another path.
    }
  }

  /** Names the extra port for as long as it is open. */
  #alias(peer: NodeKey): string {
    const port = this.#dataPorts.get(peer);
    const isOpen = port !== undefined && this.#extra.get(port) !== undefined;
    return formatMark({
      ...{ by: "up", port: this.#options.port, id: peer },
      ...(isOpen ? { extraPort: port } : {}),
    });
  }

  /** Links of IPv6 name the address that they send from: others of this kind carry nothing. */
  addressesChanged(): void {
    for (const { ifindex } of this.#links.values()) {
      const tunnel = this.#rtnl.link(ifindex)?.tunnel;
      if (!tunnel || familyOf(tunnel.remote) !== 6) continue;
      const local = this.#rtnl.tryRouteTo(tunnel.remote)?.source;
      if (!local || local === tunnel.local) continue;
      this.#rtnl.changeLink(ifindex, { tunnel: { kind: GRE[6].kind, ...tunnel, local } });
    }
  }

  removeLink(peer: NodeKey): void {
    const link = this.#link(peer);
    this.#links.delete(peer);
    if (link) this.#rtnl.deleteLink(link.ifindex);
    this.#extraPort(peer)?.[Symbol.dispose]();
    this.#dataPorts.delete(peer);
  }

  missingLinks(): NodeKey[] {
    return missing(this.#rtnl, this.#links);
  }

  counters(): Map<NodeKey, LinkCounters> {
    return countersOf(this.#rtnl, this.#links);
  }

  removeStrangers(peers: ReadonlySet<NodeKey>): void {
    for (const peer of [...this.#links.keys()]) if (!peers.has(peer)) this.removeLink(peer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.removeStrangers(new Set());
    this.#extra[Symbol.dispose]();
    for (const port of this.#ports) port[Symbol.dispose]();
    this.#fou[Symbol.dispose]();
    this.#rtnl[Symbol.dispose]();
  }

  /** The peer's link as the kernel has it now: somebody may have removed it. */
  #link(peer: NodeKey): Link | undefined {
    const known = this.#links.get(peer);
    return known && this.#rtnl.link(known.ifindex);
  }

  #createOrChange(known: Link | undefined, link: PeerLink, mtu: number): number {
    try {
      return known ? this.#change(known, link, mtu) : this.#create(link, mtu);
    } catch (error) {
      if (!link.keys && hasCode(error, "EEXIST")) throw remoteTaken(link.remote.ip, error);
      throw error;
    }
  }

  #create(link: PeerLink, mtu: number, name = this.#freeName(link.peer)): number {
    const ifindex = this.#rtnl.createLink({
      name,
      alias: this.#alias(link.peer),
      kind: GRE[familyOf(link.remote.ip)].kind,
      tunnel: this.#tunnel(link),
      mtu,
      up: true,
    });
    this.#links.set(link.peer, { ifindex, ifname: name });
    return ifindex;
  }

  #freeName(peer: NodeKey): string {
    return freeName(this.#rtnl, this.#options.ifnamePattern, otherNames(this.#links, peer));
  }

  #change(known: Link, link: PeerLink, mtu: number): number {
    const { kind } = GRE[familyOf(link.remote.ip)];
    if (known.kind !== kind) {
      // What was there is of no use, for the peer has left that path, too.
      this.removeLink(link.peer);
      return this.#create(link, mtu, known.name);
    }
    this.#rtnl.changeLink(known.ifindex, {
      alias: this.#alias(link.peer),
      tunnel: { kind, ...this.#tunnel(link) },
      mtu,
      up: true,
    });
    return known.ifindex;
  }

  #tunnel({ remote: { ip, port: dport }, localPort, keys }: PeerLink): Tunnel {
    const encap = { type: "fou", sport: localPort ?? this.#options.port, dport } as const;
    const tunnel = { remote: ip, ttl: TTL, pmtudisc: true, ...keys };
    if (familyOf(ip) === 4) {
      // Without `local` a changed address of this host needs no change of the link.
      return { ...tunnel, encap: { ...encap, csum: this.#hasChecksum(ip) } };
    }
    // The kernel sends nothing by a tunnel of IPv6 without `local` (ip6_tnl_get_cap).
    const local = this.#rtnl.tryRouteTo(ip)?.source;
    return { ...tunnel, ...(local ? { local } : {}), encap: { ...encap, csum: true } };
  }

  #hasChecksum(remote: Ip): boolean {
    const { encapCsum } = this.#options;
    return encapCsum === "auto" ? hasSafeChecksums(this.#rtnl, remote) : encapCsum === "on";
  }
}

/** One family's half of the port: the kernel's, for data, and the raw socket beside it. */
class OuterPort implements Disposable {
  readonly family: Family;
  readonly socket: RawUdpSocket;
  readonly #stack: DisposableStack;

  /** Throws what the kernel says, and `GretunError` when the port is somebody else's. */
  static open(
    family: Family,
    options: DataPlaneOptions,
    rtnl: RtNetlink,
    fou: Fou,
    poller: Poller,
  ): OuterPort {
    using stack = new DisposableStack();
    const { port, onDatagram, signalling } = options;
    tryTunnel(rtnl, { ...GRE[family], port });
    stack.use(openPort(rtnl, fou, port, family));
    const socket = stack.use(RawUdpSocket.open(port, poller, onDatagram, { family, signalling }));
    return new OuterPort(family, socket, stack.move());
  }

  private constructor(family: Family, socket: RawUdpSocket, stack: DisposableStack) {
    this.family = family;
    this.socket = socket;
    this.#stack = stack;
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

function familyOfKind(kind: string | undefined): Family | undefined {
  return ([4, 6] as const).find((family) => GRE[family].kind === kind);
}

/** Said by the kernel, of what it has; not by us, of a port that is taken. */
function isKernels(error: unknown): boolean {
  return [NoKernelPlaneError, NetlinkError, SystemError].some((kind) => error instanceof kind);
}

function openPort(rtnl: RtNetlink, fou: Fou, port: number, family: Family): Disposable {
  return openFouPort({ rtnl, fou }, { port, family, ipproto: IPPROTO_GRE }, "--fou-port");
}
