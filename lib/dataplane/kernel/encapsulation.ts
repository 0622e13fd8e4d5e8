/** Which links of the kernel a plane makes, and what the kernel needs for them. */
import { type Ip, parseIp } from "../../addr.ts";
import { GretunError } from "../../errors.ts";
import type { Host } from "../../host/mod.ts";
import { freeName } from "../../links/mod.ts";
import { type Fou, hasCode, type RtNetlink } from "../../netlink.ts";
import type { KernelPlaneKind } from "../kinds.ts";

export const TTL = 64;
/** Not the links' own pattern: a name without %d may be taken, by the link of an earlier run. */
const TRIAL_NAME = "gretun-try%d";

/** A kind of link, and the modules that it needs besides `fou`. */
export interface Encapsulation {
  kind: "gre" | "ip6gre" | "ipip";
  /** IP protocol of what UDP carries. */
  ipproto: number;
  modules: readonly string[];
  /** An address of nobody's (RFC 5737, RFC 3849). */
  nowhere: Ip;
}

const NOWHERE_4 = parseIp("192.0.2.1");
const GRE = {
  4: { kind: "gre", ipproto: 47, modules: ["ip_gre"], nowhere: NOWHERE_4 },
  6: { kind: "ip6gre", ipproto: 47, modules: ["ip6_gre", "fou6"], nowhere: parseIp("2001:db8::1") },
} as const;
const IPIP = {
  4: { kind: "ipip", ipproto: 4, modules: ["ipip"], nowhere: NOWHERE_4 },
} as const;

/** By the family of outer packets. */
export const ENCAPSULATIONS: Record<
  KernelPlaneKind,
  { readonly 4: Encapsulation; readonly 6?: Encapsulation }
> = { "fou": GRE, "gre-fou": GRE, "ipip-fou": IPIP };

/** A kernel without FOU, the kind of tunnel or nf_tables, and no module of it that could be loaded. */
export class NoKernelPlaneError extends GretunError {
  override name = "NoKernelPlaneError";

  constructor(message: string, module: string, cause: unknown) {
    super(message, `Run: modprobe ${module}; or use the user-space plane with --data-plane tun`, {
      cause,
    });
  }
}

function without(module: string, cause: unknown): NoKernelPlaneError {
  return new NoKernelPlaneError(`kernel has no module ${module}`, module, cause);
}

/** The kernel loads most modules on demand, but not this one. */
export function openFou(host: Host): Fou {
  try {
    return host.openFou();
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
    if (!host.loadModule("fou")) throw without("fou", error);
    return host.openFou();
  }
}

/** Makes and removes a link: now is the time to find that the kernel cannot do it. */
export function tryTunnel(
  host: Host,
  rtnl: RtNetlink,
  { kind, modules, nowhere }: Encapsulation,
  port: number,
): void {
  const encap = { type: "fou", sport: port, dport: port, csum: true } as const;
  const tunnel = { remote: nowhere, ttl: TTL, pmtudisc: true, encap };
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
      if (!host.loadModule(module)) throw without(module, error);
    }
    tryOnce();
  }
}
