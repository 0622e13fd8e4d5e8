/** The health of tunnels: each one's far inner address is pinged through the tunnel itself. */
import { type Ip, isUnspecified } from "../addr.ts";
import { errorText } from "../errors.ts";
import { type DaemonMark, daemonMarkOf, isTunnel } from "../links/mod.ts";
import { SystemError } from "../linux/mod.ts";
import type { InterfaceAddress, Link, Route } from "../netlink.ts";
import { farAddress } from "./far_address.ts";
import type { ProbeResult } from "./probes.ts";

/** What the kernel says of this host's links. */
export interface LinkState {
  links: readonly Link[];
  addresses: readonly InterfaceAddress[];
  routes: readonly Route[];
  /** Whether the daemon that made a link runs. */
  isRunning: (mark: DaemonMark) => boolean;
}

/** Addresses to ping where the far one is not known, or is another one. */
export interface Targets {
  /** For every tunnel without a known one. */
  other?: Ip;
  /** By the tunnel's name. */
  named: ReadonlyMap<string, Ip>;
}

export interface TunnelTarget {
  name: string;
  /** The outer address of the other end; absent where there is none. */
  remote?: Ip;
  /** The inner one, to be pinged; absent where it is not known. */
  target?: Ip;
  /** Why the tunnel cannot be healthy, whatever a ping says. */
  fault?: string;
}

export interface TunnelHealth extends Omit<TunnelTarget, "fault"> {
  /** Absent when the tunnel is not healthy. */
  rttMs?: number;
  /** Why it is not. */
  error?: string;
}

/** In the order of the kernel, then those that `targets` names and that are not there. */
export function tunnelTargets(state: LinkState, targets: Targets): TunnelTarget[] {
  const tunnels = state.links.filter(isTunnel).map((link) => toTarget(link, state, targets));
  const names = new Set(tunnels.map(({ name }) => name));
  const missing = [...targets.named].filter(([name]) => !names.has(name));
  return [
    ...tunnels,
    ...missing.map(([name, target]) => ({ name, target, fault: "there is no such tunnel" })),
  ];
}

function toTarget(link: Link, state: LinkState, targets: Targets): TunnelTarget {
  const { name, ifindex, tunnel } = link;
  const target = targets.named.get(name) ?? farAddress(ifindex, state.addresses, state.routes) ??
    targets.other;
  return {
    name,
    ...(tunnel && !isUnspecified(tunnel.remote) ? { remote: tunnel.remote } : {}),
    ...(target ? { target } : {}),
    ...faultOf(link, state),
  };
}

function faultOf(link: Link, { isRunning }: LinkState): { fault?: string } {
  if (!link.up) return { fault: "the link is down" };
  const mark = daemonMarkOf(link);
  if (!mark || isRunning(mark)) return {};
  return { fault: `gretun ${mark.by} on port ${mark.port}, which made it, does not run` };
}

/** Pings once, through that interface. */
export type PingThrough = (target: Ip, device: string) => Promise<ProbeResult | undefined>;

/** In the order of `tunnels`; at most `concurrency` pings are under way at once. */
export async function checkTunnels(
  tunnels: readonly TunnelTarget[],
  { concurrency, ping }: { concurrency: number; ping: PingThrough },
): Promise<TunnelHealth[]> {
  const results: TunnelHealth[] = [];
  const queue = tunnels.entries();
  const work = async () => {
    for (const [i, tunnel] of queue) results[i] = await checkTunnel(tunnel, ping);
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, tunnels.length) }, work));
  return results;
}

async function checkTunnel(
  { fault, ...tunnel }: TunnelTarget,
  ping: PingThrough,
): Promise<TunnelHealth> {
  const { name, target } = tunnel;
  if (fault) return { ...tunnel, error: fault };
  if (!target) return { ...tunnel, error: "the far address is not known: give it with --target" };
  try {
    const { rttMs, error = "interrupted" } = await ping(target, name) ?? {};
    return rttMs === undefined ? { ...tunnel, error } : { ...tunnel, rttMs };
  } catch (error) {
    // The link has gone since it was listed, or this host has no IPv6.
    if (error instanceof SystemError) return { ...tunnel, error: errorText(error) };
    throw error;
  }
}
