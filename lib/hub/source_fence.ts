/**
 * Strict reverse path for IPv6, which has no rp_filter: what comes out of a client's link from a
 * source that is not routed back into that link is dropped. Link-local ones, which routing daemons
 * use, are.
 */
import { Writer } from "../bytes.ts";
import * as nft from "../nft/mod.ts";
import { LinkTable, type SetElements } from "./link_table.ts";

export class SourceFence implements Disposable {
  readonly #table: LinkTable;

  /** `links` are ifindexes. Throws `NftError` where the kernel cannot look at routes in rules. */
  constructor(port: number, links: Iterable<readonly [string, number]> = []) {
    const elements = [...links].map(([name, ifindex]) => [name, elementsOf(ifindex)] as const);
    this.#table = new LinkTable(() => build(port), elements);
  }

  /** The client's link is this one; undefined: it has none. Throws `NftError`. */
  set(name: string, ifindex: number | undefined): void {
    this.#table.set(name, ifindex === undefined ? undefined : elementsOf(ifindex));
  }

  [Symbol.dispose](): void {
    this.#table[Symbol.dispose]();
  }
}

function elementsOf(ifindex: number): SetElements {
  return { links: [{ key: new Writer("host", 4).u32(ifindex).finish() }] };
}

function build(port: number): nft.NftTable {
  return {
    family: "ip6",
    name: `gretun-hub-${port}`,
    sets: [{ name: "links", element: ["interface"] }],
    chains: [{
      ...{ name: "in", type: "filter", hook: "prerouting", policy: "accept" },
      priority: nft.PRIORITY.raw,
    }],
    rules: [{
      chain: "in",
      match: [nft.isIn("links", nft.incoming()), nft.hasNoWayBack()],
      counter: true,
      verdict: "drop",
    }],
  };
}
