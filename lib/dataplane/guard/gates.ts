/**
 * What may go into links, looked at by a chain of nf_tables at each link's device: no other packet
 * meets it. For the far end's addresses only, and no outer packet of ours.
 */
import { type Cidr, type Family, familyOf, ipBytes } from "../../addr.ts";
import type { Host } from "../../host/mod.ts";
import * as nft from "../../nft/mod.ts";
import type { GuardRule, GuardTable, LinkChain, LinkPart } from "./link_table.ts";
import { type GuardedLink, remoteOf, type RuleOptions } from "./rules.ts";

const CHAIN = { type: "filter", hook: "egress", priority: 0, policy: "accept" } as const;
/** Of a link; they are looked at first. */
const MAX_HOSTS = 4;

const OF_FAMILY = {
  4: { remotes: "remotes", daddr: "daddr", address: "address" },
  6: { remotes: "remotes6", daddr: "daddr6", address: "address6" },
} as const;

/** False before Linux 5.16. Throws `NftError` where there is no nf_tables at all. */
export function canGate(host: Host, { role, port }: RuleOptions): boolean {
  using tables = host.openNft();
  const table = { ...buildGates({ role, port }), name: `gretun-${role}-${port}-trial` };
  try {
    tables.replaceTable({ ...table, chains: [{ ...CHAIN, name: "trial", device: "lo" }] });
  } catch (error) {
    if (error instanceof nft.NftError) return false;
    throw error;
  }
  tables.deleteTable(table.family, table.name);
  return true;
}

/** Without its links. */
export function buildGates({ role, port }: Pick<RuleOptions, "role" | "port">): GuardTable {
  return {
    family: "netdev",
    name: `gretun-${role}-${port}`,
    sets: ([4, 6] as const).map((family) => {
      const { remotes, address } = OF_FAMILY[family];
      return { name: remotes, element: [address, "port", "port"] };
    }),
    chains: [],
    rules: [],
  };
}

export function gateOf(link: GuardedLink, { port }: Pick<RuleOptions, "port">): LinkPart {
  const { remotes } = OF_FAMILY[familyOf(link.remote.ip)];
  return { elements: { [remotes]: [{ key: remoteOf(link, port) }] }, own: chainOf(link) };
}

function chainOf({ ifindex, ifname, sources }: GuardedLink): LinkChain {
  const name = `out-${ifindex}`;
  const accept = (...match: nft.Match[]): GuardRule => ({ chain: name, match, verdict: "accept" });
  const drop = { chain: name, counter: true, verdict: "drop" } as const;
  const to = (cidr: Cidr) => [nft.isIp(familyOf(cidr.ip)), nft.daddr(cidr)];
  const hosts = sources?.filter(isHost).slice(0, MAX_HOSTS) ?? [];
  return {
    chain: { ...CHAIN, name, device: ifname },
    rules: [
      // Most packets.
      ...hosts.map((host) => accept(...to(host), nft.l4proto("udp", "!="))),
      ...([4, 6] as const).map((family) => ({
        ...{ ...drop, refuses: "own-tunnel" } as const,
        match: [nft.isIp(family), nft.l4proto("udp"), isOuter(family)],
      })),
      ...sources?.map((cidr) => accept(...to(cidr))) ?? [],
      ...(sources ? [{ ...drop, refuses: "not-for-peer" } as const] : []),
    ],
  };
}

function isOuter(family: Family): nft.Match {
  const { remotes, daddr } = OF_FAMILY[family];
  return nft.isIn(remotes, nft.fields(daddr, "dport", "sport"));
}

function isHost({ ip, prefixLength }: Cidr): boolean {
  return prefixLength === 8 * ipBytes(ip).length;
}
