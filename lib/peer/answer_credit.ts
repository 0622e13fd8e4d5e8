/**
 * What may go to an address that nobody has answered from, because of pings that seem to come from
 * there: no more bytes than came. Whoever writes another's address into them has us send it nothing
 * that they could not send themselves. Pure.
 */
import { formatPath, type PathAddress } from "./path_address.ts";

/** More addresses than this: the oldest are forgotten, with what they had. */
const MAX_ADDRESSES = 4_096;
/** Of one address. */
const MAX_BYTES = 2_048;

export class AnswerCredit {
  /** In the order of their first pings. */
  readonly #bytes = new Map<string, number>();

  came(from: PathAddress, bytes: number): void {
    this.#bytes.set(formatPath(from), Math.min(MAX_BYTES, this.left(from) + bytes));
    const [oldest] = this.#bytes.keys();
    if (this.#bytes.size > MAX_ADDRESSES) this.#bytes.delete(oldest!);
  }

  left(to: PathAddress): number {
    return this.#bytes.get(formatPath(to)) ?? 0;
  }

  /** Whether so many bytes may go there; then they count. */
  take(to: PathAddress, bytes: number): boolean {
    const left = this.left(to) - bytes;
    if (left >= 0) this.#bytes.set(formatPath(to), left);
    return left >= 0;
  }
}
