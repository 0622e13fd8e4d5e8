/**
 * Fuzzing of decoders: inputs are made of samples by the grammar of changes that wire formats and
 * texts suffer, and whatever leads to an outcome that was not seen before becomes a sample too.
 */
import { type JsonSpans, jsonSpans, type Span } from "./fuzz_json.ts";

export interface Decoder {
  name: string;
  /** Right inputs, to begin with. */
  samples: readonly Uint8Array[];
  /** What it is given is used again for the next input. */
  decode(input: Uint8Array): unknown;
  /** What it may throw, besides which everything is a bug. */
  // deno-lint-ignore no-explicit-any
  errors: readonly (new (...args: any[]) => Error)[];
  /** Pieces that mean something in its texts. */
  words?: readonly string[];
  /** Makes lengths and checksums right again, in place, so that changes get past them. */
  repair?(input: Uint8Array): void;
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
/** Of one change. */
const MAX_PIECE = 16;
/** Lengths, counts and signs are wrong in these ways most of the time. */
const EDGES = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255];
const WIDE_EDGES = [0, 1, 4, 0x7f, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0xffffffff];

/** So many inputs, the same for the same seed; of those that take a promise too. */
export async function fuzz(decoder: Decoder, inputs: number, seed: number): Promise<Outcome> {
  const maker = new InputMaker(decoder, seed);
  const seen = new Set<number>();
  const outcome: Outcome = { inputs: 0, outcomes: 0, slowestMs: 0, failures: [] };
  let beganMs = performance.now();
  for (; outcome.inputs < inputs && outcome.failures.length < MAX_FAILURES; outcome.inputs++) {
    const input = maker.next();
    let kind;
    try {
      const result = decoder.decode(input);
      kind = shapeOf(result instanceof Promise ? await result : result);
    } catch (error) {
      kind = errorKind(error);
      if (!decoder.errors.some((type) => error instanceof type)) {
        outcome.failures.push({ input: input.slice(), error });
      }
    }
    if (!seen.has(kind)) {
      seen.add(kind);
      maker.keep(input);
    }
    const nowMs = performance.now();
    outcome.slowestMs = Math.max(outcome.slowestMs, nowMs - beganMs);
    beganMs = nowMs;
  }
  return { ...outcome, outcomes: seen.size };
}

// --- outcomes, as hashes: their texts cost more than most decoders

const MAX_ERROR_TEXT = 120;
const MAX_FIELDS = 12;
const mixed = (hash: number, value: number) => Math.imul(hash ^ value, 0x01000193);

function hashOf(text: string, hash = 0x811c9dc5): number {
  for (let i = 0; i < text.length; i++) hash = mixed(hash, text.charCodeAt(i));
  return hash;
}

/** Its words, without numbers and what it quotes. */
function errorKind(error: unknown): number {
  if (!(error instanceof Error)) return hashOf(String(error));
  const { message } = error;
  let hash = hashOf(error.name);
  for (let i = 0; i < message.length && i < MAX_ERROR_TEXT; i++) {
    const code = message.charCodeAt(i);
    if (code === 0x22 || code === 0x27) break;
    if (code < 0x30 || code > 0x39) hash = mixed(hash, code);
  }
  return hash;
}

/** Kinds and not values, so that there are not too many. */
function shapeOf(value: unknown, hash = 0, depth = 0): number {
  if (value === null || typeof value !== "object") {
    return mixed(
      hash,
      typeof value === "string"
        ? 1
        : typeof value === "number"
        ? 2
        : typeof value === "boolean"
        ? 3
        : value === undefined
        ? 4
        : 5,
    );
  }
  if (ArrayBuffer.isView(value)) return mixed(hash, 16 + Math.min(value.byteLength, 4));
  if (depth > 3) return mixed(hash, 6);
  if (value instanceof Map) return mixed(hash, 32 + Math.min(value.size, 2));
  if (Array.isArray(value)) {
    return shapeOf(value[0], mixed(hash, 48 + Math.min(value.length, 2)), depth + 1);
  }
  let fields = 0;
  hash = mixed(hash, 7);
  for (const key in value) {
    if (++fields > MAX_FIELDS) break;
    hash = shapeOf((value as Record<string, unknown>)[key], hashOf(key, hash), depth + 1);
  }
  return hash;
}

// --- inputs

interface Sample {
  bytes: Uint8Array;
  /** Of JSON. */
  spans?: JsonSpans;
}

/** Texts in place of a value, and of a key. */
interface JsonWords {
  values: Uint8Array[];
  keys: Uint8Array[];
}

class InputMaker {
  readonly #samples: Sample[];
  readonly #firstSamples: number;
  readonly #words: readonly Uint8Array[];
  readonly #json: JsonWords;
  readonly #repair: ((input: Uint8Array) => void) | undefined;
  /** The input that is being made: one buffer for all of them. */
  readonly #bytes = new Uint8Array(2 * MAX_LENGTH);
  readonly #view = new DataView(this.#bytes.buffer);
  #length = 0;
  #state: number;

  constructor({ samples, words = [], repair }: Decoder, seed: number) {
    this.#samples = samples.map(sampleOf);
    this.#firstSamples = samples.length;
    this.#words = words.map((word) => new TextEncoder().encode(word));
    this.#json = jsonWords(words);
    this.#repair = repair;
    this.#state = seed >>> 0 || 1;
  }

  keep(input: Uint8Array): void {
    const sample = sampleOf(input.slice());
    if (this.#samples.length < MAX_SAMPLES) this.#samples.push(sample);
    else this.#samples[this.#firstSamples + this.#below(MAX_SAMPLES - this.#firstSamples)] = sample;
  }

  /** Good until the next one. */
  next(): Uint8Array {
    const { bytes, spans } = this.#one(this.#samples);
    this.#bytes.set(bytes);
    this.#length = bytes.length;
    if (spans && this.#below(8) > 0) this.#changeJson(bytes, spans);
    else for (let changes = 1 + this.#below(4); changes > 0; changes--) this.#change();
    const input = this.#bytes.subarray(0, this.#length);
    if (this.#repair && this.#below(2) === 0) this.#repair(input);
    return input;
  }

  #change(): void {
    const length = this.#length;
    const at = this.#below(length + 1);
    switch (this.#below(this.#words.length > 0 ? 11 : 9)) {
      case 0:
        if (at < length) this.#bytes[at]! ^= 1 << this.#below(8);
        return;
      case 1:
        if (at < length) this.#bytes[at] = this.#one(EDGES);
        return;
      case 2:
        if (at < length) this.#bytes[at] = this.#below(256);
        return;
      case 3:
        return this.#setWide(at);
      case 4:
        this.#length = at;
        return;
      case 5: // without a piece
        return this.#put(at, at + this.#piece(at), NOTHING);
      case 6: { // a piece twice
        const piece = this.#bytes.slice(at, at + this.#piece(at));
        return this.#put(at, at, piece);
      }
      case 7: { // the head of one and the tail of another
        const { bytes } = this.#one(this.#samples);
        return this.#put(at, length, bytes.subarray(this.#below(bytes.length + 1)));
      }
      case 8:
        return this.#put(at, at, this.#random(this.#below(9)));
      default: // a word, in place of something or between
        return this.#put(at, at + this.#below(2) * this.#piece(at), this.#one(this.#words));
    }
  }

  /** One or two changes that leave it JSON, the later place first. */
  #changeJson(text: Uint8Array, { values, keys, members }: JsonSpans): void {
    let end = Infinity;
    for (let changes = 1 + this.#below(2); changes > 0; changes--) {
      const kind = this.#below(8);
      const among = kind === 0 ? keys : kind < 3 ? members : values;
      if (among.length === 0) continue;
      const [from, to] = this.#one(among);
      if (to > end) continue;
      end = from;
      if (kind === 0) this.#put(from, to, this.#oneOr(this.#json.keys, text, keys));
      else if (kind === 1) this.#put(from, to, NOTHING);
      else if (kind > 2) this.#put(from, to, this.#oneOr(this.#json.values, text, values));
      else if (text[from] === COMMA || text[to - 1] === COMMA) {
        this.#put(from, from, text.subarray(from, to));
      }
    }
  }

  /** A word, or what stands elsewhere in the text. */
  #oneOr(words: readonly Uint8Array[], text: Uint8Array, spans: readonly Span[]): Uint8Array {
    if (words.length > 0 && this.#below(3) > 0) return this.#one(words);
    const [from, to] = this.#one(spans);
    return text.subarray(from, to);
  }

  /** The length of one from there. */
  #piece(at: number): number {
    return this.#below(Math.min(MAX_PIECE, this.#length - at) + 1);
  }

  /** In place of what stands between. */
  #put(from: number, to: number, piece: Uint8Array): void {
    const moved = Math.min(this.#length, MAX_LENGTH) - to;
    const fitting = piece.length > MAX_LENGTH ? piece.subarray(0, MAX_LENGTH) : piece;
    const room = 2 * MAX_LENGTH - from - fitting.length;
    if (moved > 0) this.#bytes.copyWithin(from + fitting.length, to, to + Math.min(moved, room));
    this.#bytes.set(fitting, from);
    this.#length = Math.min(MAX_LENGTH, from + fitting.length + Math.max(0, moved));
  }

  /** 16 or 32 bits in either byte order. */
  #setWide(at: number): void {
    const bytes = this.#below(2) === 0 ? 2 : 4;
    if (at + bytes > this.#length) return;
    const isLittle = this.#below(2) === 0;
    const value = this.#one(WIDE_EDGES);
    if (bytes === 2) this.#view.setUint16(at, value, isLittle);
    else this.#view.setUint32(at, value, isLittle);
  }

  #random(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.#below(256);
    return bytes;
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

const NOTHING = new Uint8Array(0);
const COMMA = 0x2c;

function sampleOf(bytes: Uint8Array): Sample {
  const spans = jsonSpans(bytes);
  return { bytes, ...(spans && spans.values.length > 0 ? { spans } : {}) };
}

function jsonWords(words: readonly string[]): JsonWords {
  const texts = words.filter((word) => {
    try {
      JSON.parse(word);
      return true;
    } catch {
      return false;
    }
  });
  const bytes = (word: string) => new TextEncoder().encode(word);
  return {
    values: texts.map(bytes),
    keys: texts.filter((word) => word.startsWith('"')).map(bytes),
  };
}
