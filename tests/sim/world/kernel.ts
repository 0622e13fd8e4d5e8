/**
 * A kernel: links, addresses and routes as rtnetlink shows them, sockets, FOU ports, and the way of a
 * packet through all of that. Requests take and give values; what netlink's bytes are is tested
 * elsewhere, and would be most of the time that a simulation takes.
 */
import {
  type Cidr,
  cidrContains,
  type Endpoint,
  type Family,
  familyOf,
  formatCidr,
  type Ip,
  isLoopback,
  parseIp,
} from "../../../lib/addr.ts";
import { isSignalling, type RawUdpOptions, SystemError } from "../../../lib/linux/mod.ts";
import {
  type Fou,
  type FouPort,
  type InterfaceAddress,
  isTunnelKind,
  type Link,
  type LinkChange,
  type LinkSpec,
  type LinkStats,
  NetlinkError,
  type Route,
  type RouteSender,
  type RtNetlink,
  type Rule,
} from "../../../lib/netlink.ts";
import { decodeGre, encodeGre } from "../../gre.ts";
import { decodeIp, encodeIp, lengthOf, type Packet, type UdpPacket } from "./packet.ts";
import type { SimTime } from "./time.ts";

const ERRNO = {
  ENOENT: 2,
  EEXIST: 17,
  ENODEV: 19,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
};
const LOOPBACK_INDEX = 1;
const TTL = 64;
const GRE_MTU = 1476;
/** A tunnel inside of a tunnel inside of itself: the kernel ends that, too. */
const MAX_NESTING = 4;
const FIRST_FREE_PORT = 40_000;
/** From a change to the news of it, and from a local socket to another. */
const LOCAL_DELAY_MS = 0.05;

/** What a device is plugged into. */
export interface Wire {
  transmit(packet: Packet, nextHop: Ip): void;
}

interface SimLink {
  ifindex: number;
  name: string;
  kind?: string;
  alias?: string;
  mtu: number;
  up: boolean;
  master?: number;
  group?: number;
  stats: LinkStats;
  tunnel?: Link["tunnel"];
  wire?: Wire;
  /** Of TUN: the program's. */
  onPacket?: (bytes: Uint8Array) => void;
}

interface UdpListener {
  port: number;
  family: Family;
  bind?: Ip;
  onDatagram: (bytes: Uint8Array, from: Endpoint) => void;
}

interface RawListener {
  port: number;
  options: RawUdpOptions;
  onDatagram: (bytes: Uint8Array, from: Endpoint) => void;
}

interface Way {
  link: SimLink;
  source: Ip;
  nextHop: Ip;
  mtu: number | undefined;
  gateway: Ip | undefined;
  destination: Cidr;
}

const noStats = (): LinkStats => ({
  rxPackets: 0,
  txPackets: 0,
  rxBytes: 0,
  txBytes: 0,
  rxErrors: 0,
  txErrors: 0,
  rxDropped: 0,
  txDropped: 0,
});

export class SimKernel {
  marks: readonly number[] = [];
  readonly links = new Map<number, SimLink>();
  addresses: InterfaceAddress[] = [];
  readonly #unreachable = new Set<Ip>();
  /** Besides those that follow from addresses. */
  routes: Route[] = [];
  readonly fouPorts: FouPort[] = [];
  /** What the kernel can do. */
  hasFou = true;
  hasIpv6 = false;
  /** Drops packets, as this host's firewall would. */
  firewall: (packet: Packet, direction: "in" | "out") => boolean = () => false;
  readonly #time: SimTime;
  readonly #udp = new Set<UdpListener>();
  readonly #raw = new Set<RawListener>();
  readonly #watchers = new Set<() => void>();
  readonly #pings = new Map<number, () => void>();
  #isNewsDue = false;
  #nextIndex = LOOPBACK_INDEX;
  #nextPort = FIRST_FREE_PORT;
  #nextPing = 1;
  #nesting = 0;
  readonly #ways = new Map<Ip, Way | undefined>();

  constructor(time: SimTime) {
    this.#time = time;
    this.addDevice({ name: "lo", mtu: 65_536 });
    this.addAddress(LOOPBACK_INDEX, parseIp("127.0.0.1"), 8);
  }

  // --- as an administrator changes it

  addDevice(device: { name: string; mtu?: number; kind?: string; wire?: Wire; up?: boolean }) {
    const ifindex = this.#nextIndex++;
    this.links.set(ifindex, { mtu: 1500, up: true, stats: noStats(), ...device, ifindex });
    this.#changed();
    return ifindex;
  }

  ifindex(name: string): number {
    for (const link of this.links.values()) if (link.name === name) return link.ifindex;
    throw new Error(`no link ${name}`);
  }

  addAddress(ifindex: number, local: Ip, prefixLength: number): void {
    this.#addAddress({ ifindex, local, prefixLength });
  }

  removeAddress(local: Ip): void {
    this.addresses = this.addresses.filter((address) => address.local !== local);
    this.#changed();
  }

  /** As `ip rule` with a table in which that address cannot be reached. */
  /** Rules lead packets with that mark nowhere. */
  setMarks(marks: readonly number[]): void {
    this.marks = marks;
    this.#changed();
  }

  addRule(ip: Ip): void {
    this.#unreachable.add(ip);
    this.#changed();
  }

  removeRule(ip: Ip): void {
    this.#unreachable.delete(ip);
    this.#changed();
  }

  setUp(name: string, up: boolean): void {
    this.#setUp(this.links.get(this.ifindex(name))!, up);
  }

  removeLink(name: string): void {
    this.#removeLink(this.ifindex(name));
  }

  isLocal(ip: Ip): boolean {
    return isLoopback(ip) ||
      this.addresses.some(({ local, ifindex }) => local === ip && this.links.get(ifindex)!.up);
  }

  watch(onChange: () => void): Disposable {
    this.#watchers.add(onChange);
    return { [Symbol.dispose]: () => void this.#watchers.delete(onChange) };
  }

  #changed(): void {
    this.#ways.clear();
    if (this.#isNewsDue) return;
    this.#isNewsDue = true;
    this.#time.after(LOCAL_DELAY_MS, () => {
      this.#isNewsDue = false;
      for (const onChange of [...this.#watchers]) onChange();
    });
  }

  #addAddress(address: InterfaceAddress): void {
    this.addresses.push(address);
    this.#changed();
  }

  /** A link that goes down loses its routes. */
  #setUp(link: SimLink, up: boolean): void {
    if (link.up === up) return;
    link.up = up;
    if (!up) this.routes = this.routes.filter(({ device }) => device !== link.ifindex);
    this.#changed();
  }

  #removeLink(ifindex: number): void {
    this.links.delete(ifindex);
    this.addresses = this.addresses.filter((address) => address.ifindex !== ifindex);
    this.routes = this.routes.filter(({ device }) => device !== ifindex);
    this.#changed();
  }

  // --- routes

  /** Those that follow from addresses. */
  #connected(): Route[] {
    return this.addresses.flatMap(({ ifindex, local, peer, prefixLength }) => {
      if (!this.links.get(ifindex)?.up || ifindex === LOOPBACK_INDEX) return [];
      const destination = { ip: peer ?? local, prefixLength };
      return [{ destination, device: ifindex, source: local }];
    });
  }

  #way(ip: Ip): Way | undefined {
    if (!this.#ways.has(ip)) this.#ways.set(ip, this.#findWay(ip));
    return this.#ways.get(ip);
  }

  #findWay(ip: Ip): Way | undefined {
    const { links } = this;
    if (this.isLocal(ip)) {
      const source = isLoopback(ip) ? parseIp("127.0.0.1") : ip;
      const destination = { ip, prefixLength: familyOf(ip) === 4 ? 32 : 128 };
      const link = links.get(LOOPBACK_INDEX)!;
      return { link, source, nextHop: ip, mtu: undefined, gateway: undefined, destination };
    }
    if (this.#unreachable.has(ip)) return undefined;
    let best: Route | undefined;
    for (const route of [...this.#connected(), ...this.routes]) {
      if (!cidrContains(route.destination, ip) || !links.get(route.device ?? 0)?.up) continue;
      if (!best || route.destination.prefixLength > best.destination.prefixLength) best = route;
    }
    if (!best) return undefined;
    const source = best.source ?? this.#sourceOn(best.device!, best.gateway ?? ip);
    if (!source) return undefined;
    const { device, gateway, mtu, destination } = best;
    return { link: links.get(device!)!, source, nextHop: gateway ?? ip, mtu, gateway, destination };
  }

  #sourceOn(ifindex: number, towards: Ip): Ip | undefined {
    const own = this.addresses.filter((address) =>
      address.ifindex === ifindex && familyOf(address.local) === familyOf(towards)
    );
    const near = own.find(({ local, peer, prefixLength }) =>
      cidrContains({ ip: peer ?? local, prefixLength }, towards)
    );
    return (near ?? own[0])?.local;
  }

  /** This host's address on the way there. */
  sourceTo(ip: Ip): Ip | undefined {
    return this.#way(ip)?.source;
  }

  /** The device and the next hop on the way there. */
  wayTo(ip: Ip): { device: string; source: Ip; nextHop: Ip; wire: Wire | undefined } | undefined {
    const way = this.#way(ip);
    if (!way) return undefined;
    const { link: { name, wire }, source, nextHop } = way;
    return { device: name, source, nextHop, wire };
  }

  // --- packets that go out

  sendUdp(
    port: number,
    bytes: Uint8Array,
    to: Endpoint,
    options: { ttl?: number; bind?: Ip } = {},
  ) {
    const source = options.bind ?? this.#way(to.ip)?.source;
    if (!source) return;
    const from = { ip: source, port };
    this.#send({ kind: "udp", from, to, ttl: options.ttl ?? TTL, bytes: bytes.slice() });
  }

  /** Resolves with the round trip in ms; undefined when nothing came back in time. */
  ping(ip: Ip, { timeoutMs = 1_000, size = 56 } = {}): Promise<number | undefined> {
    const startMs = this.#time.nowMs;
    const id = this.#nextPing++;
    return new Promise((resolve) => {
      const end = (rttMs: number | undefined) => {
        this.#pings.delete(id);
        timer[Symbol.dispose]();
        resolve(rttMs);
      };
      const timer = this.#time.after(timeoutMs, () => end(undefined));
      this.#pings.set(id, () => end(this.#time.nowMs - startMs));
      const source = this.#way(ip)?.source;
      if (!source) return;
      const [from, to] = [{ ip: source }, { ip }];
      this.#send({ kind: "echo", from, to, ttl: TTL, isReply: false, id, size });
    });
  }

  #send(packet: Packet): void {
    const way = this.#way(packet.to.ip);
    if (!way || this.firewall(packet, "out")) return;
    const { link } = way;
    if (link.ifindex === LOOPBACK_INDEX) {
      this.#time.after(LOCAL_DELAY_MS, () => this.#take(packet));
      return;
    }
    if (lengthOf(packet) > Math.min(link.mtu, way.mtu ?? Infinity)) return;
    link.stats.txPackets++;
    link.stats.txBytes += lengthOf(packet);
    if (link.wire) link.wire.transmit(packet, way.nextHop);
    else if (link.onPacket) link.onPacket(encodeIp(packet));
    else if (link.tunnel) this.#encapsulate(link, encodeIp(packet));
  }

  #encapsulate({ tunnel }: SimLink, inner: Uint8Array): void {
    const { remote, okey, encap, local } = tunnel!;
    const bytes = encodeGre(inner, okey);
    const source = local ?? this.#way(remote)?.source;
    if (!bytes || !encap || !source || this.#nesting >= MAX_NESTING) return;
    this.#nesting++;
    const from = { ip: source, port: encap.sport };
    this.#send({ kind: "udp", from, to: { ip: remote, port: encap.dport }, ttl: TTL, bytes });
    this.#nesting--;
  }

  // --- packets that come in

  /** From a wire. */
  receive(packet: Packet): void {
    if (this.isLocal(packet.to.ip)) this.#take(packet);
  }

  /** From the program of a TUN device. */
  write(ifindex: number, bytes: Uint8Array): boolean {
    const link = this.links.get(ifindex);
    if (!link?.up) return false;
    this.#takeInner(link, bytes);
    return true;
  }

  #take(packet: Packet): void {
    if (this.firewall(packet, "in")) return;
    if (packet.kind === "udp") return this.#takeUdp(packet);
    if (packet.isReply) return this.#pings.get(packet.id)?.();
    this.#send({ ...packet, from: packet.to, to: packet.from, isReply: true, ttl: TTL });
  }

  #takeUdp({ from, to, bytes }: UdpPacket): void {
    const family = familyOf(to.ip);
    for (const { port, options, onDatagram } of [...this.#raw]) {
      if (port !== to.port || (options.family ?? 4) !== family) continue;
      if (options.bind && options.bind !== to.ip) continue;
      if (!options.signalling || isSignalling(options.signalling, bytes)) onDatagram(bytes, from);
    }
    if (this.fouPorts.some((fou) => fou.port === to.port && fou.family === family)) {
      return this.#decapsulate(from.ip, bytes);
    }
    const listeners = [...this.#udp].filter((other) =>
      other.port === to.port && other.family === family
    );
    const listener = listeners.find(({ bind }) => bind === to.ip) ??
      listeners.find(({ bind }) => bind === undefined);
    listener?.onDatagram(bytes, from);
  }

  #decapsulate(source: Ip, bytes: Uint8Array): void {
    const packet = decodeGre(bytes);
    if (!packet) return;
    for (const link of this.links.values()) {
      const { tunnel } = link;
      if (!tunnel?.encap || !link.up) continue;
      if (tunnel.remote === source && tunnel.ikey === packet.key) {
        return this.#takeInner(link, packet.inner);
      }
    }
  }

  #takeInner(link: SimLink, bytes: Uint8Array): void {
    link.stats.rxPackets++;
    link.stats.rxBytes += bytes.length;
    const packet = decodeIp(bytes);
    if (packet && this.isLocal(packet.to.ip)) this.#take(packet);
  }

  // --- sockets

  listenUdp(
    { port: wanted, bind, family = 4 }: { port: number; bind?: Ip; family?: Family },
    onDatagram: UdpListener["onDatagram"],
  ): UdpListener & Disposable {
    if (family === 6 && !this.hasIpv6) throw new SystemError("socket", ERRNO.EAFNOSUPPORT);
    const port = wanted || this.#freePort();
    const isTaken = this.fouPorts.some((fou) => fou.port === port) ||
      [...this.#udp].some((other) =>
        other.port === port && other.bind === bind && other.family === family
      );
    if (isTaken) throw new SystemError("bind", ERRNO.EADDRINUSE);
    const listener = { port, family, ...(bind ? { bind } : {}), onDatagram };
    this.#udp.add(listener);
    return Object.assign(listener, {
      [Symbol.dispose]: () => void this.#udp.delete(listener),
    });
  }

  #freePort(): number {
    this.#nextPort = this.#nextPort >= 60_999 ? FIRST_FREE_PORT : this.#nextPort + 1;
    return this.#nextPort;
  }

  listenRaw(listener: RawListener): Disposable {
    this.#raw.add(listener);
    return { [Symbol.dispose]: () => void this.#raw.delete(listener) };
  }

  /** A TUN device, which is down at first and ends with its program. */
  openTun(name: string, onPacket: (bytes: Uint8Array) => void): number {
    const ifindex = this.addDevice({ name, kind: "tun", up: false });
    this.links.get(ifindex)!.onPacket = onPacket;
    return ifindex;
  }

  /** The process that had them was killed: its sockets and TUN devices are gone, its links stay. */
  closeSockets(): void {
    this.#udp.clear();
    this.#raw.clear();
    this.#watchers.clear();
    for (const link of [...this.links.values()]) if (link.onPacket) this.#removeLink(link.ifindex);
  }

  // --- netlink

  openRtNetlink(): RtNetlink {
    return new KernelRequests(this) as Pick<RtNetlink, keyof RtNetlink> as RtNetlink;
  }

  openFou(): Fou {
    if (!this.hasFou) throw new NetlinkError("find the kernel's fou", ERRNO.ENOENT);
    const same = (a: Partial<FouPort>, b: Partial<FouPort>) =>
      a.port === b.port && a.family === b.family;
    const requests: Pick<Fou, keyof Fou> = {
      ports: () => [...this.fouPorts],
      add: (port) => {
        if (port.family === 6 && !this.hasIpv6) {
          throw new NetlinkError(`open FOU port ${port.port}`, ERRNO.EOPNOTSUPP);
        }
        const isTaken = this.fouPorts.some((other) => same(other, port)) ||
          [...this.#udp].some((other) => other.port === port.port);
        if (isTaken) throw new NetlinkError(`open FOU port ${port.port}`, ERRNO.EADDRINUSE);
        this.fouPorts.push(port);
      },
      delete: (port) => {
        const index = this.fouPorts.findIndex((other) => same(other, port));
        if (index < 0) throw new NetlinkError(`close FOU port ${port.port}`, ERRNO.ENOENT);
        this.fouPorts.splice(index, 1);
      },
      [Symbol.dispose]() {},
    };
    return requests as Fou;
  }

  /** What rtnetlink asks of the kernel. */
  readonly requests = {
    links: (): Link[] => [...this.links.values()].map(shown),
    link: (nameOrIndex: string | number): Link | undefined => {
      const link = this.#find(nameOrIndex);
      return link && shown(link);
    },
    create: (spec: LinkSpec): number => this.#create(spec),
    change: (ifindex: number, change: LinkChange): void => this.#change(ifindex, change),
    remove: (nameOrIndex: string | number): void => {
      const link = this.#find(nameOrIndex);
      if (!link) throw new NetlinkError(`delete link ${nameOrIndex}`, ERRNO.ENODEV);
      this.#removeLink(link.ifindex);
    },
    addAddress: (address: InterfaceAddress): void => {
      const operation = `add address ${address.local}/${address.prefixLength}`;
      if (!this.links.has(address.ifindex)) throw new NetlinkError(operation, ERRNO.ENODEV);
      const isThere = this.addresses.some((other) => sameAddress(other, address));
      if (isThere) throw new NetlinkError(operation, ERRNO.EEXIST);
      this.#addAddress(address);
    },
    deleteAddress: (address: InterfaceAddress): void => {
      const kept = this.addresses.filter((other) => !sameAddress(other, address));
      if (kept.length === this.addresses.length) {
        throw new NetlinkError(`delete address ${address.local}`, ERRNO.EADDRNOTAVAIL);
      }
      this.addresses = kept;
      this.#changed();
    },
    routes: (): Route[] => [...this.#connected(), ...this.routes],
    addRoute: (route: Route): void => {
      const operation = `add route ${formatCidr(route.destination)}`;
      const link = this.links.get(route.device ?? 0);
      if (!link) throw new NetlinkError(operation, ERRNO.ENODEV);
      if (!link.up) throw new NetlinkError(operation, ERRNO.ENETDOWN);
      if (this.routes.some((other) => sameRoute(other, route))) {
        throw new NetlinkError(operation, ERRNO.EEXIST);
      }
      this.routes.push(route);
      this.#changed();
    },
    deleteRoute: (route: Route): void => {
      const kept = this.routes.filter((other) => !sameRoute(other, route));
      if (kept.length === this.routes.length) {
        throw new NetlinkError(`delete route ${formatCidr(route.destination)}`, ERRNO.ENOENT);
      }
      this.routes = kept;
      this.#changed();
    },
    routeTo: (ip: Ip): Route => {
      const way = this.#way(ip);
      if (!way) throw new NetlinkError(`find a route to ${ip}`, ERRNO.ENETUNREACH);
      const { link, source, gateway, mtu } = way;
      const destination = { ip, prefixLength: familyOf(ip) === 4 ? 32 : 128 };
      const more = { ...(gateway ? { gateway } : {}), ...(mtu ? { mtu } : {}) };
      return { destination, device: link.ifindex, source, ...more };
    },
  };

  #find(nameOrIndex: string | number): SimLink | undefined {
    if (typeof nameOrIndex === "number") return this.links.get(nameOrIndex);
    return [...this.links.values()].find(({ name }) => name === nameOrIndex);
  }

  #create(spec: LinkSpec): number {
    const operation = `add link ${spec.name}`;
    if (this.#find(spec.name)) throw new NetlinkError(operation, ERRNO.EEXIST);
    const { name, alias, kind, mtu, up = false } = spec;
    const tunnel = "tunnel" in spec ? spec.tunnel : undefined;
    if (tunnel) this.#checkTunnel(operation, kind, tunnel, undefined);
    const ifindex = this.addDevice({ name, kind, mtu: mtu ?? (tunnel ? GRE_MTU : 1500), up });
    Object.assign(this.links.get(ifindex)!, {
      ...(alias === undefined ? {} : { alias }),
      ...(tunnel ? { tunnel } : {}),
    });
    return ifindex;
  }

  /** Tunnels of one kind are told apart by their addresses and keys. */
  #checkTunnel(
    operation: string,
    kind: string,
    tunnel: NonNullable<Link["tunnel"]>,
    own: number | undefined,
  ): void {
    const family: Family = familyOf(tunnel.remote);
    const isKnown = isTunnelKind(kind) && (family === 4 || this.hasIpv6);
    if (!isKnown) throw new NetlinkError(operation, ERRNO.EOPNOTSUPP);
    const place = ({ local, remote, ikey }: NonNullable<Link["tunnel"]>) =>
      [local, remote, ikey].join();
    for (const link of this.links.values()) {
      if (link.ifindex === own || link.kind !== kind || !link.tunnel) continue;
      if (place(link.tunnel) === place(tunnel)) throw new NetlinkError(operation, ERRNO.EEXIST);
    }
  }

  #change(ifindex: number, change: LinkChange): void {
    const operation = `change link ${ifindex}`;
    const link = this.links.get(ifindex);
    if (!link) throw new NetlinkError(operation, ERRNO.ENODEV);
    const { name, alias, mtu, up, master, group, tunnel } = change;
    if (tunnel) {
      const { kind, ...settings } = tunnel;
      this.#checkTunnel(operation, kind, settings, ifindex);
      link.tunnel = settings;
    }
    if (name !== undefined) link.name = name;
    if (alias !== undefined) link.alias = alias;
    if (mtu !== undefined) link.mtu = mtu;
    if (master !== undefined) link.master = master;
    if (group !== undefined) link.group = group;
    if (up !== undefined) this.#setUp(link, up);
    this.#changed();
  }
}

/** rtnetlink, without its bytes. */
class KernelRequests implements Pick<RtNetlink, keyof RtNetlink> {
  readonly #kernel: SimKernel;

  constructor(kernel: SimKernel) {
    this.#kernel = kernel;
  }

  [Symbol.dispose](): void {}

  links(): Link[] {
    return this.#kernel.requests.links();
  }

  linkStats(): Map<number, LinkStats> {
    return new Map([...this.#kernel.links.values()].map(({ ifindex, stats }) => [ifindex, stats]));
  }

  link(nameOrIndex: string | number): Link | undefined {
    return this.#kernel.requests.link(nameOrIndex);
  }

  createLink(spec: LinkSpec): number {
    return this.#kernel.requests.create(spec);
  }

  changeLink(ifindex: number, change: LinkChange): void {
    this.#kernel.requests.change(ifindex, change);
  }

  deleteLink(nameOrIndex: string | number): void {
    this.#kernel.requests.remove(nameOrIndex);
  }

  deleteLinks(ifindexes: readonly number[]): void {
    for (const ifindex of ifindexes) this.deleteLink(ifindex);
  }

  addresses(): InterfaceAddress[] {
    return [...this.#kernel.addresses];
  }

  addAddress(address: InterfaceAddress): void {
    this.#kernel.requests.addAddress(address);
  }

  deleteAddress(address: InterfaceAddress): void {
    this.#kernel.requests.deleteAddress(address);
  }

  routes(): Route[] {
    return this.#kernel.requests.routes();
  }

  addRoute(route: Route): void {
    this.#kernel.requests.addRoute(route);
  }

  deleteRoute(route: Route): void {
    this.#kernel.requests.deleteRoute(route);
  }

  rules(): Rule[] {
    return this.#kernel.marks.map((mark) => ({ mark, isInverted: false }));
  }

  routeTo(ip: Ip): Route {
    return this.#kernel.requests.routeTo(ip);
  }

  tryRouteTo(ip: Ip, { mark }: RouteSender = {}): Route | undefined {
    if (mark !== undefined && this.#kernel.marks.includes(mark)) return undefined;
    try {
      return this.routeTo(ip);
    } catch (error) {
      if (error instanceof NetlinkError) return undefined;
      throw error;
    }
  }
}

function shown(link: SimLink): Link {
  const { ifindex, name, alias, kind, mtu, up, master, stats, tunnel } = link;
  return {
    ifindex,
    name,
    mtu,
    up,
    running: up,
    stats: { ...stats },
    ...(alias ? { alias } : {}),
    ...(kind ? { kind } : {}),
    ...(master ? { master } : {}),
    ...(tunnel ? { tunnel } : {}),
  };
}

function sameAddress(a: InterfaceAddress, b: InterfaceAddress): boolean {
  return a.ifindex === b.ifindex && a.local === b.local && a.peer === b.peer &&
    a.prefixLength === b.prefixLength;
}

function sameRoute(a: Route, b: Route): boolean {
  return formatCidr(a.destination) === formatCidr(b.destination) && a.device === b.device;
}
