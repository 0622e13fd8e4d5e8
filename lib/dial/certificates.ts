/** What is wrong with a server's certificate, in words. */
import { DialError } from "./errors.ts";

export type CertificateFault =
  | "expired"
  | "not-yet-valid"
  | "wrong-name"
  | "self-signed"
  | "unknown-issuer"
  | "other";

const WORDS: Record<CertificateFault, (host: string) => string> = {
  "expired": () => "has expired",
  "not-yet-valid": () => "is not yet valid",
  "wrong-name": (host) => `is for another name than ${host}`,
  "self-signed": () => "is self-signed, and this host does not trust it",
  "unknown-issuer": () => "is signed by an unknown issuer that this host does not trust",
  "other": () => "cannot be used",
};

const HINTS: Record<CertificateFault, string> = {
  "expired": "Renew the certificate, and check this host's clock",
  "not-yet-valid": "Check this host's clock, and that of where the certificate was made",
  "wrong-name": "Give the URL with a name that is in the certificate, or make one with that name",
  "self-signed": "Give that certificate's file with --ca",
  "unknown-issuer": "Give the issuer's certificate with --ca, or add it to this host's store",
  "other": "Make another certificate, or give this one with --ca",
};

export function certificateError(fault: CertificateFault, host: string): DialError {
  return new DialError(`the certificate of ${host} ${WORDS[fault](host)}`, HINTS[fault]);
}

/** Of the words of rustls; undefined where it is about something else than a certificate. */
export function faultIn(text: string): CertificateFault | undefined {
  if (!/certificate/i.test(text)) return undefined;
  if (/not valid yet|NotValidYet/i.test(text)) return "not-yet-valid";
  if (/expired/i.test(text)) return "expired";
  if (/not valid for name|NotValidForName/i.test(text)) return "wrong-name";
  if (/CaUsedAsEndEntity/i.test(text)) return "self-signed";
  if (/UnknownIssuer|unknown issuer/i.test(text)) return "unknown-issuer";
  return "other";
}

/** X509_V_ERR_* of OpenSSL's x509_vfy.h; undefined: verified. */
export function faultOfCode(code: number): CertificateFault | undefined {
  switch (code) {
    case 0:
      return undefined;
    case 9:
      return "not-yet-valid";
    case 10:
      return "expired";
    case 18:
      return "self-signed";
    case 2:
    case 19:
    case 20:
    case 21:
      return "unknown-issuer";
    case 62:
    case 64:
      return "wrong-name";
    default:
      return "other";
  }
}
