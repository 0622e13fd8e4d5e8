/**
 * A kernel with links, addresses, routes and FOU ports, as rtnetlink and the fou family show them:
 * a link takes its addresses and routes with it, a route needs a link that is up, a module has to
 * be there. Any request can be made to fail.
 */
import { ipBytes } from "../../lib/addr.ts";
import { Reader, toHex, Writer } from "../../lib/bytes.ts";
import { network } from "../../lib/links/mod.ts";
import { Fou, RtNetlink } from "../../lib/netlink.ts";
import { type Attr, attr, decodeAttrs, encodeAttrs, value } from "../../lib/netlink/attr.ts";
import { decodeAddress } from "../../lib/netlink/addr.ts";
import { RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK } from "../../lib/netlink/link.ts";
import { encodeRoute } from "../../lib/netlink/route.ts";
import {
  type NetlinkReply,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_MULTI,
} from "../../lib/netlink/message.ts";
import { decodeTunnel, isTunnelKind } from "../../lib/netlink/tunnel_link.ts";
import type { TunnelHost } from "../../lib/tunnel/mod.ts";
import { openFou } from "../../lib/tunnel/host.ts";
import { ack, done, FakeTransport, reply } from "./kernel.ts";
import { memoryLocks } from "./locks.ts";

const RTM = { NEWADDR: 20, DELADDR: 21, GETADDR: 22, NEWROUTE: 24, DELROUTE: 25, GETROUTE: 26 };
const [RTM_NEWSTATS, RTM_GETSTATS] = [92, 94];
const IFLA_STATS_LINK_64 = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINKINFO = 18;
const [IFLA_INFO_KIND, IFLA_INFO_DATA] = [1, 2];
const IFLA_GROUP = 27;
const RTA_OIF = 4;
const RTA_DST = 1;
const RTA_PREFSRC = 7;
const IFF_UP = 1;
const GENL_ID_CTRL = 16;
const FOU_FAMILY = 29;
const FOU_CMD = { ADD: 1, DEL: 2, GET: 3 };
export const ERRNO = {
  ENOENT: 2,
  ESRCH: 3,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
};
/** Of whoever holds a lock. */
export const DAEMON_PID = 4711;
const MODULES: Record<string, string> = {
  ...{ gre: "ip_gre", gretap: "ip_gre", ipip: "ipip", sit: "sit" },
  ...{ ip6gre: "ip6_gre", ip6gretap: "ip6_gre", ip6tnl: "ip6_tunnel" },
};

interface FakeLink {
  flags: number;
  attrs: Map<number, Uint8Array>;
}

type Answer = Uint8Array[];

export class TunnelKernel {
  /** By ifindex: loopback and the uplink are there. */
  readonly links = new Map<number, FakeLink>();
  addresses: Uint8Array[] = [];
  routes: Uint8Array[] = [];
  ports: Map<number, Uint8Array>[] = [];
  readonly modules = new Set<string>();
  /** What modprobe would find. */
  loadable = new Set([...Object.values(MODULES), "fou", "fou6"]);
  /** UDP ports of programs, by number. */
  readonly programs = new Map<number, string>();
  readonly locks = memoryLocks(DAEMON_PID);
  /** Packets that went through a link, by its name. */
  readonly traffic = new Map<string, { rxPackets: number; txPackets: number }>();
  hasRoute = true;
  /** The ifindex of the device of every route to other hosts. */
  uplink = 2;
  /** What packets to other hosts leave with, by address family of `struct rtmsg`. */
  readonly sources = new Map<number, Uint8Array>();
  requests = 0;
  /** The number of the request that fails, from 1, and how. */
  failAt: { request: number; errno: number } | undefined;
  #nextIndex = 1;

  constructor({ mtu = 1500 } = {}) {
    this.#addDevice("lo", 65536);
    this.#addDevice("eth0", mtu);
  }

  /** Everything that a user could see of it. */
  snapshot(): unknown {
    const attrs = (map: Map<number, Uint8Array>) => [...map].map(([k, v]) => `${k}=${toHex(v)}`);
    return {
      links: [...this.links].map(([i, link]) => [i, link.flags, ...attrs(link.attrs)]),
      addresses: this.addresses.map(toHex),
      routes: this.routes.map(toHex),
      ports: this.ports.map(attrs),
    };
  }

  openRtNetlink(): RtNetlink {
    return RtNetlink.open(new FakeTransport((r) => this.#answer(r, () => this.#route(r))));
  }

  openFou(): Fou {
    return Fou.open(new FakeTransport((r) => this.#answer(r, () => this.#generic(r))));
  }

  open(): TunnelHost {
    const rtnl = this.openRtNetlink();
    return {
      rtnl,
      fou: () => openFou(() => this.openFou()),
      loadedModules: () => this.modules,
      loadModule: (name) => {
        if (this.loadable.has(name)) this.modules.add(name);
        return this.loadable.has(name);
      },
      udpPortOwner: (port) => this.programs.get(port),
      locks: this.locks,
      [Symbol.dispose]: () => rtnl[Symbol.dispose](),
    };
  }

  #addDevice(name: string, mtu: number): void {
    this.#add(IFF_UP, [attr.string(IFLA_IFNAME, name), attr.u32(IFLA_MTU, mtu)]);
  }

  /** A TUN device, as a program makes one: down. */
  addTun(name: string): void {
    const info = attr.nested(IFLA_LINKINFO, [attr.string(IFLA_INFO_KIND, "tun")]);
    this.#add(0, [attr.string(IFLA_IFNAME, name), attr.u32(IFLA_MTU, 1500), info]);
  }

  #add(flags: number, attrs: Attr[]): void {
    const values = new Map(attrs.map(({ type, value }) => [type, value]));
    this.links.set(this.#nextIndex++, { flags, attrs: values });
  }

  /** As somebody else, or the end of the program that has it, removes a link. */
  removeLink(name: string): void {
    const isIt = (link: FakeLink) => value.string(link.attrs.get(IFLA_IFNAME)) === name;
    for (const [ifindex, link] of this.links) if (isIt(link)) this.#deleteLink(ifindex);
  }

  #answer(request: NetlinkReply, act: () => Answer | number): Answer {
    this.requests++;
    if (this.failAt?.request === this.requests) {
      return [ack(request, { errno: this.failAt.errno })];
    }
    const answer = act();
    return typeof answer === "number" ? [ack(request, { errno: answer })] : answer;
  }

  #route(request: NetlinkReply): Answer | number {
    const isDump = (request.flags & NLM_F_DUMP) === NLM_F_DUMP;
    switch (request.type) {
      case RTM_NEWLINK:
      case RTM_DELLINK:
      case RTM_GETLINK:
        return isDump && request.type === RTM_GETLINK
          ? this.#dumpLinks(request)
          : this.#link(request);
      case RTM.NEWADDR:
        if (this.addresses.some((bytes) => toHex(bytes) === toHex(request.payload))) {
          return ERRNO.EEXIST;
        }
        this.addresses.push(request.payload);
        this.#addRouteOf(request.payload);
        return [ack(request)];
      case RTM.DELADDR:
        return this.#deleteAddress(request);
      case RTM_GETSTATS:
        return this.#dump(
          request,
          RTM_NEWSTATS,
          [...this.links].map(([ifindex, { attrs }]) =>
            new Writer("host").u32(0).u32(ifindex).u32(1)
              .bytes(encodeAttrs([{ type: IFLA_STATS_LINK_64, value: this.#stats(attrs) }]))
              .finish()
          ),
        );
      case RTM.GETADDR:
        return this.#dump(request, RTM.NEWADDR, this.addresses);
      case RTM.NEWROUTE:
        return this.#addRoute(request);
      case RTM.DELROUTE:
        return this.#deleteRoute(request);
      case RTM.GETROUTE:
        return isDump ? this.#dump(request, RTM.NEWROUTE, this.routes) : this.#lookUp(request);
      default:
        return ERRNO.EOPNOTSUPP;
    }
  }

  /** `struct rtnl_link_stats64`, as far as anybody looks. */
  #stats(attrs: Map<number, Uint8Array>): Uint8Array {
    const traffic = this.traffic.get(value.string(attrs.get(IFLA_IFNAME)) ?? "");
    const { rxPackets = 0, txPackets = 0 } = traffic ?? {};
    const counts = new Writer("host").u64(BigInt(rxPackets)).u64(BigInt(txPackets));
    return counts.bytes(new Uint8Array(48)).finish();
  }

  #dump(request: NetlinkReply, type: number, payloads: Uint8Array[]): Answer {
    const parts = payloads.map((payload) => reply(request, { type, flags: NLM_F_MULTI, payload }));
    return [...parts, done(request)];
  }

  #dumpLinks(request: NetlinkReply): Answer {
    return this.#dump(
      request,
      RTM_NEWLINK,
      [...this.links].map(([i, link]) => encodeLink(i, link)),
    );
  }

  #link(request: NetlinkReply): Answer | number {
    const reader = new Reader(request.payload, "host").skip(4);
    const [index, flags, change] = [reader.i32(), reader.u32(), reader.u32()];
    const attrs = decodeAttrs(reader.bytes());
    const name = value.string(attrs.get(IFLA_IFNAME));
    const group = attrs.get(IFLA_GROUP);
    if (request.type === RTM_DELLINK && index === 0 && group) {
      const inGroup = [...this.links].filter(([, l]) => same(l.attrs.get(IFLA_GROUP), group));
      for (const [ifindex] of inGroup) this.#deleteLink(ifindex);
      return inGroup.length > 0 ? [ack(request)] : ERRNO.ENODEV;
    }
    const found = [...this.links].find(([i, l]) =>
      index ? i === index : value.string(l.attrs.get(IFLA_IFNAME)) === name
    );
    if (request.type === RTM_NEWLINK && request.flags & NLM_F_CREATE) {
      if (found) return ERRNO.EEXIST;
      const kind = value.string(decodeAttrs(attrs.get(IFLA_LINKINFO)!).get(1))!;
      if (!this.modules.has(MODULES[kind] ?? "")) return ERRNO.EOPNOTSUPP;
      if (this.#isTaken(undefined, attrs)) return ERRNO.EEXIST;
      this.links.set(this.#nextIndex++, { flags: flags & change, attrs });
      return [ack(request)];
    }
    if (!found) return ERRNO.ENODEV;
    const [ifindex, link] = found;
    if (request.type === RTM_GETLINK) {
      return [
        reply(request, { type: RTM_NEWLINK, payload: encodeLink(ifindex, link) }),
        ack(request),
      ];
    }
    if (request.type === RTM_DELLINK) this.#deleteLink(ifindex);
    else if (attrs.has(IFLA_LINKINFO) && this.#isTaken(ifindex, attrs)) return ERRNO.EEXIST;
    else {
      const wasUp = (link.flags & IFF_UP) !== 0;
      link.flags = (link.flags & ~change) | (flags & change);
      this.#upOrDown(ifindex, wasUp, (link.flags & IFF_UP) !== 0);
      for (const [type, bytes] of attrs) link.attrs.set(type, bytes);
    }
    return [ack(request)];
  }

  /** Tunnels of one kind are told apart by their addresses and keys. */
  #isTaken(own: number | undefined, attrs: Map<number, Uint8Array>): boolean {
    const placeOf = (attrs: Map<number, Uint8Array>) => {
      const info = decodeAttrs(attrs.get(IFLA_LINKINFO) ?? new Uint8Array());
      const [kind, data] = [value.string(info.get(IFLA_INFO_KIND)), info.get(IFLA_INFO_DATA)];
      if (!isTunnelKind(kind) || !data) return undefined;
      const { local, remote, ikey } = decodeTunnel(kind, data);
      return [kind, local, remote, ikey].join(" ");
    };
    const place = placeOf(attrs);
    return place !== undefined &&
      [...this.links].some(([i, link]) => i !== own && placeOf(link.attrs) === place);
  }

  #deleteLink(ifindex: number): void {
    this.links.delete(ifindex);
    this.addresses = this.addresses.filter((bytes) => indexOfAddress(bytes) !== ifindex);
    this.routes = this.routes.filter((bytes) => indexOfRoute(bytes) !== ifindex);
  }

  /** A link that goes down loses its routes; those of its addresses come back with it. */
  #upOrDown(ifindex: number, wasUp: boolean, isUp: boolean): void {
    if (wasUp && !isUp) {
      this.routes = this.routes.filter((bytes) => indexOfRoute(bytes) !== ifindex);
    } else if (!wasUp && isUp) {
      const own = this.addresses.filter((bytes) => indexOfAddress(bytes) === ifindex);
      for (const address of own) this.#addRouteOf(address);
    }
  }

  #addRouteOf(address: Uint8Array): void {
    const route = routeOf(address);
    const isUp = ((this.links.get(indexOfAddress(address))?.flags ?? 0) & IFF_UP) !== 0;
    if (route && isUp) this.routes.push(route);
  }

  #deleteRoute(request: NetlinkReply): Answer | number {
    const kept = this.routes.filter((bytes) =>
      indexOfRoute(bytes) !== indexOfRoute(request.payload) ||
      destinationOf(bytes) !== destinationOf(request.payload)
    );
    if (kept.length === this.routes.length) return ERRNO.ESRCH;
    this.routes = kept;
    return [ack(request)];
  }

  #deleteAddress(request: NetlinkReply): Answer | number {
    const key = (bytes: Uint8Array) => {
      const { ifindex, local, peer, prefixLength } = decodeAddress(bytes)!;
      return [ifindex, local, peer, prefixLength].join(" ");
    };
    const kept = this.addresses.filter((bytes) => key(bytes) !== key(request.payload));
    if (kept.length === this.addresses.length) return ERRNO.EADDRNOTAVAIL;
    this.addresses = kept;
    const route = routeOf(request.payload);
    const isIt = (bytes: Uint8Array) => route && toHex(bytes) === toHex(route);
    this.routes = this.routes.filter((bytes) => !isIt(bytes));
    return [ack(request)];
  }

  #addRoute(request: NetlinkReply): Answer | number {
    const link = this.links.get(indexOfRoute(request.payload));
    if (!link) return ERRNO.ENODEV;
    if (!(link.flags & IFF_UP)) return ERRNO.ENETDOWN;
    if (this.routes.some((bytes) => destinationOf(bytes) === destinationOf(request.payload))) {
      return ERRNO.EEXIST;
    }
    this.routes.push(request.payload);
    return [ack(request)];
  }

  #lookUp(request: NetlinkReply): Answer | number {
    if (!this.hasRoute) return ERRNO.ENETUNREACH;
    const source = this.sources.get(request.payload[0]!);
    const attrs = encodeAttrs([
      attr.u32(RTA_OIF, this.uplink),
      ...(source ? [attr.bytes(RTA_PREFSRC, source)] : []),
    ]);
    const payload = new Writer("host").bytes(request.payload.subarray(0, 12)).bytes(attrs).finish();
    return [reply(request, { type: RTM.NEWROUTE, payload }), ack(request)];
  }

  #generic(request: NetlinkReply): Answer | number {
    if (request.type === GENL_ID_CTRL) {
      if (!this.modules.has("fou")) return ERRNO.ENOENT;
      const payload = new Writer("host").zeros(4).bytes(encodeAttrs([attr.u16(1, FOU_FAMILY)]));
      return [reply(request, { payload: payload.finish() }), ack(request)];
    }
    const command = request.payload[0];
    const attrs = decodeAttrs(request.payload.subarray(4));
    const index = this.ports.findIndex((p) => [1, 2].every((t) => same(p.get(t), attrs.get(t))));
    if (command === FOU_CMD.GET) return this.#dumpPorts(request);
    if (command === FOU_CMD.DEL) {
      if (index < 0) return ERRNO.ENOENT;
      this.ports.splice(index, 1);
      return [ack(request)];
    }
    const port = value.be16(attrs.get(1))!;
    if (index >= 0 || this.programs.has(port)) return ERRNO.EADDRINUSE;
    this.ports.push(attrs);
    return [ack(request)];
  }

  #dumpPorts(request: NetlinkReply): Answer {
    const payloads = this.ports.map((port) =>
      new Writer("host").zeros(4).bytes(encodeMap(port)).finish()
    );
    return this.#dump(request, FOU_FAMILY, payloads);
  }
}

const hexOf = (bytes: Uint8Array | undefined) => bytes && toHex(bytes);
const same = (a: Uint8Array | undefined, b: Uint8Array | undefined) => hexOf(a) === hexOf(b);

const encodeMap = (attrs: Map<number, Uint8Array>) =>
  encodeAttrs([...attrs].map(([type, value]) => ({ type, value })));

function encodeLink(ifindex: number, { flags, attrs }: FakeLink): Uint8Array {
  return new Writer("host").zeros(4).i32(ifindex).u32(flags).u32(0).bytes(encodeMap(attrs))
    .finish();
}

const indexOfAddress = (payload: Uint8Array) => new Reader(payload, "host").skip(4).u32();
const routeAttrs = (payload: Uint8Array) => decodeAttrs(payload.subarray(12));
const indexOfRoute = (payload: Uint8Array) => value.u32(routeAttrs(payload).get(RTA_OIF)) ?? 0;
const destinationOf = (payload: Uint8Array) =>
  `${payload[1]} ${hexOf(routeAttrs(payload).get(RTA_DST))}`;

/** The route that the kernel adds with an address. */
function routeOf(payload: Uint8Array): Uint8Array | undefined {
  const { ifindex: device, local, peer, prefixLength } = decodeAddress(payload)!;
  if (peer === undefined && prefixLength === ipBytes(local).length * 8) return undefined;
  const destination = network({ ip: peer ?? local, prefixLength });
  return encodeRoute({ destination, device, source: local });
}
