/** TCP and what looks like it, as the protocols on it need it. */
import type { Endpoint } from "./addr.ts";

export interface ByteStream extends Disposable {
  /** All of it. Rejects when the stream is closed. */
  write(bytes: Uint8Array): Promise<void>;
  /** Undefined when the other side has ended, or the stream is closed. */
  read(): Promise<Uint8Array | undefined>;
}

const READ_BYTES = 16_384;

/** A connection of the runtime's own. */
export class ConnectionStream implements ByteStream {
  readonly connection: Deno.TcpConn | Deno.TlsConn;

  constructor(connection: Deno.TcpConn | Deno.TlsConn) {
    this.connection = connection;
  }

  async write(bytes: Uint8Array): Promise<void> {
    let rest = bytes;
    while (rest.length > 0) rest = rest.subarray(await this.connection.write(rest));
  }

  async read(): Promise<Uint8Array | undefined> {
    const buffer = new Uint8Array(READ_BYTES);
    // A reset is an end like any other: what came before may have been whole.
    const length = await this.connection.read(buffer).catch(() => null);
    return length === null ? undefined : buffer.subarray(0, length);
  }

  [Symbol.dispose](): void {
    try {
      this.connection.close();
    } catch {
      // It is closed.
    }
  }
}

/** Throws Deno's error, or the signal's reason. */
export async function connectTcp(
  { ip: hostname, port }: Endpoint,
  signal: AbortSignal,
): Promise<ConnectionStream> {
  signal.throwIfAborted();
  const connection = await Deno.connect({ hostname, port, signal });
  connection.setNoDelay(true);
  return new ConnectionStream(connection);
}
