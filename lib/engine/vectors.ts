/** `struct iovec` and `struct msghdr` (64-bit) in an arena, which outlives the calls that use them. */
import type { Arena } from "./arena.ts";

const IOVEC = 16;
const MSGHDR = 56;
const MSG = {
  name: 0,
  nameLength: 8,
  iov: 16,
  iovLength: 24,
  control: 32,
  controlLength: 40,
} as const;

/** Where an arena lies in this process's memory. */
export function addressOf(arena: Arena): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(arena.bytes)));
}

export class Iovecs {
  readonly at: number;
  /** For system calls that take iovecs themselves. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #base: number;

  constructor(arena: Arena, count: number) {
    this.at = arena.room(count * IOVEC);
    this.bytes = arena.bytes.subarray(this.at, this.at + count * IOVEC);
    this.#view = new DataView(this.bytes.buffer, this.at, count * IOVEC);
    this.#base = addressOf(arena);
  }

  set(i: number, at: number, length: number): void {
    setAddress(this.#view, i * IOVEC, this.#base + at);
    this.#view.setUint32(i * IOVEC + 8, length, true);
  }
}

export interface MessageRooms {
  iovecs: Iovecs;
  /** Where a `sockaddr` is written to when receiving. */
  nameAt: number;
  controlAt: number;
}

export class Msghdr {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #base: number;
  readonly #iovecsAt: number;

  constructor(arena: Arena, { iovecs, nameAt, controlAt }: MessageRooms) {
    const at = arena.room(MSGHDR);
    this.bytes = arena.bytes.subarray(at, at + MSGHDR);
    this.#view = new DataView(this.bytes.buffer, at, MSGHDR);
    this.#base = addressOf(arena);
    this.#iovecsAt = iovecs.at;
    this.setName(nameAt, 0);
    setAddress(this.#view, MSG.control, this.#base + controlAt);
  }

  setName(at: number, length: number): void {
    setAddress(this.#view, MSG.name, this.#base + at);
    this.setNameLength(length);
  }

  setNameLength(length: number): void {
    this.#view.setUint32(MSG.nameLength, length, true);
  }

  /** As recvmsg has left it. */
  get nameLength(): number {
    return this.#view.getUint32(MSG.nameLength, true);
  }

  setIovecs(first: number, count: number): void {
    setAddress(this.#view, MSG.iov, this.#base + this.#iovecsAt + first * IOVEC);
    this.#view.setUint32(MSG.iovLength, count, true);
  }

  setControlLength(length: number): void {
    this.#view.setUint32(MSG.controlLength, length, true);
  }

  get controlLength(): number {
    return this.#view.getUint32(MSG.controlLength, true);
  }
}

function setAddress(view: DataView, at: number, address: number): void {
  view.setUint32(at, address, true);
  view.setUint32(at + 4, address / 2 ** 32, true);
}
