/**
 * The kernel plane: GRE or IPIP over FOU. The kernel owns the UDP port and moves the data; a raw
 * socket with a filter gets a copy of what is signalling before the kernel's own demultiplexing, and
 * sends from the same port, so that one NAT mapping serves both. IPv6 has a port, a raw socket and a
 * kind of link of its own. What a link needs is kept by the kernel: after a crash data flows on, and
 * the next start adopts the links.
 */
import { type Family, familyOf, type Ip, UNSPECIFIED_4 } from "../../addr.ts";
import { errorText, GretunError } from "../../errors.ts";
import {
  countersOf,
  type DaemonMark,
  formatMark,
  freeName,
  innerMtu,
  type KeptLink,
  type KeptState,
  type LinkCounters,
  LinkKeeper,
  linksOf,
  missing,
  NO_INNER,
  otherNames,
  overheadBytes,
  routeMtu,
  setInner,
  unlessNoWay,
} from "../../links/mod.ts";
import { SystemError } from "../../linux/mod.ts";
import { hasCode, type Link, NetlinkError, type Tunnel } from "../../netlink.ts";
import type { Access } from "../../policy/access.ts";
import { AccessGuard } from "../guard/access.ts";
import { AlternativeAddresses } from "../guard/alternative.ts";
import { KernelGuard } from "../guard/kernel_guard.ts";
import { OwnWays } from "../guard/own_ways.ts";
import { quieten } from "../guard/quieten.ts";
import type { Alternative, GuardedLink } from "../guard/rules.ts";
import type {
  AdoptedLink,
  DataPlane,
  ExtraPort,
  InnerLimits,
  LinkState,
  PlaneOptions,
  PlaneRefusal,
  PlaneWorld,
  WantedLink,
} from "../plane.ts";
import type { KernelPlaneKind } from "../kinds.ts";
import { remoteTaken } from "../remote_taken.ts";
import { needsInnerChecksum, wantsChecksum } from "./checksums.ts";
import { DataPorts } from "./data_ports.ts";
import {
  type Encapsulation,
  ENCAPSULATIONS,
  NoKernelPlaneError,
  openFou,
  tryTunnel,
  TTL,
} from "./encapsulation.ts";
import { type Kernel, KernelPort } from "./port.ts";

export interface KernelPlaneOptions extends PlaneOptions {
  kind: KernelPlaneKind;
  signalling: NonNullable<PlaneOptions["signalling"]>;
}

interface KernelLink extends GuardedLink {
  /** As it was set in this run. */
  wanted?: WantedLink;
  /** Inner checksums are filled in before packets are encapsulated. */
  isSummed?: boolean;
}

export class KernelPlane implements DataPlane {
  readonly kind: KernelPlaneKind;
  readonly port: number;
  readonly #options: KernelPlaneOptions;
  readonly #kernel: Kernel;
  readonly #ports: readonly KernelPort[];
  readonly #dataPorts: DataPorts;
  readonly #links = new Map<string, KernelLink>();
  readonly #adopted = new Map<string, AdoptedLink>();
  readonly #keeper: LinkKeeper;
  readonly #alternatives: AlternativeAddresses;
  readonly #guard: KernelGuard;
  readonly #access: AccessGuard;
  readonly #ways: OwnWays;
  readonly #stack: DisposableStack;

  /** Throws `GretunError` when the kernel cannot do it, or when the port is somebody else's. */
  static open(options: KernelPlaneOptions, world: PlaneWorld): KernelPlane {
    const { host, log } = world;
    using stack = new DisposableStack();
    const rtnl = stack.use(host.openRtNetlink());
    const fou = stack.use(openFou(host));
    const kernel = { host, rtnl, fou };
    const ports = wantedFamilies(options).flatMap((family, i) => {
      try {
        return [stack.use(openPort(kernel, options, family))];
      } catch (error) {
        if (i === 0 || !isKernels(error)) throw error;
        log.debug(`no IPv${family} outside`, { reason: errorText(error) });
        return [];
      }
    });
    const { ipproto } = ENCAPSULATIONS[options.kind][4];
    const dataPorts = stack.use(new DataPorts(kernel, { ...options, ipproto }));
    return new KernelPlane(options, kernel, { ports, dataPorts, world, stack: stack.move() });
  }

  private constructor(
    options: KernelPlaneOptions,
    kernel: Kernel,
    { ports, dataPorts, world, stack }: {
      ports: readonly KernelPort[];
      dataPorts: DataPorts;
      world: PlaneWorld;
      stack: DisposableStack;
    },
  ) {
    this.kind = options.kind;
    this.port = options.port;
    this.#options = options;
    this.#kernel = kernel;
    this.#ports = ports;
    this.#dataPorts = dataPorts;
    this.#keeper = stack.use(
      new LinkKeeper({ ...world, rtnl: kernel.rtnl, wanted: () => this.#kept() }),
    );
    this.#ways = new OwnWays(options.onFault);
    this.#alternatives = new AlternativeAddresses(kernel.rtnl);
    this.#access = stack.use(new AccessGuard(kernel.host, options));
    this.#takeOver();
    try {
      const isKeyed = ENCAPSULATIONS[options.kind][4].kind === "gre";
      const { onFault } = options;
      const guard = new KernelGuard(kernel.host, { ...options, isKeyed }, {
        links: this.#links,
        onFault,
      });
      this.#guard = stack.use(guard);
    } catch (error) {
      // Links would take anything from their far ends, and data from anywhere.
      stack.dispose();
      const message = `links of the kernel cannot be guarded: ${errorText(error)}`;
      throw new NoKernelPlaneError(message, "nf_tables", error);
    }
    this.#stack = stack;
  }

  get families(): Family[] {
    return this.#ports.map(({ family }) => family);
  }

  readonly send: DataPlane["send"] = (bytes, to, ttl) => {
    for (const port of this.#ports) port.send(bytes, to, ttl);
  };

  openPort(): ExtraPort {
    return this.#dataPorts.open();
  }

  // --- links of an earlier run

  #takeOver(): void {
    const { rtnl } = this.#kernel;
    for (const { link, mark } of linksOf(rtnl.links(), this.#options)) {
      const { tunnel } = link;
      if (!tunnel?.encap || this.#encapsulation(tunnel.remote)?.kind !== link.kind) {
        rtnl.deleteLink(link.ifindex); // made by a run with the other plane
        continue;
      }
      if (mark.extraPort !== undefined) this.#dataPorts.adopt(mark.id, mark.extraPort);
      this.#adopt(mark, link, { ...tunnel, encap: tunnel.encap });
    }
  }

  #adopt({ id, session }: DaemonMark, { ifindex, name, mtu }: Link, tunnel: WithEncap): void {
    const { remote: ip, local, encap: { sport, dport } } = tunnel;
    const remote = { ip, port: dport };
    this.#access.place(id, ifindex);
    const alternative = local && this.#alternatives.adopt(local);
    this.#links.set(id, {
      ...{ ifindex, ifname: name, remote },
      ...(tunnel.ikey === undefined ? {} : { ikey: tunnel.ikey }),
      ...(sport === this.port ? {} : { extraPort: sport }),
      ...(alternative ? { alternative: { local: alternative, own: this.#ownTo(ip) } } : {}),
    });
    const extraPort = this.#dataPorts.of(id);
    const key = tunnel.okey !== undefined;
    const pathMtu = mtu + overheadBytes({ kind: this.#encapsulation(ip)!.kind, encap: "fou", key });
    const found = { id, remote, ifname: name, mtu, pathMtu, ...(session ? { session } : {}) };
    if (extraPort?.port === sport) this.#adopted.set(id, { ...found, extraPort });
    else {
      // The link has gone elsewhere: the port was kept for a while.
      extraPort?.[Symbol.dispose]();
      if (sport === this.port) this.#adopted.set(id, found);
    }
  }

  allow(id: string, access: Access | undefined): void {
    this.#access.allow(id, access);
  }

  adopted(): AdoptedLink[] {
    return [...this.#adopted.values()];
  }

  confine(id: string, limits: InnerLimits): void {
    const known = this.#links.get(id);
    if (!known) return;
    const link = { ...known, ...limits };
    this.#links.set(id, link);
    this.#quieten(link.ifname, link);
    this.#try("guard not set", () => this.#guard.set(id, link));
  }

  // --- links

  setLink(link: WantedLink): LinkState {
    const { rtnl } = this.#kernel;
    const mtu = this.#mtu(link);
    const present = this.#present(link.id);
    if (link.localPort !== undefined) {
      this.#dataPorts.carry(link.id, link.localPort, () => {
        if (present) rtnl.changeLink(present.ifindex, { alias: this.#alias(link) });
      });
    }
    const before = this.#links.get(link.id);
    const alternative = this.#alternativeFor(link);
    let ifindex: number | undefined;
    let isSummed = false;
    try {
      ifindex = this.#createOrChange(present, link, { mtu, alternative });
      const isNew = ifindex !== present?.ifindex;
      isSummed = this.#sum(ifindex, link, isNew ? false : before?.isSummed);
      setInner(rtnl, ifindex, link, isNew ? NO_INNER : before?.wanted);
    } catch (error) {
      if (ifindex !== undefined && ifindex !== present?.ifindex) this.removeLink(link.id);
      if (alternative !== before?.alternative) this.#release(alternative);
      throw error;
    }
    if (alternative?.local !== before?.alternative?.local) this.#release(before?.alternative);
    const ifname = rtnl.link(ifindex)!.name;
    this.#note(link, { ifindex, ifname, alternative, isSummed });
    this.#dataPorts.sweep();
    return { ifname, mtu };
  }

  /** Links begin with checksums left open; `before` is not known of one of an earlier run. */
  #sum(ifindex: number, link: WantedLink, before: boolean | undefined): boolean {
    const { host, rtnl } = this.#kernel;
    const isSummed = needsInnerChecksum(host, rtnl, link);
    const { name } = rtnl.link(ifindex)!;
    if (isSummed !== before) {
      this.#try("inner checksums not set", () => host.setChecksumOffload(name, !isSummed));
    }
    return isSummed;
  }

  #note(wanted: WantedLink, { ifindex, ifname, alternative, isSummed }: {
    ifindex: number;
    ifname: string;
    alternative: Alternative | undefined;
    isSummed: boolean;
  }): void {
    const { id, remote, localPort: extraPort, keys, sources, destinations } = wanted;
    const link = {
      ...{ ifindex, ifname, remote, wanted, isSummed },
      ...(keys ? { ikey: keys.ikey } : {}),
      ...(extraPort === undefined ? {} : { extraPort }),
      ...(alternative ? { alternative } : {}),
      ...(sources ? { sources } : {}),
      ...(destinations ? { destinations } : {}),
    };
    this.#links.set(id, link);
    this.#adopted.delete(id);
    this.#try("guard not set", () => this.#guard.set(id, link));
  }

  /** IPIP knows links by their addresses only: the second to one address needs a local of its own. */
  #alternativeFor({ id, remote: { ip } }: WantedLink): Alternative | undefined {
    if (this.#encapsulation(ip)?.kind !== "ipip") return undefined;
    const local = this.#links.get(id)?.alternative?.local;
    // It keeps what it has, if only none, as long as no other link there has the same.
    const isTaken = [...this.#links].some(([other, { remote, alternative }]) =>
      other !== id && remote.ip === ip && alternative?.local === local
    );
    if (isTaken) return { local: this.#alternatives.take(), own: this.#ownTo(ip) };
    return local === undefined ? undefined : { local, own: this.#ownTo(ip) };
  }

  #release(alternative: Alternative | undefined): void {
    if (alternative) this.#alternatives.release(alternative.local);
  }

  /** The address that the far end sends to, as far as one can tell. */
  #ownTo(remote: Ip): Ip {
    return this.#options.bind ?? this.#kernel.rtnl.routeTo(remote).source ?? UNSPECIFIED_4;
  }

  #try<T>(what: string, change: () => T): T | undefined {
    try {
      return change();
    } catch (error) {
      this.#options.onFault(what, error);
      return undefined;
    }
  }

  #mtu({ remote: { ip }, keys, pathMtu }: WantedLink): number {
    const { kind } = this.#encapsulationTo(ip);
    const overhead = overheadBytes({ kind, encap: "fou", key: keys !== undefined });
    const way = { overheadBytes: overhead, pathMtu };
    return this.#options.mtu ?? innerMtu(this.#kernel.rtnl, ip, way);
  }

  routeMtu(id: string): number | undefined {
    const link = this.#links.get(id);
    return link && unlessNoWay(() => routeMtu(this.#kernel.rtnl, link.remote.ip));
  }

  #createOrChange(present: Link | undefined, link: WantedLink, how: Manner): number {
    try {
      return present ? this.#change(present, link, how) : this.#create(link, how);
    } catch (error) {
      if (!link.keys && hasCode(error, "EEXIST")) throw remoteTaken(link.remote.ip, error);
      throw error;
    }
  }

  #create(link: WantedLink, how: Manner, name = this.#freeName(link.id)): number {
    const ifindex = this.#kernel.rtnl.createLink({
      name,
      alias: this.#alias(link),
      kind: this.#encapsulationTo(link.remote.ip).kind,
      tunnel: this.#tunnel(link, how),
      mtu: how.mtu,
    });
    this.#links.set(link.id, { ifindex, ifname: name, remote: link.remote });
    this.#quieten(name, link);
    try {
      this.#access.place(link.id, ifindex);
      this.#kernel.rtnl.changeLink(ifindex, { up: true });
    } catch (error) {
      this.removeLink(link.id);
      throw error;
    }
    return ifindex;
  }

  #change(present: Link, link: WantedLink, how: Manner): number {
    const { rtnl } = this.#kernel;
    const { kind } = this.#encapsulationTo(link.remote.ip);
    if (present.kind !== kind) {
      // What was there is of no use, for the far end has left that path, too.
      rtnl.deleteLink(present.ifindex);
      return this.#create(link, how, present.name);
    }
    if (!this.#links.get(link.id)?.wanted) this.#quieten(present.name, link);
    const tunnel = { kind, ...this.#tunnel(link, how) };
    const alias = this.#alias(link);
    rtnl.changeLink(present.ifindex, { alias, tunnel, mtu: how.mtu, up: true });
    return present.ifindex;
  }

  #quieten(ifname: string, limits: InnerLimits): void {
    this.#try("link trusts its far end", () => quieten(this.#kernel.host, ifname, limits));
  }

  #freeName(id: string): string {
    const { ifnamePattern } = this.#options;
    return freeName(this.#kernel.rtnl, ifnamePattern, otherNames(this.#links, id));
  }

  /** Names the extra port for as long as it is open. */
  #alias({ id, session }: WantedLink): string {
    const extra = this.#dataPorts.of(id);
    const { role: by, port } = this.#options;
    return formatMark({
      ...{ by, port, id },
      ...(extra ? { extraPort: extra.port } : {}),
      ...(session ? { session } : {}),
    });
  }

  #tunnel(
    { remote: { ip, port: dport }, localPort: sport = this.port, keys }: WantedLink,
    { alternative }: Manner,
  ): Tunnel {
    const { host, rtnl } = this.#kernel;
    const csum = wantsChecksum(host, rtnl, this.#options.encapCsum, ip);
    const local = alternative?.local ?? this.#localTo(ip);
    return {
      ...(local ? { local } : {}),
      ...{ remote: ip, ttl: TTL, pmtudisc: true },
      encap: { type: "fou", sport, dport, csum },
      ...(keys ? { ikey: keys.ikey, okey: keys.okey } : {}),
    };
  }

  /**
   * Without one a changed address of this host needs no change of a link. But the kernel sends
   * nothing by a tunnel of IPv6 without it (ip6_tnl_get_cap).
   */
  #localTo(remote: Ip): Ip | undefined {
    const { bind } = this.#options;
    if (bind || familyOf(remote) === 4) return bind;
    return this.#kernel.rtnl.tryRouteTo(remote)?.source;
  }

  networkChanged(): void {
    const { rtnl } = this.#kernel;
    this.#ways.look(rtnl, this.#links);
    for (const { ifindex } of this.#links.values()) {
      const { kind, tunnel } = rtnl.link(ifindex) ?? {};
      if (kind !== "ip6gre" || !tunnel) continue;
      const local = this.#localTo(tunnel.remote);
      if (!local || local === tunnel.local) continue;
      rtnl.changeLink(ifindex, { tunnel: { kind, ...tunnel, local } });
    }
    this.#keeper.look();
  }

  #kept(): KeptLink[] {
    return [...this.#links.values()].flatMap(({ ifindex, ifname: name, wanted }) =>
      wanted ? [{ ifindex, state: this.#keptState(name, wanted) }] : []
    );
  }

  #keptState(name: string, wanted: WantedLink): KeptState {
    const { addresses, routes } = wanted;
    const mtu = unlessNoWay(() => this.#mtu(wanted));
    return { name, alias: this.#alias(wanted), addresses, routes, ...(mtu ? { mtu } : {}) };
  }

  refresh(): void {
    this.#try("guard not set", () => this.#guard.refresh());
  }

  refused(): Map<PlaneRefusal, number> {
    return new Map([...this.#guard.refused(), ...this.#access.refused()]);
  }

  removeLink(id: string): void {
    const present = this.#present(id);
    const alternative = this.#links.get(id)?.alternative;
    this.#links.delete(id);
    this.#adopted.delete(id);
    if (present) this.#kernel.rtnl.deleteLink(present.ifindex);
    this.#access.place(id, undefined);
    this.#dataPorts.close(id);
    this.#release(alternative);
    this.#try("guard not set", () => this.#guard.set(id, undefined));
  }

  missingLinks(): string[] {
    return missing(this.#kernel.rtnl, this.#links);
  }

  counters(): Map<string, LinkCounters> {
    return countersOf(this.#kernel.rtnl, this.#links);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#options.keepsLinks?.()) {
      this.#guard.release();
      this.#access.release();
    } else for (const id of [...this.#links.keys()]) this.removeLink(id);
    this.#stack.dispose();
  }

  /** The link as the kernel has it now: somebody may have removed it. */
  #present(id: string): Link | undefined {
    const known = this.#links.get(id);
    return known && this.#kernel.rtnl.link(known.ifindex);
  }

  #encapsulation(remote: Ip): Encapsulation | undefined {
    return ENCAPSULATIONS[this.kind][familyOf(remote)];
  }

  #encapsulationTo(remote: Ip): Encapsulation {
    const family = familyOf(remote);
    const found = this.families.includes(family) ? this.#encapsulation(remote) : undefined;
    if (found) return found;
    throw new GretunError(
      `cannot make a tunnel to ${remote}: this data plane has no IPv${family} outside`,
      "Use an address of the other family, or another data plane",
    );
  }
}

/** How a link is made. */
interface Manner {
  mtu: number;
  alternative: Alternative | undefined;
}

type WithEncap = Tunnel & { encap: NonNullable<Tunnel["encap"]> };

/** IPv4 first: without it there is no plane, unless an address says so. */
function wantedFamilies({ bind, kind }: KernelPlaneOptions): Family[] {
  if (bind) return [familyOf(bind)];
  return ENCAPSULATIONS[kind][6] ? [4, 6] : [4];
}

function openPort(kernel: Kernel, options: KernelPlaneOptions, family: Family): KernelPort {
  const encapsulation = ENCAPSULATIONS[options.kind][family];
  if (!encapsulation) {
    throw new GretunError(
      `${options.kind} has no IPv${family} outside`,
      "Give --bind an address of IPv4",
    );
  }
  const { host, rtnl } = kernel;
  tryTunnel(host, rtnl, encapsulation, options.port);
  return KernelPort.open(kernel, { ...options, family, ipproto: encapsulation.ipproto });
}

/** Said by the kernel, of what it has; not by us, of a port that is taken. */
function isKernels(error: unknown): boolean {
  return [NoKernelPlaneError, NetlinkError, SystemError].some((kind) => error instanceof kind);
}
