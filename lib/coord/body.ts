/**
 * The bodies of requests: bounded in length, time and number, and read as JSON. One that is on its way
 * takes memory, so that only so many slow ones are at a time: who sends theirs for longest makes room.
 */
import { type Clock, unlessAborted } from "../edges.ts";
import { sourceNetwork } from "../limits.ts";
import { ApiError, MAX_BODY_LENGTH } from "./api.ts";
import { Refusal } from "./refusal.ts";

export const BODY_TIMEOUT_MS = 10_000;
/** Those of nodes come with the head as a rule. */
export const SLOW_MS = 500;
/** Slow ones at once, in all and from one source. */
export const MAX_SLOW = 256;
export const MAX_SLOW_OF_SOURCE = 64;
/** Grows only as bytes come, so that slow callers cost little. */
const FIRST_BUFFER = 1024;

const TOO_LONG = `body is longer than ${MAX_BODY_LENGTH} bytes`;

interface Coming {
  source: string;
  giveUp: () => void;
}

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
  async read(request: Request, source: string): Promise<Uint8Array<ArrayBuffer>> {
    const told = request.headers.get("content-length");
    if (Number(told ?? 0) > MAX_BODY_LENGTH) throw new Refusal(413, TOO_LONG);
    const givenUp = new AbortController();
    const coming = { source: sourceNetwork(source), giveUp: () => givenUp.abort(tooSlow()) };
    using _slow = this.#clock.timer(SLOW_MS, () => this.#isSlow(coming));
    using _late = this.#clock.timer(BODY_TIMEOUT_MS, coming.giveUp);
    try {
      // A reader in JavaScript takes a hundred times what comes; the server holds to a told length.
      if (!request.body) return new Uint8Array(0);
      return await (told === null
        ? readParts(request.body, givenUp.signal)
        : readWhole(request, givenUp.signal));
    } catch (error) {
      // Who sent it has gone, and hears no answer.
      throw error instanceof Refusal ? error : new Refusal(400, "body broke off");
    } finally {
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

const tooSlow = () => new Refusal(408, "body came too slowly");

async function readWhole(request: Request, givenUp: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  const body = await unlessAborted(request.arrayBuffer(), givenUp);
  if (body.byteLength > MAX_BODY_LENGTH) throw new Refusal(413, TOO_LONG);
  return new Uint8Array(body);
}

async function readParts(
  stream: ReadableStream<Uint8Array>,
  givenUp: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  const reader = stream.getReader();
  givenUp.addEventListener("abort", () => void reader.cancel("too slow").catch(() => {}));
  let body = new Uint8Array(FIRST_BUFFER);
  let length = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (length + part.value.length > MAX_BODY_LENGTH) {
      await reader.cancel("too long").catch(() => {});
      throw new Refusal(413, TOO_LONG);
    }
    body = withRoom(body, length + part.value.length);
    body.set(part.value, length);
    length += part.value.length;
  }
  givenUp.throwIfAborted();
  return body.slice(0, length);
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
