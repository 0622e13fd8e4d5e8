/** What a handler of HTTP gets of a request beside the runtime's `Request`, from servers of our own. */
import type { ByteStream } from "./byte_stream.ts";

export interface Incoming {
  /** The connection, for who answers with 101 and speaks another protocol on it. */
  stream: ByteStream;
  /** What comes after the request, once the answer has gone out; undefined at the end. */
  read: () => Promise<Uint8Array | undefined>;
  /** The body's next bytes, which are good until then; undefined at its end. A stream of the runtime takes 15 KiB. */
  readBody: () => Promise<Uint8Array | undefined>;
}

const all = new WeakMap<Request, Incoming>();

/** For the server that has received it. */
export function setIncoming(request: Request, incoming: Incoming): void {
  all.set(request, incoming);
}

export function incomingOf(request: Request): Incoming | undefined {
  return all.get(request);
}
