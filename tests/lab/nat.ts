/** A router between two segments: translates addresses of IPv4, and filters both families. */
import type { Cidr, Ip } from "../../lib/addr.ts";
import { type ChildProcesses, LabNode, type Space } from "../../lib/lab/mod.ts";
import { flushConntrack } from "./conntrack.ts";
import * as nft from "../../lib/nft/mod.ts";
import type { Addresses } from "./addresses.ts";
import { Host } from "./host.ts";
import {
  type EgressFirewall,
  firewallTable,
  IN,
  type NatBehaviour,
  natTable,
} from "./nat_table.ts";
import { type CableOptions, Segment, type SegmentPrefixes } from "./segment.ts";

export const FORWARD_IPV6 = "ipv6/conf/all/forwarding";

export interface NatSetup {
  name: string;
  space: Space;
  children: ChildProcesses;
  /** Its address on the outside. */
  ip: Ip;
  inside: SegmentPrefixes;
  behaviour: NatBehaviour;
  firewall: EgressFirewall;
}

export class Nat extends LabNode {
  /** The address that its hosts appear under. */
  readonly ip: Ip;
  /** The router as a host, whose own programs have that address. */
  readonly itself: Host;
  readonly #inside: Segment;

  constructor({ name, space, children, ip, inside, behaviour, firewall }: NatSetup) {
    super(name, space, children);
    this.ip = ip;
    this.itself = new Host(name, space, children, { ip4: ip });
    this.#inside = new Segment(space, IN, inside);
    this.#setTables(behaviour, firewall);
    space.forwardPackets();
    if (this.hasIpv6) space.writeSetting(FORWARD_IPV6, "1");
  }

  /**
   * As a restart does: all mappings and connections are forgotten. Those made from now on are
   * made as `behaviour` says.
   */
  restart(behaviour: NatBehaviour, firewall: EgressFirewall = {}): void {
    this.#setTables(behaviour, firewall);
    this.within(() => flushConntrack());
  }

  /** Private addresses of its hosts. */
  get prefix(): Cidr {
    return this.#inside.prefix;
  }

  get hasIpv6(): boolean {
    return this.#inside.hasIpv6;
  }

  /** Plugs a host, or another NAT's outside, into the inside. */
  attach(space: Space, port: string, ifname: string, options?: CableOptions): Addresses {
    return this.#inside.attach(space, port, ifname, options);
  }

  #setTables(behaviour: NatBehaviour, firewall: EgressFirewall): void {
    using tables = this.within(() => nft.Nft.open());
    tables.replaceTable(natTable({ behaviour, firewall, ip: this.ip, inside: this.prefix }));
    if (this.hasIpv6) tables.replaceTable(firewallTable(firewall));
  }
}
