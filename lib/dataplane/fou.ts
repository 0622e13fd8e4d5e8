/**
 * The kernel plane: GRE over FOU. The kernel owns the UDP port and moves the data; a raw socket
 * with a filter gets a copy of what is STUN or disco before the kernel's own demultiplexing, and
 * sends from the same port, so that one NAT mapping serves both (see the design in README.md).
 */
import type { Ip } from "../addr.ts";
import { GretunError } from "../errors.ts";
import type { NodeKey } from "../keys.ts";
import {
  Fou,
  type Link,
  loadModule,
  NetlinkError,
  type Poller,
  RawUdpSocket,
  RtNetlink,
  type Tunnel,
} from "../netlink.ts";
import {
  countersOf,
  freeName,
  hasSafeChecksums,
  linkMtu,
  missing,
  ownerAlias,
  ownerOf,
  setPointToPoint,
} from "./links.ts";
import type { DataPlane, DataPlaneOptions, LinkCounters, LinkState, PeerLink } from "./plane.ts";

const IPPROTO_GRE = 47;
const TTL = 64;
/** Of TEST-NET-1 (RFC 5737): no peer has it. */
const TEST_ADDRESS = "192.0.2.1" as Ip;

export class FouPlane implements DataPlane {
  readonly kind = "fou";
  readonly #options: DataPlaneOptions;
  readonly #rtnl: RtNetlink;
  readonly #fou: Fou;
  readonly #socket: RawUdpSocket;
  /** ifindex of each peer's link. */
  readonly #links = new Map<NodeKey, number>();

  /** Throws `GretunError` when the kernel cannot do it, or when the port is somebody else's. */
  static open(options: DataPlaneOptions, poller: Poller): FouPlane {
    using stack = new DisposableStack();
    const rtnl = stack.use(RtNetlink.open());
    const fou = stack.use(openFou());
    tryGreOverFou(rtnl, options);
    openPort(fou, options.port);
    stack.defer(() => fou.delete({ port: options.port, family: 4 }));
    const socket = stack.use(RawUdpSocket.open(options.port, poller, options.onDatagram));
    stack.move();
    return new FouPlane(options, rtnl, fou, socket);
  }

  private constructor(
    options: DataPlaneOptions,
    rtnl: RtNetlink,
    fou: Fou,
    socket: RawUdpSocket,
  ) {
    this.#options = options;
    this.#rtnl = rtnl;
    this.#fou = fou;
    this.#socket = socket;
    for (const link of rtnl.links()) {
      const peer = ownerOf(link, options.port);
      if (peer && link.kind === "gre") this.#links.set(peer, link.ifindex);
    }
  }

  readonly send: DataPlane["send"] = (bytes, to, ttl) => this.#socket.send(bytes, to, ttl);

  setLink(link: PeerLink): LinkState {
    const mtu = linkMtu(this.#rtnl, link);
    const known = this.#link(link.peer);
    const ifindex = known ? this.#change(known, link, mtu) : this.#create(link, mtu);
    try {
      setPointToPoint(this.#rtnl, ifindex, link.localIp, link.peerIp);
    } catch (error) {
      if (!known) this.removeLink(link.peer);
      throw error;
    }
    return { ifname: this.#rtnl.link(ifindex)!.name, mtu };
  }

  removeLink(peer: NodeKey): void {
    const link = this.#link(peer);
    this.#links.delete(peer);
    if (link) this.#rtnl.deleteLink(link.ifindex);
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
    this.#socket[Symbol.dispose]();
    this.#fou.delete({ port: this.#options.port, family: 4 });
    this.#fou[Symbol.dispose]();
    this.#rtnl[Symbol.dispose]();
  }

  /** The peer's link as the kernel has it now: somebody may have removed it. */
  #link(peer: NodeKey): Link | undefined {
    const ifindex = this.#links.get(peer);
    return ifindex === undefined ? undefined : this.#rtnl.link(ifindex);
  }

  #create(link: PeerLink, mtu: number): number {
    const taken = new Set(this.#rtnl.links().map(({ name }) => name));
    const ifindex = this.#rtnl.createLink({
      name: freeName(this.#options.ifnamePattern, taken),
      alias: ownerAlias(this.#options.port, link.peer),
      kind: "gre",
      tunnel: this.#tunnel(link),
      mtu,
      up: true,
    });
    this.#links.set(link.peer, ifindex);
    return ifindex;
  }

  #change(known: Link, link: PeerLink, mtu: number): number {
    this.#rtnl.changeLink(known.ifindex, {
      tunnel: { kind: "gre", ...this.#tunnel(link) },
      mtu,
      up: true,
    });
    return known.ifindex;
  }

  #tunnel({ remote, keys }: PeerLink): Tunnel {
    const { port, encapCsum } = this.#options;
    const csum = encapCsum === "auto"
      ? hasSafeChecksums(this.#rtnl, remote.ip)
      : encapCsum === "on";
    const encap = { type: "fou", sport: port, dport: remote.port, csum } as const;
    // Without `local` a changed address of this host needs no change of the link.
    return { remote: remote.ip, ttl: TTL, pmtudisc: true, encap, ...keys };
  }
}

/** A kernel without FOU, GRE or both, and no module of it that could be loaded. */
export class NoKernelPlaneError extends GretunError {
  override name = "NoKernelPlaneError";

  constructor(module: string, cause: unknown) {
    super(
      `kernel has no module ${module}`,
      `Run: modprobe ${module}; or use the user-space plane with --data-plane tun`,
      { cause },
    );
  }
}

function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof NetlinkError && codes.includes(error.code);
}

/** The kernel loads most modules on demand, but not this one. */
function openFou(): Fou {
  try {
    return Fou.open();
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
    if (!loadModule("fou")) throw new NoKernelPlaneError("fou", error);
    return Fou.open();
  }
}

/** Makes and removes a link: now is the time to find that the kernel cannot do it. */
function tryGreOverFou(rtnl: RtNetlink, { port, ifnamePattern }: DataPlaneOptions): void {
  const taken = new Set(rtnl.links().map(({ name }) => name));
  const encap = { type: "fou", sport: port, dport: port, csum: true } as const;
  const create = () =>
    rtnl.createLink({
      name: freeName(ifnamePattern, taken),
      kind: "gre",
      tunnel: { remote: TEST_ADDRESS, ttl: TTL, pmtudisc: true, encap },
    });
  try {
    rtnl.deleteLink(create());
  } catch (error) {
    // Another gretun up is trying the same thing now.
    if (hasCode(error, "EEXIST")) return;
    if (!hasCode(error, "EOPNOTSUPP")) throw error;
    if (!loadModule("ip_gre")) throw new NoKernelPlaneError("ip_gre", error);
    rtnl.deleteLink(create());
  }
}

/** Opens the kernel's receive port, or takes over the one that an earlier run left behind. */
function openPort(fou: Fou, port: number): void {
  try {
    fou.add({ port, ipproto: IPPROTO_GRE, type: "direct", family: 4 });
  } catch (error) {
    if (!(error instanceof NetlinkError) || error.code !== "EADDRINUSE") throw error;
    const left = fou.ports().find((p) => p.port === port && p.family === 4);
    if (left?.ipproto === IPPROTO_GRE && left.type === "direct") return;
    throw new GretunError(
      `cannot open UDP port ${port}: ${left ? "another FOU port" : "another program"} has it`,
      `Choose another one with --fou-port, or look with: ss -ulpn 'sport = :${port}'`,
      { cause: error },
    );
  }
}
