/**
 * One WebSocket for all peers of a node. Each of its messages begins with the number of a channel, 16
 * bits that the node chooses, one for each peer; the rest is what a WebSocket for one peer carries. A
 * message without a rest closes its channel.
 *
 * The node asks for that by a subprotocol (RFC 6455 section 1.9). A relay that does not know it takes
 * none, and the WebSocket is for one peer, as one is whose node asks for nothing.
 */
export const CHANNELS_PROTOCOL = "gretun-relay-channels";
export const CHANNELS = 65_536;
const HEADER_LENGTH = 2;
/** What waits for a slow network. */
const MAX_WAITING = 512 * 1024;

export function inChannel(channel: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(HEADER_LENGTH + bytes.length);
  message[0] = channel >> 8;
  message[1] = channel;
  message.set(bytes, HEADER_LENGTH);
  return message;
}

/** Undefined for what is too short. */
export function readChannel<T extends ArrayBufferLike>(
  message: Uint8Array<T>,
): { channel: number; bytes: Uint8Array<T> } | undefined {
  if (message.length < HEADER_LENGTH) return undefined;
  const channel = message[0]! * 256 + message[1]!;
  return { channel, bytes: message.subarray(HEADER_LENGTH) };
}

/**
 * What waits on one connection, by channel: each may have as much waiting as is free for all. One
 * that floods takes half, two a third each, and there is always room for one more. What is beyond
 * that is dropped, as a queue of a router would.
 */
export class WaitingShares {
  readonly #lengthOf = new Map<number, number>();
  /** Those that wait, and before `#first` some that have left. */
  #order: { channel: number; length: number }[] = [];
  #first = 0;
  #total = 0;

  /** Whether a message may wait too; `waiting` is how many bytes have not left yet, in all. */
  take(channel: number, length: number, waiting: number): boolean {
    while (this.#order.length > this.#first && this.#total > waiting) this.#leave();
    const own = this.#lengthOf.get(channel) ?? 0;
    if (own + length > MAX_WAITING - waiting) return false;
    this.#lengthOf.set(channel, own + length);
    this.#order.push({ channel, length });
    this.#total += length;
    return true;
  }

  /** In the order in which they came. */
  #leave(): void {
    const { channel, length } = this.#order[this.#first++]!;
    this.#total -= length;
    const left = this.#lengthOf.get(channel)! - length;
    if (left > 0) this.#lengthOf.set(channel, left);
    else this.#lengthOf.delete(channel);
    if (this.#first < this.#order.length / 2) return;
    this.#order.splice(0, this.#first);
    this.#first = 0;
  }
}
