/** A switched network: a bridge in the namespace of its gateway, and who is plugged into it. */
import type { Cidr, Ip } from "../addr.ts";
import { AddressPool } from "./addresses.ts";
import type { Space } from "./space.ts";

export class Segment {
  readonly prefix: Cidr;
  /** The first address of the prefix, and everybody's default route. */
  readonly gateway: Ip;
  readonly #space: Space;
  readonly #bridge: number;
  readonly #pool: AddressPool;

  /** Makes the bridge `name` in `space`. */
  constructor(space: Space, name: string, prefix: Cidr) {
    this.prefix = prefix;
    this.#space = space;
    this.#pool = new AddressPool(prefix);
    this.gateway = this.#pool.take();
    this.#bridge = space.rtnl.createLink({ name, kind: "bridge" });
    space.configure(name, this.gateway, prefix.prefixLength);
  }

  /** Joins `space` by a cable: `port` on the bridge, `ifname` at the other end. Gives its address. */
  attach(space: Space, port: string, ifname: string): Ip {
    const ip = this.#pool.take();
    this.#space.rtnl.createLink({
      name: port,
      kind: "veth",
      peerName: ifname,
      peerNetnsFd: space.netns.fd,
      master: this.#bridge,
      up: true,
    });
    space.configure(ifname, ip, this.prefix.prefixLength, this.gateway);
    return ip;
  }
}
