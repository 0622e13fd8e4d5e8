/**
 * Forwarding by the kernel: nf_tables rules that give a datagram its new source and destination and
 * send it on, before connection tracking and sockets see it. One map holds all directions of all
 * allocations, so that their number does not matter to a packet. STUN, which is for the relay
 * itself, goes to its sockets as ever, and so does all that the map does not know.
 *
 * The table goes with the process, however that ends: the kernel takes it with its netlink socket.
 */
import { type Endpoint, familyOf, type Ip, ipBytes } from "../addr.ts";
import { concatBytes, Writer } from "../bytes.ts";
import { sourceAddress } from "../linux/mod.ts";
import * as nft from "../nft/mod.ts";
import { COOKIE_PATTERN } from "../stun/mod.ts";
import { byteRate } from "./rate.ts";

const UDP_HEADER = 8;
/** Of the checksum in it. */
const CHECKSUM_AT = 6;
const NO_CHECKSUM = new Uint8Array(2);

const WAYS = "ways";
/** The keys of `ways` again, to find what came above the rate and was not found there. */
const LIMITED = "limited";
const CHAIN = "relay";
const LEAVING = "leaving";
/** So many in a row that did not leave are no accident. */
const MAX_UNSENT = 4;

/** A side of an allocation: where its node is, and its relayed port. */
export interface KernelEnd {
  node: Endpoint;
  port: number;
}

export interface KernelCounters {
  forwarded: { packets: number; bytes: number };
  /** Above the rate. */
  dropped: { packets: number };
  /** Of those forwarded, what was seen on its way out. */
  left: { packets: number };
}

export interface KernelForwardingOptions {
  /** Of the table. */
  name: string;
  /** Of one direction of an allocation; 0: no limit. */
  bytesPerSecond: number;
  /** Over a fake kernel unless the real one is meant. */
  tables?: nft.Nft;
  /** The address that this host has towards another one. */
  sourceOf?: (to: Ip) => Ip | undefined;
}

/** Throws `NftError` from every method. */
export class KernelForwarding implements Disposable {
  readonly #tables: nft.Nft;
  readonly #table: nft.NftTable;
  readonly #sourceOf: (to: Ip) => Ip | undefined;
  readonly #limit: nft.Expression | undefined;
  /** As last seen: how many left, and how many had been forwarded when one did. */
  #left = 0;
  #unsentSince = 0;
  /** What the kernel knows for each allocation. */
  readonly #known = new Map<object, { id: string; elements: nft.NftElement[] }>();

  constructor({ name, bytesPerSecond, tables, sourceOf = sourceAddress }: KernelForwardingOptions) {
    this.#tables = tables ?? nft.Nft.open();
    this.#sourceOf = sourceOf;
    this.#limit = bytesPerSecond > 0
      ? nft.byteLimit(bytesPerSecond, byteRate(bytesPerSecond).burst)
      : undefined;
    this.#table = tableOf(name);
    try {
      this.#tables.replaceTable(this.#table);
    } catch (error) {
      this.#tables[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#tables[Symbol.dispose]();
  }

  /**
   * From now on the kernel forwards between these two for the allocation, in place of what was
   * before; not at all when they are undefined, or not both at IPv4 addresses.
   */
  set(allocation: object, ends: readonly [KernelEnd, KernelEnd] | undefined): void {
    const before = this.#known.get(allocation);
    const elements = ends ? this.#elements(ends) : [];
    const id = elements.map(({ key, value }) => concatBytes(key, value!).join()).join(";");
    if (id === (before?.id ?? "")) return;
    const remove = before?.elements ?? [];
    this.#known.delete(allocation);
    const bare = (list: readonly nft.NftElement[]) => list.map(({ key }) => ({ key }));
    this.#tables.changeElements(this.#table, [
      { set: WAYS, remove: bare(remove), add: elements },
      { set: LIMITED, remove: bare(remove), add: bare(elements) },
    ]);
    if (elements.length > 0) this.#known.set(allocation, { id, elements });
  }

  #elements([a, b]: readonly [KernelEnd, KernelEnd]): nft.NftElement[] {
    const [there, back] = [this.#element(a, b), this.#element(b, a)];
    return there && back ? [there, back] : [];
  }

  /** What comes from one end goes out of the other one's port to its node. */
  #element(from: KernelEnd, to: KernelEnd): nft.NftElement | undefined {
    if (familyOf(from.node.ip) !== 4 || familyOf(to.node.ip) !== 4) return undefined;
    const source = this.#sourceOf(to.node.ip);
    if (!source) return undefined;
    const key = new Writer("network", 12).bytes(ipBytes(from.node.ip))
      .u16(from.node.port).zeros(2).u16(from.port).zeros(2).finish();
    const value = new Writer("network", 16).bytes(ipBytes(source)).bytes(ipBytes(to.node.ip))
      .u16(to.port).zeros(2).u16(to.node.port).zeros(2).finish();
    return { key, value, ...(this.#limit ? { expression: this.#limit } : {}) };
  }

  /**
   * Whether what it forwards does not leave this host, as with a firewall that lets out only what a
   * program has sent. To be asked each second or so.
   */
  isHeldBack(): boolean {
    const { forwarded, left } = this.counters();
    if (left.packets > this.#left) this.#unsentSince = forwarded.packets;
    this.#left = left.packets;
    return forwarded.packets - this.#unsentSince >= MAX_UNSENT;
  }

  counters(): KernelCounters {
    const [kept, none, dropped, left] = this.#tables.ruleCounters(this.#table);
    return {
      forwarded: {
        packets: kept!.packets + none!.packets,
        bytes: kept!.bytes + none!.bytes,
      },
      dropped: dropped!,
      left: left!,
    };
  }
}

function tableOf(name: string): nft.NftTable {
  const key = nft.fields("saddr", "sport", "dport");
  const isData = nft.udpBytes(UDP_HEADER + COOKIE_PATTERN.offset, "!=", COOKIE_PATTERN.bytes);
  const checksum = (operator: "==" | "!=") => nft.udpBytes(CHECKSUM_AT, operator, NO_CHECKSUM);
  /** What goes to a node has the key of what comes from it, turned round. */
  const back = nft.fields("daddr", "dport", "sport");
  const way = nft.mapped(WAYS, key);
  return {
    family: "ip",
    name,
    isOwned: true,
    chains: [{
      name: CHAIN,
      type: "filter",
      hook: "prerouting",
      priority: nft.PRIORITY.raw,
      policy: "accept",
    }, {
      name: LEAVING,
      type: "filter",
      hook: "postrouting",
      priority: nft.PRIORITY.last,
      policy: "accept",
    }],
    sets: [
      {
        name: WAYS,
        element: ["address", "port", "port"],
        value: ["address", "address", "port", "port"],
      },
      { name: LIMITED, element: ["address", "port", "port"] },
    ],
    rules: [
      { chain: CHAIN, match: [isData, checksum("!=")], verdict: nft.resendTo(way, "kept") },
      { chain: CHAIN, match: [isData, checksum("==")], verdict: nft.resendTo(way, "none") },
      { chain: CHAIN, match: [isData, nft.isIn(LIMITED, key)], counter: true, verdict: "drop" },
      {
        chain: LEAVING,
        match: [isData, nft.isIn(LIMITED, back)],
        counter: true,
        verdict: "accept",
      },
    ],
  };
}
