/** A switched network: a bridge in the namespace of its gateway, and who is plugged into it. */
import { type Cidr, ipBytes } from "../../lib/addr.ts";
import {
  type Addresses,
  AddressPool,
  DEFAULT_DESTINATION,
  DEFAULT_DESTINATION_6,
  type Families,
  halves,
} from "./addresses.ts";
import type { Space } from "../../lib/lab/mod.ts";

const ETHERNET_MTU = 1500;

/** Locally administered: the first two bytes of an address. */
const LOCAL_MAC = [0x02, 0x00];

export interface SegmentPrefixes {
  prefix: Cidr;
  /** Without it, everybody has IPv4 alone. */
  prefix6?: Cidr;
}

export interface CableOptions {
  families?: Families;
  /**
   * Larger packets disappear, both ways, and nobody is told: a path MTU black hole. Those that the
   * sender's kernel leaves to the network card to cut pass all the same.
   */
  mtu?: number;
}

export interface SegmentOptions extends SegmentPrefixes {
  /** IPv4 goes by the gateway from one to the other too; otherwise straight. */
  isRouted?: boolean;
}

export class Segment {
  readonly prefix: Cidr;
  readonly hasIpv6: boolean;
  /** The first addresses of the prefixes, and everybody's default routes. */
  readonly #gateway: Addresses;
  readonly #isRouted: boolean;
  readonly #space: Space;
  readonly #bridge: number;
  readonly #pool: AddressPool;
  readonly #pool6: AddressPool | undefined;

  /** Makes the bridge `name` in `space`. */
  constructor(space: Space, name: string, { prefix, prefix6, isRouted = false }: SegmentOptions) {
    this.prefix = prefix;
    this.#isRouted = isRouted;
    this.hasIpv6 = prefix6 !== undefined;
    this.#space = space;
    this.#pool = new AddressPool(prefix);
    this.#pool6 = prefix6 && new AddressPool(prefix6);
    this.#gateway = this.#takeAddresses("dual");
    // One that it was not given follows its ports, and neighbours would not hear of the new one.
    const macAddress = new Uint8Array([...LOCAL_MAC, ...ipBytes(this.#gateway.ip4!)]);
    this.#bridge = space.rtnl.createLink({ name, kind: "bridge", macAddress });
    // A bridge takes the least MTU of its ports for its own until it has been given another one.
    for (const mtu of [ETHERNET_MTU - 1, ETHERNET_MTU]) {
      space.rtnl.changeLink(this.#bridge, { mtu });
    }
    this.#configure(space, name, this.#gateway);
  }

  /** Joins `space` by a cable: `port` on the bridge, `ifname` at the other end. */
  attach(space: Space, port: string, ifname: string, options: CableOptions = {}): Addresses {
    const addresses = this.#takeAddresses(options.families ?? "ipv4");
    const ifindex = this.plug(space, port, ifname);
    if (options.mtu !== undefined) this.#space.rtnl.changeLink(ifindex, { mtu: options.mtu });
    this.#configure(space, ifname, addresses);
    const { ip4, ip6 } = this.#gateway;
    if (addresses.ip4 && ip4) {
      const around = this.#isRouted ? halves(this.prefix) : [];
      for (const destination of [...around, DEFAULT_DESTINATION]) {
        space.route(destination, { gateway: ip4, ifname });
      }
    }
    if (addresses.ip6 && ip6) space.route(DEFAULT_DESTINATION_6, { gateway: ip6, ifname });
    return addresses;
  }

  /** The cable alone; gives the ifindex of the port. */
  plug(space: Space, port: string, ifname: string): number {
    return this.#space.rtnl.createLink({
      name: port,
      kind: "veth",
      peerName: ifname,
      peerNetnsFd: space.netns.fd,
      master: this.#bridge,
      up: true,
    });
  }

  #takeAddresses(families: Families): Addresses {
    return {
      ...(families === "ipv6" ? {} : { ip4: this.#pool.take() }),
      ...(families === "ipv4" || !this.#pool6 ? {} : { ip6: this.#pool6.take() }),
    };
  }

  #configure(space: Space, ifname: string, { ip4, ip6 }: Addresses): void {
    if (ip4) space.addAddress(ifname, ip4, this.prefix.prefixLength);
    if (ip6) space.addAddress(ifname, ip6, this.#pool6!.prefix.prefixLength);
    space.bringUp(ifname);
  }
}
