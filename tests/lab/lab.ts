/** The lab: who is there, how they are joined, and how all of it goes away again. */
import { type Cidr, type Ip, parseCidr } from "../../lib/addr.ts";
import { type Clock, systemClock } from "../../lib/edges.ts";
import { errorText, GretunError } from "../../lib/errors.ts";
import { ChildProcesses, endProcesses, LabNode, namedNetnses, Space } from "../../lib/lab/mod.ts";
import { deleteNamedNetns, Poller } from "../../lib/linux/mod.ts";
import {
  type Addresses,
  AddressPool,
  DEFAULT_DESTINATION,
  DISTANT_PREFIX,
  type Families,
  ipv6Prefix,
  PUBLIC_PREFIX,
  UPLINK,
} from "./addresses.ts";
import { addBackbone, BACKBONE_NAMES } from "./backbone.ts";
import { delayedLink, type LineQuality } from "./delay.ts";
import { Host } from "./host.ts";
import { FORWARD_IPV6, Nat } from "./nat.ts";
import { type EgressFirewall, IN, type NatBehaviour, OUT } from "./nat_table.ts";
import { Segment } from "./segment.ts";

const INTERNET = "internet";
/** Interfaces are named after hosts, so a host cannot have the name of another interface. */
const SPACES = [INTERNET, ...BACKBONE_NAMES];
const RESERVED_NAMES = [...SPACES, "up", "down", "lo", "all", "default", IN, OUT, UPLINK];

export interface LabOptions {
  /** Namespaces are named with it; a lab is the only one with its prefix. */
  prefix: string;
  /** The public network has it as well, as 2001:db8::/32. The kernel needs it then. */
  ipv6?: boolean;
  clock?: Clock;
}

/** How a host or router is joined to the internet. */
export interface UplinkOptions extends LineQuality {
  /** Larger packets disappear without a word. Not on a line with delay or loss. */
  mtu?: number;
}

export interface PublicHostOptions extends UplinkOptions {
  /** "ipv4" unless told. */
  families?: Families;
}

export interface NatOptions extends NatBehaviour {
  uplink?: UplinkOptions;
  /** The NAT in front of this one; the internet unless told. */
  behind?: Nat;
  /** Private addresses of its hosts; 10.0.N.0/24 unless told. */
  prefix?: Cidr;
  /** What it lets out; everything unless told. */
  firewall?: EgressFirewall;
  /** Its hosts may have public addresses of IPv6, behind a stateful firewall. */
  ipv6?: boolean;
}

export interface HostOptions {
  behind: Nat;
  /** "ipv4" unless told. */
  families?: Families;
}

/**
 * A small internet of network namespaces, 203.0.113.0/24, which goes away with everything in it
 * when it is disposed. Every method throws `GretunError`.
 */
export class Lab implements AsyncDisposable {
  /** The namespace of the public network itself. */
  readonly internet: LabNode;
  readonly #prefix: string;
  readonly #ipv6: boolean;
  readonly #clock: Clock;
  readonly #names = new Set<string>();
  readonly #children = new ChildProcesses();
  readonly #internet: Space;
  readonly #public: Segment;
  readonly #distant = new AddressPool(DISTANT_PREFIX);
  readonly #spaces = new DisposableStack();
  readonly #links = new DisposableStack();
  #poller: Poller | undefined;
  #nats = 0;
  #ipv6Networks = 0;
  #closed: Promise<void> | undefined;

  /** Refuses when namespaces with the prefix are there: see {@link Lab.removeLeftovers}. */
  static create({ prefix, ipv6 = false, clock = systemClock }: LabOptions): Lab {
    const leftovers = Lab.leftovers(prefix);
    if (leftovers.length > 0) {
      throw new GretunError(
        `network namespaces with the prefix ${prefix} exist already: ${leftovers.join(", ")}`,
        "Stop the program that uses them, or remove each with: ip netns delete NAME",
      );
    }
    try {
      return new Lab(prefix, ipv6, clock);
    } catch (error) {
      throw new GretunError(
        `cannot make a network of namespaces: ${errorText(error)}`,
        "Run as root, on a kernel with network namespaces, veth and bridge (modprobe veth bridge)",
        { cause: error },
      );
    }
  }

  /** Names of namespaces that begin with the prefix: another lab's, or those of a killed run. */
  static leftovers(prefix: string): string[] {
    return namedNetnses(prefix);
  }

  /** Ends the processes in leftover namespaces and deletes those; gives their names. */
  static async removeLeftovers(prefix: string): Promise<string[]> {
    const names = Lab.leftovers(prefix);
    await endProcesses(names, new ChildProcesses(), systemClock);
    for (const name of names) deleteNamedNetns(name);
    return names;
  }

  private constructor(prefix: string, ipv6: boolean, clock: Clock) {
    this.#prefix = prefix;
    this.#ipv6 = ipv6;
    this.#clock = clock;
    this.#internet = this.#createSpace(INTERNET);
    try {
      this.internet = new LabNode(INTERNET, this.#internet, this.#children);
      this.#public = new Segment(this.#internet, INTERNET, {
        prefix: PUBLIC_PREFIX,
        ...(ipv6 ? { prefix6: ipv6Prefix(0) } : {}),
        isRouted: true,
      });
      const backbone = BACKBONE_NAMES.map((name) => this.#createSpace(name));
      addBackbone([this.#internet, ...backbone], this.#public);
      this.#internet.forwardPackets();
      if (ipv6) this.#internet.writeSetting(FORWARD_IPV6, "1");
    } catch (error) {
      this.#spaces.dispose();
      throw error;
    }
  }

  /** A host with public addresses. */
  publicHost(name: string, { families = "ipv4", ...uplink }: PublicHostOptions = {}): Host {
    const space = this.#addNode(name);
    const addresses = this.#attachPublic(space, UPLINK, uplink, families);
    return new Host(name, space, this.#children, addresses);
  }

  /** A router whose hosts share its one outer address of IPv4. */
  nat(name: string, options: NatOptions = {}): Nat {
    const { behind, prefix, firewall = {}, ipv6 = false, uplink = {}, ...behaviour } = options;
    if (behind && (ipv6 || isLongLine(uplink))) {
      throw new GretunError(
        `${name} has IPv4 and a cable to ${behind.name}`,
        "Leave out IPv6, delay and loss for a NAT behind another",
      );
    }
    const space = this.#addNode(name);
    const families = ipv6 ? "dual" : "ipv4";
    const { ip4, ip6 } = behind
      ? behind.attach(space, name, OUT, uplink)
      : this.#attachPublic(space, OUT, uplink, families);
    const prefix6 = ip6 && ipv6Prefix(++this.#ipv6Networks);
    if (prefix6) this.#internet.route(prefix6, { gateway: ip6, ifname: INTERNET });
    const inside = {
      prefix: prefix ?? parseCidr(`10.0.${++this.#nats}.0/24`),
      ...(prefix6 ? { prefix6 } : {}),
    };
    const setup = { name, space, children: this.#children, inside, behaviour, firewall };
    return new Nat({ ...setup, ip: ip4! });
  }

  /** A host with a private address of IPv4. */
  host(name: string, { behind, families = "ipv4" }: HostOptions): Host {
    if (families !== "ipv4" && !behind.hasIpv6) {
      throw new GretunError(`${behind.name} has no IPv6 for ${name}`, "Make it with ipv6: true");
    }
    const space = this.#addNode(name);
    const addresses = behind.attach(space, name, UPLINK, { families });
    return new Host(name, space, this.#children, addresses);
  }

  /** Ends all processes in the lab, then removes links and namespaces. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    const netnsNames = [...SPACES, ...this.#names].map((name) => this.#prefix + name);
    await endProcesses(netnsNames, this.#children, this.#clock);
    this.#links.dispose();
    await this.#poller?.[Symbol.asyncDispose]();
    this.#spaces.dispose();
  }

  #createSpace(name: string): Space {
    const space = this.#spaces.use(Space.create(this.#prefix + name));
    // Nobody else has their addresses: interfaces use them at once.
    if (this.#ipv6) space.writeSetting("ipv6/conf/default/accept_dad", "0");
    return space;
  }

  /** A namespace for a new name. */
  #addNode(name: string): Space {
    if (!/^[a-z][a-z0-9-]{0,11}$/.test(name) || RESERVED_NAMES.includes(name)) {
      throw new GretunError(
        `cannot name a host ${JSON.stringify(name)}`,
        `Use up to 12 of a-z, 0-9 and -, and none of ${RESERVED_NAMES.join(", ")}`,
      );
    }
    if (this.#names.has(name)) {
      throw new GretunError(`there is a host ${name} already`, "Choose another name");
    }
    const space = this.#createSpace(name);
    this.#names.add(name);
    return space;
  }

  #attachPublic(
    space: Space,
    ifname: string,
    uplink: UplinkOptions,
    families: Families,
  ): Addresses {
    const port = space.netnsName.slice(this.#prefix.length);
    if (families !== "ipv4" && !this.#public.hasIpv6) {
      throw new GretunError(`there is no IPv6 for ${port}`, "Make the lab with ipv6: true");
    }
    if (!isLongLine(uplink)) {
      return this.#public.attach(space, port, ifname, { ...uplink, families });
    }
    if (uplink.mtu !== undefined || families !== "ipv4") {
      throw new GretunError(
        `a line with delay or loss to ${port} has IPv4 alone and no MTU of its own`,
        "Leave out one of them",
      );
    }
    return { ip4: this.#attachByLine(space, port, ifname, uplink) };
  }

  #attachByLine(space: Space, port: string, ifname: string, quality: LineQuality): Ip {
    const ip = this.#distant.take();
    const far = { space, ifname };
    const near = { space: this.#internet, ifname: port };
    this.#poller ??= new Poller();
    this.#links.use(delayedLink(near, far, quality, this.#poller, this.#clock));
    near.space.bringUp(port);
    near.space.route({ ip, prefixLength: 32 }, { ifname: port });
    far.space.addAddress(ifname, ip, 32);
    far.space.bringUp(ifname);
    far.space.route(DEFAULT_DESTINATION, { ifname });
    return ip;
  }
}

function isLongLine({ delayMs = 0, lossRate = 0 }: UplinkOptions): boolean {
  return delayMs > 0 || lossRate > 0;
}
