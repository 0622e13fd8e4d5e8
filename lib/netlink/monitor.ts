/** Hears from the kernel that links, addresses or routes changed. */
import { type Fd, libc, MSG_DONTWAIT, type Poller } from "../linux/mod.ts";
import { NETLINK_ROUTE, openNetlinkSocket } from "./transport.ts";

const RTNLGRP_LINK = 1;
const RTNLGRP_IPV4_IFADDR = 5;
const RTNLGRP_IPV4_ROUTE = 7;
const RTNLGRP_IPV6_IFADDR = 9;
const RTNLGRP_IPV6_ROUTE = 11;
const GROUPS = [
  ...[RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE],
  ...[RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE],
];

export class LinkMonitor implements Disposable {
  readonly #socket: Fd;
  readonly #watch: Disposable;

  /** Calls `onChange` once for each batch of news, and when news was lost for lack of room. */
  static open(poller: Poller, onChange: () => void): LinkMonitor {
    return new LinkMonitor(poller, onChange);
  }

  private constructor(poller: Poller, onChange: () => void) {
    this.#socket = openNetlinkSocket(NETLINK_ROUTE, GROUPS);
    const buffer = new Uint8Array(65_536);
    this.#watch = poller.add(this.#socket.fd, () => {
      const { fd } = this.#socket;
      const size = BigInt(buffer.length);
      // What changed is not read: the listener looks at the whole state anyway. ENOBUFS, the
      // kernel's word for lost news, ends the loop like an empty socket does.
      while (libc().recvfrom(fd, buffer, size, MSG_DONTWAIT, null, null) !== -1n);
      onChange();
    });
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }
}
