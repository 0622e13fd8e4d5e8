/** A few calls at a time; the others wait in line. One that takes long does not keep them for ever. */
import type { Clock } from "./edges.ts";

export interface TurnsOptions {
  atOnce: number;
  /** After that time the next one begins all the same. */
  patienceMs: number;
  clock: Clock;
}

export class Turns {
  readonly #options: TurnsOptions;
  readonly #waiting: (() => void)[] = [];
  #taken = 0;

  constructor(options: TurnsOptions) {
    this.#options = options;
  }

  async run<T>(call: () => Promise<T>): Promise<T> {
    if (this.#taken < this.#options.atOnce) this.#taken++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let isOver = false;
    const end = () => {
      if (isOver) return;
      isOver = true;
      const next = this.#waiting.shift();
      if (next) next();
      else this.#taken--;
    };
    using _timer = this.#options.clock.timer(this.#options.patienceMs, end);
    try {
      return await call();
    } finally {
      end();
    }
  }
}
