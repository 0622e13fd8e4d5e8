/** The HTTP server of gretun-coord: its flags, its ports, and how many connections it may have. */
import { type HttpEvent, HttpServer } from "../../coord/serve.ts";
import { type Log, systemClock } from "../../edges.ts";
import { errorText, GretunError, UsageError } from "../../errors.ts";
import { listKernelDirectory, raiseFileLimit, setAccepted } from "../../linux/mod.ts";
import { type ListenAddress, openListen } from "../../listen.ts";
import { parseListen } from "../listen.ts";
import { flag, type FlagValues } from "../flags.ts";

export const HTTP_FLAGS = {
  listen: flag.text("HOST:PORT", "where HTTP or HTTPS is served", { default: ":8443" }),
  cert: flag.text("FILE", "certificate, PEM; with --key: HTTPS"),
  key: flag.text("FILE", "private key of the certificate, PEM"),
} as const;

type HttpFlags = FlagValues<typeof HTTP_FLAGS>;

export interface HttpSettings {
  listen: ListenAddress;
  /** Absent: plain HTTP. */
  tls?: { cert: string; key: string };
}

/**
 * What is left of the least MTU of IPv6 (RFC 8200 section 5) after its header and that of TCP. Some
 * networks lose larger packets without a word: there a host would neither get an answer of some
 * size nor learn why.
 */
const SEGMENT_BYTES = 1220;
const DEAD_AFTER_SECONDS = 45;
const MAX_CONNECTIONS = 16_384;
/** Besides connections: what is opened for a moment, and what the relay opens. */
const FILES_FOR_OTHERS = 12;
/** To start at all. */
export const MIN_FILES = 28;

/** Throws `UsageError`, or `GretunError` for files that cannot be read. */
export function httpSettings({ listen, cert, key }: HttpFlags): HttpSettings {
  const address = parseListen("listen", listen);
  if (cert === undefined && key === undefined) return { listen: address };
  if (cert === undefined || key === undefined) {
    throw new UsageError(
      `--${cert === undefined ? "key" : "cert"} is given alone`,
      "Give both --cert and --key for HTTPS, or none",
    );
  }
  const tls = {
    cert: readPem("--cert", cert, "CERTIFICATE"),
    key: readPem("--key", key, "PRIVATE KEY"),
  };
  return { listen: address, tls };
}

function readPem(flag: string, path: string, label: "CERTIFICATE" | "PRIVATE KEY"): string {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (cause) {
    const why = `cannot read ${flag} ${path}: ${errorText(cause)}`;
    throw new GretunError(why, "Check that the file is there, and who may read it", { cause });
  }
  if (text.includes(`${label}-----`)) return text;
  const hint = `Give a file with -----BEGIN ${label}-----`;
  throw new GretunError(`${flag} ${path} has no ${label.toLowerCase()}`, hint);
}

/** Opens the ports. Throws `GretunError`. */
export function openHttp(
  { listen, tls }: HttpSettings,
  log: Log,
  onEvent: (event: HttpEvent) => void = () => {},
): HttpServer {
  const maxFiles = raiseFileLimit();
  try {
    const listeners = openListen<Deno.Listener>(
      listen,
      (address) =>
        tls
          ? Deno.listenTls({ ...address, ...tls, alpnProtocols: ["http/1.1"] })
          : Deno.listen(address),
    );
    setAccepted(listen.port, {
      segmentBytes: SEGMENT_BYTES,
      deadAfterSeconds: DEAD_AFTER_SECONDS,
    });
    const free = maxFiles - listKernelDirectory("/proc/self/fd").length - FILES_FOR_OTHERS;
    const maxConnections = Math.max(1, Math.min(MAX_CONNECTIONS, free));
    return new HttpServer({ listeners, maxConnections, clock: systemClock, log, onEvent });
  } catch (cause) {
    throw new GretunError(
      `cannot listen on ${listen.hostname}:${listen.port}: ${errorText(cause)}`,
      tls ? "Check --listen, --cert and --key" : "Choose another address with --listen",
      { cause },
    );
  }
}
