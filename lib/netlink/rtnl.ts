/** rtnetlink as values: links, addresses and routes of one network namespace. */
import { formatCidr, type Ip } from "../addr.ts";
import { concatBytes } from "../bytes.ts";
import {
  decodeAddress,
  encodeAddress,
  type InterfaceAddress,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
} from "./addr.ts";
import {
  decodeIfindex,
  decodeLink,
  encodeIfInfo,
  encodeLinkChange,
  encodeLinkSpec,
  type Link,
  type LinkChange,
  type LinkSpec,
  type LinkStats,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  SKIP_STATS,
} from "./link.ts";
import {
  hasCode,
  NetlinkConnection,
  NetlinkError,
  type NetlinkTransport,
  NLM_F_CREATE,
  NLM_F_EXCL,
} from "./message.ts";
import {
  decodeRoute,
  encodeRoute,
  encodeRouteLookup,
  isMainUnicast,
  type Route,
  type RouteSender,
  RTM_DELROUTE,
  RTM_GETROUTE,
  RTM_NEWROUTE,
} from "./route.ts";
import { decodeRule, encodeRuleRequest, RTM_GETRULE, type Rule } from "./rule.ts";
import { decodeStatsMessage, encodeStatsRequest, RTM_GETSTATS } from "./stats.ts";
import { NETLINK_ROUTE, openNetlink } from "./transport.ts";

/**
 * Requests are synchronous: the kernel answers inside the sending call. Every method throws
 * {@link NetlinkError} with the kernel's reason.
 */
export class RtNetlink implements Disposable {
  readonly #connection: NetlinkConnection;

  /** In the network namespace of the calling thread, or over a fake kernel. */
  static open(transport: NetlinkTransport = openNetlink(NETLINK_ROUTE)): RtNetlink {
    return new RtNetlink(transport);
  }

  private constructor(transport: NetlinkTransport) {
    this.#connection = new NetlinkConnection(transport);
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }

  /** `skipStats` is faster, and leaves all counters at 0. */
  links(options: { skipStats?: boolean } = {}): Link[] {
    const payload = encodeLinkName(0, options);
    const dump = { type: RTM_GETLINK, payload, operation: "list links" };
    return this.#connection.dump(dump).map(({ payload }) => decodeLink(payload));
  }

  /** By ifindex; much cheaper than {@link links}. */
  linkStats(): Map<number, LinkStats> {
    const payload = encodeStatsRequest();
    const dump = { type: RTM_GETSTATS, payload, operation: "list link counters" };
    return new Map(
      this.#connection.dump(dump).map((message) => {
        const { ifindex, stats } = decodeStatsMessage(message.payload);
        return [ifindex, stats];
      }),
    );
  }

  /** Undefined when there is none. */
  link(nameOrIndex: string | number): Link | undefined {
    const payload = encodeLinkName(nameOrIndex);
    const operation = `look at link ${nameOrIndex}`;
    try {
      const [reply] = this.#connection.request({ type: RTM_GETLINK, payload, operation });
      return reply && decodeLink(reply.payload);
    } catch (error) {
      if (hasCode(error, "ENODEV")) return undefined;
      throw error;
    }
  }

  /** The new link's ifindex. A link that could only be made in part is removed again. */
  createLink({ alias, ...spec }: LinkSpec): number {
    this.#connection.request({
      type: RTM_NEWLINK,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      payload: encodeLinkSpec(spec),
      operation: `add link ${spec.name}`,
    });
    if (spec.netnsFd !== undefined) return 0;
    try {
      const ifindex = this.#ifindexOf(spec.name);
      // The kernel takes an alias only for a link that exists.
      if (alias !== undefined) this.changeLink(ifindex, { alias });
      return ifindex;
    } catch (error) {
      this.deleteLink(spec.name);
      throw error;
    }
  }

  /** Without a look at the rest, as links are made by the thousand. */
  #ifindexOf(name: string): number {
    const payload = encodeLinkName(name, { skipStats: true });
    const operation = `look at link ${name}`;
    const [reply] = this.#connection.request({ type: RTM_GETLINK, payload, operation });
    return decodeIfindex(reply!.payload);
  }

  changeLink(ifindex: number, change: LinkChange): void {
    const payload = encodeLinkChange(ifindex, change);
    this.#connection.request({ type: RTM_NEWLINK, payload, operation: `change link ${ifindex}` });
  }

  deleteLink(nameOrIndex: string | number): void {
    const payload = encodeLinkName(nameOrIndex);
    const operation = `delete link ${nameOrIndex}`;
    this.#connection.request({ type: RTM_DELLINK, payload, operation });
  }

  /**
   * All at once, as a group of a random number: the kernel waits for its other processors once and
   * not for each link. When it fails, all links are there, some of them in that group.
   */
  deleteLinks(ifindexes: readonly number[]): void {
    const group = crypto.getRandomValues(new Int32Array(1))[0]! >>> 1 | 0x40000000;
    for (const ifindex of ifindexes) this.changeLink(ifindex, { group });
    const payload = encodeLinkChange(0, { group });
    this.#connection.request({ type: RTM_DELLINK, payload, operation: "delete links" });
  }

  addresses(): InterfaceAddress[] {
    const payload = new Uint8Array(8); // any family, any interface
    return this.#connection.dump({ type: RTM_GETADDR, payload, operation: "list addresses" })
      .flatMap((message) => decodeAddress(message.payload) ?? []);
  }

  addAddress(address: InterfaceAddress): void {
    this.#connection.request({
      type: RTM_NEWADDR,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      payload: encodeAddress(address),
      operation: `add address ${address.local}/${address.prefixLength}`,
    });
  }

  deleteAddress(address: InterfaceAddress): void {
    const payload = encodeAddress(address);
    const operation = `delete address ${address.local}/${address.prefixLength}`;
    this.#connection.request({ type: RTM_DELADDR, payload, operation });
  }

  /** Of IPv4. */
  rules(): Rule[] {
    const payload = encodeRuleRequest();
    return this.#connection.dump({ type: RTM_GETRULE, payload, operation: "list rules" })
      .map((message) => decodeRule(message.payload));
  }

  /** Unicast routes of the main table, both families. */
  routes(): Route[] {
    const payload = new Uint8Array(12);
    return this.#connection.dump({ type: RTM_GETROUTE, payload, operation: "list routes" })
      .map((message) => decodeRoute(message.payload)).filter(isMainUnicast)
      .map(({ table: _, type: __, ...route }) => route);
  }

  addRoute(route: Route): void {
    this.#connection.request({
      type: RTM_NEWROUTE,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      payload: encodeRoute(route),
      operation: `add route ${formatCidr(route.destination)}`,
    });
  }

  deleteRoute(route: Route): void {
    const payload = encodeRoute(route);
    const operation = `delete route ${formatCidr(route.destination)}`;
    this.#connection.request({ type: RTM_DELROUTE, payload, operation });
  }

  /** The way that a packet to `ip` would take now. */
  routeTo(ip: Ip, sender?: RouteSender): Route {
    const payload = encodeRouteLookup(ip, sender);
    const operation = `find a route to ${ip}`;
    const [reply] = this.#connection.request({ type: RTM_GETROUTE, payload, operation });
    return decodeRoute(reply!.payload);
  }

  /** As {@link routeTo}; undefined where there is no way. */
  tryRouteTo(ip: Ip, sender?: RouteSender): Route | undefined {
    try {
      return this.routeTo(ip, sender);
    } catch (error) {
      // ENETUNREACH, or whatever a route that leads nowhere on purpose gives.
      if (error instanceof NetlinkError) return undefined;
      throw error;
    }
  }
}

function encodeLinkName(
  nameOrIndex: string | number,
  options: { skipStats?: boolean } = {},
): Uint8Array<ArrayBuffer> {
  const request = typeof nameOrIndex === "number"
    ? encodeIfInfo(nameOrIndex)
    : encodeLinkChange(0, { name: nameOrIndex });
  return options.skipStats ? concatBytes(request, SKIP_STATS) : request;
}
