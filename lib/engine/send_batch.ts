/**
 * Datagrams to one far end, gathered from where they lie and sent by one call: `UDP_SEGMENT` cuts
 * the whole into equal parts, of which the last may be shorter.
 */
import { bulk, bulkErrno } from "../linux/bulk.ts";
import type { Arena } from "./arena.ts";
import type { WorkerLink } from "./links.ts";
import type { Drop } from "./messages.ts";
import { Iovecs, Msghdr } from "./vectors.ts";

/** UDP_MAX_SEGMENTS of most kernels. */
const MAX_DATAGRAMS = 64;
/** The most that one datagram of IPv6 can carry, so that both families do. */
const MAX_BYTES = 65_487;
const MSG_DONTWAIT = 0x40;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
/** `struct cmsghdr` with a u16, padded. */
const CONTROL_LENGTH = 24;
const EAGAIN = 11;
const ENOBUFS = 105;
const EMSGSIZE = 90;
const EIO = 5;
const EOPNOTSUPP = 95;
const EINVAL = 22;

export interface BatchEvents {
  /** One datagram, by its first piece, was not sent. */
  onDrop(reason: Drop, link: WorkerLink, headAt: number, headLength: number): void;
}

export class SendBatch {
  count = 0;
  readonly #events: BatchEvents;
  readonly #iovecs: Iovecs;
  readonly #message: Msghdr;
  readonly #arena: Arena;
  readonly #controlAt: number;
  readonly #headAt = new Int32Array(MAX_DATAGRAMS);
  readonly #headLength = new Int32Array(MAX_DATAGRAMS);
  /** Where each datagram's pieces begin, and where the last one's end. */
  readonly #firstPiece = new Int32Array(MAX_DATAGRAMS + 1);
  #link: WorkerLink | undefined;
  #pieces = 0;
  #size = 0;
  #total = 0;
  #isComplete = false;

  constructor(arena: Arena, events: BatchEvents) {
    this.#arena = arena;
    this.#events = events;
    this.#iovecs = new Iovecs(arena, MAX_DATAGRAMS * 2);
    this.#controlAt = arena.room(CONTROL_LENGTH);
    const { view } = arena;
    view.setUint32(this.#controlAt, 18, true);
    view.setUint32(this.#controlAt + 8, SOL_UDP, true);
    view.setUint32(this.#controlAt + 12, UDP_SEGMENT, true);
    this.#message = new Msghdr(arena, {
      iovecs: this.#iovecs,
      nameAt: 0,
      controlAt: this.#controlAt,
    });
  }

  /** Sends what cannot go together with a datagram of `length` bytes to `link`. */
  prepare(link: WorkerLink, length: number): void {
    if (this.count === 0) return;
    const fits = link === this.#link && !this.#isComplete && length <= this.#size &&
      this.#total + length <= MAX_BYTES && this.count < MAX_DATAGRAMS && link.socket!.segments;
    if (!fits) this.flush();
  }

  /** Adds a datagram that {@link prepare} was called for; its pieces stay where they are. */
  add(link: WorkerLink, headAt: number, headLength: number, restAt = 0, restLength = 0): void {
    const length = headLength + restLength;
    if (this.count === 0) {
      this.#link = link;
      this.#size = length;
      this.#total = 0;
      this.#pieces = 0;
      this.#isComplete = false;
    } else if (length < this.#size) this.#isComplete = true;
    const i = this.count++;
    this.#headAt[i] = headAt;
    this.#headLength[i] = headLength;
    this.#firstPiece[i] = this.#pieces;
    this.#iovecs.set(this.#pieces++, headAt, headLength);
    if (restLength > 0) this.#iovecs.set(this.#pieces++, restAt, restLength);
    this.#firstPiece[i + 1] = this.#pieces;
    this.#total += length;
  }

  flush(): void {
    const count = this.count;
    if (count === 0) return;
    this.count = 0;
    const link = this.#link!;
    const error = this.#send(link, 0, count);
    if (error === 0) return;
    if (count === 1) return this.#drop(error, link, 0);
    if (error === EIO || error === EOPNOTSUPP) link.socket!.segments = false;
    if (error === EAGAIN || error === ENOBUFS) {
      for (let i = 0; i < count; i++) this.#drop(error, link, i);
      return;
    }
    // What does not go as one may go one by one, be it in fragments.
    for (let i = 0; i < count; i++) {
      const one = this.#send(link, i, 1);
      if (one !== 0) this.#drop(one, link, i);
    }
  }

  /** 0, or the error's number. */
  #send(link: WorkerLink, first: number, count: number): number {
    const message = this.#message;
    message.setName(link.toAt, link.toLength);
    const firstPiece = this.#firstPiece[first]!;
    message.setIovecs(firstPiece, this.#firstPiece[first + count]! - firstPiece);
    message.setControlLength(count > 1 ? CONTROL_LENGTH : 0);
    if (count > 1) this.#arena.view.setUint16(this.#controlAt + 16, this.#size, true);
    if (bulk().sendmsg(link.socket!.fd, message.bytes, MSG_DONTWAIT) >= 0) return 0;
    return bulkErrno();
  }

  #drop(error: number, link: WorkerLink, i: number): void {
    this.#events.onDrop(dropOf(error), link, this.#headAt[i]!, this.#headLength[i]!);
  }
}

function dropOf(error: number): Drop {
  if (error === EAGAIN || error === ENOBUFS) return "send-buffer";
  return error === EMSGSIZE || error === EINVAL ? "too-big" : "no-route";
}
