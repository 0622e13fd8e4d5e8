/** What one end of a session counts, in memory that threads share: it outlives those that use it. */
import { ReplayWindow } from "./replay_window.ts";

const SENT = { low: 0, high: 1 } as const;
const RECEIVED_AT = 8;

export class SessionCounters {
  readonly memory: SharedArrayBuffer;
  readonly received: ReplayWindow;
  readonly #sent: Int32Array;

  constructor(memory = new SharedArrayBuffer(RECEIVED_AT + ReplayWindow.byteLength)) {
    this.memory = memory;
    this.received = new ReplayWindow(memory, RECEIVED_AT);
    this.#sent = new Int32Array(memory, 0, 2);
  }

  /** The number of the next packet; never one twice, whichever threads ask. */
  next(): number {
    const low = Atomics.add(this.#sent, SENT.low, 1) >>> 0;
    const high = low === 0xffff_ffff
      ? Atomics.add(this.#sent, SENT.high, 1)
      : Atomics.load(this.#sent, SENT.high);
    return high * 2 ** 32 + low;
  }

  /** How many numbers were given. */
  get sent(): number {
    return Atomics.load(this.#sent, SENT.high) * 2 ** 32 +
      (Atomics.load(this.#sent, SENT.low) >>> 0);
  }
}
