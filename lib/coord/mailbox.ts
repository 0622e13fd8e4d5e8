/** Sealed messages that wait for their node to take them. Pure: time is an argument. */
import type { DiscoKey } from "../keys.ts";
import type { Envelope } from "./api.ts";

export const MAX_QUEUE = 64;
export const SIGNAL_MAX_AGE_MS = 30_000;
/** All mailboxes together. */
export const MAX_QUEUED_BYTES = 32 * 1024 * 1024;
/** What a sealed message takes besides its bytes. */
const ENVELOPE_OVERHEAD = 128;

interface Queued extends Required<Envelope> {
  to: DiscoKey;
  enqueuedMs: number;
}

export interface MailboxSizes {
  messages: number;
  bytes: number;
  /** Messages in the fullest one. */
  deepest: number;
}

export class Mailbox {
  readonly #queues = new Map<DiscoKey, Queued[]>();
  /** In the order in which they came. */
  readonly #bySender = new Map<DiscoKey, Set<Queued>>();
  #bytes = 0;

  /**
   * Of a full queue the oldest message is dropped of who has the most in it, and of all queues that of who
   * has the most in all, so that nobody pushes out what others have sent.
   */
  put(to: DiscoKey, envelope: Required<Envelope>, nowMs: number): void {
    const full = this.#queues.get(to) ?? [];
    if (full.length >= MAX_QUEUE) this.#drop(oldestOfBusiest(full));
    while (this.#bytes + bytesOf(envelope) > MAX_QUEUED_BYTES) this.#drop(this.#oldestOfBusiest());
    const queued = { ...envelope, to, enqueuedMs: nowMs };
    const queue = this.#queues.get(to) ?? [];
    queue.push(queued);
    this.#queues.set(to, queue);
    const own = this.#bySender.get(envelope.from) ?? new Set();
    this.#bySender.set(envelope.from, own.add(queued));
    this.#bytes += bytesOf(envelope);
  }

  /** Takes all that is waiting and not too old. */
  take(to: DiscoKey, nowMs: number): Queued[] {
    const taken = [...this.#queues.get(to) ?? []];
    for (const queued of taken) this.#drop(queued);
    return taken.filter(({ enqueuedMs }) => nowMs - enqueuedMs <= SIGNAL_MAX_AGE_MS);
  }

  get sizes(): MailboxSizes {
    const lengths = [...this.#queues.values()].map(({ length }) => length);
    return {
      messages: lengths.reduce((sum, length) => sum + length, 0),
      bytes: this.#bytes,
      deepest: lengths.reduce((most, length) => Math.max(most, length), 0),
    };
  }

  /** Forgets messages that are too old to matter. */
  sweep(nowMs: number): void {
    for (const queued of [...this.#queues.values()].flat()) {
      if (nowMs - queued.enqueuedMs > SIGNAL_MAX_AGE_MS) this.#drop(queued);
    }
  }

  #drop(queued: Queued): void {
    const { to, from } = queued;
    const queue = this.#queues.get(to)!;
    queue.splice(queue.indexOf(queued), 1);
    if (queue.length === 0) this.#queues.delete(to);
    const own = this.#bySender.get(from)!;
    own.delete(queued);
    if (own.size === 0) this.#bySender.delete(from);
    this.#bytes -= bytesOf(queued);
  }

  /** By number: messages are small. */
  #oldestOfBusiest(): Queued {
    let busiest = new Set<Queued>();
    for (const own of this.#bySender.values()) if (own.size > busiest.size) busiest = own;
    const [oldest] = busiest;
    return oldest!;
  }
}

function oldestOfBusiest(queue: readonly Queued[]): Queued {
  const counts = new Map<DiscoKey, number>();
  for (const { from } of queue) counts.set(from, (counts.get(from) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return queue.find(({ from }) => counts.get(from) === most)!;
}

function bytesOf({ sealed }: Envelope): number {
  return sealed.length + ENVELOPE_OVERHEAD;
}
