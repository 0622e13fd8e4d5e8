/**
 * Netlink framing (linux/netlink.h): messages, acknowledgements with extended acks, multi-part
 * dumps. A {@link NetlinkConnection} matches replies to requests by sequence number; the transport
 * below it is the kernel's socket or, in tests, a function.
 */
import { Reader, Writer } from "../bytes.ts";
import { GretunError } from "../errors.ts";
import { decodeAttrs, value } from "./attr.ts";
import { errnoName, hintFor } from "../linux/mod.ts";

export const NLMSG_HDRLEN = 16;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLM_F_REQUEST = 0x01;
export const NLM_F_MULTI = 0x02;
export const NLM_F_ACK = 0x04;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_CAPPED = 0x100;
export const NLM_F_ACK_TLVS = 0x200;
export const NLM_F_DUMP = 0x300;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
const NLMSGERR_ATTR_MSG = 1;
const DUMP_TRIES = 5;

export interface NetlinkMessage {
  type: number;
  flags: number;
  sequence: number;
  payload: Uint8Array;
}

export interface NetlinkReply extends NetlinkMessage {
  /** Whom it is for; {@link NetlinkTransport.portId} when it answers us. */
  portId: number;
}

/** Bytes of requests out, datagrams of replies in. */
export interface NetlinkTransport extends Disposable {
  /** The address of this end, which the kernel puts into its replies. */
  readonly portId: number;
  send(bytes: Uint8Array): void;
  /** The next datagram of replies; the kernel has it ready when {@link send} returns. */
  receive(): Uint8Array;
}

/** The kernel refused a request. */
export class NetlinkError extends GretunError {
  override name = "NetlinkError";
  /** "EEXIST" and the like. */
  readonly code: string;

  constructor(
    /** What was asked for, with its object: "add link gretun0". */
    readonly operation: string,
    readonly errno: number,
    /** The kernel's own words, `NLMSGERR_ATTR_MSG`. */
    readonly extack?: string,
  ) {
    const code = errnoName(errno);
    super(`cannot ${operation}: ${extack ? `${extack} (${code})` : code}`, hintFor(code));
    this.code = code;
  }
}

/** Whether the kernel refused a request with one of these. */
export function hasCode(error: unknown, ...codes: string[]): error is NetlinkError {
  return error instanceof NetlinkError && codes.includes(error.code);
}

/** The kernel's bytes are not what the headers say; a bug of ours or its own. */
export class NetlinkFormatError extends Error {
  override name = "NetlinkFormatError";
}

/** A decoder that throws {@link NetlinkFormatError} for bytes that are too short, or of no length that fits. */
export function checked<T>(
  what: string,
  decode: (bytes: Uint8Array) => T,
): (bytes: Uint8Array) => T {
  return (bytes) => {
    try {
      return decode(bytes);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new NetlinkFormatError(`${what} of ${bytes.length} bytes: ${cause.message}`, { cause });
    }
  };
}

export function encodeMessage(message: NetlinkMessage): Uint8Array<ArrayBuffer> {
  const { type, flags, sequence, payload } = message;
  return new Writer("host", NLMSG_HDRLEN + payload.length)
    .u32(NLMSG_HDRLEN + payload.length).u16(type).u16(flags).u32(sequence).u32(0)
    .bytes(payload).align(4).finish();
}

/** All messages of one datagram. Throws {@link NetlinkFormatError}. */
export function decodeMessages(datagram: Uint8Array): NetlinkReply[] {
  const messages: NetlinkReply[] = [];
  const reader = new Reader(datagram, "host");
  while (reader.left >= NLMSG_HDRLEN) {
    const length = reader.u32();
    const type = reader.u16();
    const flags = reader.u16();
    const sequence = reader.u32();
    const portId = reader.u32();
    if (length < NLMSG_HDRLEN || length - NLMSG_HDRLEN > reader.left) {
      throw new NetlinkFormatError(`message of ${length} bytes does not fit its datagram`);
    }
    const payload = reader.bytes(length - NLMSG_HDRLEN);
    messages.push({ type, flags, sequence, portId, payload });
    reader.skip(Math.min(reader.left, (4 - length % 4) % 4));
  }
  return messages;
}

export interface Request {
  type: number;
  /** Besides `NLM_F_REQUEST`. */
  flags?: number;
  payload: Uint8Array;
  /** For the error: "add link gretun0". */
  operation: string;
}

export class NetlinkConnection implements Disposable {
  readonly #transport: NetlinkTransport;
  #sequence = 0;

  constructor(transport: NetlinkTransport) {
    this.#transport = transport;
  }

  [Symbol.dispose](): void {
    this.#transport[Symbol.dispose]();
  }

  /** Sends a request with an ack asked for; gives the replies before it. Throws {@link NetlinkError}. */
  request(request: Request): NetlinkMessage[] {
    const sequence = this.#send(request, NLM_F_ACK);
    const replies: NetlinkMessage[] = [];
    while (true) {
      for (const message of this.#repliesTo(sequence)) {
        if (message.type !== NLMSG_ERROR) replies.push(message);
        else if (this.#isAck(message, request.operation)) return replies;
      }
    }
  }

  /** The parts of a dump; one that changed under way is taken again. Throws {@link NetlinkError}. */
  dump(request: Request): NetlinkMessage[] {
    for (let i = 0; i < DUMP_TRIES; i++) {
      const parts = this.#dumpOnce(request);
      if (parts) return parts;
    }
    throw new NetlinkFormatError(`${request.operation}: interrupted ${DUMP_TRIES} times`);
  }

  /** Several requests in one datagram, as nf_tables batches want; waits for `acks` acks. */
  batch(requests: readonly Request[]): void {
    const first = this.#sequence + 1;
    const wanted = new Map<number, string>();
    const bytes = new Writer("host", 1024);
    for (const request of requests) {
      const sequence = ++this.#sequence;
      const flags = NLM_F_REQUEST | (request.flags ?? 0);
      if ((flags & NLM_F_ACK) !== 0) wanted.set(sequence, request.operation);
      bytes.bytes(encodeMessage({ ...request, flags, sequence }));
    }
    this.#transport.send(bytes.finish());
    while (wanted.size > 0) {
      for (const message of this.#receive()) {
        if (message.sequence < first || message.type !== NLMSG_ERROR) continue;
        this.#isAck(message, wanted.get(message.sequence) ?? "apply the batch");
        wanted.delete(message.sequence);
      }
    }
  }

  #dumpOnce(request: Request): NetlinkMessage[] | undefined {
    const sequence = this.#send(request, NLM_F_DUMP);
    const parts: NetlinkMessage[] = [];
    let interrupted = false;
    while (true) {
      for (const message of this.#repliesTo(sequence)) {
        interrupted ||= (message.flags & NLM_F_DUMP_INTR) !== 0;
        if (message.type === NLMSG_ERROR) this.#isAck(message, request.operation);
        else if (message.type === NLMSG_DONE) {
          this.#checkDone(message, request.operation);
          return interrupted ? undefined : parts;
        } else parts.push(message);
      }
    }
  }

  #send(request: Request, flags: number): number {
    const sequence = ++this.#sequence;
    const { type, payload } = request;
    this.#transport.send(
      encodeMessage({
        type,
        flags: NLM_F_REQUEST | flags | (request.flags ?? 0),
        sequence,
        payload,
      }),
    );
    return sequence;
  }

  /** Replies to an earlier request, abandoned by an error, are passed over. */
  #repliesTo(sequence: number): NetlinkMessage[] {
    return this.#receive().filter((message) => message.sequence === sequence);
  }

  #receive(): NetlinkMessage[] {
    return decodeMessages(this.#transport.receive())
      .filter(({ portId }) => portId === this.#transport.portId);
  }

  /** `struct nlmsgerr`: errno, the request's header (and payload unless capped), attributes. */
  #isAck({ payload, flags }: NetlinkMessage, operation: string): true {
    const reader = new Reader(payload, "host");
    const error = reader.i32();
    if (error === 0) return true;
    let extack: string | undefined;
    if ((flags & NLM_F_ACK_TLVS) !== 0) {
      const requestLength = reader.u32();
      const capped = (flags & NLM_F_CAPPED) !== 0;
      reader.skip((capped ? NLMSG_HDRLEN : (requestLength + 3) & ~3) - 4);
      extack = extackText(reader);
    }
    throw new NetlinkError(operation, -error, extack);
  }

  /** A dump that failed in the middle says so in its last message. */
  #checkDone({ payload, flags }: NetlinkMessage, operation: string): void {
    if (payload.length < 4) return;
    const reader = new Reader(payload, "host");
    const error = reader.i32();
    if (error >= 0) return;
    const extack = (flags & NLM_F_ACK_TLVS) !== 0 ? extackText(reader) : undefined;
    throw new NetlinkError(operation, -error, extack);
  }
}

/** The kernel's own words, of the extended ack's attributes that are left in `reader`. */
function extackText(reader: Reader): string | undefined {
  return value.string(decodeAttrs(reader.bytes()).get(NLMSGERR_ATTR_MSG));
}
