/** From TUN devices to UDP: reads, cuts super-packets, puts headers before, and sends. */
import { bulk, bulkErrno } from "../linux/bulk.ts";
import type { Arena } from "./arena.ts";
import { type Cipher, SEALED_HEADER, SEALED_TAG } from "./cipher.ts";
import { type HeaderWriter, MAX_HEADER } from "./encapsulation.ts";
import { type IcmpReason, MAX_ICMP_ERROR, writeIcmpError } from "./icmp_error.ts";
import type { WorkerLink, WorkerTables } from "./links.ts";
import type { Drop } from "./messages.ts";
import { GSO, NEEDS_CSUM, versionOf, VNET, VNET_HEADER } from "./packet.ts";
import { Cutter, finishChecksum, MAX_HEADERS } from "./segment.ts";
import { SendBatch } from "./send_batch.ts";
import type { Sum } from "./sum.ts";
import { Iovecs } from "./vectors.ts";

/** One packet with its `virtio_net_hdr`, and the header that goes before it. */
const MAX_READ = 65_535 + VNET_HEADER;
const READ_ROOM = 4 * 65_536;
/** Packets of one device before others have their turn. */
const MAX_READS = 64;
const HEADER_SLOT = 256;
const HEADER_SLOTS = 64;
/** A batch, and one datagram that begins the next. */
const SEALED_ROOM = 2 * 65_536 + 64;
const EAGAIN = 11;
const EINTR = 4;
/** "File descriptor in bad state": of a TUN device that somebody deleted, and of no other. */
const EBADFD = 77;

/** ICMP errors a second. */
const MAX_ERRORS = 100;

export interface OutwardEvents {
  onDrop(reason: Drop): void;
  onTooBig(link: number): void;
  /** The device is gone: nothing comes from it any more. */
  onDeviceGone(fd: number): void;
}

export interface OutwardTools {
  arena: Arena;
  sum: Sum;
  headers: HeaderWriter;
  /** Where datagrams are sealed. */
  cipher: Cipher | undefined;
  tables: WorkerTables;
  nowMs: () => number;
  events: OutwardEvents;
}

export class Outward {
  readonly #tools: OutwardTools;
  readonly #batch: SendBatch;
  readonly #cutter: Cutter;
  readonly #errors: IcmpErrors;
  readonly #iovecs: Iovecs;
  readonly #roomAt: number;
  readonly #slotsAt: number;
  #filled = 0;
  /** Sealed datagrams that are not sent yet. */
  readonly #sealedAt: number;
  #sealed = 0;

  constructor(tools: OutwardTools) {
    this.#tools = tools;
    const { arena, sum, cipher } = tools;
    this.#batch = new SendBatch(arena, {
      onDrop: (reason, link, at, length) => this.#onUnsent(reason, link, at, length),
    });
    this.#cutter = new Cutter(arena, sum);
    this.#errors = new IcmpErrors(tools);
    this.#iovecs = new Iovecs(arena, 1);
    this.#roomAt = arena.room(READ_ROOM);
    this.#slotsAt = arena.room(HEADER_SLOT * HEADER_SLOTS);
    this.#sealedAt = arena.room(cipher ? SEALED_ROOM : 0);
  }

  /** Takes what the device has, within bounds; how often it has read. */
  serve(link: WorkerLink): number {
    let reads = 0;
    for (; reads < MAX_READS; reads++) {
      if (this.#filled + MAX_HEADER + MAX_READ > READ_ROOM) this.#flush();
      const at = this.#roomAt + this.#filled + MAX_HEADER;
      this.#iovecs.set(0, at, MAX_READ);
      const length = bulk().readv(link.spec.device, this.#iovecs.bytes, 1);
      if (length < 0) {
        const errno = bulkErrno();
        if (errno === EBADFD) this.#tools.events.onDeviceGone(link.spec.device);
        else if (errno !== EAGAIN && errno !== EINTR) this.#tools.events.onDrop("device");
        break;
      }
      this.#forward(link, at, length);
    }
    this.#flush();
    return reads;
  }

  #flush(): void {
    this.#batch.flush();
    this.#filled = 0;
  }

  #forward(link: WorkerLink, vnet: number, length: number): void {
    const { arena, headers, tables, events } = this.#tools;
    const at = vnet + VNET_HEADER;
    const inner = length - VNET_HEADER;
    const version = inner > 0 ? versionOf(arena.bytes, at, inner) : 0;
    if (version === 0) return events.onDrop("malformed");
    if (!headers.carries(version)) return events.onDrop("not-carried");
    if (tables.isOuter(at, inner, version)) return events.onDrop("own-tunnel");
    const refusal = link.inner.refusesOut(arena, at, version);
    if (refusal) return events.onDrop(refusal);
    if (!link.socket) {
      events.onDrop("no-path");
      return this.#errors.send(link, { at, length: inner, version }, "unreachable");
    }
    if (arena.bytes[vnet + VNET.gsoType] === GSO.none) {
      this.#forwardOne(link, vnet, inner, version);
    } else {
      this.#forwardCut(link, vnet, inner, version);
    }
  }

  #forwardOne(link: WorkerLink, vnet: number, length: number, version: 4 | 6): void {
    const { arena, sum, headers, events } = this.#tools;
    const at = vnet + VNET_HEADER;
    if ((arena.bytes[vnet + VNET.flags]! & NEEDS_CSUM) !== 0) {
      if (!finishChecksum(arena, sum, vnet, at, length)) return events.onDrop("malformed");
    }
    if (link.session) return this.#seal(link, at, length, 0, 0);
    const { headerLength } = link;
    this.#batch.prepare(link, headerLength + length);
    headers.write(at - headerLength, version, link.okey);
    this.#batch.add(link, at - headerLength, headerLength + length);
    this.#filled = (at + length - this.#roomAt + 63) & ~63;
  }

  #forwardCut(link: WorkerLink, vnet: number, length: number, version: 4 | 6): void {
    const { headers, events } = this.#tools;
    const cutter = this.#cutter;
    if (!cutter.begin(vnet, vnet + VNET_HEADER, length)) return events.onDrop("malformed");
    this.#batch.flush();
    const header = link.headerLength;
    for (let k = 0; k < cutter.count; k++) {
      const payload = cutter.payloadLength(k);
      if (link.session) {
        cutter.writeHeaders(k, this.#slotsAt);
        this.#seal(link, this.#slotsAt, cutter.headerLength, cutter.payloadAt(k), payload);
        continue;
      }
      this.#batch.prepare(link, header + cutter.headerLength + payload);
      const slot = this.#slotsAt + this.#batch.count * HEADER_SLOT;
      headers.write(slot, version, link.okey);
      cutter.writeHeaders(k, slot + header);
      this.#batch.add(link, slot, header + cutter.headerLength, cutter.payloadAt(k), payload);
    }
    this.#flush();
  }

  /** A packet in one or two pieces, which need not stay where they are. */
  #seal(
    link: WorkerLink,
    headAt: number,
    headLength: number,
    restAt: number,
    restLength: number,
  ): void {
    this.#batch.prepare(link, SEALED_HEADER + headLength + restLength + SEALED_TAG);
    if (this.#batch.count === 0) this.#sealed = 0;
    const to = this.#sealedAt + this.#sealed;
    const pieces = [headAt, headLength, restAt, restLength] as const;
    const length = this.#tools.cipher!.seal(link.session!, this.#tools.arena, to, pieces);
    this.#batch.add(link, to, length);
    this.#sealed += length;
  }

  #onUnsent(reason: Drop, link: WorkerLink, headAt: number, headLength: number): void {
    this.#tools.events.onDrop(reason);
    if (reason === "send-buffer") return;
    if (reason === "too-big") this.#tools.events.onTooBig(link.spec.id);
    // The packet is not there to be quoted any more.
    if (link.session) return;
    const at = headAt + link.headerLength;
    const length = headLength - link.headerLength;
    const version = versionOf(this.#tools.arena.bytes, at, length);
    if (version === 0) return;
    this.#errors.send(link, { at, length, version }, reason === "too-big" ? reason : "unreachable");
  }
}

/** Tells senders on this host; so many a second and no more. */
class IcmpErrors {
  readonly #tools: OutwardTools;
  readonly #iovecs: Iovecs;
  readonly #at: number;
  #second = 0;
  #sent = 0;

  constructor(tools: OutwardTools) {
    this.#tools = tools;
    this.#iovecs = new Iovecs(tools.arena, 1);
    this.#at = tools.arena.room(VNET_HEADER + MAX_ICMP_ERROR);
  }

  send(
    link: WorkerLink,
    packet: { at: number; length: number; version: 4 | 6 },
    reason: IcmpReason,
  ): void {
    if (!this.#mayError()) return;
    const error = { reason, mtu: link.spec.mtu };
    const length = writeIcmpError(this.#tools, packet, error, this.#at + VNET_HEADER);
    if (length === 0) return;
    this.#iovecs.set(0, this.#at, VNET_HEADER + length);
    bulk().writev(link.spec.device, this.#iovecs.bytes, 1);
  }

  #mayError(): boolean {
    const second = Math.floor(this.#tools.nowMs() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#sent = 0;
    }
    return this.#sent++ < MAX_ERRORS;
  }
}

// The longest header of all goes into a slot.
if (MAX_HEADER + MAX_HEADERS > HEADER_SLOT) throw new RangeError("Header slots are too small");
