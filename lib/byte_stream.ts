/** TCP and what looks like it, as the protocols on it need it. */
import type { Endpoint } from "./addr.ts";
import { unlessAborted } from "./edges.ts";

export interface ByteStream extends Disposable {
  /** All of it. Rejects when the stream is closed. */
  write(bytes: Uint8Array): Promise<void>;
  /** Undefined when the other side has ended, or the stream is closed. */
  read(): Promise<Uint8Array | undefined>;
}

const READ_BYTES = 16_384;
const KEPT_BYTES = 256;

/** A connection of the runtime's own. */
export class ConnectionStream implements ByteStream {
  readonly connection: Deno.TcpConn | Deno.TlsConn;
  readonly #smallRead: number;
  #readBytes: number;
  /** What the last read came in, where nobody keeps it. */
  #spare: Uint8Array | undefined;

  /** Takes that much memory while it waits for bytes: of servers, which have many, less. */
  constructor(connection: Deno.TcpConn | Deno.TlsConn, smallRead = READ_BYTES) {
    this.connection = connection;
    this.#smallRead = smallRead;
    this.#readBytes = smallRead;
  }

  async write(bytes: Uint8Array): Promise<void> {
    let rest = bytes;
    while (rest.length > 0) rest = rest.subarray(await this.connection.write(rest));
  }

  read(): Promise<Uint8Array | undefined> {
    const buffer = this.#spare ?? new Uint8Array(this.#readBytes);
    this.#spare = undefined;
    return this.connection.read(buffer).then(
      (length) => length === null ? undefined : this.#came(buffer, length),
      // A reset is an end like any other: what came before may have been whole.
      () => undefined,
    );
  }

  #came(buffer: Uint8Array, length: number): Uint8Array {
    // What has not filled its buffer was all there was: who waits for more waits with little.
    this.#readBytes = length === buffer.length ? READ_BYTES : this.#smallRead;
    const isSmall = buffer.length < READ_BYTES;
    // Who keeps a few bytes does not keep the buffer.
    if (!isSmall && length >= KEPT_BYTES) return buffer.subarray(0, length);
    // Who sends byte by byte leaves no buffer behind for each.
    if (isSmall && this.#readBytes === buffer.length) this.#spare = buffer;
    return buffer.slice(0, length);
  }

  [Symbol.dispose](): void {
    try {
      this.connection.close();
    } catch {
      // It is closed.
    }
  }
}

interface EarlyConnection {
  hostname: string;
  port: number;
  connection: Promise<Deno.TcpConn | undefined>;
}

declare global {
  /** Begun by tools/start.js, before there was a program; for the first that wants it. */
  var earlyConnection: EarlyConnection | undefined;
}

/** Undefined where there is none to there, or nobody answered it. */
async function takeEarly(
  { ip, port }: Endpoint,
  signal: AbortSignal,
): Promise<Deno.TcpConn | undefined> {
  const early = globalThis.earlyConnection;
  if (early?.hostname !== ip || early.port !== port) return undefined;
  globalThis.earlyConnection = undefined;
  const close = () => void early.connection.then((connection) => connection?.close());
  signal.addEventListener("abort", close, { once: true });
  try {
    return await unlessAborted(early.connection, signal);
  } finally {
    signal.removeEventListener("abort", close);
  }
}

/** Throws Deno's error, or the signal's reason. */
export async function connectTcp(to: Endpoint, signal: AbortSignal): Promise<ConnectionStream> {
  signal.throwIfAborted();
  const connection = await takeEarly(to, signal) ??
    await Deno.connect({ hostname: to.ip, port: to.port, signal });
  connection.setNoDelay(true);
  return new ConnectionStream(connection);
}
