/**
 * TLS by the host's own OpenSSL, for what the runtime's TLS refuses outright: a server that presents
 * a certificate authority's certificate, as `openssl req -x509` makes them. The signature, the chain
 * and the name are checked by OpenSSL; and it names what is wrong with a certificate.
 */
import type { ByteStream } from "../byte_stream.ts";
import { type CertificateFault, faultOfCode } from "./certificates.ts";

const SSL_SYMBOLS = {
  TLS_client_method: { parameters: [], result: "pointer" },
  SSL_CTX_new: { parameters: ["pointer"], result: "pointer" },
  SSL_CTX_free: { parameters: ["pointer"], result: "void" },
  SSL_CTX_set_default_verify_paths: { parameters: ["pointer"], result: "i32" },
  SSL_CTX_load_verify_locations: { parameters: ["pointer", "buffer", "pointer"], result: "i32" },
  SSL_new: { parameters: ["pointer"], result: "pointer" },
  SSL_free: { parameters: ["pointer"], result: "void" },
  SSL_set_bio: { parameters: ["pointer", "pointer", "pointer"], result: "void" },
  SSL_set_connect_state: { parameters: ["pointer"], result: "void" },
  SSL_ctrl: { parameters: ["pointer", "i32", "i64", "buffer"], result: "i64" },
  SSL_get0_param: { parameters: ["pointer"], result: "pointer" },
  SSL_do_handshake: { parameters: ["pointer"], result: "i32" },
  SSL_get_error: { parameters: ["pointer", "i32"], result: "i32" },
  SSL_get0_verified_chain: { parameters: ["pointer"], result: "pointer" },
  SSL_get_verify_result: { parameters: ["pointer"], result: "i64" },
  SSL_read: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  SSL_write: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  /** One of the two, by the version. */
  SSL_get1_peer_certificate: { parameters: ["pointer"], result: "pointer", optional: true },
  SSL_get_peer_certificate: { parameters: ["pointer"], result: "pointer", optional: true },
} as const satisfies Deno.ForeignLibraryInterface;

const CRYPTO_SYMBOLS = {
  BIO_s_mem: { parameters: [], result: "pointer" },
  BIO_new: { parameters: ["pointer"], result: "pointer" },
  BIO_read: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  BIO_write: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  BIO_ctrl_pending: { parameters: ["pointer"], result: "usize" },
  OPENSSL_sk_num: { parameters: ["pointer"], result: "i32" },
  ERR_clear_error: { parameters: [], result: "void" },
  X509_VERIFY_PARAM_set_flags: { parameters: ["pointer", "usize"], result: "i32" },
  X509_check_host: { parameters: ["pointer", "buffer", "usize", "u32", "pointer"], result: "i32" },
  X509_check_ip_asc: { parameters: ["pointer", "buffer", "u32"], result: "i32" },
  X509_get_ext_by_NID: { parameters: ["pointer", "i32", "i32"], result: "i32" },
  X509_get_subject_name: { parameters: ["pointer"], result: "pointer" },
  X509_NAME_get_text_by_NID: { parameters: ["pointer", "i32", "buffer", "i32"], result: "i32" },
  X509_free: { parameters: ["pointer"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

const SSL_CTRL_SET_TLSEXT_HOSTNAME = 55;
const SSL_ERROR_WANT_READ = 2;
const X509_V_FLAG_PARTIAL_CHAIN = 0x80000n;
const NID_COMMON_NAME = 13;
const NID_SUBJECT_ALT_NAME = 85;
const RECORD_BYTES = 16_384;

interface OpenSsl {
  ssl: Deno.DynamicLibrary<typeof SSL_SYMBOLS>["symbols"];
  crypto: Deno.DynamicLibrary<typeof CRYPTO_SYMBOLS>["symbols"];
}

let loaded: OpenSsl | undefined | "missing";

/** Undefined where this host has none. It stays loaded. */
export function openSsl(): OpenSsl | undefined {
  loaded ??= load() ?? "missing";
  return loaded === "missing" ? undefined : loaded;
}

function load(): OpenSsl | undefined {
  for (const version of ["3", "1.1"]) {
    try {
      const crypto = Deno.dlopen(`libcrypto.so.${version}`, CRYPTO_SYMBOLS).symbols;
      const ssl = Deno.dlopen(`libssl.so.${version}`, SSL_SYMBOLS).symbols;
      return { ssl, crypto };
    } catch {
      // The next one.
    }
  }
  return undefined;
}

export interface OpenSslOptions {
  /** The name or address in the URL. */
  hostname: string;
  /** A file in PEM whose certificates are trusted besides the system's, be they issuers or not. */
  caFile?: string;
}

/** A handshake that has ended; nothing may be sent while there is a fault. */
export interface Secured {
  stream: ByteStream;
  fault: CertificateFault | undefined;
}

/** Throws where the other side speaks no TLS. */
export async function secureByOpenSsl(
  library: OpenSsl,
  inner: ByteStream,
  options: OpenSslOptions,
): Promise<Secured> {
  const stream = new OpenSslStream(library, inner, options);
  try {
    await stream.handshake();
    return { stream, fault: stream.fault(options.hostname) };
  } catch (error) {
    stream[Symbol.dispose]();
    throw error;
  }
}

const text = (value: string) => new TextEncoder().encode(`${value}\0`);

/** The library sees memory; what it wants sent or received goes by the inner stream. */
class OpenSslStream implements ByteStream {
  readonly #library: OpenSsl;
  readonly #inner: ByteStream;
  readonly #context: Deno.PointerValue;
  readonly #incoming: Deno.PointerValue;
  readonly #outgoing: Deno.PointerValue;
  /** Undefined when it is closed. */
  #ssl: Deno.PointerValue | undefined;

  constructor(library: OpenSsl, inner: ByteStream, { hostname, caFile }: OpenSslOptions) {
    const { ssl, crypto } = library;
    this.#library = library;
    this.#inner = inner;
    this.#context = ssl.SSL_CTX_new(ssl.TLS_client_method());
    ssl.SSL_CTX_set_default_verify_paths(this.#context);
    if (caFile !== undefined) ssl.SSL_CTX_load_verify_locations(this.#context, text(caFile), null);
    this.#ssl = ssl.SSL_new(this.#context);
    crypto.X509_VERIFY_PARAM_set_flags(ssl.SSL_get0_param(this.#ssl), X509_V_FLAG_PARTIAL_CHAIN);
    [this.#incoming, this.#outgoing] = [1, 2].map(() => crypto.BIO_new(crypto.BIO_s_mem())) as [
      Deno.PointerValue,
      Deno.PointerValue,
    ];
    ssl.SSL_set_bio(this.#ssl, this.#incoming, this.#outgoing);
    ssl.SSL_set_connect_state(this.#ssl);
    if (!isAddress(hostname)) {
      ssl.SSL_ctrl(this.#ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, 0n, text(hostname));
    }
  }

  async handshake(): Promise<void> {
    await this.#drive((ssl) => this.#library.ssl.SSL_do_handshake(ssl), "TLS handshake failed");
  }

  /** What is wrong with the certificate of the other side. */
  fault(hostname: string): CertificateFault | undefined {
    const { ssl, crypto } = this.#library;
    const fault = faultOfCode(Number(ssl.SSL_get_verify_result(this.#ssl!)));
    if (fault) return fault;
    const certificate = (ssl.SSL_get1_peer_certificate ?? ssl.SSL_get_peer_certificate)!(
      this.#ssl!,
    );
    if (certificate === null) return "other";
    try {
      return this.#isFor(certificate, hostname) ? undefined : "wrong-name";
    } finally {
      crypto.X509_free(certificate);
    }
  }

  /**
   * A certificate that is trusted itself, not for its issuer, and has no alternative names is for
   * the host that its common name is; where that is no host's name, it names nobody, and that it is
   * trusted is all there is to ask.
   */
  #isFor(certificate: Deno.PointerValue, hostname: string): boolean {
    const { crypto } = this.#library;
    const name = text(hostname);
    const isMatch = isAddress(hostname)
      ? crypto.X509_check_ip_asc(certificate, name, 0) === 1
      : crypto.X509_check_host(certificate, name, BigInt(name.length - 1), 0, null) === 1;
    if (isMatch) return true;
    const chain = this.#library.ssl.SSL_get0_verified_chain(this.#ssl!);
    if (crypto.OPENSSL_sk_num(chain) !== 1) return false;
    if (crypto.X509_get_ext_by_NID(certificate, NID_SUBJECT_ALT_NAME, -1) >= 0) return false;
    const common = this.#commonName(certificate);
    return common.toLowerCase() === hostname.toLowerCase() ||
      !/^(?:localhost|\S+[.:]\S+)$/i.test(common);
  }

  #commonName(certificate: Deno.PointerValue): string {
    const { crypto } = this.#library;
    const buffer = new Uint8Array(256);
    const subject = crypto.X509_get_subject_name(certificate);
    const length = crypto.X509_NAME_get_text_by_NID(
      subject,
      NID_COMMON_NAME,
      buffer,
      buffer.length,
    );
    return new TextDecoder().decode(buffer.subarray(0, Math.max(length, 0)));
  }

  async read(): Promise<Uint8Array | undefined> {
    const buffer = new Uint8Array(RECORD_BYTES);
    try {
      const length = await this.#drive(
        (ssl) => this.#library.ssl.SSL_read(ssl, buffer, buffer.length),
        "TLS ended",
      );
      return buffer.subarray(0, length);
    } catch {
      return undefined;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += RECORD_BYTES) {
      const record = bytes.slice(at, at + RECORD_BYTES);
      await this.#drive(
        (ssl) => this.#library.ssl.SSL_write(ssl, record, record.length),
        "TLS ended",
      );
    }
  }

  [Symbol.dispose](): void {
    if (!this.#ssl) return;
    this.#library.ssl.SSL_free(this.#ssl); // with both BIOs
    this.#library.ssl.SSL_CTX_free(this.#context);
    this.#ssl = undefined;
    this.#inner[Symbol.dispose]();
  }

  /** Calls until it gives more than 0, and moves bytes between. */
  async #drive(call: (ssl: Deno.PointerValue) => number, failure: string): Promise<number> {
    const { ssl, crypto } = this.#library;
    while (this.#ssl) {
      crypto.ERR_clear_error();
      const result = call(this.#ssl);
      const code = result > 0 ? 0 : ssl.SSL_get_error(this.#ssl, result);
      await this.#flush();
      if (result > 0) return result;
      if (code !== SSL_ERROR_WANT_READ) break;
      const bytes = await this.#inner.read();
      if (!bytes || !this.#ssl) break;
      crypto.BIO_write(this.#incoming, bytes.slice(), bytes.length);
    }
    throw new Error(failure);
  }

  async #flush(): Promise<void> {
    const { crypto } = this.#library;
    while (this.#ssl) {
      const length = Number(crypto.BIO_ctrl_pending(this.#outgoing));
      if (length === 0) return;
      const bytes = new Uint8Array(length);
      crypto.BIO_read(this.#outgoing, bytes, length);
      await this.#inner.write(bytes);
    }
  }
}

function isAddress(hostname: string): boolean {
  return /^[\d.]+$/.test(hostname) || hostname.includes(":");
}
