/** A coordinator that does not answer as one: how long to wait, and what to say of it, once. */
import { CoordError } from "../coord/client.ts";
import type { Clock, Log, LogFields, Random } from "../edges.ts";
import { jitter } from "../retry.ts";
import { errorText } from "../errors.ts";
import { Trouble } from "../trouble.ts";

const PAUSE_MIN_MS = 500;
const PAUSE_MAX_MS = 5_000;
/** The pause grows with the outage: it is over before another such part of it has passed. */
const PAUSE_PART = 1 / 3;

export class Outage {
  readonly #options: { clock: Clock; random: Random; log: Log };
  #trouble: Trouble | undefined;
  #error = "";
  #hint: { hint?: string } = {};
  /** What was said of the present outage. */
  readonly #said = new Set<string>();

  constructor(options: { clock: Clock; random: Random; log: Log }) {
    this.#options = options;
  }

  get current(): { sinceMs: number; error: string; hint?: string } | undefined {
    const { sinceMs } = this.#trouble ?? {};
    return sinceMs === undefined ? undefined : { sinceMs, error: this.#error, ...this.#hint };
  }

  /** A call failed. For how long to wait before the next try. */
  failed(call: string, error: unknown): number {
    const { clock, random } = this.#options;
    const nowMs = clock.nowMs();
    this.#error = errorText(error);
    this.#hint = hintOf(error);
    this.#trouble ??= new Trouble(clock);
    this.#say(this.#trouble, error, { call, error: this.#error, ...this.#hint });
    const lastsMs = nowMs - this.#trouble.sinceMs;
    const pauseMs = Math.min(Math.max(PAUSE_MIN_MS, lastsMs * PAUSE_PART), PAUSE_MAX_MS);
    const askedMs = error instanceof CoordError ? error.retryAfterMs ?? 0 : 0;
    // Nodes that fell out of the same coordinator do not come back to it in step.
    return Math.max(pauseMs, askedMs * 4 / 3) * jitter(random);
  }

  /** A connection that breaks and one that is refused afterwards are one thing. */
  #say(trouble: Trouble, error: unknown, fields: LogFields): void {
    const { log } = this.#options;
    const news = trouble.news();
    const kind = error instanceof CoordError ? `${error.status} ${error.code}` : this.#error;
    if (!this.#said.has(kind)) {
      this.#said.add(kind);
      const verb = isRefusal(error) ? "refuses" : "does not answer";
      return log.warn(`coordinator ${verb}, trying again`, fields);
    }
    const { since } = trouble;
    log[news === "still" ? "warn" : "debug"]("coordinator still away", { since, ...fields });
  }

  /** A call succeeded; whether that ends an outage. */
  end(): boolean {
    if (!this.#trouble) return false;
    this.#trouble = undefined;
    this.#said.clear();
    this.#options.log.info("coordinator is back");
    return true;
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof CoordError && error.status !== undefined;
}

function hintOf(error: unknown): { hint?: string } {
  return error instanceof CoordError ? { hint: error.hint } : {};
}
