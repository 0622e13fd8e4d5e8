/** Requests and answers as the coordinator takes and gives them, from and to the runtime's own. */
import type { ServerAnswer, ServerRequest } from "../../lib/server_http.ts";

export function serverRequest(request: Request): ServerRequest {
  const { method, url, headers, signal, body } = request;
  const { pathname, search } = new URL(url);
  const parts = each(body ?? []);
  return {
    ...{ method, path: pathname, query: search, headers, signal },
    // A stream does not tell; any length is a body.
    length: Number(headers.get("content-length") ?? (body ? 1 : 0)),
    readBody: async () => (await parts.next()).value ?? undefined,
    stream: {
      read: () => Promise.reject(new Error("no connection")),
      write: () => Promise.reject(new Error("no connection")),
      [Symbol.dispose]() {},
    },
    read: () => Promise.resolve(undefined),
  };
}

async function* each(parts: AsyncIterable<Uint8Array> | Iterable<Uint8Array>) {
  for await (const part of parts) yield part;
}

export function responseOf({ status, headers, body }: ServerAnswer): Response {
  return new Response(body.length > 0 ? body : null, { status, headers });
}
