/**
 * Connections to servers by name: all addresses of a name are tried (RFC 8305), by an HTTP proxy
 * where the environment names one, and secured where the URL says so.
 */
import { type Endpoint, familyOf, formatEndpoint, type Ip, parseIp } from "../addr.ts";
import type { ByteStream } from "../byte_stream.ts";
import { toBase64 } from "../bytes.ts";
import { type Clock, timeLimit, unlessAborted } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { Lookup } from "../lookup.ts";
import { askTranslation } from "../nat64.ts";
import { firstToSucceed } from "../stagger.ts";
import { BufferedReader } from "../buffered_reader.ts";
import { DialAgainError, DialError, failedWith } from "./errors.ts";
import { encodeRequest, readHead } from "./http_message.ts";
import { type Environment, type Proxy, proxyFor } from "./proxy.ts";
import { connectBySocks } from "./socks.ts";

/** RFC 8305 section 5: "Connection Attempt Delay". */
const ADDRESS_DELAY_MS = 250;
/** Of all addresses together, with the handshakes. */
const CONNECT_MS = 10_000;
const MAX_ADDRESSES = 12;

/** The world as dialling needs it. */
export interface DialNet {
  lookup: Lookup;
  connect(to: Endpoint, signal: AbortSignal): Promise<ByteStream>;
  /** TLS on a stream to a server of that name. Throws {@link DialError}. */
  secure(stream: ByteStream, hostname: string, signal: AbortSignal): Promise<ByteStream>;
  environment: Environment;
  clock: Clock;
}

/** A connection, and how requests are written on it. */
export interface Dialled {
  stream: ByteStream;
  /** Set where requests go to a proxy that forwards them, and so name the whole URL. */
  forwarder?: Proxy;
}

export interface DialOptions {
  /** Whether a proxy may forward single requests, which some allow where they forbid CONNECT. */
  allowForwarder: boolean;
}

export class Dialer {
  readonly #net: DialNet;

  constructor(net: DialNet) {
    this.#net = net;
  }

  /** Throws {@link DialError}, `UsageError` for a proxy that is none, or the signal's reason. */
  async dial(url: URL, options: DialOptions, signal: AbortSignal): Promise<Dialled> {
    try {
      return await this.#dial(url, options, signal);
    } catch (error) {
      if (!(error instanceof DialAgainError)) throw error;
      return await this.#dial(url, options, signal);
    }
  }

  async #dial(url: URL, { allowForwarder }: DialOptions, signal: AbortSignal): Promise<Dialled> {
    const late = new DialError(`${url.host} does not answer`, CHECK_HOST);
    using limit = timeLimit(this.#net.clock, CONNECT_MS, late);
    const within = AbortSignal.any([signal, limit.signal]);
    const proxy = proxyFor(url, this.#net.environment);
    const isSecure = /^(?:https|wss):$/.test(url.protocol);
    const target = {
      hostname: url.hostname.replace(/^\[(.*)\]$/, "$1"),
      port: Number(url.port || (isSecure ? 443 : 80)),
    };
    const disposer = new Disposer(within);
    try {
      const stream = proxy
        ? await this.#connectToProxy(proxy, disposer)
        : disposer.add(await this.#connect(target, within));
      const mayForward = allowForwarder && proxy?.kind !== "socks5";
      if (proxy && !isSecure && mayForward) return { stream, forwarder: proxy };
      if (proxy) await tunnel(stream, proxy, target);
      return { stream: isSecure ? await this.#secure(stream, target.hostname, disposer) : stream };
    } catch (error) {
      disposer.dispose();
      signal.throwIfAborted();
      throw limit.signal.aborted ? late : error;
    } finally {
      disposer.release();
    }
  }

  async #connectToProxy(proxy: Proxy, disposer: Disposer): Promise<ByteStream> {
    try {
      const stream = disposer.add(await this.#connect(proxy, disposer.signal));
      return proxy.kind === "https" ? await this.#secure(stream, proxy.hostname, disposer) : stream;
    } catch (cause) {
      disposer.signal.throwIfAborted();
      if (cause instanceof DialAgainError) throw cause;
      throw new DialError(
        `the proxy ${proxy.hostname}:${proxy.port} cannot be used: ${errorText(cause)}`,
        "Check the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY; NO_PROXY names hosts without one",
        { cause },
      );
    }
  }

  async #secure(stream: ByteStream, hostname: string, disposer: Disposer): Promise<ByteStream> {
    return disposer.add(await this.#net.secure(stream, hostname, disposer.signal));
  }

  async #connect(
    { hostname, port }: { hostname: string; port: number },
    signal: AbortSignal,
  ): Promise<ByteStream> {
    const ips = interleaved(await this.#resolve(hostname, signal)).slice(0, MAX_ADDRESSES);
    try {
      return await this.#connectToAny(ips, port, signal);
    } catch (error) {
      const isCutOff = error instanceof DialError && failedWith(error.cause, "NetworkUnreachable");
      const translated = isCutOff ? await this.#translated(ips) : [];
      signal.throwIfAborted();
      if (translated.length === 0) throw error;
      return await this.#connectToAny(translated, port, signal);
    }
  }

  /** RFC 8305 section 7.1: an address without a name, where a network has IPv6 and a translator. */
  async #translated(ips: readonly Ip[]): Promise<Ip[]> {
    const translate = await askTranslation(this.#net.lookup);
    return translate ? ips.filter((ip) => familyOf(ip) === 4).map(translate) : [];
  }

  async #connectToAny(
    ips: readonly Ip[],
    port: number,
    signal: AbortSignal,
  ): Promise<ByteStream> {
    const options = { delayMs: ADDRESS_DELAY_MS, clock: this.#net.clock, signal };
    try {
      return await firstToSucceed(
        ips,
        (ip, signal) => this.#net.connect({ ip, port }, signal),
        { ...options, discard: (late) => late[Symbol.dispose]() },
      );
    } catch (cause) {
      signal.throwIfAborted();
      if (!(cause instanceof AggregateError)) throw cause;
      const whys = ips.map((ip, i) =>
        `${formatEndpoint({ ip, port })}: ${errorText(cause.errors[i]).toLowerCase()}`
      );
      const hint = failedWith(cause, "NetworkUnreachable") ? CHECK_NETWORK : CHECK_HOST;
      throw new DialError(`no connection to ${whys.join(", ")}`, hint, { cause });
    }
  }

  async #resolve(hostname: string, signal: AbortSignal): Promise<Ip[]> {
    try {
      return [parseIp(hostname)];
    } catch {
      // It is a name.
    }
    try {
      return await unlessAborted(this.#net.lookup(hostname), signal);
    } catch (cause) {
      signal.throwIfAborted();
      throw new DialError(
        `${hostname} cannot be resolved: ${errorText(cause)}`,
        "Check the name and the DNS of this host, or give the address",
        { cause },
      );
    }
  }
}

const CHECK_HOST = "Check that gretun-coord runs and that its port can be reached";

const CHECK_NETWORK = "Check this host's network with: ip route; ip -6 route";

/** Nothing has left this host. */
/** RFC 8305 section 4: families in turn, beginning with that of the first address. */
export function interleaved(ips: readonly Ip[]): Ip[] {
  const first = ips.filter((ip) => familyOf(ip) === familyOf(ips[0]!));
  const second = ips.filter((ip) => familyOf(ip) !== familyOf(ips[0]!));
  const length = Math.max(first.length, second.length);
  return Array.from({ length }, (_, i) => [first[i], second[i]]).flat()
    .filter((ip) => ip !== undefined);
}

/** From the proxy on to the target. Throws {@link DialError}. */
async function tunnel(
  stream: ByteStream,
  proxy: Proxy,
  target: { hostname: string; port: number },
): Promise<void> {
  if (proxy.kind !== "socks5") return await tunnelByHttp(stream, proxy, target);
  const why = await connectBySocks(stream, target, proxy.login);
  if (why === undefined) return;
  throw new DialError(
    `the proxy ${proxy.hostname}:${proxy.port} gives no way to ${target.hostname}: ${why}`,
    "Ask who runs the proxy to allow that host and port, or name it in NO_PROXY",
  );
}

/** RFC 9110 section 9.3.6. */
async function tunnelByHttp(
  stream: ByteStream,
  proxy: Proxy,
  { hostname, port }: { hostname: string; port: number },
): Promise<void> {
  const host = hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
  const headers = proxyHeaders(proxy);
  await stream.write(encodeRequest({ method: "CONNECT", target: host, host, headers }));
  const reader = new BufferedReader(stream);
  const { status } = await readHead(reader);
  if (status >= 200 && status < 300 && reader.isEmpty) return;
  throw new DialError(
    `the proxy ${proxy.hostname}:${proxy.port} refuses a way to ${host}: ${status}`,
    status === 407
      ? "Give name and password in the proxy's URL, as in http://NAME:PASSWORD@HOST:PORT"
      : "Ask who runs the proxy to allow CONNECT to that host and port, or name it in NO_PROXY",
  );
}

export function proxyHeaders({ login }: Proxy): Record<string, string> {
  if (!login) return {};
  const bytes = new TextEncoder().encode(`${login.name}:${login.password}`);
  return { "Proxy-Authorization": `Basic ${toBase64(bytes)}` };
}

/** Closes what was opened, at the signal or when a later step fails. */
class Disposer {
  readonly signal: AbortSignal;
  readonly #streams: ByteStream[] = [];
  readonly #onAbort = () => this.dispose();

  constructor(signal: AbortSignal) {
    this.signal = signal;
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  add(stream: ByteStream): ByteStream {
    this.#streams.push(stream);
    if (this.signal.aborted) this.dispose();
    return stream;
  }

  /** What was opened is somebody else's now. */
  release(): void {
    this.signal.removeEventListener("abort", this.#onAbort);
  }

  dispose(): void {
    for (const stream of this.#streams.toReversed()) stream[Symbol.dispose]();
  }
}
