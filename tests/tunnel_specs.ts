/** Tunnels of every kind and encapsulation, for tests. */
import { outerFamily, TUNNEL_KINDS, type TunnelKind } from "../lib/netlink.ts";
import {
  applySteps,
  planRemoval,
  type Step,
  type TunnelHost,
  type TunnelOptions,
  type TunnelSpec,
  validateTunnel,
} from "../lib/tunnel/mod.ts";

export const ENCAPS = ["none", "fou", "gue"] as const;
export const FAMILIES = [4, 6] as const;

/** As the flags' defaults are. */
const DEFAULTS = {
  ...{ name: "t0", type: "gre", local: "192.0.2.1", remote: "192.0.2.2", ttl: "64", tos: "0" },
  ...{ pmtudisc: true, csum: false, seq: false, mtu: 0, encap: "none", "encap-csum": true },
  ...{ "tunnel-ip": [], route: [] },
} as const satisfies TunnelOptions;

/** A tunnel that is right, changed by what a test is about. */
export function spec(options: Partial<TunnelOptions> = {}): TunnelSpec {
  return validateTunnel({ ...DEFAULTS, ...options });
}

/** As `gretun delete` does. Gives the names of what went. */
export function deleteTunnels(
  host: TunnelHost,
  names: readonly string[] | "all",
  onStep?: (step: Step) => void,
): string[] {
  const plan = planRemoval(host, names);
  applySteps(host, plan.steps, onStep);
  return plan.names;
}

export interface Variant {
  /** "gre in fou, IPv6 inside" */
  name: string;
  kind: TunnelKind;
  encap: typeof ENCAPS[number];
  /** Of the inner packets. */
  inner: 4 | 6;
}

/** What a kind carries. */
export function innerFamilies(kind: TunnelKind): (4 | 6)[] {
  if (kind === "ipip") return [4];
  return kind === "sit" ? [6] : [4, 6];
}

export const VARIANTS: Variant[] = TUNNEL_KINDS.flatMap((kind) =>
  ENCAPS.flatMap((encap) =>
    innerFamilies(kind).map((inner) => ({
      name: `${kind}${encap === "none" ? "" : ` in ${encap}`}, IPv${inner} inside`,
      ...{ kind, encap, inner },
    }))
  )
);

/** One end of a tunnel between hosts 1 and 2 on 192.0.2.0/24 and 2001:db8::/64. */
export function variantSpec(
  { kind, encap, inner }: Variant,
  host: 1 | 2,
  options: Partial<TunnelOptions> = {},
): TunnelSpec {
  const outer = (n: number) => outerFamily(kind) === 4 ? `192.0.2.${n}` : `2001:db8::${n}`;
  return spec({
    name: "t0",
    type: kind,
    local: outer(host),
    remote: outer(3 - host),
    encap,
    ...(encap === "none" ? {} : { "encap-dport": 7777 }),
    "tunnel-ip": [inner === 4 ? `10.0.0.${host}/30` : `fd00::${host}/64`],
    ...options,
  });
}
