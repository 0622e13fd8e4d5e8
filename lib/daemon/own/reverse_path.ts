/**
 * Packets that the kernel drops because routes to their sender lead out by another interface (strict
 * rp_filter, RFC 3704): no socket sees them.
 */
import { SystemError } from "../../linux/mod.ts";

const COUNTER = "IPReversePathFilter";

/** Of the text of /proc/net/netstat; 0 where it is not counted. */
export function reversePathDrops(netstat: string): number {
  const lines = netstat.split("\n").map((line) => line.split(" "));
  const at = lines.findIndex((words) => words.includes(COUNTER));
  if (at < 0) return 0;
  return Number(lines[at + 1]?.[lines[at]!.indexOf(COUNTER)] ?? 0);
}

export class ReversePath {
  readonly #read: () => string;
  #known: number;

  /** `read` gives /proc/net/netstat. */
  constructor(read: () => string) {
    this.#read = read;
    this.#known = this.#count();
  }

  /** Packets since the last look. */
  look(): number {
    const before = this.#known;
    this.#known = this.#count();
    return this.#known - before;
  }

  #count(): number {
    try {
      return reversePathDrops(this.#read());
    } catch (error) {
      if (error instanceof SystemError) return 0;
      throw error;
    }
  }
}
