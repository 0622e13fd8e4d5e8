/** Hears from the kernel that links, addresses, routes or their rules changed, or that tables were removed. */
import { Reader } from "../bytes.ts";
import { type Fd, libc, MSG_DONTWAIT, type Poller } from "../linux/mod.ts";
import { NETLINK_NETFILTER, NETLINK_ROUTE, openNetlinkSocket } from "./transport.ts";

const RTNLGRP_LINK = 1;
const RTNLGRP_IPV4_IFADDR = 5;
const RTNLGRP_IPV4_ROUTE = 7;
const RTNLGRP_IPV4_RULE = 8;
const RTNLGRP_IPV6_IFADDR = 9;
const RTNLGRP_IPV6_ROUTE = 11;
const RTNLGRP_IPV6_RULE = 19;
const NFNLGRP_NFTABLES = 7;
/** linux/netfilter/nf_tables.h, `enum nf_tables_msg_types`. */
const NFT_MSG_DELTABLE = 2;
const NFT_MSG_DELCHAIN = 5;
const NFT_MSG_DELRULE = 8;
const NFT_MSG_DELSET = 11;
const REMOVALS = [NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET];

interface News {
  protocol: number;
  groups: readonly number[];
  /** By the first message of a datagram: what is not is passed over. */
  isNews: (type: number) => boolean;
}

const LINKS: News = {
  protocol: NETLINK_ROUTE,
  groups: [
    RTNLGRP_LINK,
    ...[RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE],
    ...[RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE],
  ],
  // What changed is not read: the listener looks at the whole state anyway.
  isNews: () => true,
};
const TABLES: News = {
  protocol: NETLINK_NETFILTER,
  groups: [NFNLGRP_NFTABLES],
  isNews: (type) => REMOVALS.includes(type & 0xff),
};

export class LinkMonitor implements Disposable {
  readonly #socket: Fd;
  readonly #watch: Disposable;
  readonly #buffer = new Uint8Array(65_536);

  /** Calls `onChange` once for each batch of news, and when news was lost for lack of room. */
  static open(poller: Poller, onChange: () => void): LinkMonitor {
    return new LinkMonitor(poller, LINKS, onChange);
  }

  /** As {@link open}, of tables, chains, rules and sets of nf_tables that were removed. */
  static openTables(poller: Poller, onChange: () => void): LinkMonitor {
    return new LinkMonitor(poller, TABLES, onChange);
  }

  private constructor(poller: Poller, news: News, onChange: () => void) {
    this.#socket = openNetlinkSocket(news.protocol, news.groups);
    this.#watch = poller.add(this.#socket.fd, () => {
      if (this.#drain(news)) onChange();
    });
  }

  /** ENOBUFS, the kernel's word for lost news, ends the loop like an empty socket does. */
  #drain({ isNews }: News): boolean {
    const { fd } = this.#socket;
    const size = BigInt(this.#buffer.length);
    let [found, datagrams] = [false, 0];
    while (libc().recvfrom(fd, this.#buffer, size, MSG_DONTWAIT, null, null) !== -1n) {
      found ||= isNews(new Reader(this.#buffer, "host").skip(4).u16());
      datagrams++;
    }
    return found || datagrams === 0;
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }
}
