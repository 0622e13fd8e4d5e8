/** Sealed messages that wait for their node to take them. Pure: time is an argument. */
import type { DiscoKey } from "../keys.ts";
import type { Envelope } from "./api.ts";
import { Refusal } from "./refusal.ts";

export const MAX_QUEUE = 64;
export const SIGNAL_MAX_AGE_MS = 30_000;
/** All mailboxes together. */
export const MAX_QUEUED_BYTES = 32 * 1024 * 1024;
/** What a sealed message takes besides its bytes. */
const ENVELOPE_OVERHEAD = 128;

type Queued = Required<Envelope> & { enqueuedMs: number };

export interface MailboxSizes {
  messages: number;
  bytes: number;
  /** Messages in the fullest one. */
  deepest: number;
}

export class Mailbox {
  readonly #queues = new Map<DiscoKey, Queued[]>();
  #bytes = 0;

  /**
   * Of a full queue the oldest message is dropped of who has the most in it, so that nobody pushes
   * out what others have sent. Throws {@link Refusal}.
   */
  put(to: DiscoKey, envelope: Required<Envelope>, nowMs: number): void {
    const bytes = bytesOf(envelope);
    if (this.#bytes + bytes > MAX_QUEUED_BYTES) {
      throw new Refusal(503, "mailboxes are full: try again later", SIGNAL_MAX_AGE_MS);
    }
    const queue = this.#queues.get(to) ?? [];
    if (queue.length >= MAX_QUEUE) {
      const [dropped] = queue.splice(oldestOfBusiest(queue), 1);
      this.#bytes -= bytesOf(dropped!);
    }
    queue.push({ ...envelope, enqueuedMs: nowMs });
    this.#queues.set(to, queue);
    this.#bytes += bytes;
  }

  /** Takes all that is waiting and not too old. */
  take(to: DiscoKey, nowMs: number): Queued[] {
    const queue = this.#queues.get(to) ?? [];
    this.#queues.delete(to);
    for (const envelope of queue) this.#bytes -= bytesOf(envelope);
    return queue.filter(({ enqueuedMs }) => nowMs - enqueuedMs <= SIGNAL_MAX_AGE_MS);
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
    for (const to of [...this.#queues.keys()]) {
      const fresh = this.take(to, nowMs);
      if (fresh.length === 0) continue;
      this.#queues.set(to, fresh);
      for (const envelope of fresh) this.#bytes += bytesOf(envelope);
    }
  }
}

function oldestOfBusiest(queue: readonly Queued[]): number {
  const counts = new Map<DiscoKey, number>();
  for (const { from } of queue) counts.set(from, (counts.get(from) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return queue.findIndex(({ from }) => counts.get(from) === most);
}

function bytesOf({ sealed }: Envelope): number {
  return sealed.length + ENVELOPE_OVERHEAD;
}
