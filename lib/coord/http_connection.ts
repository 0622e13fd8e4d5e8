/**
 * A connection of HTTP/1.1 (RFC 9112), its server's end. The runtime's own keeps up to 400 KiB of a head that
 * does not end, 60 KiB for each body that comes slowly and 64 MiB of a message by WebSocket; here nothing is
 * kept but what has come, and no more than it may have. What is not plainly right is refused, and the
 * connection ends with it: what another server would make of it does not matter then.
 */
import { STATUS_TEXT, type StatusCode } from "@std/http/status";
import { BufferedReader, ConnectionEndedError } from "../buffered_reader.ts";
import type { ByteStream } from "../byte_stream.ts";
import { concatBytes } from "../bytes.ts";
import {
  type HeaderFields,
  type ServerAnswer,
  type ServerRequest,
  textAnswer,
} from "../server_http.ts";

const MAX_HEAD = 16 * 1024;
const END_OF_HEAD = "\r\n\r\n";
const METHOD_AND_TARGET = /^([A-Z]{1,20}) (\/[\x21-\x7e]*) HTTP\/1\.([01])$/;
const FIELD = /^([!#$%&'*+.^_`|~\w-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/;
const LENGTH = /^\d{1,15}$/;
/** An answer with others in it would say what nobody meant to. */
const FIELD_VALUE = /^[\t\x20-\x7e]*$/;
const CONTINUE = new TextEncoder().encode("HTTP/1.1 100 Continue\r\n\r\n");

/** The request cannot be answered otherwise. */
export class HeadError extends Error {
  override name = "HeadError";
  readonly status: StatusCode;

  constructor(status: StatusCode, message: string) {
    super(message);
    this.status = status;
  }
}

interface Head extends Pick<ServerRequest, "method" | "path" | "query" | "headers" | "length"> {
  isLast: boolean;
}

export interface HttpConnectionOptions {
  stream: ByteStream;
  /** Never throws. */
  handle: (request: ServerRequest) => Promise<ServerAnswer>;
  /** The last answer has gone out, and more comes that nobody reads: it is to be closed soon. */
  onRefused: () => void;
  /** Now, as HTTP says it. */
  date: () => string;
}

/** Answers one request after the other until either side ends; resolves then, or once it is upgraded. */
export async function serveConnection(options: HttpConnectionOptions): Promise<void> {
  const { stream, onRefused } = options;
  const reader = new BufferedReader(stream);
  let after: After = "next";
  try {
    while (after === "next" && (!reader.isEmpty || await reader.fill())) {
      after = await new Exchange(options, reader).answer();
    }
    if (after === "refused") {
      onRefused();
      // Who is closed in the middle of sending may not see the answer.
      while (await reader.some());
    }
  } catch (error) {
    if (!(error instanceof ConnectionEndedError)) throw error;
  } finally {
    if (after !== "upgraded") stream[Symbol.dispose]();
  }
}

/** What comes after an answer: another request, the end, what nobody reads, or another protocol. */
type After = "next" | "end" | "refused" | "upgraded";

/** A request and its answer. */
class Exchange {
  readonly #options: HttpConnectionOptions;
  readonly #reader: BufferedReader;
  readonly #hungUp = new AbortController();
  /** Of the body, what was not read. */
  #missing = 0;
  /** Its client waits to be told to send it. */
  #isAwaited = false;

  constructor(options: HttpConnectionOptions, reader: BufferedReader) {
    this.#options = options;
    this.#reader = reader;
  }

  async answer(): Promise<After> {
    const { handle, stream } = this.#options;
    let head: Head;
    try {
      head = readHead(await this.#reader.until(END_OF_HEAD, MAX_HEAD));
    } catch (error) {
      const refused = error instanceof RangeError
        ? new HeadError(431, "the head of the request is too long")
        : error;
      if (!(refused instanceof HeadError)) throw error;
      const { status, message } = refused;
      await this.#write(textAnswer(status, `${message}\n`), { isHead: false, isLast: true });
      return "refused";
    }
    this.#missing = head.length;
    this.#isAwaited = head.headers.get("expect")?.toLowerCase() === "100-continue";
    const answered = Promise.withResolvers<void>();
    if (this.#missing === 0) this.#watch();
    const answer = await handle({
      ...head,
      stream,
      signal: this.#hungUp.signal,
      read: () => answered.promise.then(() => this.#reader.some()),
      readBody: () => this.#readBody(),
    });
    const isLast = head.isLast || this.#missing > 0;
    await this.#write(answer, { isHead: head.method === "HEAD", isLast });
    answered.resolve();
    if (answer.status === 101) return "upgraded";
    return this.#missing > 0 ? "refused" : isLast ? "end" : "next";
  }

  /** Nothing of it is read before. */
  async #readBody(): Promise<Uint8Array | undefined> {
    if (this.#missing === 0) return undefined;
    if (this.#isAwaited && this.#reader.isEmpty) await this.#options.stream.write(CONTINUE);
    this.#isAwaited = false;
    if (this.#reader.isEmpty && !await this.#reader.fill()) {
      throw new ConnectionEndedError("the body did not come to its end");
    }
    const length = Math.min(this.#reader.peek().length, this.#missing);
    this.#missing -= length;
    if (this.#missing === 0) queueMicrotask(() => this.#watch());
    return await this.#reader.exactly(length);
  }

  /** Nothing comes before the answer but the next request, or the end. */
  #watch(): void {
    void this.#reader.fill().then((isThere) => {
      if (!isThere) this.#hungUp.abort();
    });
  }

  async #write(
    { status, headers, body }: ServerAnswer,
    { isHead, isLast }: { isHead: boolean; isLast: boolean },
  ): Promise<void> {
    const all: Record<string, string> = {
      ...headers,
      ...(status === 101 ? {} : { "content-length": `${body.length}` }),
      ...(status !== 101 && isLast ? { connection: "close" } : {}),
      date: headers.date ?? this.#options.date(),
    };
    let text = `HTTP/1.1 ${status} ${STATUS_TEXT[status as StatusCode] ?? ""}\r\n`;
    for (const [name, value] of Object.entries(all)) {
      if (!FIELD_VALUE.test(value)) throw new TypeError(`no value of the header ${name}`);
      text += `${name}: ${value}\r\n`;
    }
    const head = new TextEncoder().encode(`${text}\r\n`);
    await this.#options.stream.write(isHead ? head : concatBytes(head, body)).catch(() => {
      throw new ConnectionEndedError("nobody takes the answer");
    });
  }
}

/** Of a text in Latin-1, without the empty line. Throws {@link HeadError}. */
export function readHead(text: string): Head {
  const [first, ...lines] = text.split("\r\n");
  const [, method, target, minor] = METHOD_AND_TARGET.exec(first!) ?? [];
  if (!method || !target) throw new HeadError(400, "no request of HTTP/1.1");
  const headers = new Fields();
  for (const line of lines) {
    const [, name, value] = FIELD.exec(line) ?? [];
    if (name === undefined) throw new HeadError(400, "a header that is none");
    headers.append(name, value!);
  }
  const isNew = minor === "1";
  if (isNew && !headers.has("host")) throw new HeadError(400, "no host");
  const told = headers.get("content-length");
  // A body in parts, or one whose end nobody knows.
  if (
    headers.has("transfer-encoding") || (told === null && (method === "POST" || method === "PUT"))
  ) {
    throw new HeadError(411, "a body needs a content-length");
  }
  if (told !== null && !LENGTH.test(told)) throw new HeadError(400, "no length");
  const options = (headers.get("connection") ?? "").toLowerCase().split(/[ \t]*,[ \t]*/);
  const isLast = options.includes("close") || (!isNew && !options.includes("keep-alive"));
  const queryAt = target.indexOf("?");
  const path = queryAt < 0 ? target : target.slice(0, queryAt);
  const query = target.slice(path.length);
  return { method, path, query, headers, length: Number(told ?? 0), isLast };
}

class Fields implements HeaderFields {
  readonly #values = new Map<string, string>();

  append(name: string, value: string): void {
    const before = this.get(name);
    this.#values.set(name.toLowerCase(), before === null ? value : `${before}, ${value}`);
  }

  get(name: string): string | null {
    return this.#values.get(name.toLowerCase()) ?? null;
  }

  has(name: string): boolean {
    return this.#values.has(name.toLowerCase());
  }
}
