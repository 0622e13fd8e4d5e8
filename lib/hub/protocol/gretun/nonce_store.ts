/** Which nonces were seen before. */

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
