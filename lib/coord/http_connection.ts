/**
 * A connection of HTTP/1.1 (RFC 9112), its server's end. The runtime's own keeps up to 400 KiB of a head that
 * does not end, 60 KiB for each body that comes slowly and 64 MiB of a message by WebSocket; here nothing is
 * kept but what has come, and no more than it may have. What is not plainly right is refused, and the
 * connection ends with it: what another server would make of it does not matter then.
 *
 * While a body comes there is little more than while nothing does: of the head the fields that somebody reads,
 * and no function that waits but for the next bytes.
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
/** Of the target, and of the fields that are kept: more than anybody's that we know. */
const MAX_KEPT = 1024;
const END_OF_HEAD = "\r\n\r\n";
const METHOD_AND_TARGET = /^([A-Z]{1,20}) (\/[\x21-\x7e]*) HTTP\/1\.([01])$/;
const FIELD = /^([!#$%&'*+.^_`|~\w-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/;
const LENGTH = /^\d{1,15}$/;
/** An answer with others in it would say what nobody meant to. */
const FIELD_VALUE = /^[\t\x20-\x7e]*$/;
/** That handlers read, besides those of gretun's own. */
const KEPT_FIELDS = new Set(["host", "authorization", "connection", "upgrade"]);
const KEPT_PREFIXES = /^(x-gretun|sec-websocket)-/;
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
  /** Its client waits to be told to send the body. */
  isAwaited: boolean;
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
      const head = await nextHead(reader);
      after = head instanceof HeadError
        ? await refuse(options, head)
        : await new Exchange(options, reader, head).answer();
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

/** Of a request that is refused, why. */
async function nextHead(reader: BufferedReader): Promise<Head | HeadError> {
  try {
    return readHead(await reader.until(END_OF_HEAD, MAX_HEAD));
  } catch (error) {
    if (error instanceof HeadError) return error;
    if (!(error instanceof RangeError)) throw error;
    return new HeadError(431, "the head of the request is too long");
  }
}

async function refuse(options: HttpConnectionOptions, why: HeadError): Promise<After> {
  const answer = textAnswer(why.status, `${why.message}\n`);
  await writeAnswer(options, answer, { isHead: false, isLast: true });
  return "refused";
}

/** A request and its answer. */
class Exchange implements ServerRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: HeaderFields;
  readonly length: number;
  readonly #options: HttpConnectionOptions;
  readonly #reader: BufferedReader;
  readonly #isLast: boolean;
  /** Made for who asks: most do not wait. */
  #hungUp: AbortController | undefined;
  #hasHungUp = false;
  #answered: PromiseWithResolvers<void> | undefined;
  /** Of the body, what was not read. */
  #missing: number;
  /** Its client waits to be told to send it. */
  #isAwaited: boolean;

  constructor(options: HttpConnectionOptions, reader: BufferedReader, head: Head) {
    this.method = head.method;
    this.path = head.path;
    this.query = head.query;
    this.headers = head.headers;
    this.length = head.length;
    this.#options = options;
    this.#reader = reader;
    this.#isLast = head.isLast;
    this.#missing = head.length;
    this.#isAwaited = head.isAwaited;
  }

  async answer(): Promise<After> {
    if (this.#missing === 0) this.#watch();
    const answer = await this.#options.handle(this);
    const isLast = this.#isLast || this.#missing > 0;
    await writeAnswer(this.#options, answer, { isHead: this.method === "HEAD", isLast });
    this.#answered?.resolve();
    if (answer.status === 101) return "upgraded";
    return this.#missing > 0 ? "refused" : isLast ? "end" : "next";
  }

  get stream(): ByteStream {
    return this.#options.stream;
  }

  get signal(): AbortSignal {
    if (!this.#hungUp) {
      this.#hungUp = new AbortController();
      if (this.#hasHungUp) this.#hungUp.abort();
    }
    return this.#hungUp.signal;
  }

  read(): Promise<Uint8Array | undefined> {
    this.#answered ??= Promise.withResolvers();
    return this.#answered.promise.then(() => this.#reader.some());
  }

  readBody(): Promise<Uint8Array | undefined> {
    if (this.#missing === 0) return Promise.resolve(undefined);
    if (!this.#reader.isEmpty) return Promise.resolve(this.#takeBody());
    const told = this.#isAwaited ? this.stream.write(CONTINUE) : undefined;
    this.#isAwaited = false;
    const filled = told ? told.then(() => this.#reader.fill()) : this.#reader.fill();
    return filled.then((isThere) => {
      if (!isThere) throw new ConnectionEndedError("the body did not come to its end");
      return this.#takeBody();
    });
  }

  #takeBody(): Uint8Array {
    const bytes = this.#reader.take(this.#missing);
    this.#missing -= bytes.length;
    if (this.#missing === 0) queueMicrotask(() => this.#watch());
    return bytes;
  }

  /** Nothing comes before the answer but the next request, or the end. */
  #watch(): void {
    void this.#reader.fill().then((isThere) => {
      if (isThere) return;
      this.#hasHungUp = true;
      this.#hungUp?.abort();
    });
  }
}

async function writeAnswer(
  { stream, date }: HttpConnectionOptions,
  { status, headers, body }: ServerAnswer,
  { isHead, isLast }: { isHead: boolean; isLast: boolean },
): Promise<void> {
  const all: Record<string, string> = {
    ...headers,
    ...(status === 101 ? {} : { "content-length": `${body.length}` }),
    ...(status !== 101 && isLast ? { connection: "close" } : {}),
    date: headers.date ?? date(),
  };
  let text = `HTTP/1.1 ${status} ${STATUS_TEXT[status as StatusCode] ?? ""}\r\n`;
  for (const [name, value] of Object.entries(all)) {
    if (!FIELD_VALUE.test(value)) throw new TypeError(`no value of the header ${name}`);
    text += `${name}: ${value}\r\n`;
  }
  const head = new TextEncoder().encode(`${text}\r\n`);
  await stream.write(isHead ? head : concatBytes(head, body)).catch(() => {
    throw new ConnectionEndedError("nobody takes the answer");
  });
}

/** Of a text in Latin-1, without the empty line. Throws {@link HeadError}. */
export function readHead(text: string): Head {
  const [first, ...lines] = text.split("\r\n");
  const [, method, target, minor] = METHOD_AND_TARGET.exec(first!) ?? [];
  if (!method || !target) throw new HeadError(400, "no request of HTTP/1.1");
  if (target.length > MAX_KEPT) throw new HeadError(414, "the target is too long");
  const all = new Map<string, string>();
  for (const line of lines) {
    const [, field, value] = FIELD.exec(line) ?? [];
    if (field === undefined) throw new HeadError(400, "a header that is none");
    const name = field.toLowerCase();
    const before = all.get(name);
    all.set(name, before === undefined ? value! : `${before}, ${value}`);
  }
  const isNew = minor === "1";
  if (isNew && !all.has("host")) throw new HeadError(400, "no host");
  const told = all.get("content-length");
  // A body in parts, or one whose end nobody knows.
  if (
    all.has("transfer-encoding") || (told === undefined && (method === "POST" || method === "PUT"))
  ) {
    throw new HeadError(411, "a body needs a content-length");
  }
  if (told !== undefined && !LENGTH.test(told)) throw new HeadError(400, "no length");
  const options = (all.get("connection") ?? "").toLowerCase().split(/[ \t]*,[ \t]*/);
  const isLast = options.includes("close") || (!isNew && !options.includes("keep-alive"));
  const queryAt = target.indexOf("?");
  const path = queryAt < 0 ? target : target.slice(0, queryAt);
  // Parts of the head would keep all of it.
  const copy = [path, target.slice(path.length)].join("\n");
  return {
    method,
    path: copy.slice(0, path.length),
    query: copy.slice(path.length + 1),
    headers: new Fields(all),
    length: Number(told ?? 0),
    ...{ isLast, isAwaited: all.get("expect")?.toLowerCase() === "100-continue" },
  };
}

/** One text, which takes less memory than a map of its parts. */
class Fields implements HeaderFields {
  readonly #text: string;

  constructor(all: ReadonlyMap<string, string>) {
    const kept = [""];
    for (const [name, value] of all) {
      if (!KEPT_FIELDS.has(name) && !KEPT_PREFIXES.test(name)) continue;
      kept.push(`${name}:${value}`);
    }
    this.#text = [...kept, ""].join("\n");
    if (this.#text.length > MAX_KEPT) throw new HeadError(431, "headers that are too long");
  }

  get(name: string): string | null {
    const start = `\n${name.toLowerCase()}:`;
    const at = this.#text.indexOf(start);
    if (at < 0) return null;
    return this.#text.slice(at + start.length, this.#text.indexOf("\n", at + 1));
  }

  has(name: string): boolean {
    return this.#text.includes(`\n${name.toLowerCase()}:`);
  }
}
