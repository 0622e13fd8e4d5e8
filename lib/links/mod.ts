/**
 * What gretun has on this host: whose a link is, one lock for each UDP port, receive ports that
 * links share, and the names, addresses, routes and MTUs of links. For `create`, `up`, `hub` and
 * `spoke` alike.
 *
 * @example
 * using lock = lockPort(fileLocks(), { port: 7777, role: "up", flag: "--fou-port" });
 * const wanted = { addresses: [pairAddress(own, peer)], routes: [] };
 * setInner(rtnl, ifindex, wanted, undefined);
 */
export { FALLBACK_DEVICES, isTunnel, isTunnelDevice } from "./device_kinds.ts";
export {
  closeFouPort,
  type FouPlace,
  isFouPortOfOthers,
  openFouPort,
  usesFouPort,
} from "./fou_port.ts";
export {
  type Admitted,
  type Collision,
  COLLISION_HINT,
  type HostNetwork,
  type HostView,
  type NeededAddress,
  withoutCollisions,
} from "./collisions.ts";
export { type HostViewOptions, readHostView } from "./host_view.ts";
export { type KeptLink, LinkKeeper, type LinkKeeperOptions } from "./keeper.ts";
export type { KeptState } from "./differences.ts";
export {
  type Inner,
  innerChanges,
  type LinkAddress,
  network,
  NO_INNER,
  pairAddress,
  setInner,
} from "./inner.ts";
export {
  createMarkOf,
  type DaemonMark,
  daemonMarkOf,
  type DaemonRole,
  formatMark,
  linksOf,
  type Mark,
  markOf,
} from "./mark.ts";
export { ETHERNET_MTU, innerMtu, MIN_MTU, routeMtu, unlessNoWay } from "./mtu.ts";
export { countersOf, freeName, type LinkCounters, missing, otherNames } from "./names.ts";
export { carriesFrames, isGre, overheadBytes, type OverheadOptions } from "./overhead.ts";
export { formatHolder, lockPort, portHolder, PortLockedError } from "./port_lock.ts";
