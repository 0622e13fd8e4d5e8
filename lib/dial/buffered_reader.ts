/** Reads heads, and as many bytes as are wanted, of what arrives in pieces. */
import type { ByteStream } from "../byte_stream.ts";
import { concatBytes } from "../bytes.ts";

/** The other side ended before all was said. */
export class ConnectionEndedError extends Error {
  override name = "ConnectionEndedError";
}

export class BufferedReader {
  readonly #stream: ByteStream;
  #left: Uint8Array = new Uint8Array();
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
    this.#left = new Uint8Array();
    return bytes;
  }

  /** Throws {@link ConnectionEndedError}. */
  async exactly(length: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let missing = length;
    while (missing > 0) {
      const bytes = await this.some();
      if (!bytes) throw new ConnectionEndedError("the connection ended in the middle of an answer");
      parts.push(bytes.subarray(0, missing));
      this.#left = bytes.subarray(missing);
      missing -= parts.at(-1)!.length;
    }
    return parts.length === 1 ? parts[0]! : concatBytes(...parts);
  }

  /**
   * Up to and without the first `end`, as Latin-1. Throws {@link ConnectionEndedError}, and
   * `RangeError` where that does not come within `maxLength`.
   */
  async until(end: string, maxLength: number): Promise<string> {
    const latin1 = new TextDecoder("latin1");
    while (true) {
      const at = latin1.decode(this.#left.subarray(0, maxLength)).indexOf(end);
      if (at >= 0) {
        const text = latin1.decode(this.#left.subarray(0, at));
        this.#left = this.#left.subarray(at + end.length);
        return text;
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
