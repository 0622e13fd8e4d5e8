/** TLS to servers: by the runtime, which trusts Mozilla's list, with what this host trusts besides. */
import { type ByteStream, ConnectionStream } from "../byte_stream.ts";
import { errorText } from "../errors.ts";
import { certificateError, faultIn } from "./certificates.ts";
import { DialAgainError, DialError } from "./errors.ts";
import { openSsl, secureByOpenSsl } from "./openssl.ts";

/** What is trusted besides Mozilla's list. */
export interface Trust {
  /** Certificates in PEM. */
  certificates: readonly string[];
  /** The user's own among them (`--ca`). */
  caFile?: string;
}

export class TlsClient {
  readonly #trust: Trust;
  /** Hosts whose certificate the runtime refused: OpenSSL is asked next time. */
  readonly #refused = new Set<string>();

  constructor(trust: Trust) {
    this.#trust = trust;
  }

  /**
   * Throws {@link DialError}; {@link DialAgainError} where a second connection is to show more than
   * the first one, which the handshake has used up.
   */
  async secure(stream: ByteStream, hostname: string, signal: AbortSignal): Promise<ByteStream> {
    const library = this.#refused.has(hostname) ? openSsl() : undefined;
    if (!library) return await this.#byRuntime(stream, hostname, signal);
    const { caFile } = this.#trust;
    const options = { hostname, ...(caFile === undefined ? {} : { caFile }) };
    const { stream: secured, fault } = await secureByOpenSsl(library, stream, options);
    if (!fault) return secured;
    secured[Symbol.dispose]();
    this.#refused.delete(hostname); // the certificate may be another one next time
    throw certificateError(fault, hostname);
  }

  async #byRuntime(stream: ByteStream, hostname: string, signal: AbortSignal): Promise<ByteStream> {
    if (!(stream instanceof ConnectionStream) || !isTcp(stream.connection)) {
      throw new DialError(
        "HTTPS by a proxy that is itself reached by HTTPS is not supported",
        "Give the proxy's URL with http://",
      );
    }
    let secured: ConnectionStream | undefined;
    try {
      const caCerts = [...this.#trust.certificates];
      const options = { hostname, caCerts, alpnProtocols: ["http/1.1"] };
      const connection = await Deno.startTls(stream.connection, options);
      secured = new ConnectionStream(connection);
      await connection.handshake();
      return secured;
    } catch (cause) {
      (secured ?? stream)[Symbol.dispose]();
      signal.throwIfAborted();
      throw this.#failure(errorText(cause), hostname);
    }
  }

  #failure(text: string, hostname: string): Error {
    if (/InvalidContentType|corrupt message/i.test(text)) {
      return new DialError(
        "HTTP is served there, not HTTPS",
        "Give the URL with http://: no HTTPS is served there",
      );
    }
    const fault = faultIn(text);
    if (!fault) return new DialError(`TLS failed: ${text}`, "Check what serves that port");
    if (this.#refused.has(hostname) || !openSsl()) return certificateError(fault, hostname);
    this.#refused.add(hostname);
    return new DialAgainError();
  }
}

function isTcp(connection: Deno.TcpConn | Deno.TlsConn): connection is Deno.TcpConn {
  return !("handshake" in connection);
}
