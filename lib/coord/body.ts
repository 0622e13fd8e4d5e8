/**
 * The bodies of requests: bounded in length, time and number, and read as JSON. One that is on its way
 * takes memory, so that only so many slow ones are at a time: who sends theirs for longest makes room.
 */
import type { Clock } from "../edges.ts";
import { sourceNetwork } from "../limits.ts";
import type { ServerRequest } from "../server_http.ts";
import { ApiError, MAX_BODY_LENGTH } from "./api.ts";
import { Refusal } from "./refusal.ts";

export const BODY_TIMEOUT_MS = 10_000;
/** Those of nodes come with the head as a rule. */
export const SLOW_MS = 500;
/** Slow ones at once, in all and from one source. */
export const MAX_SLOW = 256;
export const MAX_SLOW_OF_SOURCE = 64;
type Body = Uint8Array<ArrayBuffer>;
type Source = Pick<ServerRequest, "length" | "readBody">;

const NONE = new Uint8Array();

const TOO_LONG = `body is longer than ${MAX_BODY_LENGTH} bytes`;

export class Bodies {
  readonly #clock: Clock;
  /** In the order in which they began, those that came so far in time, and slow ones. */
  readonly #fresh = new Set<Coming>();
  readonly #slow = new Set<Coming>();
  /** Slow ones of each source. */
  readonly #ofSource = new Map<string, number>();
  /** One for all: the next that is due is the first of either. */
  #timer: Disposable | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How many slow ones are on their way. */
  get slow(): number {
    return this.#slow.size;
  }

  /** At most {@link MAX_BODY_LENGTH} bytes, however slowly or endlessly they come. Rejects with {@link Refusal}. */
  read(request: Source, source: string): Promise<Body> {
    if (request.length === 0) return Promise.resolve(NONE);
    if (request.length > MAX_BODY_LENGTH) return Promise.reject(new Refusal(413, TOO_LONG));
    const { promise, resolve, reject } = Promise.withResolvers<Body>();
    const coming = new Coming(request, {
      source: sourceNetwork(source),
      beganMs: this.#clock.nowMs(),
      onOver: (result) => {
        this.#end(coming);
        if (result instanceof Refusal) reject(result);
        else resolve(result);
      },
    });
    this.#fresh.add(coming);
    if (this.#fresh.size === 1) this.#wait();
    coming.readOn();
    return promise;
  }

  #due(): void {
    const nowMs = this.#clock.nowMs();
    for (const coming of this.#slow) {
      if (nowMs < coming.beganMs + BODY_TIMEOUT_MS) break;
      coming.giveUp();
    }
    for (const coming of this.#fresh) {
      if (nowMs < coming.beganMs + SLOW_MS) break;
      this.#isSlow(coming);
    }
    this.#wait();
  }

  #wait(): void {
    this.#timer?.[Symbol.dispose]();
    const [fresh] = this.#fresh;
    const [slow] = this.#slow;
    const dueMs = Math.min(
      fresh ? fresh.beganMs + SLOW_MS : Infinity,
      slow ? slow.beganMs + BODY_TIMEOUT_MS : Infinity,
    );
    this.#timer = dueMs === Infinity
      ? undefined
      : this.#clock.timer(Math.max(0, dueMs - this.#clock.nowMs()), () => this.#due());
  }

  #isSlow(coming: Coming): void {
    const { source } = coming;
    const isCrowd = (this.#ofSource.get(source) ?? 0) >= MAX_SLOW_OF_SOURCE;
    if (isCrowd || this.#slow.size >= MAX_SLOW) {
      const oldest = this.#slow.values().find((one) => !isCrowd || one.source === source);
      oldest?.giveUp();
    }
    this.#fresh.delete(coming);
    this.#slow.add(coming);
    this.#ofSource.set(source, (this.#ofSource.get(source) ?? 0) + 1);
  }

  #end(coming: Coming): void {
    this.#fresh.delete(coming);
    if (this.#slow.delete(coming)) {
      const others = this.#ofSource.get(coming.source)! - 1;
      if (others > 0) this.#ofSource.set(coming.source, others);
      else this.#ofSource.delete(coming.source);
    }
    if (this.#fresh.size + this.#slow.size === 0) this.#wait();
  }
}

interface ComingOptions {
  source: string;
  beganMs: number;
  /** Called once. */
  onOver: (result: Body | Refusal) => void;
}

/** A body that is on its way. No function waits for all of it: each would take memory of its own. */
class Coming {
  readonly source: string;
  readonly beganMs: number;
  readonly #request: Source;
  readonly #onOver: (result: Body | Refusal) => void;
  #isOver = false;
  #bytes: Body = NONE;
  #length = 0;

  constructor(request: Source, { source, beganMs, onOver }: ComingOptions) {
    this.source = source;
    this.beganMs = beganMs;
    this.#request = request;
    this.#onOver = onOver;
  }

  readOn(): void {
    this.#request.readBody().then(
      (part) => part ? this.#add(part) : this.#end(this.#bytes.slice(0, this.#length)),
      // Who sent it has gone, and hears no answer.
      () => this.#end(new Refusal(400, "body broke off")),
    );
  }

  giveUp(): void {
    this.#end(new Refusal(408, "body came too slowly"));
  }

  #add(part: Uint8Array): void {
    if (this.#isOver) return;
    const length = this.#length + part.length;
    if (length > MAX_BODY_LENGTH) return this.#end(new Refusal(413, TOO_LONG));
    this.#bytes = withRoom(this.#bytes, length);
    this.#bytes.set(part, this.#length);
    this.#length = length;
    this.readOn();
  }

  #end(result: Body | Refusal): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#onOver(result);
  }
}

/** Grows only as bytes come, so that slow callers cost little. */
function withRoom(buffer: Body, length: number): Body {
  if (length <= buffer.length) return buffer;
  const larger = new Uint8Array(Math.max(length, Math.min(2 * buffer.length, MAX_BODY_LENGTH)));
  larger.set(buffer);
  return larger;
}

/** Throws {@link ApiError}. */
export function jsonOf(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new ApiError("body is not JSON");
  }
}
