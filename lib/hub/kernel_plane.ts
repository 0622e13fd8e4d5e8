/**
 * The kernel planes: GRE or IPIP over FOU. The kernel owns the UDP port and moves the data; a raw
 * socket beside it reads signalling. What a link needs is kept by the kernel: after a crash data
 * flows on, and the next start adopts the links.
 */
import { type Endpoint, type Ip, parseIp } from "../addr.ts";
import {
  ENCAPSULATIONS,
  type LinkState,
  openFou,
  tryTunnel,
  wantsChecksum,
} from "../dataplane/mod.ts";
import { errorText, GretunError } from "../errors.ts";
import type { Host, SignalPort } from "../host/mod.ts";
import {
  countersOf,
  formatMark,
  freeName,
  innerMtu,
  type LinkCounters,
  linksOf,
  missing,
  NO_INNER,
  openFouPort,
  otherNames,
  overheadBytes,
  setInner,
} from "../links/mod.ts";
import { type Signalling, SystemError } from "../linux/mod.ts";
import { type Fou, type Link, NetlinkError, type RtNetlink, type Tunnel } from "../netlink.ts";
import { innerOf } from "./addresses.ts";
import { AlternativeAddresses } from "./alternative.ts";
import { Fence } from "./fence.ts";
import type { HubLink, HubPlane, PlaneOptions } from "./plane.ts";
import { SourceFence } from "./source_fence.ts";

const TTL = 64;

const KINDS = {
  "gre-fou": { link: "gre", ipproto: 47 },
  "ipip-fou": { link: "ipip", ipproto: 4 },
} as const;

export interface KernelPlaneOptions extends PlaneOptions {
  kind: "gre-fou" | "ipip-fou";
  signalling: Signalling;
  /** Tokens that are authentication packets of their own, and may look like data. */
  tokens?: () => readonly Uint8Array[];
}

interface KernelLink {
  ifindex: number;
  ifname: string;
  endpoint: Endpoint;
  /** As it was set in this run. */
  link?: HubLink;
  /** Set where another link has the same remote address, with the address that the client sends to. */
  alternative?: Ip;
  own?: Ip;
}

export class KernelPlane implements HubPlane {
  readonly kind: "gre-fou" | "ipip-fou";
  readonly port: number;
  readonly #options: KernelPlaneOptions;
  readonly #host: Host;
  readonly #rtnl: RtNetlink;
  readonly #fou: Fou;
  readonly #raw: SignalPort;
  /** The kernel's port. */
  readonly #receiving: Disposable;
  readonly #links = new Map<string, KernelLink>();
  readonly #alternatives: AlternativeAddresses;
  readonly #fence: Fence | undefined;
  /** IPIP carries no IPv6. */
  #sourceFence: SourceFence | undefined;

  /** Throws `GretunError` when the kernel cannot do it, or when the port is somebody else's. */
  static open(options: KernelPlaneOptions, host: Host): KernelPlane {
    using stack = new DisposableStack();
    const rtnl = stack.use(host.openRtNetlink());
    const fou = stack.use(openFou(host));
    const { kind, port } = options;
    const { ipproto } = KINDS[kind];
    tryTunnel(host, rtnl, ENCAPSULATIONS[kind][4], port);
    const receiving = openFouPort({ rtnl, fou }, { ...place(options), ipproto }, "--port");
    stack.use(receiving);
    const rawOptions = {
      signalling: options.signalling,
      checksum: options.signalling.kind === "patterns",
      ...(options.bind ? { bind: options.bind } : {}),
    };
    const raw = stack.use(host.openRawUdp(port, rawOptions, options.onSignal));
    const plane = new KernelPlane(options, { host, rtnl, fou, raw, receiving });
    stack.move();
    return plane;
  }

  private constructor(
    options: KernelPlaneOptions,
    { host, rtnl, fou, raw, receiving }: {
      host: Host;
      rtnl: RtNetlink;
      fou: Fou;
      raw: SignalPort;
      receiving: Disposable;
    },
  ) {
    this.kind = options.kind;
    this.port = options.port;
    this.#options = options;
    this.#host = host;
    this.#rtnl = rtnl;
    this.#fou = fou;
    this.#raw = raw;
    this.#receiving = receiving;
    this.#alternatives = new AlternativeAddresses(rtnl);
    this.#takeOver();
    // A spoke has one far end, whose address the kernel looks at.
    if (options.owner === "hub") {
      this.#fence = new Fence(options, this.#links);
      if (options.kind === "gre-fou") this.#tryFence(() => this.#openSourceFence());
    }
  }

  #openSourceFence(): void {
    const ifindexes = [...this.#links].map(([name, { ifindex }]) => [name, ifindex] as const);
    this.#sourceFence = new SourceFence(this.port, ifindexes);
  }

  #takeOver(): void {
    const { owner, port } = this.#options;
    for (const { link, mark } of linksOf(this.#rtnl.links(), { role: owner, port })) {
      const name = mark.id;
      const { tunnel } = link;
      if (!tunnel?.encap) continue;
      if (link.kind !== KINDS[this.kind].link) {
        this.#rtnl.deleteLink(link.ifindex); // made by a run with the other plane
        continue;
      }
      const alternative = tunnel.local && this.#alternatives.adopt(tunnel.local);
      this.#links.set(name, {
        ifindex: link.ifindex,
        ifname: link.name,
        endpoint: { ip: tunnel.remote, port: tunnel.encap.dport },
        ...(alternative ? { alternative, own: this.#sourceTo(tunnel.remote) } : {}),
      });
    }
  }

  send(bytes: Uint8Array, to: Endpoint): void {
    this.#raw.send(bytes, to);
  }

  setLink(link: HubLink): LinkState {
    const overhead = overheadBytes({ kind: KINDS[this.kind].link, encap: "fou", key: true });
    const mtu = this.#options.mtu ?? innerMtu(this.#rtnl, link.endpoint.ip, overhead);
    const known = this.#link(link.name);
    const before = this.#links.get(link.name);
    const alternative = this.#alternativeFor(link);
    const place = {
      endpoint: link.endpoint,
      ...(alternative ? { alternative, own: this.#sourceTo(link.endpoint.ip) } : {}),
    };
    let ifindex: number | undefined;
    try {
      ifindex = known
        ? this.#change(known, link, mtu, alternative)
        : this.#create(link, mtu, alternative);
      const given = known ? before?.link && innerOf(before.link) : NO_INNER;
      setInner(this.#rtnl, ifindex, innerOf(link), given);
    } catch (error) {
      if (!known && ifindex !== undefined) this.#rtnl.deleteLink(ifindex);
      if (alternative && alternative !== before?.alternative) {
        this.#alternatives.release(alternative);
      }
      throw error;
    }
    if (before?.alternative && before.alternative !== alternative) {
      this.#alternatives.release(before.alternative);
    }
    const ifname = this.#rtnl.link(ifindex)!.name;
    const now = { ifindex, ifname, link, ...place };
    this.#links.set(link.name, now);
    this.#letIn(link.name, now);
    if (this.#fence) this.#checkSources(ifname);
    return { ifname, mtu };
  }

  /** Packets from inside whose source is not routed back into the same link are dropped. */
  #checkSources(ifname: string): void {
    try {
      this.#host.writeFile(`/proc/sys/net/ipv4/conf/${ifname}/rp_filter`, "1");
    } catch (error) {
      if (!(error instanceof SystemError)) throw error; // /proc is read-only in containers
    }
  }

  removeLink(name: string): void {
    const link = this.#link(name);
    const place = this.#links.get(name);
    this.#links.delete(name);
    if (link) this.#rtnl.deleteLink(link.ifindex);
    if (place?.alternative) this.#alternatives.release(place.alternative);
    this.#letIn(name, undefined);
  }

  refresh(): void {
    this.#tryFence(() => this.#fence?.refresh());
  }

  missingLinks(): string[] {
    return missing(this.#rtnl, this.#links);
  }

  counters(): Map<string, LinkCounters> {
    return countersOf(this.#rtnl, this.#links);
  }

  adopted(): { name: string; endpoint: Endpoint; ifname: string; mtu: number }[] {
    return [...this.#links].flatMap(([name, { endpoint }]) => {
      const link = this.#link(name);
      return link ? [{ name, endpoint, ifname: link.name, mtu: link.mtu }] : [];
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...this.#links.keys()]) this.removeLink(name);
    this.#fence?.[Symbol.dispose]();
    this.#sourceFence?.[Symbol.dispose]();
    this.#raw[Symbol.dispose]();
    this.#receiving[Symbol.dispose]();
    this.#fou[Symbol.dispose]();
    this.#rtnl[Symbol.dispose]();
  }

  /** The link as the kernel has it now: somebody may have removed it. */
  #link(name: string): Link | undefined {
    const known = this.#links.get(name);
    return known && this.#rtnl.link(known.ifindex);
  }

  #create(link: HubLink, mtu: number, alternative: Ip | undefined): number {
    const { owner, port, ifnamePattern } = this.#options;
    return this.#rtnl.createLink({
      name: freeName(this.#rtnl, ifnamePattern, otherNames(this.#links, link.name)),
      alias: formatMark({ by: owner, port, id: link.name }),
      kind: KINDS[this.kind].link,
      tunnel: this.#tunnel(link, alternative),
      mtu,
      up: true,
    });
  }

  #change(known: Link, link: HubLink, mtu: number, alternative: Ip | undefined): number {
    const tunnel = { kind: KINDS[this.kind].link, ...this.#tunnel(link, alternative) };
    this.#rtnl.changeLink(known.ifindex, { tunnel, mtu, up: true });
    return known.ifindex;
  }

  #tunnel({ endpoint, keys }: HubLink, alternative: Ip | undefined): Tunnel {
    const { port, encapCsum, bind } = this.#options;
    const csum = wantsChecksum(this.#host, this.#rtnl, encapCsum, endpoint.ip);
    const local = alternative ?? bind;
    return {
      ...(local ? { local } : {}),
      ...{ remote: endpoint.ip, ttl: TTL, pmtudisc: true },
      encap: { type: "fou", sport: port, dport: endpoint.port, csum },
      ...(this.kind === "gre-fou" ? keys : {}),
    };
  }

  /** IPIP knows links by their addresses only: the second to one address needs a local of its own. */
  #alternativeFor({ name, endpoint }: HubLink): Ip | undefined {
    if (this.kind !== "ipip-fou") return undefined;
    const own = this.#links.get(name);
    const others = [...this.#links].filter(([other, link]) =>
      other !== name && link.endpoint.ip === endpoint.ip
    );
    if (others.length === 0) return own?.alternative;
    // It keeps what it has as long as no other link there has the same.
    const isTaken = others.some(([, link]) => link.alternative === own?.alternative);
    return own && !isTaken ? own.alternative : this.#alternatives.take();
  }

  /** The link's client, from where it is now; undefined: it is gone. */
  #letIn(name: string, link: KernelLink | undefined): void {
    this.#tryFence(() => this.#fence?.set(name, link));
    this.#tryFence(() => this.#sourceFence?.set(name, link?.ifindex));
  }

  #tryFence(change: () => void): void {
    try {
      change();
    } catch (error) {
      this.#options.onFault("fence not set", error);
    }
  }

  /** The address that the far end sends to, as far as one can tell. */
  #sourceTo(remote: Ip): Ip {
    const { bind } = this.#options;
    return bind ?? this.#rtnl.routeTo(remote).source ?? parseIp("0.0.0.0");
  }
}

/** Where the port is: on all addresses for IPIP, whose links have local ones of their own. */
function place({ port, kind, bind }: KernelPlaneOptions) {
  return { port, family: 4, ...(bind && kind === "gre-fou" ? { local: bind } : {}) } as const;
}

/** The kernel plane whose port an earlier run left behind; undefined when there is none. */
export function leftKernelPlane(
  host: Host,
  port: number,
): "gre-fou" | "ipip-fou" | undefined {
  try {
    using fou = host.openFou();
    const ipproto = fou.ports().find((p) => p.port === port && p.family === 4)?.ipproto;
    return ipproto === 47 ? "gre-fou" : ipproto === 4 ? "ipip-fou" : undefined;
  } catch (error) {
    if (error instanceof NetlinkError) return undefined;
    throw new GretunError(`cannot look at FOU ports: ${errorText(error)}`, "Run as root");
  }
}
