/**
 * The memory of one worker of the data path: packets, and the structures that tell the kernel where
 * they lie. All of it is one buffer that lives as long as the worker, so nothing is allocated per
 * packet, and nothing that only the kernel points to can be collected.
 */
export class Arena {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  #used = 0;

  constructor(buffer: ArrayBuffer) {
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
  }

  /** All of a memory that is no other thread's and does not grow. */
  static over({ buffer }: WebAssembly.Memory): Arena {
    if (buffer instanceof SharedArrayBuffer) throw new TypeError("Arena cannot be shared");
    return new Arena(buffer);
  }

  /** The offset of a room of so many bytes, aligned to 64. Throws `RangeError` when it is full. */
  room(length: number): number {
    const at = this.#used;
    if (at + length > this.bytes.length) throw new RangeError("Arena is too small");
    this.#used = (at + length + 63) & ~63;
    return at;
  }
}
