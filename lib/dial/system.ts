/** The real network to dial in. */
import { connectTcp } from "../byte_stream.ts";
import { systemClock } from "../edges.ts";
import { systemLookup } from "../lookup.ts";
import { Dialer } from "./dialer.ts";
import type { Environment } from "./proxy.ts";
import { TlsClient, type Trust } from "./tls.ts";
import { ownCertificates, systemCertificates, systemTrustFiles } from "./trust.ts";

/** Undefined also where the program may not read that one. */
export const systemEnvironment: Environment = (name) => {
  try {
    return Deno.env.get(name);
  } catch {
    return undefined;
  }
};

/** `caFile`: of `--ca`, trusted besides the system's. Throws `UsageError` for one without any. */
export function systemDialer({ caFile }: { caFile?: string } = {}): Dialer {
  const own = caFile === undefined ? [] : ownCertificates(systemTrustFiles, caFile);
  const tls = new LazyTls(() => ({
    certificates: [...own, ...systemCertificates(systemTrustFiles, systemEnvironment)],
    ...(caFile === undefined ? {} : { caFile }),
  }));
  return new Dialer({
    lookup: systemLookup,
    connect: connectTcp,
    secure: (stream, hostname, signal) => tls.client.secure(stream, hostname, signal),
    environment: systemEnvironment,
    clock: systemClock,
  });
}

/** Who never speaks TLS needs no store. */
class LazyTls {
  readonly #trust: () => Trust;
  #client: TlsClient | undefined;

  constructor(trust: () => Trust) {
    this.#trust = trust;
  }

  get client(): TlsClient {
    return this.#client ??= new TlsClient(this.#trust());
  }
}
