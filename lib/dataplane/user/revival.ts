/** When threads that ended by themselves start again: sooner at first, and for as long as it takes. */
import type { Clock } from "../../edges.ts";
import { type Backoff, backoffMs } from "../../retry.ts";
import type { PlaneOptions } from "../plane.ts";

const PAUSE: Backoff = { minMs: 100, maxMs: 30_000 };
/** What ran for so long has not ended at once. */
const STEADY_MS = 60_000;

export class Revival implements Disposable {
  readonly #clock: Clock;
  readonly #start: () => void;
  readonly #onFault: PlaneOptions["onFault"];
  #startedMs: number;
  #tries = 0;
  #pause: Disposable | undefined;

  constructor(clock: Clock, start: () => void, onFault: PlaneOptions["onFault"]) {
    this.#clock = clock;
    this.#start = start;
    this.#onFault = onFault;
    this.#startedMs = clock.nowMs();
  }

  /** One or both have ended. */
  ended(reason: string): void {
    const error = new Error(reason);
    if (this.#pause) return this.#onFault("another thread of the data path ended", error);
    if (this.#clock.nowMs() - this.#startedMs >= STEADY_MS) this.#tries = 0;
    this.#onFault("a thread of the data path ended, and starts again", error);
    this.#pause = this.#clock.timer(backoffMs(PAUSE, this.#tries++), () => this.#again());
  }

  [Symbol.dispose](): void {
    this.#pause?.[Symbol.dispose]();
  }

  #again(): void {
    this.#pause = undefined;
    this.#startedMs = this.#clock.nowMs();
    this.#start();
  }
}
