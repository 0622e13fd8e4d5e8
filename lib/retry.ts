/** How long to wait before the next try. Pure: randomness is an argument. */
import type { Random } from "./edges.ts";

export interface Backoff {
  /** After the first failure; doubled after each further one. */
  minMs: number;
  maxMs: number;
}

/** `failures`: how many there have been since something last worked, before this one. */
export function backoffMs({ minMs, maxMs }: Backoff, failures: number): number {
  return Math.min(minMs * 2 ** failures, maxMs);
}

/** A factor of 0.75 to 1.25, so that many who wait for the same thing do not come in step. */
export function jitter(random: Random): number {
  const [high, low] = random(2);
  return 0.75 + (high! * 256 + low!) / 0xffff / 2;
}
