/**
 * Tunnels between one hub with a public address and spokes behind any NAT, without a coordinator.
 *
 * @example
 * await runHub(options, { clock: systemClock, random: systemRandom, log }, signal);
 */
export { type Credential, type Refusal, REFUSALS } from "./auth.ts";
export { isClientName, parseAddress } from "./clients.ts";
export {
  type Alias,
  configPath,
  type ConfigProblem,
  HUB_ALIASES,
  parseConfig,
  SPOKE_ALIASES,
  translate,
} from "./config.ts";
export {
  askControl,
  askReauth,
  type ClientReport,
  type HubReport,
  type Role,
  type SpokeReport,
} from "./control.ts";
export { publicKeyOf } from "./curves.ts";
export { readDirectory } from "./directory.ts";
export { sha256 } from "./digest.ts";
export { runHub } from "./hub.ts";
export type { HubEdges, HubOptions } from "./hub_core.ts";
export {
  IPIPOU_BASE_PORT,
  IPIPOU_DEFAULT_SECRET,
  ipipouAddresses,
  type IpipouScheme,
} from "./ipipou.ts";
export { parseJtunnelId } from "./jtunnel.ts";
export { HubMetrics } from "./metrics.ts";
export { liveChanges } from "./reload.ts";
export { runSpoke } from "./spoke.ts";
export type { SpokeEdges, SpokeOptions } from "./spoke_core.ts";
