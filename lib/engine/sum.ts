/** The internet checksum (RFC 1071) over parts of an arena. */
import type { Arena } from "./arena.ts";
import { SUM_BINARY } from "./sum_binary.ts";

/** The folded sum of `length` bytes from `at` on, in network order, not complemented. */
export type Sum = (at: number, length: number) => number;

/** Sums of up to 64 KiB, with words of the machine, which are little-endian everywhere Deno runs. */
export function plainSum({ bytes }: Arena): Sum {
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length >> 1);
  const sumEven = (at: number, length: number): number => {
    let i = at >> 1;
    const end = (at + length) >> 1;
    let sum = 0;
    for (const last = end - 3; i < last; i += 4) {
      sum += words[i]! + words[i + 1]! + words[i + 2]! + words[i + 3]!;
    }
    for (; i < end; i++) sum += words[i]!;
    if (length & 1) sum += bytes[at + length - 1]!;
    return swap(fold(sum));
  };
  return (at, length) => {
    if ((at & 1) === 0) return sumEven(at, length);
    if (length === 0) return 0;
    // From an odd place on, what is summed as high bytes are low ones.
    return fold((bytes[at]! << 8) + swap(sumEven(at + 1, length - 1)));
  };
}

/**
 * The same by vector instructions, over an arena that is that memory. Throws
 * `WebAssembly.CompileError` on a processor that has none.
 */
export function vectorSum(memory: WebAssembly.Memory): Sum {
  const binary = Uint8Array.from(atob(SUM_BINARY), (char) => char.charCodeAt(0));
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(binary), {
    arena: { memory },
  });
  return exports.sum as Sum;
}

/** Adds the carries of a sum below 2^32 back in. */
export function fold(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

function swap(word: number): number {
  return (word >> 8) | ((word & 0xff) << 8);
}
