/** A router with network address translation between two segments. */
import type { Cidr, Ip } from "../addr.ts";
import { GretunError } from "../errors.ts";
import { nft } from "../netlink.ts";
import { LabNode } from "./host.ts";
import { IN, type NatMapping, natTable } from "./nat_table.ts";
import type { ChildProcesses } from "./processes.ts";
import { Segment } from "./segment.ts";
import type { Space } from "./space.ts";

export interface NatSetup {
  name: string;
  space: Space;
  children: ChildProcesses;
  /** Its address on the outside. */
  ip: Ip;
  /** The inside. */
  prefix: Cidr;
  mapping: NatMapping;
  blockUdp: boolean;
}

export class Nat extends LabNode {
  /** The address that its hosts appear under. */
  readonly ip: Ip;
  readonly mapping: NatMapping;
  readonly #inside: Segment;
  readonly #blockUdp: boolean;
  #coneHost: Ip | undefined;

  constructor({ name, space, children, ip, prefix, mapping, blockUdp }: NatSetup) {
    super(name, space, children);
    this.ip = ip;
    this.mapping = mapping;
    this.#blockUdp = blockUdp;
    this.#inside = new Segment(space, IN, prefix);
    this.#applyTable();
    space.forwardPackets();
  }

  /** Private addresses of its hosts. */
  get prefix(): Cidr {
    return this.#inside.prefix;
  }

  /** Plugs a host, or another NAT's outside, into the inside. */
  attach(space: Space, port: string, ifname: string): Ip {
    if (this.#coneHost) {
      throw new GretunError(
        `cannot put ${port} behind ${this.name}: a full cone leads to one host`,
        "Give the host a NAT of its own, or choose another mapping",
      );
    }
    const ip = this.#inside.attach(space, port, ifname);
    if (this.mapping === "full-cone") {
      this.#coneHost = ip;
      this.#applyTable();
    }
    return ip;
  }

  #applyTable(): void {
    using tables = this.space.within(() => nft.Nft.open());
    tables.replaceTable(natTable({
      mapping: this.mapping,
      blockUdp: this.#blockUdp,
      ...(this.#coneHost ? { coneHost: this.#coneHost } : {}),
    }));
  }
}
