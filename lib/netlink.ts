/**
 * The door of netlink: links, addresses and routes (`RtNetlink`), UDP receive ports (`Fou`), news of
 * changes (`LinkMonitor`), and the framing that other families use. No `ip` is run.
 *
 * @example
 * using rtnl = RtNetlink.open();
 * const ifindex = rtnl.createLink({ name: "t0", kind: "dummy", up: true });
 * rtnl.deleteLink(ifindex);
 */
export type { InterfaceAddress } from "./netlink/addr.ts";
export * from "./netlink/attr.ts";
export { Fou, type FouPort } from "./netlink/fou.ts";
export type { Link, LinkChange, LinkSpec, LinkStats } from "./netlink/link.ts";
export * from "./netlink/message.ts";
export { LinkMonitor } from "./netlink/monitor.ts";
export type { Route, RouteSender } from "./netlink/route.ts";
export type { Rule } from "./netlink/rule.ts";
export { RtNetlink } from "./netlink/rtnl.ts";
export * from "./netlink/transport.ts";
export {
  type Direction,
  isTunnelKind,
  outerFamily,
  type Payload,
  type Tunnel,
  TUNNEL_KINDS,
  type TunnelEncap,
  type TunnelKind,
} from "./netlink/tunnel_link.ts";
