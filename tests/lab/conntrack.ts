/** Connection tracking over netlink (linux/netfilter/nfnetlink_conntrack.h). */
import { Writer } from "../../lib/bytes.ts";
import {
  NETLINK_NETFILTER,
  NetlinkConnection,
  type NetlinkTransport,
  openNetlink,
} from "../../lib/netlink.ts";

const NFNL_SUBSYS_CTNETLINK = 1;
const IPCTNL_MSG_CT_DELETE = 2;
const AF_UNSPEC = 0;
const NFNETLINK_V0 = 0;

/**
 * Forgets every connection that passes through the calling thread's network namespace, and with it
 * which address translation it had. Throws `NetlinkError`.
 */
export function flushConntrack(
  transport: NetlinkTransport = openNetlink(NETLINK_NETFILTER),
): void {
  using connection = new NetlinkConnection(transport);
  connection.request({
    type: NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
    // `struct nfgenmsg`: family, version, resource id; without attributes all entries are meant
    payload: new Writer("network").u8(AF_UNSPEC).u8(NFNETLINK_V0).u16(0).finish(),
    operation: "flush connection tracking",
  });
}
