/**
 * JSON both ways. A {@link Codec} knows one kind of value; a {@link Shape} names the fields of an
 * object and what each is: type, writer and parser of a body all follow from it. Parsers throw
 * {@link ApiError} with the field's name and bound every length.
 */
import { type Cidr, formatCidr, type Ip, parseCidr, parseIp } from "../../addr.ts";
import { fromBase64 } from "../../bytes.ts";
import {
  type DiscoKey,
  discoKeyFromBytes,
  KEY_LENGTH,
  keyBase64,
  keyBytes,
  type NodeKey,
  nodeKeyFromBytes,
} from "../../keys.ts";

/** JSON that is not what the API says: 400. */
export class ApiError extends Error {
  override name = "ApiError";
}

export type Json = Record<string, unknown>;

export interface Codec<T> {
  json(value: T): unknown;
  /** Throws {@link ApiError}. */
  parse(value: unknown, field: string): T;
}

export interface Field<T, Optional extends boolean = boolean> extends Codec<T> {
  /** Its name in JSON. */
  readonly key: string;
  readonly optional: Optional;
}

export type Shape = Record<string, Field<unknown>>;

type ValueOf<F> = F extends Field<infer T> ? T : never;
type Simplify<T> = { [K in keyof T]: T[K] } & unknown;

export type Values<S extends Shape> = Simplify<
  & { [K in keyof S as S[K] extends Field<unknown, false> ? K : never]: ValueOf<S[K]> }
  & { [K in keyof S as S[K] extends Field<unknown, false> ? never : K]?: ValueOf<S[K]> }
>;

export function required<T>(key: string, codec: Codec<T>): Field<T, false> {
  return { ...codec, key, optional: false };
}

/** Absent, null, and what the codec cannot make sense of are the same: nothing. */
export function optional<T>(key: string, codec: Codec<T | undefined>): Field<T, true> {
  return { ...(codec as Codec<T>), key, optional: true };
}

export function shapeJson<S extends Shape>(shape: S, values: Values<S>): Json {
  const body: Json = {};
  for (const [name, field] of Object.entries(shape)) {
    const value = (values as Json)[name];
    if (value !== undefined) body[field.key] = field.json(value);
  }
  return body;
}

/** Fields that the shape does not name are left alone. Throws {@link ApiError}. */
export function parseShape<S extends Shape>(shape: S, value: unknown, what = "body"): Values<S> {
  const body = object(value, what);
  const values: Json = {};
  for (const [name, field] of Object.entries(shape)) {
    const given = body[field.key];
    if (field.optional && (given === undefined || given === null)) continue;
    const parsed = field.parse(given, field.key);
    if (parsed !== undefined) values[name] = parsed;
  }
  return values as Values<S>;
}

// --- what JSON is made of

export function object(value: unknown, what: string): Json {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw new ApiError(`${what} is not an object`);
}

export function string(value: unknown, field: string): string {
  if (typeof value === "string") return value;
  throw new ApiError(`${field} is not a string`);
}

/** A list; the original writes null for an empty one. */
export function list(value: unknown, field: string, max: number): unknown[] {
  if (value === null || value === undefined) return [];
  if (!Array.isArray(value)) throw new ApiError(`${field} is not a list`);
  if (value.length > max) throw new ApiError(`${field} has more than ${max} entries`);
  return value;
}

/** Runs a parser of another room and names the field in what it throws. */
export function parsed<T>(field: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(`${field}: ${error instanceof Error ? error.message : error}`);
  }
}

/** Undefined where the parser refuses: a bad record of a list must not cost all the others. */
export function parsedOrNone<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (error instanceof ApiError) return undefined;
    throw error;
  }
}

// --- codecs

export const STRING: Codec<string> = { json: (text) => text, parse: string };

export const BOOLEAN: Codec<boolean> = { json: (is) => is, parse: (value) => value === true };

export function number({ min, max }: { min: number; max: number }): Codec<number> {
  return {
    json: (value) => value,
    parse(value, field) {
      if (typeof value === "number" && value >= min && value <= max) return value;
      throw new ApiError(`${field} is not a number from ${min} to ${max}`);
    },
  };
}

/** Printable text without line ends, at most so many characters. */
export function text(maxLength: number): Codec<string> {
  return {
    json: (value) => value,
    parse(value, field) {
      const given = string(value ?? "", field);
      if ([...given].length > maxLength) {
        throw new ApiError(`${field} is longer than ${maxLength} characters`);
      }
      if (/[\p{C}\p{Zl}\p{Zp}]/u.test(given)) throw new ApiError(`${field} has control characters`);
      return given;
    },
  };
}

export function listOf<T>(codec: Codec<T>, max: number, item: string): Codec<T[]> {
  return {
    json: (values) => values.map((value) => codec.json(value)),
    parse: (value, field) => list(value, field, max).map((each) => codec.parse(each, item)),
  };
}

export function nested<S extends Shape>(shape: S): Codec<Values<S>> {
  return {
    json: (values) => shapeJson(shape, values),
    parse: (value, field) => parseShape(shape, value, field),
  };
}

/** Text that another room writes and reads. */
export function textual<T>(format: (value: T) => string, parse: (text: string) => T): Codec<T> {
  return {
    json: format,
    parse(value, field) {
      const given = string(value, field);
      return parsed(field, () => parse(given));
    },
  };
}

export const IP: Codec<Ip> = textual((ip) => ip, parseIp);
export const CIDR: Codec<Cidr> = textual(formatCidr, parseCidr);

export const NODE_KEY: Codec<NodeKey> = textual(
  keyBase64,
  (given) => nodeKeyFromBytes(fromBase64(given)),
);

/** An array of 32 numbers, as the original writes it; base64 is read too. */
export const DISCO_KEY: Codec<DiscoKey> = {
  json: (key) => [...keyBytes(key)],
  parse(value, field) {
    return parsed(field, () => {
      if (typeof value === "string") return discoKeyFromBytes(fromBase64(value));
      const numbers = list(value, field, KEY_LENGTH);
      if (!numbers.every((n) => Number.isInteger(n) && (n as number) >= 0 && (n as number) < 256)) {
        throw new RangeError("not bytes");
      }
      return discoKeyFromBytes(Uint8Array.from(numbers as number[]));
    });
  },
};

/** Base64; an array is read too. */
export const DISCO_KEY_TEXT: Codec<DiscoKey> = { json: keyBase64, parse: DISCO_KEY.parse };

/** RFC 3339 on the wire, ms since 1970 here. What is no time is 0. */
export const TIME: Codec<number> = {
  json: (ms) => new Date(ms).toISOString(),
  parse: (value) => Date.parse(String(value)) || 0,
};

/** Whole ms since 1970. */
export const MS: Codec<number> = number({ min: 0, max: Number.MAX_SAFE_INTEGER });

/** True, or not there. */
export const MARK: Codec<true | undefined> = {
  json: (is) => is,
  parse: (value) => value === true ? value : undefined,
};
