/**
 * The packet filter of a NAT as a value. Mappings are kept in two maps that the rules fill
 * themselves when the first packet of a flow goes out:
 *
 *     outer_ports  inner address, inner port, and what of the remote the mapping depends on
 *                  -> outer port
 *     inner_hosts  outer port -> inner address, inner port
 */
import type { Cidr, Ip } from "../../lib/addr.ts";
import { GretunError } from "../../lib/errors.ts";
import * as nft from "./nft.ts";

/** RFC 4787 section 4.1: for which remotes the outer port of an inner address and port is one. */
export const MAPPINGS = [
  "endpoint-independent",
  "address-dependent",
  "address-and-port-dependent",
] as const;
export type Mapping = typeof MAPPINGS[number];

/** RFC 4787 section 5: whose datagrams come in, of those who were or were not sent something. */
export const FILTERINGS = [
  "endpoint-independent",
  "address-dependent",
  "address-and-port-dependent",
] as const;
export type Filtering = typeof FILTERINGS[number];

/** The outer port of a new mapping; `preserved` is the inner one while that is free. */
export const PORT_CHOICES = ["preserved", "sequential", "random"] as const;
export type PortChoice = typeof PORT_CHOICES[number];

/** The NAT's interfaces: towards the internet, and towards its hosts. */
export const OUT = "out";
export const IN = "in";

/** How a NAT treats UDP, in the words of RFC 4787. */
export interface NatBehaviour {
  /** "endpoint-independent" unless told. */
  mapping?: Mapping;
  /** "address-and-port-dependent" unless told. */
  filtering?: Filtering;
  /** "preserved" for an endpoint-independent mapping, else "random", unless told. */
  ports?: PortChoice;
  /**
   * An inner host reaches another one by the outer address, and is seen under the outer one too.
   * Filtering does not apply to it. Needs an endpoint-independent mapping.
   */
  hairpin?: boolean;
  /**
   * A router that accepts what is sent to itself, like many made by hand: mapping and filtering are
   * Linux's own. The kernel tracks a peer's early datagram as a connection with the router, and
   * the inner host's mapping to that peer then gets another port.
   */
  openInput?: boolean;
}

/** What a network lets out: all that is not named. */
export interface EgressFirewall {
  /** The destination ports that UDP may go to; none: UDP is blocked. */
  udpTo?: readonly number[];
  tcpTo?: readonly number[];
}

/** What is called a symmetric NAT: with random ports, as most of them have. */
export const SYMMETRIC: NatBehaviour = { mapping: "address-and-port-dependent" };
/** What some company networks do. */
export const NO_UDP: EgressFirewall = { udpTo: [] };

export interface NatTableOptions {
  behaviour: NatBehaviour;
  firewall: EgressFirewall;
  ip: Ip;
  inside: Cidr;
}

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
/** Keeps the kernel from tracking a peer's early packet: see {@link NatBehaviour.openInput}. */
const INPUT: nft.NftChain = { ...FORWARD, name: "input", hook: "input" };

const OUTER_PORTS = "outer_ports";
const INNER_HOSTS = "inner_hosts";
/** Who was sent something: inner address and port, remote address. */
const CONTACTS = "contacts";

const KNOWN = nft.ctState("established", "related");
const UDP = nft.l4proto("udp");
const INNER = nft.fields("saddr", "sport");
const INNER_PORT = nft.fields("sport");
/** What a mapping belongs to. */
const MAPPING_FIELDS = {
  "endpoint-independent": ["saddr", "sport"],
  "address-dependent": ["saddr", "sport", "daddr"],
  "address-and-port-dependent": ["saddr", "sport", "daddr", "dport"],
} as const satisfies Record<Mapping, unknown>;
const TO_INNER_HOST = nft.dnatTo(nft.mapped(INNER_HOSTS, nft.fields("dport")));

/** Far from the ports that programs choose, so that a preserved one is seldom taken. */
const SEQUENTIAL_PORTS = { first: 40_000, count: 20_000 };
const RANDOM_PORTS = { first: 1024, count: 64_512 };

/** IPv4. Throws `GretunError` for what no NAT can be. */
export function natTable({ behaviour, firewall, ip, inside }: NatTableOptions): nft.NftTable {
  checkBehaviour(behaviour);
  const { mapping = "endpoint-independent" } = behaviour;
  const udpRules = behaviour.openInput ? [] : [
    ...inboundRules(behaviour),
    ...(behaviour.hairpin ? hairpinRules(behaviour, ip, inside) : []),
    ...mappingRules(behaviour, [nft.oifname(OUT), UDP], nft.masqueradeTo),
  ];
  const keyTypes = MAPPING_FIELDS[mapping].map((field) =>
    field.endsWith("addr") ? "address" : "port"
  );
  return {
    family: "ip",
    name: "nat",
    chains: [POST, PRE, FORWARD, { ...INPUT, policy: behaviour.openInput ? "accept" : "drop" }],
    sets: [
      { name: OUTER_PORTS, element: keyTypes, value: ["port"] },
      { name: INNER_HOSTS, element: ["port"], value: ["address", "port"] },
      { name: CONTACTS, element: ["address", "port", "address"] },
    ],
    rules: [
      ...forwardRules(firewall),
      ...udpRules,
      { chain: "postrouting", match: [nft.oifname(OUT)], verdict: nft.masquerade() },
      { chain: "input", match: [KNOWN], verdict: "accept" },
      { chain: "input", match: [nft.iifname(IN)], verdict: "accept" },
      { chain: "input", match: [nft.iifname("lo")], verdict: "accept" },
    ],
  };
}

/** IPv6 without translation: only what answers comes in. */
export function firewallTable(firewall: EgressFirewall): nft.NftTable {
  return {
    family: "ip6",
    name: "firewall",
    chains: [FORWARD],
    rules: forwardRules(firewall),
  };
}

function checkBehaviour(behaviour: NatBehaviour): void {
  const { mapping = "endpoint-independent", hairpin, openInput } = behaviour;
  if (hairpin && mapping !== "endpoint-independent") {
    throw new GretunError(
      `no hairpinning with ${mapping} mapping`,
      "Choose endpoint-independent mapping: RFC 4787 asks for it first",
    );
  }
  if (openInput && Object.keys(behaviour).length > 1) {
    throw new GretunError(
      "a router with an open input maps and filters as Linux does",
      "Leave the other settings of its behaviour out",
    );
  }
}

function forwardRules({ udpTo, tcpTo }: EgressFirewall): nft.NftRule[] {
  const outwards = [nft.iifname(IN), nft.oifname(OUT)];
  const only = (protocol: "udp" | "tcp", ports: readonly number[] | undefined): nft.NftRule[] =>
    ports === undefined ? [] : [
      ...ports.map((port): nft.NftRule => ({
        chain: "forward",
        match: [...outwards, nft.dport(protocol, port)],
        verdict: "accept",
      })),
      { chain: "forward", match: [...outwards, nft.l4proto(protocol)], verdict: "drop" },
    ];
  return [
    { chain: "forward", match: [KNOWN], verdict: "accept" },
    ...only("udp", udpTo),
    ...only("tcp", tcpTo),
    { chain: "forward", match: outwards, verdict: "accept" },
    // From one inside host to another: bridged, but seen here on kernels with br_netfilter.
    { chain: "forward", match: [nft.iifname(IN), nft.oifname(IN)], verdict: "accept" },
  ];
}

/** Runs for the first packet of a flow: gives it its mapping, and makes that if there is none. */
function mappingRules(
  {
    mapping = "endpoint-independent",
    filtering = "address-and-port-dependent",
    ports,
    hairpin = false,
  }: NatBehaviour,
  flow: readonly nft.Match[],
  translate: (port: nft.Value) => nft.NatAction,
): nft.NftRule[] {
  const key = nft.fields(...MAPPING_FIELDS[mapping]);
  const outerPort = nft.mapped(OUTER_PORTS, key);
  const rule = (match: nft.Match, verdict?: nft.Verdict): nft.NftRule => ({
    chain: "postrouting",
    match: [...flow, match],
    ...(verdict ? { verdict } : {}),
  });
  const contact = nft.add(CONTACTS, nft.fields("saddr", "sport", "daddr"));
  // Where nobody is let in, ports are remembered to be taken; nft can list that, but not the other.
  const letsIn = hairpin || filtering !== "address-and-port-dependent";
  const choice = ports ?? (mapping === "endpoint-independent" ? "preserved" : "random");
  return [
    ...(filtering === "address-dependent" ? [rule(contact)] : []),
    rule(nft.isKeyIn(OUTER_PORTS, key), translate(outerPort)),
    ...newOuterPort(choice, key).map((match) => rule(match)),
    rule(nft.add(INNER_HOSTS, letsIn ? outerPort : INNER_PORT, INNER), translate(outerPort)),
  ];
}

/** One after the other: the first that adds a port for the key has chosen it. */
function newOuterPort(choice: PortChoice, key: nft.Value): nft.Match[] {
  const inOrder = nft.add(OUTER_PORTS, key, nft.newPort("sequential", SEQUENTIAL_PORTS));
  switch (choice) {
    case "random":
      return [nft.add(OUTER_PORTS, key, nft.newPort("random", RANDOM_PORTS))];
    case "sequential":
      return [inOrder];
    case "preserved": {
      const isTaken = nft.isKeyIn(INNER_HOSTS, INNER_PORT);
      return [[...isTaken, ...inOrder], nft.add(OUTER_PORTS, key, INNER_PORT)];
    }
  }
}

/** What comes from outside without having been asked for. */
function inboundRules({ filtering = "address-and-port-dependent" }: NatBehaviour): nft.NftRule[] {
  if (filtering === "address-and-port-dependent") return [];
  const inbound = [nft.iifname(OUT), UDP];
  const contacts = filtering === "address-dependent"
    ? [nft.isIn(CONTACTS, nft.fields("daddr", "dport", "saddr"))]
    : [];
  return [
    { chain: "prerouting", match: inbound, verdict: TO_INNER_HOST },
    {
      chain: "forward",
      match: [...inbound, nft.hasNewDestination(), ...contacts],
      verdict: "accept",
    },
  ];
}

/** RFC 4787 section 6: the sender appears under its outer address and port. */
function hairpinRules(behaviour: NatBehaviour, ip: Ip, inside: Cidr): nft.NftRule[] {
  const toOuter = [nft.iifname(IN), UDP, nft.daddr({ ip, prefixLength: 32 })];
  const turned = [nft.oifname(IN), UDP, nft.saddr(inside), nft.hasNewDestination()];
  return [
    { chain: "prerouting", match: toOuter, verdict: TO_INNER_HOST },
    ...mappingRules(behaviour, turned, (port) => nft.snatTo(ip, port)),
  ];
}
