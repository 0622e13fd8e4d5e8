/** What the workers know of links: by device for packets out, by what a datagram shows for packets in. */
import { type Cidr, ipBytes } from "../addr.ts";
import type { Arena } from "./arena.ts";

const KEY_WORDS = 5;
const ENTRY_WORDS = KEY_WORDS + 1;

/**
 * Numbers by keys of five 32-bit words. Open addressing in one array: looking up allocates nothing.
 * It is filled once and replaced when something changes.
 */
export class WordTable {
  readonly #entries: Int32Array;
  readonly #mask: number;

  /** For so many entries. */
  constructor(count: number) {
    let slots = 8;
    while (slots < count * 2) slots *= 2;
    this.#entries = new Int32Array(slots * ENTRY_WORDS);
    this.#mask = slots - 1;
  }

  /** `value` is 0 or more; a key that is there keeps its value. */
  set(key: Int32Array, value: number): void {
    const at = this.#slot(key);
    if (this.#entries[at + KEY_WORDS] !== 0) return;
    this.#entries.set(key, at);
    this.#entries[at + KEY_WORDS] = value + 1;
  }

  /** -1 where there is none. */
  get(key: Int32Array): number {
    return this.#entries[this.#slot(key) + KEY_WORDS]! - 1;
  }

  /** Where the key is, or would be. */
  #slot(key: Int32Array): number {
    const entries = this.#entries;
    let slot = hash(key) & this.#mask;
    for (;;) {
      const at = slot * ENTRY_WORDS;
      if (entries[at + KEY_WORDS] === 0) return at;
      let word = 0;
      while (word < KEY_WORDS && entries[at + word] === key[word]) word++;
      if (word === KEY_WORDS) return at;
      slot = (slot + 1) & this.#mask;
    }
  }
}

function hash(key: Int32Array): number {
  let h = 0;
  for (let i = 0; i < KEY_WORDS; i++) {
    h = Math.imul(h ^ key[i]!, 0x9e3779b1);
    h ^= h >>> 15;
  }
  return h;
}

export interface Network {
  /** 4 or 16. */
  bytes: Uint8Array;
  prefixLength: number;
}

export function networkOf({ ip, prefixLength }: Cidr): Network {
  return { bytes: ipBytes(ip), prefixLength };
}

/** Addresses within some networks. Remembers the last good one, as packets come in runs. */
export class NetworkCheck {
  readonly #networks: readonly Network[];
  readonly #last = new Int32Array(4);
  #lastVersion = 0;

  constructor(networks: readonly Network[]) {
    this.#networks = networks;
  }

  /** Of an address of that version. */
  contains({ bytes, view }: Arena, at: number, version: 4 | 6): boolean {
    const last = this.#last;
    if (version === this.#lastVersion && last[0] === view.getInt32(at)) {
      if (version === 4) return true;
      if (
        last[1] === view.getInt32(at + 4) && last[2] === view.getInt32(at + 8) &&
        last[3] === view.getInt32(at + 12)
      ) return true;
    }
    const length = version === 4 ? 4 : 16;
    const isIn = (net: Network) => net.bytes.length === length && contains(net, bytes, at);
    if (!this.#networks.some(isIn)) return false;
    this.#lastVersion = version;
    for (let i = 0; i < length / 4; i++) last[i] = view.getInt32(at + i * 4);
    return true;
  }
}

function contains({ bytes: net, prefixLength }: Network, bytes: Uint8Array, at: number): boolean {
  for (let bit = 0; bit < prefixLength; bit += 8) {
    const mask = (0xff00 >> Math.min(8, prefixLength - bit)) & 0xff;
    if ((net[bit >> 3]! & mask) !== (bytes[at + (bit >> 3)]! & mask)) return false;
  }
  return true;
}
