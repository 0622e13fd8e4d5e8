/** Tells the coordinator what of the overlay this host cannot take: its operator chooses the pool. */
import { Alarm } from "../alarm.ts";
import { MAX_COLLISION_LENGTH, MAX_COLLISIONS } from "../coord/api.ts";
import type { Clock, Log } from "../edges.ts";
import { errorText } from "../errors.ts";

/** Links of many peers are set at once. */
const SETTLE_MS = 1_000;

export interface CollisionReportOptions {
  /** What is so now. */
  texts: () => readonly string[];
  tell: (texts: readonly string[]) => Promise<void>;
  clock: Clock;
  log: Log;
}

export class CollisionReport implements Disposable {
  readonly #options: CollisionReportOptions;
  readonly #alarm: Alarm;
  #told: readonly string[] = [];

  constructor(options: CollisionReportOptions) {
    this.#options = options;
    this.#alarm = new Alarm(options.clock, () => void this.#tell());
  }

  /** They may be others. */
  look(): void {
    this.#alarm.within(SETTLE_MS);
  }

  /** The coordinator may have been started anew, and knows nothing of them. */
  forgotten(): void {
    this.#told = [];
    this.look();
  }

  [Symbol.dispose](): void {
    this.#alarm[Symbol.dispose]();
  }

  async #tell(): Promise<void> {
    const { texts, tell, log } = this.#options;
    const now = texts().slice(0, MAX_COLLISIONS).map((text) => text.slice(0, MAX_COLLISION_LENGTH));
    if (now.join() === this.#told.join()) return;
    this.#told = now;
    await tell(now).catch((error) => {
      log.debug("collisions not told", { error: errorText(error) });
    });
  }
}
