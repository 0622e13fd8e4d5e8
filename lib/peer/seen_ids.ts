/** Which pings have come already. */
import { toHex } from "../bytes.ts";

/** A peer sends one in 25 s as a rule, and some ten a second while it searches. */
const MAX_SEEN = 1_024;

/** The transaction ids of the last pings, so that one that somebody recorded is not taken again. */
export class SeenIds {
  readonly #ids = new Set<string>();

  /** Whether it had not been there. */
  add(txId: Uint8Array): boolean {
    const id = toHex(txId);
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    const [oldest] = this.#ids;
    if (this.#ids.size > MAX_SEEN) this.#ids.delete(oldest!);
    return true;
  }
}
