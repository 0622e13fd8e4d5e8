/** Probes of a server at the other end: TCP and HTTP. */
import type { Endpoint } from "../addr.ts";
import { errorText } from "../errors.ts";
import type { Attempt } from "./probes.ts";

/** What of a TCP connection is needed: `Deno.Conn`. */
export interface Connection extends Disposable {
  /** How many bytes were read; null at the end. */
  read(bytes: Uint8Array): Promise<number | null>;
}

export type Connect = (to: Endpoint, signal: AbortSignal) => Promise<Connection>;

/** Answered by the connection itself, or by the first byte that the server says of itself. */
export function tcpAttempt(
  to: Endpoint,
  { connect, firstByte = false }: { connect: Connect; firstByte?: boolean },
): Attempt {
  return async (_, signal) => {
    using connection = await connect(to, signal).catch((error) => {
      throw new Error(plainText(error), { cause: error });
    });
    if (!firstByte) return {};
    // Closing is what ends a read.
    const close = () => connection[Symbol.dispose]();
    signal.addEventListener("abort", close, { once: true });
    try {
      const length = await connection.read(new Uint8Array(1));
      return length === null ? { error: "connection closed before its first byte" } : {};
    } finally {
      signal.removeEventListener("abort", close);
    }
  };
}

export type HttpGet = (url: string, init: RequestInit) => Promise<Response>;

/** Answered by the head of a response, redirects included; a status from 400 on is a failure. */
export function httpAttempt(url: string, get: HttpGet): Attempt {
  return async (_, signal) => {
    const response = await get(url, { signal, redirect: "manual" }).catch((error) => {
      throw new Error(plainText(error), { cause: error });
    });
    void response.body?.cancel().catch(() => {});
    const { status, statusText } = response;
    if (status < 400) return { status };
    return { status, error: `HTTP status ${status} ${statusText}`.trim() };
  };
}

/** Without the URL and the layers that Deno's own words have, and said once. */
function plainText(error: unknown): string {
  const text = errorText(error).replace(/^error sending request (for url|from) .*?\): /, "")
    .replace("client error (Connect): ", "");
  return [...new Set(text.split(": "))].join(": ");
}
