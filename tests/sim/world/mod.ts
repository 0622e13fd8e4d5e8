/**
 * A small internet in memory, with whole daemons and a coordinator, under simulated time. See the
 * README beside this folder.
 */
import { type Ip, parseIp } from "../../../lib/addr.ts";
import type { DaemonOptions } from "../../../lib/daemon/mod.ts";
import { SimCoordinator, type SimCoordinatorOptions } from "./coordinator.ts";
import { installSimCrypto } from "./crypto.ts";
import { SimHost } from "./host.ts";
import { Nat, type NatBehaviour, PORT_RESTRICTED } from "./nat.ts";
import { Internet, Lan, type Weather } from "./net.ts";
import { simIdentity, SimNode } from "./node.ts";
import { Dice } from "./random.ts";
import { SimTime } from "./time.ts";

export type { SimCoordinator } from "./coordinator.ts";
export type { Serve, SimHost } from "./host.ts";
export * from "./nat.ts";
export { FAIR, type Station, type Weather } from "./net.ts";
export type { Packet } from "./packet.ts";
export { type LogLine, simIdentity, type SimNode } from "./node.ts";
export { Dice } from "./random.ts";

installSimCrypto();

const ANYWHERE = { ip: parseIp("0.0.0.0"), prefixLength: 0 };

/** A local network behind a NAT. */
export interface Site {
  nat: Nat;
  lan: Lan;
  /** 192.168.N.0/24 */
  prefix: string;
  hosts: number;
}

export class World {
  readonly time = new SimTime();
  readonly dice: Dice;
  readonly internet: Internet;
  readonly nodes: SimNode[] = [];
  #sites = 0;
  #publicIps = 0;

  constructor(seed = 1, weather?: Weather) {
    this.dice = new Dice(seed);
    this.internet = new Internet(this.time, this.dice.fork(), weather);
  }

  /** The next free public address. */
  publicIp(): Ip {
    const n = this.#publicIps++;
    return parseIp(`203.0.${113 + Math.floor(n / 250)}.${1 + n % 250}`);
  }

  /** A host with a public address. */
  publicHost(name: string, ip = this.publicIp()): SimHost {
    const host = new SimHost(name, this.time);
    this.plugIntoInternet(host, ip);
    return host;
  }

  plugIntoInternet(host: SimHost, ip: Ip, device = "eth0"): void {
    const ifindex = host.kernel.addDevice({ name: device, wire: this.internet });
    this.addPublicAddress(host, ip, ifindex);
    const gateway = parseIp("203.0.113.254");
    host.openRtNetlink().addRoute({ destination: ANYWHERE, gateway, device: ifindex });
  }

  addPublicAddress(host: SimHost, ip: Ip, ifindex = host.kernel.ifindex("eth0")): void {
    host.kernel.addAddress(ifindex, ip, 24);
    this.internet.stations.set(ip, host);
  }

  removePublicAddress(host: SimHost, ip: Ip): void {
    host.kernel.removeAddress(ip);
    this.internet.stations.delete(ip);
  }

  /** A local network behind a NAT with an outer address of its own. */
  site(behaviour: Partial<NatBehaviour> = {}): Site {
    const n = this.#sites++;
    const lan = new Lan(this.time, this.dice.fork());
    const nat = new Nat({
      time: this.time,
      dice: this.dice.fork(),
      behaviour: { ...PORT_RESTRICTED, ...behaviour },
      inside: lan,
      outside: this.internet,
      outer: this.publicIp(),
    });
    const prefix = `192.168.${n}`;
    lan.stations.set(parseIp(`${prefix}.1`), nat);
    return { nat, lan, prefix, hosts: 0 };
  }

  /** A host of a site; of a new one with such a NAT unless it is given. */
  hostBehind(name: string, where: Site | Partial<NatBehaviour> = {}): SimHost {
    const site = "nat" in where ? where : this.site(where);
    const host = new SimHost(name, this.time);
    this.plugIntoSite(host, site);
    return host;
  }

  /** The address that it got there. */
  plugIntoSite(host: SimHost, site: Site, device = "eth0"): Ip {
    const ip = parseIp(`${site.prefix}.${2 + site.hosts++}`);
    const ifindex = host.kernel.addDevice({ name: device, wire: site.lan });
    host.kernel.addAddress(ifindex, ip, 24);
    site.lan.stations.set(ip, host);
    const gateway = parseIp(`${site.prefix}.1`);
    host.openRtNetlink().addRoute({ destination: ANYWHERE, gateway, device: ifindex });
    return ip;
  }

  async coordinator(options: SimCoordinatorOptions = {}): Promise<SimCoordinator> {
    const ip = this.publicIp();
    const host = this.publicHost("coordinator", ip);
    const coordinator = new SimCoordinator(host, ip, this.dice.fork(), options);
    await coordinator.start();
    return coordinator;
  }

  /** A daemon that runs there. */
  async up(
    host: SimHost,
    coordinator: SimCoordinator,
    options: Partial<DaemonOptions> = {},
  ): Promise<SimNode> {
    const identity = options.identity ?? simIdentity(this.nodes.length);
    const url = new URL(coordinator.url);
    const node = new SimNode(host, this.dice.fork(), identity, url, options);
    this.nodes.push(node);
    await node.start();
    return node;
  }

  /** One after the other, each behind a NAT of its own. */
  async upAll(names: readonly string[], coordinator: SimCoordinator): Promise<SimNode[]> {
    const nodes: SimNode[] = [];
    for (const name of names) nodes.push(await this.up(this.hostBehind(name), coordinator));
    return nodes;
  }

  run(ms: number): Promise<void> {
    return this.time.run(ms);
  }

  until(isSo: () => boolean, withinMs: number): Promise<boolean> {
    return this.time.until(isSo, withinMs);
  }

  /** Through the tunnel; the round trip in ms, or undefined. */
  async ping(
    from: SimNode,
    to: SimNode,
    options: { timeoutMs?: number; size?: number } = {},
  ): Promise<number | undefined> {
    const { timeoutMs = 1_000 } = options;
    let rttMs: number | undefined;
    const pinged = from.host.kernel.ping(to.tunnelIp!, options).then((ms) => rttMs = ms);
    await this.until(() => rttMs !== undefined, timeoutMs + 1);
    await pinged;
    return rttMs;
  }

  /** Both ways, within so many ms from now, tried each 100 ms. */
  async connects(a: SimNode, b: SimNode, withinMs: number): Promise<boolean> {
    const endMs = this.time.nowMs + withinMs;
    while (this.time.nowMs < endMs) {
      const isThere = a.tunnelIp && b.tunnelIp &&
        await this.ping(a, b, { timeoutMs: 100 }) !== undefined &&
        await this.ping(b, a, { timeoutMs: 100 }) !== undefined;
      if (isThere) return true;
      await this.run(50);
    }
    return false;
  }

  /** Ends all daemons, so that nothing of them is left in the next test. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.nodes) if (node.ended === undefined) node.kill();
  }
}
