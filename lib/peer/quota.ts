/**
 * How many packets of the search, and of all that stands beside it, go to one peer: some at once, the
 * rest ever slower, so that no minute has more than two a second. Pure: time is an argument.
 */

const AT_ONCE = 64;
/** At least that is there where one of the two has moved. */
export const AFRESH = 40;
/** And that in each round of a search, which are half a minute apart: whatever else has to be sent. */
export const OF_ROUND = 10;
const PER_SECOND = 0.5;
/** What has to be sent is sent all the same, and later pings make up for so much of it. */
const MAX_DEBT = 10;

export interface Quota {
  readonly left: number;
  readonly atMs: number;
}

export function newQuota(nowMs: number): Quota {
  return { left: AT_ONCE, atMs: nowMs };
}

export function quotaLeft({ left, atMs }: Quota, nowMs: number): number {
  return Math.min(AT_ONCE, left + (nowMs - atMs) / 1000 * PER_SECOND);
}

export function spend(quota: Quota, packets: number, nowMs: number): Quota {
  return { left: Math.max(-MAX_DEBT, quotaLeft(quota, nowMs) - packets), atMs: nowMs };
}

export function withAtLeast(packets: number, quota: Quota, nowMs: number): Quota {
  return { left: Math.max(packets, quotaLeft(quota, nowMs)), atMs: nowMs };
}
