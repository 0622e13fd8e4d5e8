/**
 * The demo's internet, 203.0.113.0/24 (TEST-NET-3, RFC 5737): public hosts, and hosts at home behind
 * a router each. It goes away with everything in it when it is disposed. IPv4.
 */
import { type Cidr, type Ip, ipBytes, parseCidr, parseIp } from "../addr.ts";
import { systemClock } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { deleteNamedNetns } from "../linux/mod.ts";
import * as nft from "../nft/mod.ts";
import { LabNode } from "./node.ts";
import { ChildProcesses, endProcesses, namedNetnses } from "./processes.ts";
import { Space } from "./space.ts";

const INTERNET = "internet";
const GATEWAY = parseCidr("203.0.113.1/24");
const EVERYWHERE = parseCidr("0.0.0.0/0");
/** What every host calls its cable, and a router its two. */
const UPLINK = "eth0";
const OUT = "out";
const IN = "in";
/** Locally administered: the first two bytes of an address. */
const LOCAL_MAC = [0x02, 0x00];

export class Host extends LabNode {
  readonly ip: Ip;

  constructor(name: string, space: Space, children: ChildProcesses, ip: Ip) {
    super(name, space, children);
    this.ip = ip;
  }
}

export class SmallNet implements AsyncDisposable {
  readonly #prefix: string;
  readonly #children = new ChildProcesses();
  readonly #spaces = new DisposableStack();
  readonly #names: string[] = [];
  readonly #internet: Space;
  readonly #bridge: number;
  #last = ipBytes(GATEWAY.ip)[3]!;
  #homes = 0;

  /** Namespaces are named with the prefix; those of a killed run go first. Throws `GretunError`. */
  static async create(prefix: string): Promise<SmallNet> {
    const leftovers = namedNetnses(prefix);
    await endProcesses(leftovers, new ChildProcesses(), systemClock);
    for (const name of leftovers) deleteNamedNetns(name);
    try {
      return new SmallNet(prefix);
    } catch (error) {
      throw new GretunError(
        `cannot make a network of namespaces: ${errorText(error)}`,
        "Run as root, on a kernel with network namespaces, veth and bridge (modprobe veth bridge)",
        { cause: error },
      );
    }
  }

  private constructor(prefix: string) {
    this.#prefix = prefix;
    this.#internet = this.#space(INTERNET);
    // One that it was not given follows its ports, and neighbours would not hear of the new one.
    const macAddress = new Uint8Array([...LOCAL_MAC, ...ipBytes(GATEWAY.ip)]);
    const bridge = { name: INTERNET, kind: "bridge", macAddress } as const;
    this.#bridge = this.#internet.rtnl.createLink(bridge);
    configure(this.#internet, INTERNET, GATEWAY);
  }

  publicHost(name: string): Host {
    const space = this.#space(name);
    return new Host(name, space, this.#children, this.#join(space, name, UPLINK));
  }

  /** A host behind a router that lets in what answers; `outer`: the router's address. */
  home(name: string): { host: Host; outer: Ip } {
    const router = this.#space(`nat-${name}`);
    const outer = this.#join(router, `nat-${name}`, OUT);
    const [inner, ip] = [1, 2].map((n) => parseIp(`10.0.${this.#homes + 1}.${n}`)) as [Ip, Ip];
    this.#homes++;
    const space = this.#space(name);
    const cable = { peerName: UPLINK, peerNetnsFd: space.netns.fd };
    router.rtnl.createLink({ name: IN, kind: "veth", ...cable });
    configure(router, IN, { ip: inner, prefixLength: 24 });
    configure(space, UPLINK, { ip, prefixLength: 24 }, inner);
    router.within(() => {
      using tables = nft.Nft.open();
      tables.replaceTable(ROUTER);
    });
    router.forwardPackets();
    return { host: new Host(name, space, this.#children, ip), outer };
  }

  /** Ends all processes in it, then removes the namespaces. */
  async [Symbol.asyncDispose](): Promise<void> {
    await endProcesses(this.#names, this.#children, systemClock);
    this.#spaces.dispose();
  }

  #space(name: string): Space {
    const space = this.#spaces.use(Space.create(this.#prefix + name));
    this.#names.push(space.netnsName);
    return space;
  }

  /** By a cable from the public network, with the next address. */
  #join(space: Space, port: string, ifname: string): Ip {
    const peer = { peerName: ifname, peerNetnsFd: space.netns.fd };
    const link = { name: port, kind: "veth", master: this.#bridge, up: true, ...peer } as const;
    this.#internet.rtnl.createLink(link);
    const ip = parseIp(`203.0.113.${++this.#last}`);
    configure(space, ifname, { ...GATEWAY, ip }, GATEWAY.ip);
    return ip;
  }
}

function configure(space: Space, ifname: string, address: Cidr, gateway?: Ip): void {
  space.addAddress(ifname, address.ip, address.prefixLength);
  space.bringUp(ifname);
  if (gateway) space.route(EVERYWHERE, { gateway, ifname });
}

const KNOWN = nft.ctState("established", "related");

/**
 * Ports are kept where they can be, whoever is sent to. What comes unasked is dropped before it is
 * tracked as a connection with the router, or a mapping to who sent it would get another port.
 */
const ROUTER: nft.NftTable = {
  family: "ip",
  name: "nat",
  chains: [
    ...(["forward", "input"] as const).map((hook): nft.NftChain => ({
      ...{ name: hook, type: "filter", hook },
      ...{ priority: nft.PRIORITY.filter, policy: "drop" },
    })),
    {
      ...{ name: "postrouting", type: "nat", hook: "postrouting" } as const,
      ...{ priority: nft.PRIORITY.srcnat, policy: "accept" } as const,
    },
  ],
  rules: [
    { chain: "forward", match: [KNOWN], verdict: "accept" },
    { chain: "forward", match: [nft.iifname(IN), nft.oifname(OUT)], verdict: "accept" },
    { chain: "input", match: [KNOWN], verdict: "accept" },
    { chain: "postrouting", match: [nft.oifname(OUT)], verdict: nft.masquerade() },
  ],
};
