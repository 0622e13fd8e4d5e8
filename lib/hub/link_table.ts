/**
 * A table of nf_tables whose sets follow the hub's links: what belongs to one link comes and goes
 * by itself, as with hundreds of them it matters not to write all; rules are written whole.
 */
import { toHex } from "../bytes.ts";
import { NetlinkError } from "../netlink.ts";
import * as nft from "../nft/mod.ts";

/** By the name of the set. */
export type SetElements = Readonly<Record<string, readonly nft.NftElement[]>>;

export class LinkTable implements Disposable {
  readonly #nft = nft.Nft.open();
  readonly #build: () => nft.NftTable;
  readonly #table: nft.NftTable;
  readonly #links: Map<string, SetElements>;
  #rules = "";

  /** `build` gives the table with empty sets. Throws `NftError` where the kernel cannot have it. */
  constructor(build: () => nft.NftTable, links: Iterable<readonly [string, SetElements]>) {
    this.#build = build;
    this.#table = build();
    this.#links = new Map(links);
    try {
      this.#replace();
    } catch (error) {
      this.#nft[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * The elements of this link are these and no others, undefined: it is gone; no other link has one
   * of them. Throws `NftError`.
   */
  set(link: string, elements: SetElements | undefined): void {
    const before = this.#links.get(link);
    if (elements) this.#links.set(link, elements);
    else this.#links.delete(link);
    try {
      this.#nft.changeElements(this.#table, this.#changes(before, elements));
    } catch (error) {
      if (!(error instanceof nft.NftError)) throw error;
      this.#replace(); // somebody has changed or removed it
    }
  }

  /** The rules may be others now. Throws `NftError`. */
  refresh(): void {
    if (JSON.stringify(this.#build().rules) !== this.#rules) this.#replace();
  }

  [Symbol.dispose](): void {
    try {
      this.#nft.deleteTable(this.#table.family, this.#table.name);
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error; // somebody flushed it
    }
    this.#nft[Symbol.dispose]();
  }

  #replace(): void {
    const table = this.#build();
    const sets = table.sets?.map((set) => ({ ...set, elements: this.#elementsOf(set.name) }));
    this.#nft.replaceTable({ ...table, ...(sets ? { sets } : {}) });
    this.#rules = JSON.stringify(table.rules);
  }

  #elementsOf(set: string): nft.NftElement[] {
    return [...this.#links.values()].flatMap((elements) => elements[set] ?? []);
  }

  #changes(before: SetElements = {}, now: SetElements = {}) {
    return (this.#table.sets ?? []).map(({ name }) => {
      const [old = [], next = []] = [before[name], now[name]];
      const kept = new Set(next.map(textOf));
      const gone = old.filter((element) => !kept.has(textOf(element)));
      const known = new Set(old.map(textOf));
      return {
        set: name,
        remove: gone.map(({ key }) => ({ key })),
        add: next.filter((element) => !known.has(textOf(element))),
      };
    });
  }
}

function textOf({ key, value }: nft.NftElement): string {
  return `${toHex(key)} ${value ? toHex(value) : ""}`;
}
