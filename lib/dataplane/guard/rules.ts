/**
 * What the kernel plane lets through, as nf_tables has it. Outside: data only from the remotes of
 * links and in UDP, where the kernel itself looks at the address alone; and no ICMP to strangers,
 * which the kernel sends for what fits no link. The same rules rewrite alternative local addresses,
 * statelessly: no conntrack entry is made. Inside: what comes out of a link is from its far end and
 * for what that may reach, what goes into it is for the far end, and no outer packet goes into a
 * link of ours.
 */
import { type Cidr, type Endpoint, type Family, familyOf, type Ip, ipBytes } from "../../addr.ts";
import { concatBytes, Writer } from "../../bytes.ts";
import { network } from "../../links/mod.ts";
import type { Signalling } from "../../linux/mod.ts";
import * as nft from "../../nft/mod.ts";
import type { InnerLimits, Lookalikes } from "../plane.ts";
import type { GuardRule, GuardTable, SetElements } from "./link_table.ts";

/** Before conntrack (-200) and every translation. */
const BEFORE_ALL = -310;
const AFTER_ALL = 310;
const UDP_LENGTH_OFFSET = 4;
const PAYLOAD_OFFSET = 8;
const INNER_TOTAL_LENGTH_OFFSET = PAYLOAD_OFFSET + 2;
/** UDP and IPv4 header: what is shorter is no data. */
const SHORTEST_DATA = u16(8 + 20);
const TOKEN_PREFIX_LENGTH = 16;
/** Of the first byte of GRE, RFC 2890. */
const GRE_KEY = 0x20;
/** Addresses of a link, of either end. */
const MAX_PAIRED = 4;

const OF_FAMILY = {
  4: {
    ...{ family: "ip", address: "address", saddr: "saddr", daddr: "daddr" } as const,
    ...{ icmp: "icmp", quotedDaddr: "quotedDaddr" } as const,
    portUnreachable: Uint8Array.of(3, 3),
    /** ICMP header, the IP header that is quoted, and its UDP source port. */
    quotedPortOffset: 8 + 20 + 2,
    /** Types that tell a host of other routers. */
    routing: [5],
    /** By the bits that count. */
    errors: { types: [3, 4, 11, 12], mask: 0xff },
  },
  6: {
    ...{ family: "ip6", address: "address6", saddr: "saddr6", daddr: "daddr6" } as const,
    ...{ icmp: "icmpv6", quotedDaddr: "quotedDaddr6" } as const,
    portUnreachable: Uint8Array.of(1, 4),
    quotedPortOffset: 8 + 40 + 2,
    routing: [134, 137],
    errors: { types: [0], mask: 0x80 },
  },
} as const;

/** Set where another link has the same remote address, with the address that the far end sends to. */
export interface Alternative {
  local: Ip;
  own: Ip;
}

export interface GuardedLink extends InnerLimits {
  ifindex: number;
  ifname: string;
  /** Of GRE: what the far end puts into its packets. */
  ikey?: number;
  remote: Endpoint;
  /** Of ours, where it is not the main one. */
  extraPort?: number;
  alternative?: Alternative;
}

export interface RuleOptions {
  role: string;
  port: number;
  signalling: Signalling;
  lookalikes?: Lookalikes;
  /** Links are of GRE, which may have keys by which data is known as well, and not of IPIP. */
  isKeyed?: boolean;
  /** What goes into links is looked at by chains of their own, see gates.ts. */
  hasGates?: boolean;
  /** This host is a router: what others send to a port like ours is none of ours. */
  forwards?: boolean;
}

/** What the sets of a family have of a link. */
export function elementsOf(
  link: GuardedLink,
  family: Family,
  { port, isKeyed = false }: Pick<RuleOptions, "port" | "isKeyed">,
): SetElements {
  const { ifindex, remote, extraPort, alternative, ikey, sources, destinations } = link;
  const link32 = hostU32(ifindex);
  const isHere = familyOf(remote.ip) === family;
  const key = remoteOf(link, port);
  const greKey = ikey === undefined ? undefined : new Writer("network", 4).u32(ikey).finish();
  return {
    links: [{ key: link32 }],
    ...(isHere ? { remotes: [{ key }] } : {}),
    ...(isHere && greKey
      ? { keyed: [{ key: concatBytes(ipBytes(remote.ip), portPart(remote.port), greKey) }] }
      : {}),
    ...(isKeyed && !greKey ? { keyless: [{ key: link32 }] } : {}),
    ...(isHere ? { [greKey ? "tunnels" : "peers"]: [{ key: tunnelOf(remote.ip, greKey) }] } : {}),
    ...(isHere && extraPort !== undefined ? { ports: [{ key: u16(extraPort) }] } : {}),
    ...(isHere && alternative
      ? {
        alternatives: [{ key, value: ipBytes(alternative.local) }],
        own: [{ key: ipBytes(alternative.local), value: ipBytes(alternative.own) }],
      }
      : {}),
    ...(sources
      ? { bound: [{ key: link32 }], ...byLength("sources", link32, sources, family) }
      : {}),
    ...(destinations
      ? { limited: [{ key: link32 }], ...byLength("reach", link32, destinations, family) }
      : {}),
    pairs: pairsOf(link, family),
  };
}

/** What the kernel knows the far end's packets by, whether UDP is around them or not. */
function tunnelOf(remote: Ip, greKey: Uint8Array | undefined): Uint8Array {
  return concatBytes(ipBytes(remote), greKey ?? new Uint8Array());
}

/** The far end's address and port, and ours. */
export function remoteOf({ remote, extraPort }: GuardedLink, port: number): Uint8Array {
  const ports = concatBytes(portPart(remote.port), portPart(extraPort ?? port));
  return concatBytes(ipBytes(remote.ip), ports);
}

/** Source and destination of most of what comes out of the link: one look-up in place of many. */
function pairsOf(
  { ifindex, sources = [], destinations = [] }: GuardedLink,
  family: Family,
): nft.NftElement[] {
  const hosts = (cidrs: readonly Cidr[]) =>
    cidrs.filter(({ ip, prefixLength }) =>
      familyOf(ip) === family && prefixLength === 8 * ipBytes(ip).length
    ).slice(0, MAX_PAIRED);
  return hosts(sources).flatMap(({ ip: from }) =>
    hosts(destinations).map(({ ip: to }) => ({
      key: concatBytes(hostU32(ifindex), ipBytes(from), ipBytes(to)),
    }))
  );
}

/** A set for each length of prefix: sets of intervals in a row with others are not for all kernels. */
function byLength(
  prefix: "sources" | "reach",
  link: Uint8Array,
  cidrs: readonly Cidr[],
  family: Family,
): SetElements {
  const sets: Record<string, nft.NftElement[]> = {};
  for (const cidr of cidrs.filter(({ ip }) => familyOf(ip) === family)) {
    const key = concatBytes(link, ipBytes(network(cidr).ip));
    (sets[`${prefix}_${cidr.prefixLength}`] ??= []).push({ key });
  }
  return sets;
}

/** `names` are the sets that links have elements of. */
export function buildTable(
  family: Family,
  options: RuleOptions,
  names: ReadonlySet<string>,
): GuardTable {
  const { role, port, hasGates = false, forwards = false } = options;
  // One link without a key has all of them known by address and port.
  const isKeyed = options.isKeyed === true && !names.has("keyless");
  const data: Data = { family, isKeyed, chain: forwards ? "to-us" : "in" };
  const { family: tableFamily, address } = OF_FAMILY[family];
  const hasOut = !hasGates || names.has("own");
  const chain = (name: string, hook: nft.NftChain["hook"], priority: number) =>
    ({ name, type: "filter", hook, priority, policy: "accept" }) as const;
  const remote = { element: [address, "port", "port"] } as const;
  const prefixed = prefixedOf(names);
  return {
    family: tableFamily,
    name: `gretun-${role}-${port}`,
    sets: [
      { name: "links", element: ["interface"] },
      { name: "bound", element: ["interface"] },
      { name: "limited", element: ["interface"] },
      { name: "pairs", element: ["interface", address, address] },
      ...prefixed.map((name) => ({ name, element: ["interface", address] } as const)),
      { name: "ports", element: ["port"], elements: [{ key: u16(port) }] },
      { name: "remotes", ...remote },
      { name: "peers", element: [address] },
      ...(options.isKeyed ? [{ name: "tunnels", element: [address, "mark"] } as const] : []),
      ...(options.isKeyed ? [{ name: "keyed", element: [address, "port", "mark"] } as const] : []),
      ...(names.has("keyless") ? [{ name: "keyless", element: ["interface"] } as const] : []),
      ...(names.has("alternatives")
        ? [
          { name: "alternatives", ...remote, value: ["address"] } as const,
          { name: "own", element: ["address"], value: ["address"] } as const,
        ]
        : []),
    ],
    chains: [
      chain("in", "prerouting", BEFORE_ALL),
      // There it is known what NAT leads to others.
      ...(forwards ? [chain("to-us", "input", BEFORE_ALL)] : []),
      // A chain costs each packet a little, even if no rule of it looks at it.
      ...(hasOut ? [chain("out", "postrouting", AFTER_ALL)] : []),
      ...(isKeyed ? [] : [chain("answers", "output", nft.PRIORITY.filter)]),
    ],
    rules: [
      // Most packets are data: what passes them comes first, and what costs least in each rule.
      ...alternatives(family, names),
      ...dataIn(data),
      ...innerIn(family, prefixed),
      ...otherIn(data, options),
      ...rewriting(names),
      ...(hasGates ? [] : out(family, names)),
      ...(isKeyed ? [] : [answers(family)]),
    ],
  };
}

/** What comes out of links is looked at as what it is there. */
const IS_NO_LINK = nft.isNotIn("links", nft.incoming());
/** For a port of ours. */
const TO_US = [nft.l4proto("udp"), nft.isIn("ports", nft.fields("dport"))];

interface Data {
  family: Family;
  isKeyed: boolean;
  chain: "in" | "to-us";
}

/** By the far end's address and port a packet is for another local address. */
function alternatives(family: Family, names: ReadonlySet<string>): GuardRule[] {
  if (!names.has("alternatives")) return [];
  const remote = nft.fields(OF_FAMILY[family].saddr, "sport", "dport");
  const address = nft.setAddress("daddr", nft.mapped("alternatives", remote));
  return [{ chain: "in", match: [nft.l4proto("udp"), IS_NO_LINK, address], verdict: "accept" }];
}

/**
 * From remotes, by the interface of most hosts, which is no link: the first rule that most packets
 * meet. With another key the kernel would answer to them.
 */
function dataIn(data: Data): GuardRule[] {
  const match = [nft.l4proto("udp"), nft.isEthernet(), isData(data)];
  return [{ chain: data.chain, match, verdict: "accept" }];
}

function isData({ family, isKeyed }: Data): nft.Match {
  const { saddr } = OF_FAMILY[family];
  return isKeyed
    ? nft.isIn("keyed", nft.fields(saddr, "sport", "greKey"))
    : nft.isIn("remotes", nft.fields(saddr, "sport", "dport"));
}

/** Of what comes out of links. */
function innerIn(family: Family, prefixed: readonly string[]): GuardRule[] {
  const { saddr, daddr, icmp, routing } = OF_FAMILY[family];
  const from = nft.incoming();
  // Errors of ICMP are looked at below.
  return [
    ...[
      [nft.l4proto("tcp")],
      [nft.l4proto("udp"), nft.isNotIn("ports", nft.fields("dport"))],
    ].map((others): GuardRule => ({
      ...{ chain: "in", verdict: "accept" },
      match: [...others, nft.isIn("pairs", nft.row(from, nft.fields(saddr, daddr)))],
    })),
    ...routing.map((type) => ({
      ...{ chain: "in", counter: true, verdict: "drop", refuses: "router-message" } as const,
      match: [nft.l4proto(icmp), nft.isIn("links", from), nft.transport(0, Uint8Array.of(type))],
    })),
    {
      ...{ chain: "in", counter: true, verdict: "drop", refuses: "wrong-inner-address" },
      match: [nft.isIn("bound", from), ...outside("sources", prefixed, from, saddr)],
    },
    {
      ...{ chain: "in", counter: true, verdict: "drop", refuses: "out-of-reach" },
      match: [nft.isIn("limited", from), ...outside("reach", prefixed, from, daddr)],
    },
    ...icmpErrors(family, prefixed),
  ];
}

/** Of what came this far: an error is about a packet that went to the far end. */
function icmpErrors(family: Family, prefixed: readonly string[]): GuardRule[] {
  const { icmp, errors, quotedDaddr } = OF_FAMILY[family];
  const from = nft.incoming();
  const quoted = (name: string) => nft.row(from, nft.networkOf(quotedDaddr, lengthOf(name)!));
  return [
    ...prefixed.filter((name) => name.startsWith("sources_")).map((name): GuardRule => ({
      ...{ chain: "in", verdict: "accept" },
      match: [nft.l4proto(icmp), nft.isIn(name, quoted(name))],
    })),
    // Also one that is too short to tell.
    ...errors.types.map((type): GuardRule => ({
      ...{ chain: "in", counter: true, verdict: "drop", refuses: "wrong-inner-address" },
      match: [
        nft.l4proto(icmp),
        nft.isIn("bound", from),
        nft.transport(0, Uint8Array.of(type), { mask: Uint8Array.of(errors.mask) }),
      ],
    })),
  ];
}

/** In none of the link's prefixes. */
function outside(
  prefix: "sources" | "reach",
  prefixed: readonly string[],
  link: nft.Part,
  field: "saddr" | "daddr" | "saddr6" | "daddr6",
): nft.Match[] {
  return prefixed.filter((name) => name.startsWith(`${prefix}_`)).map((name) =>
    nft.isNotIn(name, nft.row(link, nft.networkOf(field, lengthOf(name)!)))
  );
}

function prefixedOf(names: ReadonlySet<string>): string[] {
  return [...names].filter((name) => lengthOf(name) !== undefined).sort();
}

function lengthOf(name: string): number | undefined {
  const [, length] = /^(?:sources|reach)_(\d+)$/.exec(name) ?? [];
  return length === undefined ? undefined : Number(length);
}

/** Of what comes to our ports. */
function otherIn(data: Data, options: RuleOptions): GuardRule[] {
  const accept = (...match: nft.Match[]): GuardRule => ({
    ...{ chain: data.chain, verdict: "accept" } as const,
    match: [...TO_US, ...match],
  });
  return [
    accept(IS_NO_LINK, isData(data)),
    ...signalling(options).map((match) => accept(match)),
    ...[TO_US, ...withoutUdp(data, options)].map((match): GuardRule => ({
      ...{ chain: data.chain, match, counter: true, verdict: "drop", refuses: "wrong-address" },
    })),
  ];
}

/** Where a link has UDP around its packets, the kernel takes them without it all the same. */
function withoutUdp({ family }: Data, { isKeyed }: RuleOptions): nft.Match[][] {
  const from = nft.fields(OF_FAMILY[family].saddr);
  if (!isKeyed) return [[nft.l4proto("ipip"), nft.isIn("peers", from)]];
  // With a checksum, which stands before the key, the kernel takes none: our links have no checksums.
  const gre = (flags: number, known: nft.Match) => [
    nft.l4proto("gre"),
    nft.transport(0, Uint8Array.of(flags), { mask: Uint8Array.of(GRE_KEY) }),
    known,
  ];
  const key = nft.transportBytes(4, 4);
  return [
    gre(GRE_KEY, nft.isIn("tunnels", nft.row(from, key))),
    gre(0, nft.isIn("peers", from)),
  ];
}

/** Of outer packets: the alternative is for this host alone. */
function rewriting(names: ReadonlySet<string>): GuardRule[] {
  if (!names.has("own")) return [];
  const address = nft.setAddress("saddr", nft.mapped("own", nft.fields("saddr")));
  return [{
    chain: "out",
    match: [nft.l4proto("udp"), nft.isIn("ports", nft.fields("sport")), address],
  }];
}

/** Of what goes into links, where the kernel has no chains for that alone. */
function out(family: Family, names: ReadonlySet<string>): GuardRule[] {
  const { daddr, address } = OF_FAMILY[family];
  const prefixed = prefixedOf(names);
  const into = nft.outgoing();
  const accept = { chain: "out", verdict: "accept" } as const;
  const drop = { chain: "out", counter: true, verdict: "drop" } as const;
  const hosts = `sources_${address === "address" ? 32 : 128}`;
  const isTheirs = nft.isIn(hosts, nft.row(into, nft.fields(daddr)));
  return [
    ...(names.has(hosts) ? [{ ...accept, match: [nft.l4proto("udp", "!="), isTheirs] }] : []),
    { ...accept, match: [nft.isNotIn("links", into)] },
    {
      ...{ ...drop, refuses: "own-tunnel" },
      match: [nft.l4proto("udp"), nft.isIn("remotes", nft.fields(daddr, "dport", "sport"))],
    },
    ...(names.has(hosts) ? [{ ...accept, match: [isTheirs] }] : []),
    {
      ...{ ...drop, refuses: "not-for-peer" },
      match: [nft.isIn("bound", into), ...outside("sources", prefixed, into, daddr)],
    },
  ];
}

/** The kernel's own, about what fits no link; what others send through this host goes on. */
function answers(family: Family): GuardRule {
  const { icmp, portUnreachable, quotedPortOffset } = OF_FAMILY[family];
  return {
    chain: "answers",
    match: [
      nft.l4proto(icmp),
      nft.transport(0, portUnreachable),
      nft.isIn("ports", nft.transportBytes(quotedPortOffset, 2)),
    ],
    counter: true,
    verdict: "drop",
  };
}

/** What is no data, as far as a rule can tell. */
function signalling({ signalling, lookalikes }: RuleOptions): nft.Match[] {
  if (signalling.kind === "patterns") {
    return signalling.any.map(({ offset, bytes, mask }) =>
      nft.transport(PAYLOAD_OFFSET + offset, bytes, mask ? { mask } : {})
    );
  }
  const tokens = (lookalikes?.tokens() ?? []).filter((token) => token[0]! >> 4 === 4);
  return [
    nft.transport(UDP_LENGTH_OFFSET, SHORTEST_DATA, { op: "lt" }),
    nft.transport(PAYLOAD_OFFSET, Uint8Array.of(0x40), {
      op: "neq",
      mask: Uint8Array.of(0xf0),
    }),
    // It may begin as an IPv4 packet does, of more than its own length: what is shorter the kernel takes.
    ...(lookalikes?.lengths ?? []).map((length) => [
      ...nft.transport(UDP_LENGTH_OFFSET, u16(PAYLOAD_OFFSET + length)),
      ...nft.transport(INNER_TOTAL_LENGTH_OFFSET, u16(length), { op: "gt" }),
    ]),
    ...tokens.map((token) => nft.transport(PAYLOAD_OFFSET, token.slice(0, TOKEN_PREFIX_LENGTH))),
  ];
}

/** In a row: two of four bytes. */
function portPart(port: number): Uint8Array {
  return concatBytes(u16(port), new Uint8Array(2));
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value & 0xff);
}

function hostU32(value: number): Uint8Array {
  return new Writer("host", 4).u32(value).finish();
}
