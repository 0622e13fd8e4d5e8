/** Reads heads, and as many bytes as are wanted, of what arrives in pieces. */
import type { ByteStream } from "./byte_stream.ts";
import { concatBytes } from "./bytes.ts";

const FIRST_ROOM = 1024;
const NOTHING = new Uint8Array();
const latin1 = new TextDecoder("latin1");

/** The other side ended before all was said. */
export class ConnectionEndedError extends Error {
  override name = "ConnectionEndedError";
}

export class BufferedReader {
  readonly #stream: ByteStream;
  #left: Uint8Array = NOTHING;
  #filling: Promise<boolean> | undefined;
  #hasEnded = false;

  constructor(stream: ByteStream) {
    this.#stream = stream;
  }

  /** Whether nothing has come that was not read. */
  get isEmpty(): boolean {
    return this.#left.length === 0;
  }

  /** Resolves when there is more to read: false at the end. May be called while nobody reads. */
  fill(): Promise<boolean> {
    if (this.#hasEnded) return Promise.resolve(false);
    return this.#filling ??= this.#stream.read().then((bytes) => {
      this.#filling = undefined;
      this.#hasEnded = bytes === undefined;
      if (bytes) this.#left = this.isEmpty ? bytes : concatBytes(this.#left, bytes);
      return bytes !== undefined;
    });
  }

  /** Whatever comes next; undefined at the end. */
  async some(): Promise<Uint8Array | undefined> {
    if (this.isEmpty && !await this.fill()) return undefined;
    const bytes = this.#left;
    this.#left = NOTHING;
    return bytes;
  }

  /** Throws {@link ConnectionEndedError}. Memory is taken as bytes come, whatever they came in. */
  async exactly(length: number): Promise<Uint8Array> {
    if (this.#left.length >= length) return this.take(length);
    let bytes = new Uint8Array(Math.min(length, FIRST_ROOM));
    for (let have = 0; have < length;) {
      if (this.isEmpty && !await this.fill()) {
        throw new ConnectionEndedError("the connection ended in the middle of an answer");
      }
      const piece = this.take(Math.min(this.#left.length, length - have));
      if (have + piece.length > bytes.length) {
        const larger = new Uint8Array(Math.min(length, 2 * (have + piece.length)));
        larger.set(bytes.subarray(0, have));
        bytes = larger;
      }
      bytes.set(piece, have);
      have += piece.length;
    }
    return bytes;
  }

  /** Of what is there, at most that much. */
  take(length: number): Uint8Array {
    const bytes = this.#left.subarray(0, length);
    // What it came in is not kept for nothing.
    this.#left = length >= this.#left.length ? NOTHING : this.#left.subarray(length);
    return bytes;
  }

  /**
   * Up to and without the first `end`, as Latin-1. Throws {@link ConnectionEndedError}, and
   * `RangeError` where that does not come within `maxLength`.
   */
  async until(end: string, maxLength: number): Promise<string> {
    while (true) {
      const at = latin1.decode(this.#left.subarray(0, maxLength)).indexOf(end);
      if (at >= 0) {
        return latin1.decode(this.take(at + end.length).subarray(0, at));
      }
      if (this.#left.length >= maxLength) throw new RangeError("the head of an answer is too long");
      if (!await this.fill()) {
        throw new ConnectionEndedError(
          this.isEmpty
            ? "the connection was closed without an answer"
            : "the connection ended in the middle of an answer",
        );
      }
    }
  }

  /** What has come, without taking it. */
  peek(): Uint8Array {
    return this.#left;
  }
}
