/** Which counters and nonces were seen before; both bounded. */

/** How far behind the highest counter a packet may come (reordering on the way). */
export const WINDOW_SIZE = 2048;

/** The sliding window of RFC 6479 over 64-bit counters; the first counter is 0. */
export class ReplayWindow {
  readonly #words = new Uint32Array(WINDOW_SIZE / 32 + 1);
  #highest = -1n;

  /** The highest counter taken, -1 before the first. */
  get highest(): bigint {
    return this.#highest;
  }

  /** Whether the counter was not taken yet; says nothing for ones that are too old. */
  isFresh(counter: bigint): boolean {
    if (counter > this.#highest) return true;
    if (this.#highest - counter >= BigInt(WINDOW_SIZE)) return false;
    const { word, bit } = this.#place(counter);
    return (this.#words[word]! & bit) === 0;
  }

  /** Only for packets whose tag was right, lest a forger moves the window. */
  take(counter: bigint): void {
    if (counter > this.#highest) this.#advance(counter);
    const { word, bit } = this.#place(counter);
    this.#words[word]! |= bit;
  }

  #advance(counter: bigint): void {
    const [from, to] = [this.#highest < 0n ? -1n : this.#highest >> 5n, counter >> 5n];
    const steps = to - from > BigInt(this.#words.length) ? BigInt(this.#words.length) : to - from;
    for (let i = 1n; i <= steps; i++) {
      this.#words[Number((from + i) % BigInt(this.#words.length))] = 0;
    }
    this.#highest = counter;
  }

  #place(counter: bigint): { word: number; bit: number } {
    const word = Number((counter >> 5n) % BigInt(this.#words.length));
    return { word, bit: 1 << Number(counter & 31n) };
  }
}

/**
 * Remembers nonces for as long as they could be accepted. When it is full of nonces that still
 * could, nothing new is taken: refusing is safe, forgetting is not.
 */
export class NonceStore {
  /** When each was taken, in this order. */
  readonly #takenMs = new Map<string, number>();
  /** Longer ones hold for those that are still there. */
  keepMs: number;
  readonly #capacity: number;

  constructor({ keepMs, capacity }: { keepMs: number; capacity: number }) {
    this.keepMs = keepMs;
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#takenMs.size;
  }

  /** False for a nonce that was seen, or when there is no room. */
  take(nonce: string, nowMs: number): boolean {
    for (const [old, takenMs] of this.#takenMs) {
      if (takenMs + this.keepMs > nowMs) break;
      this.#takenMs.delete(old);
    }
    if (this.#takenMs.has(nonce) || this.#takenMs.size >= this.#capacity) return false;
    this.#takenMs.set(nonce, nowMs);
    return true;
  }
}
