/** HTTP requests over {@link Dialer}, on connections that are kept for the next request. */
import type { ByteStream } from "../byte_stream.ts";
import { aborted } from "../edges.ts";
import { BufferedReader, ConnectionEndedError } from "../buffered_reader.ts";
import { type Dialer, proxyHeaders } from "./dialer.ts";
import { DialError } from "./errors.ts";
import { encodeRequest, type HttpHeaders, readBody, readHead } from "./http_message.ts";
import type { Proxy } from "./proxy.ts";

const DEFAULT_MAX_BYTES = 16 * 1024 * 1024;
const MAX_IDLE = 8;

export interface HttpRequest {
  method: string;
  headers?: HttpHeaders;
  body?: string;
  signal: AbortSignal;
}

/** One that no request is under way on. */
interface Idle {
  stream: ByteStream;
  reader: BufferedReader;
  forwarder?: Proxy;
}

export class HttpClient implements Disposable {
  readonly #dialer: Pick<Dialer, "dial">;
  readonly #maxBytes: number;
  readonly #idle = new Map<string, Idle[]>();
  /** Connections that are being made ahead, by origin. */
  readonly #coming = new Map<string, Set<Promise<Idle | undefined>>>();
  readonly #closed = new AbortController();

  constructor(dialer: Pick<Dialer, "dial">, options: { maxBytes?: number } = {}) {
    this.#dialer = dialer;
    this.#maxBytes = options.maxBytes ?? DEFAULT_MAX_BYTES;
  }

  /**
   * The whole answer, with whatever status but that of a redirection. Throws `DialError`,
   * `ConnectionEndedError`, `RangeError` for an answer that is too long, or the signal's reason.
   */
  async request(text: string, request: HttpRequest): Promise<Response> {
    const url = new URL(text);
    const { signal } = request;
    signal.throwIfAborted();
    for (
      let kept;
      (kept = this.#takeIdle(url.origin) ?? await this.#takeComing(url.origin, signal));
    ) {
      try {
        return await this.#exchange(kept, url, request);
      } catch (error) {
        // The server closed it just now, and has not seen the request.
        if (!(error instanceof ConnectionEndedError) || !kept.reader.isEmpty) throw error;
      }
    }
    return await this.#exchange(await this.#dial(url, signal), url, request);
  }

  /** Makes so many connections for requests that are to follow; one that fails is made again by its request. */
  prepare(text: string, count: number): void {
    const url = new URL(text);
    const all = new Set<Promise<Idle | undefined>>();
    this.#coming.set(url.origin, all);
    for (let i = 0; i < count; i++) {
      const coming = this.#dial(url, this.#closed.signal).catch(() => undefined);
      all.add(coming);
      void coming.then((made) => {
        if (all.delete(coming) && made) this.#keep(url.origin, made);
      });
    }
  }

  async #dial(url: URL, signal: AbortSignal): Promise<Idle> {
    const { stream, forwarder } = await this.#dialer.dial(url, { allowForwarder: true }, signal);
    return { stream, reader: new BufferedReader(stream), ...(forwarder ? { forwarder } : {}) };
  }

  /** Connections that are not in use are closed: they may lead where nobody is any more. */
  forgetConnections(): void {
    for (const { stream } of [...this.#idle.values()].flat()) stream[Symbol.dispose]();
    this.#idle.clear();
    for (const all of this.#coming.values()) {
      for (const coming of all) void coming.then((made) => made?.stream[Symbol.dispose]());
      all.clear();
    }
  }

  [Symbol.dispose](): void {
    this.#closed.abort();
    this.forgetConnections();
  }

  async #exchange(
    connection: Idle,
    url: URL,
    { method, headers = {}, body, signal }: HttpRequest,
  ): Promise<Response> {
    const { stream, reader, forwarder } = connection;
    const close = () => stream[Symbol.dispose]();
    signal.addEventListener("abort", close, { once: true });
    try {
      const path = `${url.pathname}${url.search}`;
      const target = forwarder ? `${url.origin}${path}` : path;
      const all = { ...headers, ...(forwarder ? proxyHeaders(forwarder) : {}) };
      await stream.write(encodeRequest({ method, target, host: url.host, headers: all }, body))
        .catch(() => {
          throw new ConnectionEndedError("the connection was closed without an answer");
        });
      const head = await readHead(reader);
      const { bytes, isDelimited } = await readBody(head, reader, this.#maxBytes);
      const isLast = /\bclose\b/i.test(head.headers.get("connection") ?? "");
      if (isDelimited && !isLast && reader.isEmpty) this.#keep(url.origin, connection);
      else close();
      const { status } = head;
      if (status >= 300 && status < 400 && status !== 304) throw redirected(head.headers);
      const isBare = [101, 204, 205, 304].includes(status);
      return new Response(isBare ? null : bytes, { status, headers: head.headers });
    } catch (error) {
      close();
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener("abort", close);
    }
  }

  #takeIdle(origin: string): Idle | undefined {
    return this.#idle.get(origin)?.pop();
  }

  async #takeComing(origin: string, signal: AbortSignal): Promise<Idle | undefined> {
    const [coming] = this.#coming.get(origin) ?? [];
    if (!coming) return undefined;
    this.#coming.get(origin)!.delete(coming);
    const made = await Promise.race([coming, aborted(signal)]);
    if (!signal.aborted) return made ?? undefined;
    void coming.then((late) => late && this.#keep(origin, late));
    throw signal.reason;
  }

  #keep(origin: string, connection: Idle): void {
    const all = this.#idle.get(origin) ?? [];
    if (this.#closed.signal.aborted || all.length >= MAX_IDLE) {
      return connection.stream[Symbol.dispose]();
    }
    this.#idle.set(origin, [...all, connection]);
    // Nothing comes before the next request but the end.
    void connection.reader.fill().then((isOpen) => {
      if (!isOpen) this.#drop(origin, connection);
    });
  }

  #drop(origin: string, connection: Idle): void {
    const all = this.#idle.get(origin) ?? [];
    if (!all.includes(connection)) return; // it is in use, and its user sees the end
    this.#idle.set(origin, all.filter((each) => each !== connection));
    connection.stream[Symbol.dispose]();
  }
}

function redirected(headers: Headers): DialError {
  const location = headers.get("location")?.slice(0, 200) ?? "nowhere";
  return new DialError(
    `what answers there sends us to ${location}`,
    "Give the URL that it leads to; or log in to the network that this host is in",
  );
}
