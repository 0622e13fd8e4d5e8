/** The lab: who is there, how they are joined, and how all of it goes away again. */
import { type Cidr, parseCidr } from "../addr.ts";
import { type Clock, systemClock } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { deleteNamedNetns, Poller } from "../netlink.ts";
import { AddressPool, DISTANT_PREFIX, PUBLIC_PREFIX } from "./addresses.ts";
import { delayedLink } from "./delay.ts";
import { Host, LabNode } from "./host.ts";
import { Nat } from "./nat.ts";
import { IN, type NatMapping, OUT } from "./nat_table.ts";
import { ChildProcesses, endProcesses, namedNetnses } from "./processes.ts";
import { Segment } from "./segment.ts";
import { Space } from "./space.ts";

const INTERNET = "internet";
const UPLINK = "eth0";
/** Interfaces are named after hosts, so a host cannot have the name of another interface. */
const RESERVED_NAMES = [INTERNET, "lo", IN, OUT, UPLINK];

export interface LabOptions {
  /** Namespaces are named with it; a lab is the only one with its prefix. */
  prefix: string;
  clock?: Clock;
}

export interface PublicHostOptions {
  /** Every packet to it and from it is on the way for so long: a round trip takes twice that. */
  delayMs?: number;
}

export interface NatOptions {
  /** "port-restricted" unless told. */
  mapping?: NatMapping;
  /** The NAT in front of this one; the internet unless told. */
  behind?: Nat;
  /** Private addresses of its hosts; 10.0.N.0/24 unless told. */
  prefix?: Cidr;
  /** Lets no UDP through. */
  blockUdp?: boolean;
}

/**
 * A small internet of network namespaces, 203.0.113.0/24, which goes away with everything in it
 * when it is disposed. Every method throws `GretunError`.
 */
export class Lab implements AsyncDisposable {
  /** The namespace of the public network itself. */
  readonly internet: LabNode;
  readonly #prefix: string;
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
  #closed: Promise<void> | undefined;

  /** Refuses when namespaces with the prefix are there: see {@link Lab.removeLeftovers}. */
  static create({ prefix, clock = systemClock }: LabOptions): Lab {
    const leftovers = Lab.leftovers(prefix);
    if (leftovers.length > 0) {
      throw new GretunError(
        `network namespaces with the prefix ${prefix} exist already: ${leftovers.join(", ")}`,
        "Stop the program that uses them, or remove each with: ip netns delete NAME",
      );
    }
    try {
      return new Lab(prefix, clock);
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

  private constructor(prefix: string, clock: Clock) {
    this.#prefix = prefix;
    this.#clock = clock;
    this.#internet = this.#createSpace(INTERNET);
    try {
      this.internet = new LabNode(INTERNET, this.#internet, this.#children);
      this.#public = new Segment(this.#internet, INTERNET, PUBLIC_PREFIX);
      this.#internet.forwardPackets();
    } catch (error) {
      this.#spaces.dispose();
      throw error;
    }
  }

  /** A host with a public address. */
  publicHost(name: string, { delayMs = 0 }: PublicHostOptions = {}): Host {
    const space = this.#addNode(name);
    const ip = delayMs > 0
      ? this.#attachDelayed(space, name, delayMs)
      : this.#public.attach(space, name, UPLINK);
    return new Host(name, space, this.#children, ip);
  }

  /** A router whose hosts share its one outer address. */
  nat(name: string, options: NatOptions = {}): Nat {
    const { mapping = "port-restricted", behind, blockUdp = false } = options;
    const prefix = options.prefix ?? parseCidr(`10.0.${++this.#nats}.0/24`);
    const space = this.#addNode(name);
    const ip = (behind ?? this.#public).attach(space, name, OUT);
    return new Nat({ name, space, children: this.#children, ip, prefix, mapping, blockUdp });
  }

  /** A host with a private address. */
  host(name: string, { behind }: { behind: Nat }): Host {
    const space = this.#addNode(name);
    return new Host(name, space, this.#children, behind.attach(space, name, UPLINK));
  }

  /** Ends all processes in the lab, then removes links and namespaces. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    const netnsNames = [INTERNET, ...this.#names].map((name) => this.#prefix + name);
    await endProcesses(netnsNames, this.#children, this.#clock);
    this.#links.dispose();
    await this.#poller?.[Symbol.asyncDispose]();
    this.#spaces.dispose();
  }

  #createSpace(name: string): Space {
    return this.#spaces.use(Space.create(this.#prefix + name));
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

  #attachDelayed(space: Space, name: string, delayMs: number) {
    const ip = this.#distant.take();
    const far = { space, ifname: UPLINK };
    const near = { space: this.#internet, ifname: name };
    this.#poller ??= new Poller();
    this.#links.use(delayedLink(near, far, delayMs, this.#poller, this.#clock));
    near.space.routeHost(ip, name);
    far.space.configurePointToPoint(UPLINK, ip);
    return ip;
  }
}
