/** HTTP/1.1 on a stream (RFC 9112), as a client needs it. */
import { concatBytes } from "../bytes.ts";
import type { BufferedReader } from "../buffered_reader.ts";
import { DialError } from "./errors.ts";

export type HttpHeaders = Readonly<Record<string, string>>;

export interface HttpHead {
  status: number;
  headers: Headers;
}

const MAX_HEAD = 64 * 1024;
const MAX_CHUNK_LINE = 1024;
/** First bytes of an alert in TLS, by which a server of HTTPS says that it was sent no TLS. */
const TLS_ALERT = 0x15;

export function encodeRequest(
  request: { method: string; target: string; host: string; headers: HttpHeaders },
  body?: string,
): Uint8Array {
  const content = new TextEncoder().encode(body ?? "");
  const lines = [
    `${request.method} ${request.target} HTTP/1.1`,
    `Host: ${request.host}`,
    ...Object.entries(request.headers).map(([name, value]) => `${name}: ${value}`),
    ...(body === undefined ? [] : [`Content-Length: ${content.length}`]),
    "",
    "",
  ];
  return concatBytes(new TextEncoder().encode(lines.join("\r\n")), content);
}

/** Interim answers but 101 are skipped. */
export async function readHead(reader: BufferedReader): Promise<HttpHead> {
  while (true) {
    if (reader.isEmpty) await reader.fill();
    if (reader.peek()[0] === TLS_ALERT) {
      throw new DialError(
        "HTTPS is served there, not HTTP",
        "Give the URL with https://: HTTPS is served there",
      );
    }
    const head = decodeHead(await reader.until("\r\n\r\n", MAX_HEAD));
    if (head.status >= 200 || head.status === 101) return head;
  }
}

function decodeHead(text: string): HttpHead {
  const [first, ...lines] = text.split("\r\n");
  const status = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(first!)?.[1];
  if (!status) {
    throw new DialError("what answers there is no HTTP", "Check the host and port of the URL");
  }
  const headers = new Headers();
  for (const line of lines) {
    const field = /^([!#$%&'*+.^_`|~\w-]+):[ \t]*([\t\x20-\x7e]*?)[ \t]*$/.exec(line);
    if (field) headers.append(field[1]!, field[2]!);
  }
  return { status: Number(status), headers };
}

export interface HttpBody {
  bytes: Uint8Array<ArrayBuffer>;
  /** Whether it was told where the body ends, so that another request may follow. */
  isDelimited: boolean;
}

/** Throws `RangeError` for more than `maxBytes`, and `ConnectionEndedError`. */
export async function readBody(
  { status, headers }: HttpHead,
  reader: BufferedReader,
  maxBytes: number,
): Promise<HttpBody> {
  if (status === 204 || status === 304) return { bytes: new Uint8Array(), isDelimited: true };
  if (/\bchunked\s*$/i.test(headers.get("transfer-encoding") ?? "")) {
    return { bytes: await readChunks(reader, maxBytes), isDelimited: true };
  }
  const length = headers.get("content-length");
  if (length !== null && /^\d{1,15}$/.test(length)) {
    bounded(Number(length), maxBytes);
    return { bytes: concatBytes(await reader.exactly(Number(length))), isDelimited: true };
  }
  return { bytes: await readToEnd(reader, maxBytes), isDelimited: false };
}

async function readChunks(
  reader: BufferedReader,
  maxBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  while (true) {
    const line = await reader.until("\r\n", MAX_CHUNK_LINE);
    const length = parseInt(/^[0-9a-fA-F]{1,8}/.exec(line)?.[0] ?? "", 16);
    if (Number.isNaN(length)) throw new RangeError("a chunk without a length");
    if (length === 0) break;
    bounded(total += length, maxBytes);
    chunks.push(await reader.exactly(length));
    await reader.until("\r\n", MAX_CHUNK_LINE);
  }
  while (await reader.until("\r\n", MAX_HEAD) !== ""); // trailers
  return concatBytes(...chunks);
}

async function readToEnd(
  reader: BufferedReader,
  maxBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let total = 0;
  for (let bytes; (bytes = await reader.some());) {
    bounded(total += bytes.length, maxBytes);
    parts.push(bytes);
  }
  return concatBytes(...parts);
}

function bounded(length: number, maxBytes: number): void {
  if (length > maxBytes) throw new RangeError(`an answer of more than ${maxBytes} bytes`);
}
