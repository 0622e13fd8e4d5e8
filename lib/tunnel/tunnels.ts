/** What the commands do: create, delete, list and status, over one open host. */
import { parseIp } from "../addr.ts";
import { NetlinkError } from "../netlink.ts";
import { applySteps } from "./apply.ts";
import { describeTunnels, formatStats, type TunnelInfo, type TunnelStatus } from "./describe.ts";
import { gatherFacts, gatherPorts } from "./facts.ts";
import type { TunnelHost } from "./host.ts";
import { findTunnel, type Plan, planCreate, planDelete, tunnelsToDelete } from "./plan.ts";
import type { Step } from "./steps.ts";
import type { TunnelSpec } from "./validate.ts";

/** Told of each step before it is done. */
export type OnStep = (step: Step) => void;

/** The plan for these tunnels on this host as it is now. Throws `GretunError`. */
export function planTunnels(host: TunnelHost, specs: readonly TunnelSpec[]): Plan {
  return planCreate(specs, gatherFacts(host, specs));
}

/** All of them or, after an error, none. Throws `GretunError`. */
export function createTunnels(
  host: TunnelHost,
  specs: readonly TunnelSpec[],
  onStep?: OnStep,
): Plan {
  const plan = planTunnels(host, specs);
  applySteps(host, plan.steps, onStep);
  return plan;
}

export interface RemovalPlan {
  names: string[];
  /** Links of daemons that stay, each with why. */
  left: string[];
  steps: Step[];
}

export interface RemovalOptions {
  /** Links of running daemons too. */
  force?: boolean;
}

/**
 * What would be deleted, and how. Throws `GretunError` for what is not there, no tunnel, or a running
 * daemon's.
 */
export function planRemoval(
  host: TunnelHost,
  names: readonly string[] | "all",
  { force = false }: RemovalOptions = {},
): RemovalPlan {
  const links = host.rtnl.links({ skipStats: true });
  const hasEncap = links.some(({ tunnel }) => tunnel?.encap);
  const facts = { links, ...gatherPorts(host, links, hasEncap) };
  const { tunnels, left } = tunnelsToDelete(facts, names, force);
  return { names: tunnels.map(({ name }) => name), left, steps: planDelete(facts, tunnels) };
}

export function listTunnels(host: TunnelHost): TunnelInfo[] {
  return describeTunnels(host.rtnl.links({ skipStats: true }), host.rtnl.addresses());
}

/** Throws `GretunError` for what is not there or no tunnel. */
export function tunnelStatus(host: TunnelHost, name: string): TunnelStatus {
  const links = host.rtnl.links();
  const link = findTunnel(links, name);
  const info = describeTunnels(links, host.rtnl.addresses()).find((t) => t.name === name)!;
  const pathMtu = info.remote_ip === undefined ? undefined : pathMtuTo(host, info.remote_ip);
  return {
    ...info,
    stats: formatStats(link.stats),
    ...(pathMtu === undefined ? {} : { path_mtu: pathMtu }),
  };
}

/** Of the route, or else of the device that it leaves by. */
function pathMtuTo({ rtnl }: TunnelHost, remote: string): number | undefined {
  try {
    const route = rtnl.routeTo(parseIp(remote));
    return route.mtu ?? (route.device === undefined ? undefined : rtnl.link(route.device)?.mtu);
  } catch (error) {
    if (error instanceof NetlinkError) return undefined; // no way there now
    throw error;
  }
}
