/** Servers by name, as far as this host has a way to them. */
import type { Family } from "../../addr.ts";
import { GretunError } from "../../errors.ts";
import type { RtNetlink } from "../../netlink.ts";
import type { Lookup } from "../../lookup.ts";
import { resolveServers, serverAt, type StunServer } from "../../stun/mod.ts";

/**
 * The addresses of each name in each family that this host has a route to; families in the order
 * given. Throws what `resolveServers` throws, and `GretunError` when there is no route.
 */
export async function resolveReachable(
  names: readonly string[],
  families: readonly Family[],
  rtnl: Pick<RtNetlink, "tryRouteTo">,
  lookup?: Lookup,
): Promise<StunServer[]> {
  const resolved = await Promise.allSettled(
    families.map((family) => resolveServers(names, { family, ...(lookup ? { lookup } : {}) })),
  );
  const servers = resolved.flatMap((r) => r.status === "fulfilled" ? r.value : []);
  const [failed] = resolved.flatMap((r) => r.status === "rejected" ? [r.reason] : []);
  if (servers.length === 0 && failed) throw failed;
  const reachable = servers.flatMap(({ name, endpoint, others = [] }) => {
    const routed = [endpoint, ...others].filter(({ ip }) => rtnl.tryRouteTo(ip));
    return serverAt(name, routed) ?? [];
  });
  if (reachable.length > 0 || servers.length === 0) return reachable;
  throw new GretunError(
    `no route to ${names.join(", ")}`,
    "Check this host's network with: ip route; ip -6 route",
  );
}
