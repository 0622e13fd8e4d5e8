/** A host of the lab, which can be moved from one network to another. */
import type { Ip } from "../../lib/addr.ts";
import { type ChildProcesses, LabNode, type Space } from "../../lib/lab/mod.ts";
import { type Addresses, UPLINK } from "./addresses.ts";

/** What a cable can be plugged into. */
interface Network {
  attach(space: Space, port: string, ifname: string): Addresses;
}

export class Host extends LabNode {
  #addresses: Addresses;

  constructor(name: string, space: Space, children: ChildProcesses, addresses: Addresses) {
    super(name, space, children);
    this.#addresses = addresses;
  }

  /** Of IPv4 if it has one. */
  get ip(): Ip {
    return (this.#addresses.ip4 ?? this.#addresses.ip6)!;
  }

  get ip6(): Ip | undefined {
    return this.#addresses.ip6;
  }

  /** Pulls its cable and plugs it in behind another NAT, where it has another address. */
  moveTo(behind: Network): void {
    this.space.rtnl.deleteLink(this.space.ifindex(UPLINK));
    this.#addresses = behind.attach(this.space, this.name, UPLINK);
  }
}
