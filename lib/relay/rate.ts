/** How much one direction of an allocation may carry. */
import type { Rate } from "../limits.ts";

/** A quarter of a second's worth may come at once, and no less than some full-size datagrams. */
const BURST_SECONDS = 0.25;
const MIN_BURST_BYTES = 64 * 1024;

/** A token is a byte. */
export function byteRate(bytesPerSecond: number): Rate {
  const burst = Math.max(Math.ceil(bytesPerSecond * BURST_SECONDS), MIN_BURST_BYTES);
  return { perSecond: bytesPerSecond, burst };
}
