/** Which certificates this host trusts. */
import { UsageError } from "../errors.ts";
import type { Environment } from "./proxy.ts";

/** Where systems keep all certificates that they trust in one file. */
const BUNDLES: readonly string[] = [
  "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Gentoo
  "/etc/pki/tls/certs/ca-bundle.crt", // Fedora, RHEL
  "/etc/ssl/ca-bundle.pem", // openSUSE
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem", // Alpine, BSD
];
const CERTIFICATE = /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[^]+?-----END [A-Z0-9 ]*-----/g;

/** The world as this needs it. */
export interface TrustFiles {
  /** Undefined where there is none that can be read. */
  read(path: string): string | undefined;
  /** Paths of what is in a folder; empty where there is none. */
  list(path: string): string[];
}

/** SSL_CERT_FILE and SSL_CERT_DIR (with ":" between folders) replace the system's store. */
export function systemCertificates(files: TrustFiles, environment: Environment): string[] {
  const file = environment("SSL_CERT_FILE");
  const dir = environment("SSL_CERT_DIR");
  const certificates = (paths: readonly string[]) =>
    paths.flatMap((path) => files.read(path)?.match(CERTIFICATE) ?? []);
  if (file || dir) {
    const folders = (dir ?? "").split(":").filter((folder) => folder !== "");
    return [...certificates(file ? [file] : []), ...certificates(folders.flatMap(files.list))];
  }
  const bundle = BUNDLES.find((path) => files.read(path) !== undefined);
  return certificates(bundle ? [bundle] : []);
}

/** Those of `--ca FILE`. Throws `UsageError`. */
export function ownCertificates(files: TrustFiles, path: string): string[] {
  const found = files.read(path)?.match(CERTIFICATE) ?? [];
  if (found.length > 0) return [...found];
  throw new UsageError(
    `--ca ${JSON.stringify(path)} has no certificate that can be read`,
    "Give a file with a certificate in PEM, as the server's own or its issuer's",
  );
}

export const systemTrustFiles: TrustFiles = {
  read(path) {
    try {
      return Deno.readTextFileSync(path);
    } catch {
      return undefined;
    }
  },
  list(path) {
    try {
      return [...Deno.readDirSync(path)].map(({ name }) => `${path}/${name}`);
    } catch {
      return [];
    }
  },
};
