/**
 * A table of nf_tables whose sets follow the links: what belongs to one link comes and goes by
 * itself, as with hundreds of them it matters not to write all; rules are written whole.
 */
import { toHex } from "../../bytes.ts";
import type { Host } from "../../host/mod.ts";
import { NetlinkError } from "../../netlink.ts";
import * as nft from "../../nft/mod.ts";
import type { PlaneRefusal } from "../plane.ts";

/** By the name of the set. */
export type SetElements = Readonly<Record<string, readonly nft.NftElement[]>>;

/** Of a set. */
const MIN_SIZE = 32;

/** A rule, and why packets that it drops are refused. */
export interface GuardRule extends nft.NftRule {
  refuses?: PlaneRefusal;
}

export interface GuardTable extends nft.NftTable {
  rules: readonly GuardRule[];
}

/** With empty sets. `names` are the sets that links have elements of. */
export type BuildTable = (names: ReadonlySet<string>) => GuardTable;

export class LinkTable implements Disposable {
  readonly #nft: nft.Nft;
  readonly #build: BuildTable;
  readonly #links = new Map<string, SetElements>();
  /** How many links have an element, by its set and key: not one in a thousand is shared. */
  readonly #counts = new Map<string, number>();
  #table: GuardTable;
  #isReleased = false;
  /** Of tables that were there before this one. */
  readonly #refused = new Map<PlaneRefusal, number>();

  /** Throws `NftError` where the kernel cannot have it. */
  constructor(host: Host, build: BuildTable, links: Iterable<readonly [string, SetElements]>) {
    this.#build = build;
    for (const [link, elements] of links) this.#note(link, elements);
    this.#table = build(this.#names());
    this.#nft = host.openNft();
    try {
      this.#write();
    } catch (error) {
      this.#nft[Symbol.dispose]();
      throw error;
    }
  }

  /** The elements of this link are these and no others, undefined: it is gone. Throws `NftError`. */
  set(link: string, elements: SetElements | undefined): void {
    const before = this.#links.get(link);
    this.#note(link, elements);
    const hasSet = (name: string) => this.#table.sets?.some((set) => set.name === name);
    if (!Object.keys(elements ?? {}).every(hasSet)) return this.#replace();
    try {
      this.#nft.changeElements(this.#table, this.#changes(before, elements));
    } catch (error) {
      if (!(error instanceof nft.NftError)) throw error;
      this.#replace(); // somebody has changed or removed it
    }
  }

  /** The rules may be others now, or somebody may have removed them. Throws `NftError`. */
  refresh(): void {
    if (this.#hasOtherRules() || !this.#isThere()) this.#replace();
  }

  /** Packets, by reason. */
  refused(): Map<PlaneRefusal, number> {
    const sum = new Map(this.#refused);
    for (const [reason, count] of this.#counted()) sum.set(reason, (sum.get(reason) ?? 0) + count);
    return sum;
  }

  /** The table stays when this is disposed. */
  release(): void {
    this.#isReleased = true;
  }

  [Symbol.dispose](): void {
    try {
      if (!this.#isReleased) this.#nft.deleteTable(this.#table.family, this.#table.name);
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error; // somebody flushed it
    }
    this.#nft[Symbol.dispose]();
  }

  #note(link: string, elements: SetElements | undefined): void {
    const count = (elements: SetElements | undefined, by: 1 | -1) => {
      for (const [set, list] of Object.entries(elements ?? {})) {
        for (const { key } of list) {
          const place = placeOf(set, key);
          const now = (this.#counts.get(place) ?? 0) + by;
          if (now === 0) this.#counts.delete(place);
          else this.#counts.set(place, now);
        }
      }
    };
    count(this.#links.get(link), -1);
    count(elements, 1);
    if (elements) this.#links.set(link, elements);
    else this.#links.delete(link);
  }

  #hasOtherRules(): boolean {
    return JSON.stringify(this.#build(this.#names())) !== JSON.stringify(this.#table);
  }

  #isThere(): boolean {
    return this.#counters().length === this.#table.rules.length;
  }

  #counted(): [reason: PlaneRefusal, packets: number][] {
    const counters = this.#counters();
    if (counters.length !== this.#table.rules.length) return [];
    return this.#table.rules.flatMap(({ refuses }, i) =>
      refuses === undefined ? [] : [[refuses, counters[i]!.packets]]
    );
  }

  #counters() {
    try {
      return this.#nft.ruleCounters(this.#table);
    } catch (error) {
      if (error instanceof NetlinkError) return []; // no such table
      throw error;
    }
  }

  #replace(): void {
    for (const [reason, count] of this.#counted()) {
      this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + count);
    }
    this.#write();
  }

  #write(): void {
    const table = this.#build(this.#names());
    const sets = table.sets?.map((set) => {
      const elements = [...set.elements ?? [], ...this.#elementsOf(set.name).values()];
      // When it is full it is refused one more, and the table is written anew.
      return { ...set, elements, size: Math.max(MIN_SIZE, 2 * elements.length) };
    });
    this.#nft.replaceTable({ ...table, ...(sets ? { sets } : {}) });
    this.#table = table;
  }

  #names(): Set<string> {
    return new Set([...this.#links.values()].flatMap((elements) => Object.keys(elements)));
  }

  /** By key; links may have one in common. */
  #elementsOf(set: string): Map<string, nft.NftElement> {
    const all = [...this.#links.values()].flatMap((elements) => elements[set] ?? []);
    return new Map(all.map((element) => [toHex(element.key), element]));
  }

  #changes(before: SetElements = {}, now: SetElements = {}) {
    return (this.#table.sets ?? []).map(({ name }) => {
      const [old = [], next = []] = [before[name], now[name]];
      const [had, has] = [new Set(old.map(textOf)), new Set(next.map(textOf))];
      const gone = old.filter((element) => !has.has(textOf(element)));
      const come = next.filter((element) => !had.has(textOf(element)));
      const changed = new Set(come.map(({ key }) => toHex(key)));
      // What another link has too is there, and stays.
      const count = ({ key }: nft.NftElement) => this.#counts.get(placeOf(name, key)) ?? 0;
      return {
        set: name,
        remove: gone.filter((each) => count(each) === 0 || changed.has(toHex(each.key)))
          .map(({ key }) => ({ key })),
        add: come.filter((each) => count(each) === 1),
      };
    });
  }
}

function placeOf(set: string, key: Uint8Array): string {
  return `${set} ${toHex(key)}`;
}

function textOf({ key, value }: nft.NftElement): string {
  return `${toHex(key)} ${value ? toHex(value) : ""}`;
}
