/** The path that a peer's link takes, and what is known of how large packets it carries. */
import { equalPaths, type PathAddress, type PathMtu, pathMtuOf } from "../peer/mod.ts";

export interface ProbedPath {
  readonly endpoint: PathAddress;
  state: PathMtu;
  /** Whether data takes it, and has done so for a moment. */
  isUsed: boolean;
  /** Until then, or for the next ping. */
  timer?: Disposable;
  /** As it was told last. */
  told?: number;
}

/** What the path to that endpoint carries, where that is known to be less than the route says. */
export function pathLimit(
  probed: ProbedPath | undefined,
  endpoint: PathAddress,
): { pathMtu?: number } {
  const limit = probed && equalPaths(probed.endpoint, endpoint) ? probed.state.limit : undefined;
  return limit === undefined ? {} : { pathMtu: limit };
}

/** For reports; empty where nothing is known. */
export function reportPathMtu(
  probed: ProbedPath | undefined,
  nowMs: number,
): { path_mtu?: number; path_mtu_looked_s?: number } {
  if (!probed?.isUsed || probed.state.confirmed === 0) return {};
  const { state } = probed;
  const { lookedMs } = state;
  return {
    path_mtu: pathMtuOf(state),
    ...(lookedMs > -Infinity ? { path_mtu_looked_s: Math.round((nowMs - lookedMs) / 1000) } : {}),
  };
}

export function narrowPathFinding(
  probed: ProbedPath | undefined,
): { text: string; remedy: string; harmless: true }[] {
  if (!probed?.isUsed) return [];
  const { limit, widest } = probed.state;
  if (limit === undefined || limit >= widest) return [];
  return [{
    text: `the path carries packets of ${limit} bytes, though its route says ${widest}`,
    remedy: "The tunnel's MTU follows. For what else goes there, have routers send ICMP " +
      '"fragmentation needed", or give the route that MTU',
    harmless: true,
  }];
}
