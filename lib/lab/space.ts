/** One network namespace of a lab: a computer without the computer. */
import type { Cidr, Ip } from "../addr.ts";
import {
  createNamedNetns,
  deleteNamedNetns,
  type Fd,
  withNetns,
  writeKernelFile,
} from "../linux/mod.ts";
import { RtNetlink } from "../netlink.ts";

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

  addAddress(ifname: string, local: Ip, prefixLength: number): void {
    this.rtnl.addAddress({ ifindex: this.ifindex(ifname), local, prefixLength });
  }

  bringUp(ifname: string): void {
    this.rtnl.changeLink(this.ifindex(ifname), { up: true });
  }

  /** Packets to `destination` leave by the interface, to the gateway if there is one. */
  route(destination: Cidr, { gateway, ifname }: { gateway?: Ip; ifname: string }): void {
    const device = this.ifindex(ifname);
    this.rtnl.addRoute({ destination, device, ...(gateway ? { gateway } : {}) });
  }

  forwardPackets(): void {
    this.writeSetting("ipv4/ip_forward", "1");
  }

  writeSetting(name: string, value: string): void {
    this.within(() => writeKernelFile(`/proc/sys/net/${name}`, value));
  }
}
