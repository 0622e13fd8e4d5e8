/**
 * What an open FOU port lets in, by nf_tables: data only from the endpoints of clients, where the
 * kernel itself looks at the address and not at the port; and no ICMP to strangers, which the
 * kernel sends for what fits no link. The same table rewrites the alternative local addresses,
 * statelessly: no conntrack entry is made.
 */
import { type Endpoint, type Ip, ipBytes } from "../addr.ts";
import { concatBytes } from "../bytes.ts";
import type { Signalling } from "../linux/mod.ts";
import * as nft from "../nft/mod.ts";
import { LinkTable, type SetElements } from "./link_table.ts";

/** Before conntrack (-200) and every translation. */
const BEFORE_ALL = -310;
const AFTER_ALL = 310;
const UDP_LENGTH_OFFSET = 4;
const PAYLOAD_OFFSET = 8;
const INNER_TOTAL_LENGTH_OFFSET = PAYLOAD_OFFSET + 2;
/** ICMP header, the IPv4 header that is quoted, and its UDP source port. */
const QUOTED_DPORT_OFFSET = 8 + 20 + 2;
const ICMP_PORT_UNREACHABLE = Uint8Array.of(3, 3);
/** UDP and IPv4 header: what is shorter is no data. */
const SHORTEST_DATA = u16(8 + 20);
/** ipipou's signed payload. */
const SIGNED_LENGTH = 73;
const TOKEN_PREFIX_LENGTH = 16;

export interface FencedEndpoint {
  endpoint: Endpoint;
  /** Its link's local address, and the one that the client sends to. */
  alternative?: Ip;
  own?: Ip;
}

export interface FenceOptions {
  port: number;
  signalling: Signalling;
  tokens?: () => readonly Uint8Array[];
}

export class Fence implements Disposable {
  readonly #table: LinkTable;

  /** `links` by their names. Throws `NftError` where the kernel cannot have it. */
  constructor(options: FenceOptions, links: Iterable<readonly [string, FencedEndpoint]> = []) {
    const elements = [...links].map(([name, place]) => [name, elementsOf(place)] as const);
    this.#table = new LinkTable(() => build(options), elements);
  }

  /** The link's client is let in from there alone; undefined: it is gone. Throws `NftError`. */
  set(name: string, place: FencedEndpoint | undefined): void {
    this.#table.set(name, place && elementsOf(place));
  }

  /** The tokens may be others now. Throws `NftError`. */
  refresh(): void {
    this.#table.refresh();
  }

  [Symbol.dispose](): void {
    this.#table[Symbol.dispose]();
  }
}

function elementsOf({ endpoint, alternative, own }: FencedEndpoint): SetElements {
  const key = endpointKey(endpoint);
  return {
    clients: [{ key }],
    ...(alternative && own
      ? {
        alternatives: [{ key, value: ipBytes(alternative) }],
        own: [{ key: ipBytes(alternative), value: ipBytes(own) }],
      }
      : {}),
  };
}

function build(options: FenceOptions): nft.NftTable {
  const { port } = options;
  const toPort = nft.dport("udp", port);
  const source = nft.fields("saddr", "sport");
  const chain = (name: string, hook: "prerouting" | "postrouting" | "output", priority: number) =>
    ({ name, type: "filter", hook, priority, policy: "accept" }) as const;
  return {
    family: "ip",
    name: `gretun-hub-${port}`,
    sets: [
      { name: "clients", element: ["address", "port"] },
      { name: "alternatives", element: ["address", "port"], value: ["address"] },
      { name: "own", element: ["address"], value: ["address"] },
    ],
    chains: [
      chain("in", "prerouting", BEFORE_ALL),
      chain("out", "postrouting", AFTER_ALL),
      chain("answers", "output", nft.PRIORITY.filter),
    ],
    rules: [
      ...signalling(options).map((match) =>
        ({ chain: "in", match: [toPort, match], verdict: "accept" }) as const
      ),
      {
        chain: "in",
        match: [toPort, nft.setAddress("daddr", nft.mapped("alternatives", source))],
        verdict: "accept",
      },
      { chain: "in", match: [toPort, nft.isIn("clients", source)], verdict: "accept" },
      { chain: "in", match: [toPort], counter: true, verdict: "drop" },
      {
        chain: "out",
        match: [
          nft.sport("udp", port),
          nft.setAddress("saddr", nft.mapped("own", nft.fields("saddr"))),
        ],
      },
      {
        chain: "answers",
        match: [
          nft.l4proto("icmp"),
          nft.transport(0, ICMP_PORT_UNREACHABLE),
          nft.transport(QUOTED_DPORT_OFFSET, u16(port)),
        ],
        counter: true,
        verdict: "drop",
      },
    ],
  };
}

/** What is no data, as far as a rule can tell. */
function signalling({ signalling, tokens: list }: FenceOptions): nft.Match[] {
  if (signalling.kind === "patterns") {
    return signalling.any.map(({ offset, bytes, mask }) =>
      nft.transport(PAYLOAD_OFFSET + offset, bytes, mask ? { mask } : {})
    );
  }
  const tokens = (list?.() ?? []).filter((token) => token[0]! >> 4 === 4);
  return [
    nft.transport(UDP_LENGTH_OFFSET, SHORTEST_DATA, { op: "lt" }),
    nft.transport(PAYLOAD_OFFSET, Uint8Array.of(0x40), {
      op: "neq",
      mask: Uint8Array.of(0xf0),
    }),
    // A signature may begin as an IPv4 packet does, of another length than its own.
    [
      ...nft.transport(UDP_LENGTH_OFFSET, u16(PAYLOAD_OFFSET + SIGNED_LENGTH)),
      ...nft.transport(INNER_TOTAL_LENGTH_OFFSET, u16(SIGNED_LENGTH), { op: "neq" }),
    ],
    ...tokens.map((token) => nft.transport(PAYLOAD_OFFSET, token.slice(0, TOKEN_PREFIX_LENGTH))),
  ];
}

/** As sets have it: the port in two of four bytes. */
function endpointKey({ ip, port }: Endpoint): Uint8Array {
  return concatBytes(ipBytes(ip), u16(port), new Uint8Array(2));
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value & 0xff);
}
