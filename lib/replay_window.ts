/** The sliding window of RFC 6479 over counters that rise with each packet; the first one is 0. */

/** How far behind the highest counter a packet may come (reordering on the way). */
export const WINDOW_SIZE = 2048;
const WORDS = WINDOW_SIZE / 32 + 1;

export class ReplayWindow {
  /** Of memory that is zero at first. */
  static readonly byteLength = 8 + WORDS * 4;
  /** How many counters there were, were none left out: the highest one and 1 more. */
  readonly #next: Float64Array;
  readonly #words: Uint32Array;

  /** In memory of its own, or in memory that outlives it, from an offset that 8 divides. */
  constructor(memory: ArrayBufferLike = new ArrayBuffer(ReplayWindow.byteLength), offset = 0) {
    this.#next = new Float64Array(memory, offset, 1);
    this.#words = new Uint32Array(memory, offset + 8, WORDS);
  }

  /** The highest counter taken, -1 before the first. */
  get highest(): number {
    return this.#next[0]! - 1;
  }

  /** Whether the counter was not taken yet; false for those that are too old, or no integers. */
  isFresh(counter: number): boolean {
    if (!Number.isSafeInteger(counter)) return false;
    const { highest } = this;
    if (counter > highest) return true;
    if (highest - counter >= WINDOW_SIZE) return false;
    return (this.#words[wordOf(counter)]! & (1 << (counter % 32))) === 0;
  }

  /** Only for packets whose tag was right, lest a forger moves the window. */
  take(counter: number): void {
    if (counter > this.highest) this.#advance(counter);
    this.#words[wordOf(counter)]! |= 1 << (counter % 32);
  }

  #advance(counter: number): void {
    const from = Math.floor(this.highest / 32);
    const steps = Math.min(Math.floor(counter / 32) - from, WORDS);
    for (let i = 1; i <= steps; i++) this.#words[(from + i) % WORDS] = 0;
    this.#next[0] = counter + 1;
  }
}

function wordOf(counter: number): number {
  return Math.floor(counter / 32) % WORDS;
}
