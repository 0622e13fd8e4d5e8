/**
 * Tunnels as users mean them: validated, planned, made with undo, listed and deleted.
 *
 * @example
 * using host = openHost();
 * const spec = validateTunnel(options);
 * createTunnels(host, [spec]);
 * deleteTunnels(host, [spec.name]);
 */
export { applySteps } from "./apply.ts";
export type { TunnelInfo, TunnelStatus } from "./describe.ts";
export { MissingModuleError } from "./explain.ts";
export { DAEMON_PREFIX, daemonLock, isDaemons, isFouPortOfOthers, usesFouPort } from "./mark.ts";
export { openHost, type TunnelHost } from "./host.ts";
export { overheadBytes, type OverheadOptions } from "./overhead.ts";
export type { HostFacts, OuterPath, Plan } from "./plan.ts";
export { formatStep, type Step } from "./steps.ts";
export {
  createTunnels,
  deleteTunnels,
  listTunnels,
  planRemoval,
  planTunnels,
  tunnelStatus,
} from "./tunnels.ts";
export {
  checkIfname,
  DEFAULT_TTL,
  MAX_KEY,
  type TunnelOptions,
  type TunnelSpec,
  validateTunnel,
} from "./validate.ts";
