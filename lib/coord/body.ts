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
/** Grows only as bytes come, so that slow callers cost little. */
const FIRST_BUFFER = 512;

const NONE = new Uint8Array();

const TOO_LONG = `body is longer than ${MAX_BODY_LENGTH} bytes`;

export class Bodies {
  readonly #clock: Clock;
  /** Slow ones, in the order in which they began. */
  readonly #slow = new Set<Coming>();
  readonly #ofSource = new Map<string, Set<Coming>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How many slow ones are on their way. */
  get slow(): number {
    return this.#slow.size;
  }

  /** At most {@link MAX_BODY_LENGTH} bytes, however slowly or endlessly they come. Throws {@link Refusal}. */
  async read(
    { length, readBody }: Pick<ServerRequest, "length" | "readBody">,
    source: string,
  ): Promise<Uint8Array<ArrayBuffer>> {
    if (length === 0) return NONE;
    if (length > MAX_BODY_LENGTH) throw new Refusal(413, TOO_LONG);
    const coming = new Coming(sourceNetwork(source), readBody);
    let timer = this.#clock.timer(SLOW_MS, () => {
      this.#isSlow(coming);
      timer = this.#clock.timer(BODY_TIMEOUT_MS - SLOW_MS, () => coming.giveUp());
    });
    try {
      return await coming.read();
    } finally {
      timer[Symbol.dispose]();
      this.#end(coming);
    }
  }

  #isSlow(coming: Coming): void {
    const others = this.#ofSource.get(coming.source) ?? new Set();
    this.#ofSource.set(coming.source, others);
    const crowd = others.size >= MAX_SLOW_OF_SOURCE
      ? others
      : this.#slow.size >= MAX_SLOW
      ? this.#slow
      : undefined;
    const [oldest] = crowd ?? [];
    if (oldest) {
      this.#end(oldest);
      oldest.giveUp();
    }
    this.#slow.add(coming);
    this.#ofSource.set(coming.source, others.add(coming));
  }

  #end(coming: Coming): void {
    this.#slow.delete(coming);
    const others = this.#ofSource.get(coming.source);
    others?.delete(coming);
    if (others?.size === 0) this.#ofSource.delete(coming.source);
  }
}

type Part = Uint8Array | undefined;

/** A body that is on its way. */
class Coming {
  readonly source: string;
  readonly #next: () => Promise<Part>;
  #isGivenUp = false;
  #wake = () => {};

  constructor(source: string, next: () => Promise<Part>) {
    this.source = source;
    this.#next = next;
  }

  giveUp(): void {
    this.#isGivenUp = true;
    this.#wake();
  }

  async read(): Promise<Uint8Array<ArrayBuffer>> {
    let body = new Uint8Array(FIRST_BUFFER);
    let length = 0;
    for (let part = await this.#part(); part; part = await this.#part()) {
      if (length + part.length > MAX_BODY_LENGTH) throw new Refusal(413, TOO_LONG);
      body = withRoom(body, length + part.length);
      body.set(part, length);
      length += part.length;
    }
    if (this.#isGivenUp) throw new Refusal(408, "body came too slowly");
    return body.slice(0, length);
  }

  /** Undefined when it is given up, too. */
  #part(): Promise<Part> {
    if (this.#isGivenUp) return Promise.resolve(undefined);
    return new Promise((resolve, reject) => {
      this.#wake = () => resolve(undefined);
      this.#next().then(resolve, () => {
        // Who sent it has gone, and hears no answer.
        reject(new Refusal(400, "body broke off"));
      });
    });
  }
}

function withRoom(buffer: Uint8Array<ArrayBuffer>, length: number): Uint8Array<ArrayBuffer> {
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
