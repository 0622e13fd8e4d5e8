/** One network namespace of a lab: a computer without the computer. */
import { type Ip, parseCidr } from "../addr.ts";
import {
  createNamedNetns,
  deleteNamedNetns,
  type Fd,
  RtNetlink,
  withNetns,
  writeKernelFile,
} from "../netlink.ts";
import { DEFAULT_DESTINATION } from "./addresses.ts";

const LOOPBACK_NAME = "lo";

export class Space implements Disposable {
  /** As `ip netns` shows it. */
  readonly netnsName: string;
  readonly netns: Fd;
  readonly rtnl: RtNetlink;
  readonly #stack: DisposableStack;

  /** Makes the namespace, with loopback up. */
  static create(netnsName: string): Space {
    const space = new Space(netnsName);
    try {
      space.rtnl.changeLink(space.ifindex(LOOPBACK_NAME), { up: true });
      return space;
    } catch (error) {
      space[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(netnsName: string) {
    using stack = new DisposableStack();
    this.netnsName = netnsName;
    this.netns = stack.use(createNamedNetns(netnsName));
    stack.defer(() => deleteNamedNetns(netnsName));
    this.rtnl = stack.use(this.within(() => RtNetlink.open()));
    this.#stack = stack.move();
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }

  /** Runs synchronous code inside: sockets and processes that it makes stay there. */
  within<T>(body: () => T): T {
    return withNetns(this.netns, body);
  }

  ifindex(name: string): number {
    return this.rtnl.link(name)!.ifindex;
  }

  /** Brings up a link under an address, the default route by it where there is a gateway. */
  configure(name: string, local: Ip, prefixLength: number, gateway?: Ip): void {
    const ifindex = this.ifindex(name);
    this.rtnl.addAddress({ ifindex, local, prefixLength });
    this.rtnl.changeLink(ifindex, { up: true });
    if (gateway) {
      this.rtnl.addRoute({ destination: DEFAULT_DESTINATION, gateway, device: ifindex });
    }
  }

  /** The only way to and from the rest is this point-to-point link. */
  configurePointToPoint(name: string, local: Ip): void {
    this.configure(name, local, 32);
    this.rtnl.addRoute({ destination: DEFAULT_DESTINATION, device: this.ifindex(name) });
  }

  /** Packets to one address go into a link. */
  routeHost(ip: Ip, name: string): void {
    const device = this.ifindex(name);
    this.rtnl.changeLink(device, { up: true });
    this.rtnl.addRoute({ destination: parseCidr(`${ip}/32`), device });
  }

  forwardPackets(): void {
    this.within(() => writeKernelFile("/proc/sys/net/ipv4/ip_forward", "1"));
  }
}
