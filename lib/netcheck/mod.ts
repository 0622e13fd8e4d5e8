/**
 * What this host's network lets through: UDP, NAT behaviour, port mapping, the coordinator.
 *
 * @example
 * const servers = { serverNames: [], fallbackNames: ["stun.example"] };
 * const report = await checkNetwork({ ...servers, coordinator, timeoutMs: 10_000, signal });
 * print(meaningOf(report));
 */
export { checkNetwork, type NetCheckOptions } from "./check.ts";
export {
  type CoordinatorReport,
  externalIpOf,
  type FamilyReport,
  hasWayOut,
  isDoubleNat,
  isPublicIp,
  meaningOf,
  type NetReport,
  type PortMapReport,
  type Reach,
  reachOf,
  type ServerReport,
} from "./report.ts";
