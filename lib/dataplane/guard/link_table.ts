/**
 * A table of nf_tables whose sets follow the links: what belongs to one link comes and goes by
 * itself, as with hundreds of them it matters not to write all; rules are written whole.
 */
import { toHex } from "../../bytes.ts";
import type { Host } from "../../host/mod.ts";
import { hasCode, NetlinkError } from "../../netlink.ts";
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

/** A chain at the device of a link, which goes with it. */
export interface LinkChain {
  chain: nft.NftChain;
  rules: readonly GuardRule[];
}

/** What a table has of a link. */
export interface LinkPart {
  elements: SetElements;
  own?: LinkChain;
}

export class LinkTable implements Disposable {
  readonly #nft: nft.Nft;
  readonly #build: BuildTable;
  readonly #links = new Map<string, SetElements>();
  /** By link; those whose device was not there are not placed. */
  readonly #chains = new Map<string, { own: LinkChain; isPlaced: boolean }>();
  /** How many links have an element, by its set and key: not one in a thousand is shared. */
  readonly #counts = new Map<string, number>();
  #table: GuardTable;
  #isReleased = false;
  /** Of tables and chains that were there before these. */
  readonly #refused = new Map<PlaneRefusal, number>();
  /** What chains of links had counted when they were there last: they go with their device. */
  readonly #last = new Map<string, number[]>();

  /** Throws `NftError` where the kernel cannot have it. */
  constructor(host: Host, build: BuildTable, links: Iterable<readonly [string, LinkPart]>) {
    this.#build = build;
    for (const [link, { elements, own }] of links) {
      this.#note(link, elements);
      if (own) this.#chains.set(link, { own, isPlaced: false });
    }
    this.#table = build(this.#names());
    this.#nft = host.openNft();
    try {
      this.#write();
    } catch (error) {
      this.#nft[Symbol.dispose]();
      throw error;
    }
  }

  /** This link has these and no others, undefined: it is gone. Throws `NftError`. */
  set(link: string, part: LinkPart | undefined): void {
    this.#setElements(link, part?.elements);
    this.#setChain(link, part?.own);
  }

  #setChain(link: string, own: LinkChain | undefined): void {
    const before = this.#chains.get(link);
    const isSame = JSON.stringify(own) === JSON.stringify(before?.own);
    if (isSame && before?.isPlaced !== false) return;
    if (before) {
      const { name } = before.own.chain;
      this.#keep(countedOf(before.own.rules, this.#last.get(name)));
      this.#last.delete(name);
      this.#chains.delete(link);
      if (own?.chain.name !== name) this.#removeChain(name);
    }
    if (!own) return;
    const now = { own, isPlaced: this.#place(own) };
    this.#chains.set(link, now);
    if (!now.isPlaced) this.#replace(); // the table may have gone
  }

  #removeChain(name: string): void {
    try {
      this.#nft.removeChain(this.#table, name);
    } catch (error) {
      if (!(error instanceof nft.NftError)) throw error;
      this.#replace();
    }
  }

  #setElements(link: string, elements: SetElements | undefined): void {
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
    const listed = this.#list();
    return this.#expected().every(({ name, rules }) =>
      rules.length === (listed.get(name)?.length ?? 0)
    );
  }

  #expected(): { name: string; rules: readonly GuardRule[] }[] {
    const { chains, rules } = this.#table;
    const placed = [...this.#chains.values()].filter(({ isPlaced }) => isPlaced);
    return [
      ...chains.map(({ name }) => ({ name, rules: rules.filter(({ chain }) => chain === name) })),
      ...placed.map(({ own: { chain, rules } }) => ({ name: chain.name, rules })),
    ];
  }

  #counted(): [reason: PlaneRefusal, packets: number][] {
    const listed = this.#list();
    for (const { own: { chain: { name } } } of this.#chains.values()) {
      const packets = listed.get(name);
      if (packets) this.#last.set(name, packets);
    }
    return this.#expected().flatMap(({ name, rules }) =>
      countedOf(rules, listed.get(name) ?? this.#last.get(name))
    );
  }

  /** Packets of each rule, by chain. */
  #list(): Map<string, number[]> {
    const lists = new Map<string, number[]>();
    try {
      for (const { chain, packets } of this.#nft.ruleCounters(this.#table)) {
        lists.set(chain, [...lists.get(chain) ?? [], packets]);
      }
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error; // no such table
    }
    return lists;
  }

  #keep(counted: readonly [reason: PlaneRefusal, packets: number][]): void {
    for (const [reason, count] of counted) {
      this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + count);
    }
  }

  #replace(): void {
    this.#keep(this.#counted());
    this.#last.clear();
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
    for (const each of this.#chains.values()) each.isPlaced = this.#place(each.own);
  }

  /** False where the device has gone: it is placed when the link is there again. */
  #place({ chain, rules }: LinkChain): boolean {
    try {
      this.#nft.replaceChain(this.#table, chain, rules);
      return true;
    } catch (error) {
      if (hasCode(error, "ENOENT", "ENODEV")) return false;
      throw error;
    }
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

function countedOf(
  rules: readonly GuardRule[],
  packets: readonly number[] | undefined,
): [reason: PlaneRefusal, packets: number][] {
  if (packets?.length !== rules.length) return [];
  return rules.flatMap(({ refuses }, i) => refuses === undefined ? [] : [[refuses, packets[i]!]]);
}

function placeOf(set: string, key: Uint8Array): string {
  return `${set} ${toHex(key)}`;
}

function textOf({ key, value }: nft.NftElement): string {
  return `${toHex(key)} ${value ? toHex(value) : ""}`;
}
