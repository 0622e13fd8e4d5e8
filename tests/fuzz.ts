/**
 * Fuzzing of decoders: inputs are made of samples by the grammar of changes that wire formats and
 * texts suffer, and whatever leads to an outcome that was not seen before becomes a sample too.
 */

export interface Decoder {
  name: string;
  /** Right inputs, to begin with. */
  samples: readonly Uint8Array[];
  decode(input: Uint8Array): unknown;
  /** What it may throw, besides which everything is a bug. */
  // deno-lint-ignore no-explicit-any
  errors: readonly (new (...args: any[]) => Error)[];
  /** Pieces that mean something in its texts. */
  words?: readonly string[];
}

export interface Outcome {
  inputs: number;
  /** Different kinds of results and errors that were seen. */
  outcomes: number;
  slowestMs: number;
  failures: Failure[];
}

export interface Failure {
  input: Uint8Array;
  error: unknown;
}

const MAX_SAMPLES = 400;
const MAX_FAILURES = 5;
const MAX_LENGTH = 4096;
/** Lengths, counts and signs are wrong in these ways most of the time. */
const EDGES = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255];
const WIDE_EDGES = [0, 1, 4, 0x7f, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0xffffffff];

/** So many inputs, the same for the same seed; of those that take a promise too. */
export async function fuzz(decoder: Decoder, inputs: number, seed: number): Promise<Outcome> {
  const maker = new InputMaker(decoder, seed);
  const seen = new Set<string>();
  const outcome: Outcome = { inputs: 0, outcomes: 0, slowestMs: 0, failures: [] };
  using _plain = withoutStacks();
  for (; outcome.inputs < inputs && outcome.failures.length < MAX_FAILURES; outcome.inputs++) {
    const input = maker.next();
    const startMs = performance.now();
    let kind;
    try {
      const result = decoder.decode(input);
      kind = shapeOf(result instanceof Promise ? await result : result);
    } catch (error) {
      kind = errorKind(error);
      if (!decoder.errors.some((type) => error instanceof type)) {
        outcome.failures.push({ input, error });
      }
    }
    outcome.slowestMs = Math.max(outcome.slowestMs, performance.now() - startMs);
    if (seen.has(kind)) continue;
    seen.add(kind);
    maker.keep(input);
  }
  return { ...outcome, outcomes: seen.size };
}

/** They cost more than most decoders. */
function withoutStacks(): Disposable {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  return { [Symbol.dispose]: () => Error.stackTraceLimit = stackTraceLimit };
}

function errorKind(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const text = error.message.replace(/["'].*$/s, "").replace(/\d+/g, "");
  return `${error.name} ${text}`.slice(0, 120);
}

/** Kinds and not values, so that there are not too many. */
function shapeOf(value: unknown, depth = 0): string {
  if (value === null || typeof value !== "object") return typeof value;
  if (ArrayBuffer.isView(value)) return `bytes ${Math.min(value.byteLength, 4)}`;
  if (depth > 3) return "object";
  if (value instanceof Map) return `map ${Math.min(value.size, 2)}`;
  if (Array.isArray(value)) {
    return `list ${Math.min(value.length, 2)} ${shapeOf(value[0], depth + 1)}`;
  }
  const fields = Object.entries(value).map(([key, each]) => `${key} ${shapeOf(each, depth + 1)}`);
  return `{${fields.slice(0, 12).join()}}`;
}

class InputMaker {
  readonly #samples: Uint8Array[];
  readonly #firstSamples: number;
  readonly #words: readonly Uint8Array[];
  #state: number;

  constructor({ samples, words = [] }: Decoder, seed: number) {
    this.#samples = [...samples];
    this.#firstSamples = samples.length;
    this.#words = words.map((word) => new TextEncoder().encode(word));
    this.#state = seed >>> 0 || 1;
  }

  keep(input: Uint8Array): void {
    if (this.#samples.length < MAX_SAMPLES) this.#samples.push(input);
    else this.#samples[this.#firstSamples + this.#below(MAX_SAMPLES - this.#firstSamples)] = input;
  }

  next(): Uint8Array {
    let input: Uint8Array = this.#one(this.#samples).slice();
    const changes = 1 + this.#below(4);
    for (let i = 0; i < changes; i++) input = this.#changed(input);
    return input.subarray(0, MAX_LENGTH);
  }

  #changed(input: Uint8Array): Uint8Array {
    const at = this.#below(input.length + 1);
    const to = at + this.#below(Math.min(16, input.length - at) + 1);
    switch (this.#below(this.#words.length > 0 ? 11 : 9)) {
      case 0:
        if (at < input.length) input[at]! ^= 1 << this.#below(8);
        return input;
      case 1:
        if (at < input.length) input[at] = this.#one(EDGES);
        return input;
      case 2:
        if (at < input.length) input[at] = this.#below(256);
        return input;
      case 3:
        return this.#withWide(input, at);
      case 4:
        return input.subarray(0, at);
      case 5: // without a piece
        return joined(input.subarray(0, at), input.subarray(to));
      case 6: // a piece twice
        return joined(input.subarray(0, to), input.subarray(at));
      case 7: { // the head of one and the tail of another
        const other = this.#one(this.#samples);
        return joined(input.subarray(0, at), other.subarray(this.#below(other.length + 1)));
      }
      case 8:
        return joined(input.subarray(0, at), this.#random(this.#below(9)), input.subarray(at));
      default: // a word, in place of something or between
        return joined(
          input.subarray(0, at),
          this.#one(this.#words),
          input.subarray(this.#below(2) === 0 ? at : to),
        );
    }
  }

  /** 16 or 32 bits in either byte order. */
  #withWide(input: Uint8Array, at: number): Uint8Array {
    const bytes = this.#below(2) === 0 ? 2 : 4;
    if (at + bytes > input.length) return input;
    const view = new DataView(input.buffer, input.byteOffset);
    const isLittle = this.#below(2) === 0;
    const value = this.#one(WIDE_EDGES);
    if (bytes === 2) view.setUint16(at, value, isLittle);
    else view.setUint32(at, value, isLittle);
    return input;
  }

  #random(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#below(256));
  }

  #one<T>(among: readonly T[]): T {
    return among[this.#below(among.length)]!;
  }

  /** xorshift32. */
  #below(limit: number): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) % limit;
  }
}

function joined(...parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
