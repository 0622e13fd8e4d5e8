/** What a kernel plane needs of the kernel: FOU, a kind of tunnel over it, and a port of its own. */
import type { Ip } from "../addr.ts";
import { GretunError } from "../errors.ts";
import { freeName } from "../links/mod.ts";
import { loadModule } from "../linux/mod.ts";
import { Fou, hasCode, type RtNetlink } from "../netlink.ts";

const TTL = 64;
/** Not the links' own pattern: a name without %d may be taken, by the link of an earlier run. */
const TRIAL_NAME = "gretun-try%d";

/** A kernel without FOU or the kind of tunnel, and no module of it that could be loaded. */
export class NoKernelPlaneError extends GretunError {
  override name = "NoKernelPlaneError";

  constructor(module: string, cause: unknown) {
    super(
      `kernel has no module ${module}`,
      `Run: modprobe ${module}; or use the user-space plane with --data-plane tun`,
      { cause },
    );
  }
}

/** The kernel loads most modules on demand, but not this one. */
export function openFou(): Fou {
  try {
    return Fou.open();
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
    if (!loadModule("fou")) throw new NoKernelPlaneError("fou", error);
    return Fou.open();
  }
}

export interface TunnelTrial {
  kind: "gre" | "ip6gre" | "ipip";
  /** Without it: loaded on demand. */
  modules: readonly string[];
  port: number;
  /** An address of nobody's. */
  remote: Ip;
}

/** Makes and removes a link: now is the time to find that the kernel cannot do it. */
export function tryTunnel(
  rtnl: RtNetlink,
  { kind, modules, port, remote }: TunnelTrial,
): void {
  const encap = { type: "fou", sport: port, dport: port, csum: true } as const;
  const tunnel = { remote, ttl: TTL, pmtudisc: true, encap };
  const name = freeName(rtnl, TRIAL_NAME, new Set());
  const tryOnce = () => rtnl.deleteLink(rtnl.createLink({ name, kind, tunnel }));
  try {
    tryOnce();
  } catch (error) {
    // Another gretun is trying the same thing now.
    if (hasCode(error, "EEXIST")) return;
    // EINVAL: no such encapsulation, for want of fou6.
    if (!hasCode(error, "EOPNOTSUPP", "EINVAL")) throw error;
    for (const module of modules) {
      if (!loadModule(module)) throw new NoKernelPlaneError(module, error);
    }
    tryOnce();
  }
}
