/**
 * Tunnels between one hub with a public address and spokes behind any NAT, without a coordinator.
 *
 * @example
 * await runHub(options, { ...systemWorld({ log, host: linuxHost() }), reread }, signal);
 */
export { type Credential, type Refusal, REFUSALS } from "./protocol/gretun/auth.ts";
export { isClientName, parseAddress } from "./clients.ts";
export { type Alias, configPath, HUB_ALIASES, SPOKE_ALIASES, translate } from "./config.ts";
export {
  askControl,
  askReauth,
  type ClientReport,
  controlPath,
  type HubReport,
  type Role,
  type SpokeReport,
} from "./control.ts";
export { readDirectory } from "./directory.ts";
export { systemFiles } from "./system/files.ts";
export { systemWorld } from "./system/world.ts";
export { sha256 } from "./protocol/gretun/digest.ts";
export { runHub } from "./hub.ts";
export type { HubEdges, HubOptions } from "./hub_core.ts";
export {
  IPIPOU_BASE_PORT,
  IPIPOU_DEFAULT_SECRET,
  ipipouAddresses,
  type IpipouScheme,
} from "./protocol/ipipou/wire.ts";
export { parseJtunnelId } from "./protocol/jtunnel/wire.ts";
export { HubMetrics } from "./metrics.ts";
export { liveChanges } from "./reload.ts";
export { runSpoke } from "./spoke/spoke.ts";
export type { SpokeEdges, SpokeOptions } from "./spoke/spoke_core.ts";
