/**
 * What far ends may open here, as a table of nf_tables of its own, for links of both planes: inner
 * packets of either come out of an interface. It is there once a policy says anything of a link.
 *
 * Of TCP only what opens a connection is looked at, so that none is cut when the table comes, and
 * answers need no tracking. What else comes has to be the answer to something, as connection
 * tracking has it, an error about it, or allowed. Fragments are put together before.
 */
import { concatBytes, Writer } from "../../bytes.ts";
import { errorText, GretunError } from "../../errors.ts";
import type { Host } from "../../host/mod.ts";
import { SystemError } from "../../linux/mod.ts";
import { NetlinkError } from "../../netlink.ts";
import * as nft from "../../nft/mod.ts";
import { type Access, isEverything, type PortRange } from "../../policy/access.ts";
import type { PlaneOptions, PlaneRefusal } from "../plane.ts";
import { type GuardRule, type GuardTable, LinkTable, type SetElements } from "./link_table.ts";

const CHAIN = "in";
/** After conntrack (-200), before destinations are translated (-100): ports are as they were sent. */
const PRIORITY = -160;
const TCP_FLAGS_OFFSET = 13;
/** One of them is in every TCP segment but that which opens a connection. */
const ACK_OR_RST = 0x14;
const PORT_BITS = 16;
const { tcp, udp, icmp, icmpv6 } = nft.IP_PROTOCOL;

export class AccessGuard implements Disposable {
  readonly #host: Host;
  readonly #options: Pick<PlaneOptions, "role" | "port" | "onFault">;
  readonly #name: string;
  readonly #allowed = new Map<string, Access>();
  /** By the ifindex. */
  readonly #placed = new Map<string, number>();
  #table: LinkTable | undefined;
  #watch: Disposable | undefined;
  /** The table of an earlier run was looked for. */
  #isFresh = false;

  constructor(host: Host, options: Pick<PlaneOptions, "role" | "port" | "onFault">) {
    this.#host = host;
    this.#options = options;
    this.#name = `gretun-${options.role}-${options.port}-access`;
  }

  /** Absent: everything, and nobody says so. Throws `GretunError` where it cannot be kept. */
  allow(id: string, access: Access | undefined): void {
    if (access) this.#allowed.set(id, access);
    else this.#allowed.delete(id);
    if (!this.#table && this.#allowed.size === 0) this.#forget();
    this.#apply(id);
  }

  /** The link is there, and not up yet; undefined: it is gone. Throws as {@link allow}. */
  place(id: string, ifindex: number | undefined): void {
    if (ifindex === undefined) this.#placed.delete(id);
    else this.#placed.set(id, ifindex);
    this.#apply(id);
  }

  /** Packets, by reason. */
  refused(): ReadonlyMap<PlaneRefusal, number> {
    return this.#table?.refused() ?? new Map();
  }

  /** The rules stay when this is disposed. */
  release(): void {
    this.#table?.release();
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
    this.#table?.[Symbol.dispose]();
  }

  #apply(id: string): void {
    const elements = this.#elements(id);
    try {
      if (this.#table) this.#table.set(id, elements && { elements });
      else if (elements) this.#open();
    } catch (cause) {
      if (!isKernels(cause)) throw cause;
      const access = this.#allowed.get(id);
      if (!elements || !access || isEverything(access)) return;
      throw new GretunError(
        `the policy cannot be kept here: ${errorText(cause)}`,
        "Run: modprobe nf_tables nft_ct; until then what is not open to all stays closed",
        { cause },
      );
    }
  }

  #elements(id: string): SetElements | undefined {
    const [ifindex, access] = [this.#placed.get(id), this.#allowed.get(id)];
    return ifindex === undefined || !access ? undefined : elementsOf(ifindex, access);
  }

  #open(): void {
    const links = [...this.#placed.keys()].flatMap((id) => {
      const elements = this.#elements(id);
      return elements ? [[id, { elements }] as const] : [];
    });
    const table = new LinkTable(this.#host, (names) => buildTable(this.#name, names), links);
    try {
      this.#watch = this.#host.watchTables(() => this.#look());
    } catch (error) {
      table[Symbol.dispose]();
      throw error;
    }
    this.#table = table;
  }

  /** Somebody has removed tables: ours is made again. */
  #look(): void {
    try {
      this.#table?.refresh();
    } catch (error) {
      this.#options.onFault("policy not kept", error);
    }
  }

  /** There is no policy now; an earlier run, whose links there may still be, had one. */
  #forget(): void {
    if (this.#isFresh) return;
    this.#isFresh = true;
    try {
      using tables = this.#host.openNft();
      if (tables.hasTable("inet", this.#name)) tables.deleteTable("inet", this.#name);
    } catch (error) {
      if (!isKernels(error)) throw error; // there are no tables at all
    }
  }
}

function isKernels(error: unknown): boolean {
  return error instanceof NetlinkError || error instanceof SystemError;
}

/** What the sets have of a link; it is in `closed` unless everything is open. */
export function elementsOf(ifindex: number, access: Access): SetElements {
  if (isEverything(access)) return {};
  const link = new Writer("host", 4).u32(ifindex).finish();
  const sets: Record<string, nft.NftElement[]> = { closed: [{ key: link }] };
  const open = (protocol: number, ranges: readonly PortRange[]) => {
    for (const { first, prefixLength } of ranges.flatMap(blocksOf)) {
      const port = new Writer("network", 4).u16(first).u16(0).finish();
      const key = concatBytes(link, Uint8Array.of(protocol, 0, 0, 0), port);
      (sets[`ports_${prefixLength}`] ??= []).push({ key });
    }
  };
  open(tcp, access.tcp);
  open(udp, access.udp);
  const pings = [icmp, icmpv6].map((protocol) => ({
    key: concatBytes(link, Uint8Array.of(protocol, 0, 0, 0)),
  }));
  return access.icmp ? { ...sets, protocols: pings } : sets;
}

/** Sets of intervals in a row with others are not for all kernels: blocks of a power of two are. */
function blocksOf([first, last]: PortRange): { first: number; prefixLength: number }[] {
  const blocks = [];
  for (let at = first; at <= last;) {
    let bits = 0;
    while (bits < PORT_BITS && at % 2 ** (bits + 1) === 0 && at + 2 ** (bits + 1) - 1 <= last) {
      bits++;
    }
    blocks.push({ first: at, prefixLength: PORT_BITS - bits });
    at += 2 ** bits;
  }
  return blocks;
}

/** With empty sets. */
export function buildTable(name: string, names: ReadonlySet<string>): GuardTable {
  const from = nft.incoming();
  const lengths = [...names].flatMap((set) => /^ports_(\d+)$/.exec(set)?.[1] ?? []).map(Number);
  const sorted = lengths.sort((a, b) => a - b);
  const accept = (...match: nft.Match[]): GuardRule => ({ chain: CHAIN, match, verdict: "accept" });
  return {
    family: "inet",
    name,
    sets: [
      { name: "closed", element: ["interface"] },
      { name: "protocols", element: ["interface", "protocol"] },
      ...sorted.map((length) =>
        ({ name: `ports_${length}`, element: ["interface", "protocol", "port"] }) as const
      ),
    ],
    chains: [{
      ...{ name: CHAIN, type: "filter", hook: "prerouting", priority: PRIORITY } as const,
      policy: "accept",
    }],
    rules: [
      accept(nft.isNotIn("closed", from)),
      accept(nft.l4proto("tcp"), hasFlag(ACK_OR_RST)),
      accept(nft.ctState("established"), nft.isReply()),
      ...(["icmp", "icmpv6"] as const).map((protocol) =>
        accept(nft.l4proto(protocol), nft.ctState("related"))
      ),
      accept(nft.isIn("protocols", nft.row(from, nft.protocolNumber()))),
      ...(["tcp", "udp"] as const).flatMap((protocol) =>
        sorted.map((length) => accept(nft.l4proto(protocol), isOpen(length)))
      ),
      { chain: CHAIN, match: [], counter: true, verdict: "drop", refuses: "against-policy" },
    ],
  };
}

function isOpen(length: number): nft.Match {
  const port = nft.networkOf("dport", length);
  return nft.isIn(`ports_${length}`, nft.row(nft.incoming(), nft.protocolNumber(), port));
}

function hasFlag(mask: number): nft.Match {
  const any = { op: "neq", mask: Uint8Array.of(mask) } as const;
  return nft.transport(TCP_FLAGS_OFFSET, Uint8Array.of(0), any);
}
