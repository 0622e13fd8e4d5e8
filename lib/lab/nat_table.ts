/** The packet filter of a NAT as a value. */
import type { Ip } from "../addr.ts";
import { nft } from "../netlink.ts";

/**
 * How a NAT treats UDP (RFC 4787). `port-restricted`: one outer port for all destinations, and
 * only who was sent something may answer. `symmetric`: another outer port for every destination.
 * `full-cone`: one outer port, by which everybody reaches the one host behind it.
 */
export type NatMapping = "port-restricted" | "symmetric" | "full-cone";

export const NAT_MAPPINGS: readonly NatMapping[] = ["port-restricted", "symmetric", "full-cone"];
/** The NAT's interfaces: towards the internet, and towards its hosts. */
export const OUT = "out";
export const IN = "in";

const POST: nft.NftChain = {
  name: "postrouting",
  type: "nat",
  hook: "postrouting",
  priority: nft.PRIORITY.srcnat,
  policy: "accept",
};
const PRE: nft.NftChain = {
  name: "prerouting",
  type: "nat",
  hook: "prerouting",
  priority: nft.PRIORITY.dstnat,
  policy: "accept",
};
const FORWARD: nft.NftChain = {
  name: "forward",
  type: "filter",
  hook: "forward",
  priority: nft.PRIORITY.filter,
  policy: "drop",
};
/**
 * A peer's early packet that reached the router itself would be tracked as a connection with it,
 * and that would move the host's own mapping to another port.
 */
const INPUT: nft.NftChain = { ...FORWARD, name: "input", hook: "input" };

const KNOWN = nft.ctState("established", "related");

export interface NatTableOptions {
  mapping: NatMapping;
  /** Drops all UDP from the inside, as some company networks do. */
  blockUdp: boolean;
  /** Whom a full cone leads to. */
  coneHost?: Ip;
}

export function natTable({ mapping, blockUdp, coneHost }: NatTableOptions): nft.NftTable {
  const masquerade = mapping === "symmetric"
    ? nft.masquerade("random", "fully-random")
    : nft.masquerade();
  const rules: nft.NftRule[] = [
    { chain: "postrouting", match: [nft.oifname(OUT)], verdict: masquerade },
    ...(blockUdp
      ? [{ chain: "forward", match: [nft.l4proto("udp")], verdict: "drop" } as const]
      : []),
    { chain: "forward", match: [KNOWN], verdict: "accept" },
    { chain: "forward", match: [nft.iifname(IN), nft.oifname(OUT)], verdict: "accept" },
    // From one inside host to another: bridged, but seen here on kernels with br_netfilter.
    { chain: "forward", match: [nft.iifname(IN), nft.oifname(IN)], verdict: "accept" },
    { chain: "input", match: [KNOWN], verdict: "accept" },
    { chain: "input", match: [nft.iifname(IN)], verdict: "accept" },
    { chain: "input", match: [nft.iifname("lo")], verdict: "accept" },
    ...(mapping === "full-cone" && coneHost ? coneRules(coneHost) : []),
  ];
  const chains = [POST, PRE, FORWARD, INPUT];
  return { family: "ip", name: "nat", chains, rules };
}

/** Outer ports are inner ports, as masquerade keeps those of a single host. */
function coneRules(ip: Ip): nft.NftRule[] {
  const inbound = [nft.iifname(OUT), nft.l4proto("udp")];
  return [
    { chain: "prerouting", match: inbound, verdict: nft.dnat({ ip }) },
    {
      chain: "forward",
      match: [...inbound, nft.daddr({ ip, prefixLength: 32 })],
      verdict: "accept",
    },
  ];
}
