/**
 * HTTP as a server of ours hands it to a handler and takes it back: plain values. The runtime's `Request`
 * and `Response` would be half of what the coordinator does for a call, and keep 15 KiB for a body.
 */
import type { ByteStream } from "./byte_stream.ts";

export interface ServerRequest {
  method: string;
  /** As the client wrote it, without the query. */
  path: string;
  /** With its question mark; "" without. */
  query: string;
  headers: HeaderFields;
  /** Aborted when the client has gone. */
  signal: AbortSignal;
  /** Of the body, as the head says. */
  length: number;
  /** The body's next bytes, which are good until then; undefined at its end. Rejects where it breaks off. */
  readBody(): Promise<Uint8Array | undefined>;
  /** The connection, for who answers with 101 and speaks another protocol on it. */
  stream: ByteStream;
  /** What comes after the request, once the answer has gone out; undefined at the end. */
  read(): Promise<Uint8Array | undefined>;
}

/** A field that came several times is one, its values parted by commas (RFC 9110 section 5.3). */
export type HeaderFields = Pick<Headers, "get" | "has">;

export interface ServerAnswer {
  status: number;
  /** By names in small letters. */
  headers: Record<string, string>;
  body: Uint8Array<ArrayBuffer>;
}

const encoder = new TextEncoder();
const bytesOf = (text: string) => encoder.encode(text) as Uint8Array<ArrayBuffer>;

export function textAnswer(
  status: number,
  text: string,
  headers: Record<string, string> = {},
): ServerAnswer {
  const all = { "content-type": "text/plain;charset=UTF-8", ...headers };
  return { status, headers: all, body: bytesOf(text) };
}

/** Of a value, or of the bytes of its JSON. */
export function jsonAnswer(value: object | Uint8Array<ArrayBuffer>): ServerAnswer {
  const body = value instanceof Uint8Array ? value : bytesOf(JSON.stringify(value));
  return { status: 200, headers: { "content-type": "application/json" }, body };
}
