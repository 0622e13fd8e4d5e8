/**
 * Tunnels between one hub with a public address and spokes behind any NAT, without a coordinator.
 */
export * from "./auth.ts";
export * from "./clients.ts";
export * from "./config.ts";
export * from "./hub_policy.ts";
export * from "./inner.ts";
export * from "./ipipou.ts";
export * from "./jtunnel.ts";
export * from "./limits.ts";
export * from "./spoke_policy.ts";
