/**
 * HTTP/1 as the servers in home routers speak it (RFC 9112 is what they mean). A length is only a
 * hint, since they lie about it: a document ends with its last tag, or when nothing more comes.
 */
import { concatBytes } from "../bytes.ts";

export interface HttpRequest {
  method: "GET" | "POST";
  url: URL;
  /** Written as they are: some routers know a name in one spelling only. */
  headers?: readonly (readonly [name: string, value: string])[];
  body?: string;
}

export interface HttpAnswer {
  status: number;
  /** Where a redirection leads. */
  location: string | undefined;
  text: string;
}

/** How long the next bytes are waited for, where the connection stays open. */
const MORE_MS = 1000;
const MORE_AFTER_LENGTH_MS = 250;
const STATUS = /^HTTP\/\d(?:\.\d)?\s+(\d{3})(?:\D|$)/i;
const END_OF_HEAD = /\r?\n\r?\n/;
const END_OF_DOCUMENT = /<\/(?:[\w.-]+:)?(?:root|envelope)\s*>/i;
const END_OF_CHUNKS = /\n0+\r?\n\r?\n$/;
/** More than the longest last tag, and than the end of chunks. */
const TAIL_LENGTH = 256;

/** Head and body together: some routers read no more than one segment. */
export function encodeHttpRequest({ method, url, headers = [], body }: HttpRequest): Uint8Array {
  const content = new TextEncoder().encode(body ?? "");
  const lines = [
    `${method} ${url.pathname}${url.search} HTTP/1.1`,
    `Host: ${url.host}`,
    "User-Agent: gretun UPnP/1.1",
    ...headers.map(([name, value]) => `${name}: ${value}`),
    ...(body === undefined ? [] : [`Content-Length: ${content.length}`]),
    "Connection: close",
    "",
    "",
  ];
  return concatBytes(new TextEncoder().encode(lines.join("\r\n")), content);
}

/** Lines of an HTTP head by name in lower case; the first of a name counts, others are skipped. */
export function readHeaders(lines: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(colon, 0)).trim().toLowerCase();
    if (name !== "" && !headers.has(name)) headers.set(name, line.slice(colon + 1).trim());
  }
  return headers;
}

interface Head {
  status: number;
  headers: Map<string, string>;
  /** Where the body begins. */
  offset: number;
}

/** An answer that arrives in pieces. */
export class IncomingAnswer {
  #bytes: Uint8Array = new Uint8Array();
  #head: Head | undefined;

  get lengthBytes(): number {
    return this.#bytes.length;
  }

  push(bytes: Uint8Array): void {
    this.#bytes = concatBytes(this.#bytes, bytes);
    this.#head ??= readHead(latin1(this.#bytes));
  }

  /** Nothing that follows would change it. */
  get isWhole(): boolean {
    if (!this.#head) return false;
    const tail = latin1(this.#body.subarray(-TAIL_LENGTH));
    return END_OF_DOCUMENT.test(tail) || (this.#isChunked && END_OF_CHUNKS.test(tail)) ||
      (this.#length === 0 && this.#head.status !== 200);
  }

  /** How long to wait for more; undefined where nothing of use has come. */
  get patienceMs(): number | undefined {
    if (!this.#head) return undefined;
    return this.#body.length >= (this.#length ?? Infinity) ? MORE_AFTER_LENGTH_MS : MORE_MS;
  }

  /** What has come; undefined where that is no answer. */
  finish(): HttpAnswer | undefined {
    if (!this.#head) return undefined;
    const { status, headers } = this.#head;
    const text = new TextDecoder().decode(this.#isChunked ? dechunked(this.#body) : this.#body);
    return { status, location: headers.get("location"), text };
  }

  get #body(): Uint8Array {
    return this.#bytes.subarray(this.#head!.offset);
  }

  get #length(): number | undefined {
    const text = this.#head!.headers.get("content-length");
    return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
  }

  get #isChunked(): boolean {
    return /chunked/i.test(this.#head!.headers.get("transfer-encoding") ?? "");
  }
}

/** Interim answers (100 Continue) are skipped; a document may come without any head. */
function readHead(text: string): Head | undefined {
  let offset = /^\s*/.exec(text)![0].length;
  if (text[offset] === "<") return { status: 200, headers: new Map(), offset };
  while (true) {
    const end = END_OF_HEAD.exec(text.slice(offset));
    if (!end) return undefined;
    const [first, ...lines] = text.slice(offset, offset + end.index).split(/\r?\n/);
    offset += end.index + end[0].length;
    const status = Number(STATUS.exec(first!)?.[1] ?? 0);
    if (status >= 100 && status < 200) continue;
    return { status, headers: readHeaders(lines), offset };
  }
}

/** Each piece after a line with its length in hex; what does not fit that is taken as it is. */
function dechunked(bytes: Uint8Array): Uint8Array {
  const pieces: Uint8Array[] = [];
  let rest = bytes;
  while (rest.length > 0) {
    const line = /^(?:\r?\n)?[ \t]*([0-9a-f]{1,8})[^\n]{0,256}\n/i.exec(
      latin1(rest.subarray(0, 300)),
    );
    if (!line) return concatBytes(...pieces, rest);
    const length = parseInt(line[1]!, 16);
    if (length === 0) break;
    pieces.push(rest.subarray(line[0].length, line[0].length + length));
    rest = rest.subarray(line[0].length + length);
  }
  return concatBytes(...pieces);
}

function latin1(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}
