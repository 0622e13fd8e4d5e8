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
export { openHost, type TunnelHost } from "./host.ts";
export { type HostFacts, NoTunnelError, type OuterPath, type Plan } from "./plan.ts";
export { formatStep, type Step } from "./steps.ts";
export { createTunnels, listTunnels, planRemoval, planTunnels, tunnelStatus } from "./tunnels.ts";
export {
  checkLinkName,
  DEFAULT_TTL,
  MAX_KEY,
  type TunnelOptions,
  type TunnelSpec,
  validateTunnel,
} from "./validate.ts";
